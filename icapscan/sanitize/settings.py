"""The configuration table ``[sanitize]``."""

from __future__ import annotations

from msgspec import Struct

from icapscan.limits import MIB, Bytes, Limits, Seconds
from icapscan.sanitize.documents_options import CleanOptions


class SanitizeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[sanitize]``: what is taken out of documents where policy says ``sanitize``, and what is said in its place."""

    notice: str | None = None
    """A jinja2 file in place of the shipped notice."""
    document_max: Bytes = 64 * MIB
    """A larger document is not cleaned but replaced."""
    seconds: Seconds = 30.0
    """How long the cleaning of one document may take."""
    html_forms: bool = True
    office_controls: bool = True
    office_objects: bool = True
    pdf_remote: bool = True
    pdf_links: bool = False
    pdf_files: bool = False
    pdf_media: bool = True
    pdf_xfa: bool = True

    def options(self, *, html: bool) -> CleanOptions:
        """The same for `icapscan.sanitize.documents`. ``html``: the document came in a mail."""
        limits = Limits(seconds=self.seconds, unpacked=8 * self.document_max)
        return CleanOptions(
            self.document_max, limits, html, self.html_forms, self.office_controls, self.office_objects,
            self.pdf_remote, self.pdf_links, self.pdf_files, self.pdf_media, self.pdf_xfa,
        )  # fmt: skip
