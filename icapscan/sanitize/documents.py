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

__all__ = ["CleanOptions", "Cleaned", "DocumentCleaner", "clean_document"]

_PDF_WITHIN = 1024
_DEFAULT = CleanOptions()


def clean_document(
    data: bytes, target: Target, inside: PartPath | Sequence[PartPath] = "", options: CleanOptions = _DEFAULT
) -> Cleaned | None:
    """``data`` without what acts in it, or, of a zip, without the members that offend. Raises nothing.

    ``inside`` says where in the document it was found, as the walker's path from the document on: ``""`` is the
    document itself; the document's own name may stand before the rest. Of one document with several finds, give all
    paths at once: the names in it may change. Without ``target.clean`` no document is cleaned, and one that lies in a
    zip is taken out of it.

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


class DocumentCleaner:
    """`clean_document` as `sanitize_mail` calls it: once for each thing that offends in a part, one after the other.

    The path of the target is the one within the part. What a call gave is the next call's data; the document is then
    cleaned anew for both, since its names may have changed and nothing is left for the second one to take out. For one
    message; not for several threads.
    """

    __slots__ = ("_before", "_options", "_paths", "_result")

    def __init__(self, options: CleanOptions = _DEFAULT) -> None:
        self._options = options
        self._before = b""
        self._paths: tuple[PartPath, ...] = ()
        self._result: bytes | None = None

    def __call__(self, data: bytes, target: Target) -> Cleaned | None:
        if data is self._result:
            self._paths = (*self._paths, target.path)
        else:
            self._before, self._paths = data, (target.path,)
        cleaned = clean_document(self._before, target, self._paths, self._options)
        self._result = cleaned.data if cleaned is not None else None
        return cleaned


def _clean(data: bytes, name: str, inside: Inside, work: Work) -> Cleaned | None:
    """As `clean_document`; raises for what it cannot clean. Formats are loaded when they are met."""
    if data.startswith((zh.LOCAL, zh.END)):
        return _zip(data, name, inside, work)
    if not work.target.clean:
        return None
    if data.startswith(OLE):
        from icapscan.sanitize.ole import clean_ole

        return clean_ole(data, inside, work)
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
        if not work.target.clean:
            return None
        from icapscan.sanitize.office import clean_office

        return clean_office(archive, name, inside, work)
    from icapscan.sanitize.archive import clean_archive

    return clean_archive(archive, name, inside, work)
