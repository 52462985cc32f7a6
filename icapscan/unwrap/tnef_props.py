"""Encapsulated message and attachment properties of TNEF ([MS-OXTNEF] 2.1.3.4)."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from msgspec import Struct

COUNT_MAX = 10_000
"""Properties, or values of one property, that are looked at."""
_FIXED = {2: 4, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 10: 4, 11: 4, 20: 8, 64: 8, 72: 16}
"""Bytes of the property types of fixed size, padded to four."""
_VARIABLE = frozenset({13, 30, 31, 258})
_OBJECT, _UNICODE = 13, 31


class Property(Struct, frozen=True):
    """One value, and where it stands."""

    tag: int
    kind: int
    start: int
    end: int

    @property
    def is_object(self) -> bool:
        """The value begins with an interface identifier."""
        return self.kind == _OBJECT

    def text(self, view: bytes | mmap.mmap) -> bytes:
        """A string value as UTF-8."""
        raw = view[self.start : min(self.end, self.start + 2048)]
        if self.kind == _UNICODE:
            raw = raw[: len(raw) & ~1].decode("utf-16-le", "replace").encode("utf-8", "replace")
        return raw.rstrip(b"\0")


def properties(view: bytes | mmap.mmap, start: int, end: int) -> Iterator[Property]:
    """Values of variable size in a property list; what is cut off or unknown ends it."""

    def number(at: int, size: int = 4) -> int:
        return int.from_bytes(view[at : min(end, at + size)], "little")

    at = start + 4
    for _ in range(min(number(start), COUNT_MAX)):
        if at + 4 > end:
            return
        kind, tag = number(at, 2), number(at + 2, 2)
        at += 4
        if tag >= 0x8000:  # a named property: GUID, kind, then a number or a name
            named = number(at + 16)
            at += 24 if not named else 24 + _padded(number(at + 20))
        many, kind = bool(kind & 0x1000), kind & 0xFFF
        values = 1
        if many or kind in _VARIABLE:
            values = min(number(at), COUNT_MAX)
            at += 4
        for _ in range(values):
            if kind in _VARIABLE:
                size = number(at)
                at += 4
                if at >= end:
                    return
                yield Property(tag, kind, at, min(end, at + size))
                at += _padded(size)
            elif kind in _FIXED:
                at += _FIXED[kind]
            else:
                return


def _padded(size: int) -> int:
    return (size + 3) & ~3
