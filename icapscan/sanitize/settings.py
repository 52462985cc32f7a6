"""The configuration table ``[sanitize]``."""

from __future__ import annotations

from msgspec.structs import asdict

from icapscan.limits import Bytes, Limits, Seconds
from icapscan.sanitize.documents_options import DOCUMENT_MAX, SECONDS, CleanOptions, Removals


class SanitizeSettings(Removals, frozen=True, kw_only=True):
    """``[sanitize]``: what is taken out of documents where policy says ``sanitize``, and what is said in its place."""

    notice: str | None = None
    """A jinja2 file in place of the shipped notice."""
    document_max: Bytes = DOCUMENT_MAX
    """A larger document is not cleaned but replaced."""
    seconds: Seconds = SECONDS
    """How long the cleaning of one document may take."""

    def options(self, *, html: bool) -> CleanOptions:
        """The same for `icapscan.sanitize.documents`. ``html``: the document came in a mail."""
        limits = Limits(seconds=self.seconds, unpacked=8 * self.document_max)
        removals = {name: value for name, value in asdict(self).items() if name in Removals.__struct_fields__}
        return CleanOptions(size=self.document_max, limits=limits, html=html, **removals)
