"""The guard against loops: what a mail's own header says of whether anybody may be told by mail about it (RFC 3834 2).

It opens no door: the worst that a forged field does is that the people in its own envelope hear nothing.
"""

from __future__ import annotations

import re

from msgspec import Struct

FIELD = "X-Icapscan-Notice"
"""Stands in every mail of ours."""
_LINE_END = re.compile(rb"\r\n?")
_FOLD = re.compile(rb"\n(?=[ \t])")
_FIELD = re.compile(
    rb"^(x-icapscan-notice|auto-submitted|precedence|list-[a-z-]+)[ \t]*:[ \t]*([^\n]*)", re.IGNORECASE | re.MULTILINE
)
_BULK = (b"bulk", b"list", b"junk")


class Marks(Struct, frozen=True):
    """What a header says."""

    own: bool = False
    """It is one of our notices, or says so."""
    automatic: bool = False
    """A program wrote it in answer to something, or of its own accord (Auto-Submitted other than ``no``)."""
    bulk: bool = False
    """It came by a mailing list."""


def marks_of(header: bytes) -> Marks:
    """The marks in a header section, which must be whole: what is cut off might have had one."""
    own = automatic = bulk = False
    for found in _FIELD.finditer(_FOLD.sub(b"", _LINE_END.sub(b"\n", header))):
        name, value = found[1].lower(), re.split(rb"[\s;(]", found[2].strip().lower(), maxsplit=1)[0]
        if name == FIELD.lower().encode():
            own = True
        elif name == b"auto-submitted":
            automatic = automatic or value != b"no"
        elif name == b"precedence":
            bulk = bulk or value in _BULK
        else:
            bulk = True
    return Marks(own, automatic, bulk)
