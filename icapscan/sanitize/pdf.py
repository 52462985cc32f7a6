"""PDF: scripts, actions and what else acts is taken out by qpdf, in a child process with bounds.

qpdf writes a new file of the objects that are still in use, so that older revisions, data before and behind the file,
and objects that only another reader would find are gone as well. It is C++ that reads hostile bytes: hence the child.
"""

from __future__ import annotations

from icapscan.sanitize.contract import Cleaned
from icapscan.sanitize.documents_child import run_child
from icapscan.sanitize.documents_options import Inside, Work
from icapscan.unwrap.active_content import NAME as ACTIVE_CONTENT

_OURS = ("javascript", "objects", "streams", "stream", "rewritten.pdf", ACTIVE_CONTENT)
"""What the names of parts begin with that our decoder makes; others are embedded files."""


def clean_pdf(data: bytes, inside: Inside, work: Work) -> Cleaned | None:
    """The file without what acts in it; None where there is nothing of that. Raises `CannotSanitize`."""
    options = work.options
    files = options.pdf_files or any(path and not path.startswith(_OURS) for path in inside)
    arguments = [
        name
        for name, wanted in (
            ("remote", options.pdf_remote),
            ("links", options.pdf_links),
            ("files", files),
            ("media", options.pdf_media),
            ("xfa", options.pdf_xfa),
        )
        if wanted
    ]
    result, what = run_child("icapscan.sanitize.pdf_child", arguments, data, work.gate)
    return Cleaned(result, "", what) if what and result.startswith(b"%PDF") else None
