"""The door to cleaning documents and archives: by what the bytes are, never by what they are called.

A document that cannot be rewritten is not passed on: the answer is None, and the caller puts a notice in its place. The
same holds where nothing that acts was found in it, since then what offends is still there.
"""

from __future__ import annotations

from collections.abc import Sequence

from icapscan.findings import PartPath
from icapscan.sanitize.contract import Cleaned, Target
from icapscan.sanitize.documents_options import CleanOptions, Inside, Work
from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.ole_file import MAGIC as OLE

__all__ = ["CleanOptions", "Cleaned", "clean_document"]

_PDF_WITHIN = 1024
_DEFAULT = CleanOptions()


def clean_document(
    data: bytes, target: Target, inside: PartPath | Sequence[PartPath] = "", options: CleanOptions = _DEFAULT
) -> Cleaned | None:
    """``data`` without what acts in it, or, of a zip, without the members that offend. Raises nothing.

    ``inside`` says where in the document it was found, as the walker's path from the document on: ``""`` is the
    document itself; the document's own name may stand before the rest. Of one document with several finds, give all
    paths at once: the names in it may change. ``target.clean`` allows to clean documents that lie in a zip; without it
    they are taken out of it.

    Blocks for as long as it works (`CleanOptions.limits`), in a child process for PDF and HTML: call it in a thread.
    The result has to be scanned again.
    """
    paths = (inside,) if isinstance(inside, str) else tuple(inside)
    if not data or len(data) > options.size:
        return None
    try:
        return _clean(data, target.names[0] if target.names else "", paths, Work(options, target, len(data), _clean))
    except Exception:  # whatever a bad document does to a reader: it is replaced, never passed
        return None


def _clean(data: bytes, name: str, inside: Inside, work: Work) -> Cleaned | None:
    """As `clean_document`; raises for what it cannot clean. Formats are loaded when they are met."""
    if data.startswith(OLE):
        from icapscan.sanitize.ole import clean_ole

        return clean_ole(data, inside, work)
    if data.startswith((zh.LOCAL, zh.END)):
        return _zip(data, name, inside, work)
    if data.startswith(b"{\\rt"):
        from icapscan.sanitize.office_rtf import clean_rtf

        return clean_rtf(data, work)
    if data.find(b"%PDF", 0, _PDF_WITHIN) >= 0:
        from icapscan.sanitize.pdf import clean_pdf

        return clean_pdf(data, inside, work)
    if work.options.html:
        from icapscan.sanitize.html import clean_html, looks_like_html

        if looks_like_html(data):
            return clean_html(data, work)
    return None


def _zip(data: bytes, name: str, inside: Inside, work: Work) -> Cleaned | None:
    from icapscan.sanitize.archive_zip import ZipArchive

    archive = ZipArchive(data, work.gate)
    if any(member.name.lower() == "[content_types].xml" for member in archive.members):
        from icapscan.sanitize.office import clean_office

        return clean_office(archive, name, inside, work)
    from icapscan.sanitize.archive import clean_archive

    return clean_archive(archive, name, inside, work)
