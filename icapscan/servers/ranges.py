"""Partial content (RFC 9110 14 and 15.3.7): a virus that comes in two answers is in neither of them.

A request for ranges is answered without them where it passes here (`without_ranges`), which every server must bear:
it then sends the whole. An answer that is a range all the same (`is_range`) cannot be scanned as what it is a part of.
"""

from __future__ import annotations

import re

from icapscan.unwrap.byteranges import MEDIA_TYPE, content_range
from icapscan.wire import http_head
from icapscan.wire.http_rewrite import field_lines

_ASKED = field_lines(b"range", b"if-range")
_PARTIAL = re.compile(rb"HTTP/[0-9.]{1,5}[ \t]+206\b")


def without_ranges(req_hdr: bytes | None) -> bytes | None:
    """A request head without its Range and If-Range field lines; None where it has none."""
    if req_hdr is None or b"range" not in req_hdr.lower():
        return None
    stripped = _ASKED.sub(b"", req_hdr)
    return stripped if stripped != req_hdr else None


def is_range(res_hdr: bytes | None) -> bool:
    """Whether a response head is one of partial content, and its body not all of it.

    Not of several ranges: those have their places in the body, where `icapscan.unwrap.byteranges` reads them.
    """
    if res_hdr is None or _PARTIAL.match(res_hdr) is None:
        return False
    if http_head.media_type(http_head.look(res_hdr).get(b"content-type")) == MEDIA_TYPE:
        return False
    piece = content_range(res_hdr)
    return piece is None or piece.start != 0 or piece.end != piece.total
