"""Content-Transfer-Encodings (RFC 2045 section 6) undone piece by piece, whole blocks at a time.

A decoder of a transfer encoding is fed with pieces in any split and gives decoded bytes; it never gives more bytes
than it was fed, so nothing here can be a bomb. It never fails: what a strict reader would refuse is decoded leniently
and noted as a `Doubt`, and whoever drives it asks for the other readings that the doubt calls for.
"""

from __future__ import annotations

import enum
from typing import Protocol


class Doubt(enum.Enum):
    """Something in the encoded bytes that readers do not agree about."""

    JUNK = "base64-junk"
    """Characters outside the alphabet."""
    PADDING = "base64-padding"
    """Padding in the middle, or too much or too little of it."""
    CUT = "base64-cut"
    """The last quad is not complete."""
    TRUNCATED = "base64-truncated"
    """And what there is of it shows that something is missing, not only the padding."""
    URL_SAFE = "base64-url-safe"
    """``-`` or ``_`` of RFC 4648 section 5."""
    BROKEN = "base64-broken"
    """Padding behind the first character of a quad, and more after it: no reader can tell what was meant."""
    ESCAPE = "quoted-printable-escape"
    """``=`` before something that is neither two hexadecimal digits nor a line end."""
    SOFT_CR = "quoted-printable-bare-cr"
    """A soft line break that ends with LFCR."""
    LOWER_CASE = "quoted-printable-lower-case"
    """Hexadecimal digits in lower case, which RFC 2045 6.7 forbids and every reader takes."""
    SOFT_BLANKS = "quoted-printable-soft-blanks"
    """Blanks between the ``=`` of a soft line break and the line end: some readers see no soft line break there."""
    TRAILING_BLANKS = "quoted-printable-trailing-blanks"
    """Blanks at the end of a line, which are to be deleted (RFC 2045 6.7 rule 3) and mostly are not."""


class Transfer(Protocol):
    """One transfer encoding of one body part being undone."""

    doubts: set[Doubt]

    def feed(self, data: bytes) -> bytes:
        """More encoded bytes: what can be decoded now, perhaps nothing."""
        ...

    def finish(self) -> bytes:
        """The encoded bytes are complete: the rest."""
        ...


class Identity:
    """7bit, 8bit, binary: nothing to undo."""

    __slots__ = ("doubts",)

    def __init__(self) -> None:
        self.doubts: set[Doubt] = set()

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""
