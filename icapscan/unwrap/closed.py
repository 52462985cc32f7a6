"""Archives that are recognized and that nothing here opens: they are never called clean."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartEvent, PartFailed

_MAGICS = {
    "lzop": (0, b"\x89LZO\0\r\n\x1a\n"),
    "lrzip": (0, b"LRZI"),
    "ace": (7, b"**ACE**"),
    "zoo": (20, b"\xdc\xa7\xc4\xfd"),
    "zpaq": (0, b"7kSt\xa0\x31\x83\xd3"),
    "stuffit": (0, b"StuffIt (c)1997-"),
    "alz": (0, b"ALZ\x01"),
    "egg": (0, b"EGGA"),
    "freearc": (0, b"ArC\x01"),
}
"""Where the magic number stands, and the number."""
_AT_START = tuple(magic for at, magic in _MAGICS.values() if not at)
_FURTHER_ON = tuple((at, magic) for at, magic in _MAGICS.values() if at)


class ClosedFormat:
    """Bids YES on archives of which only the magic number is known."""

    name = "closed"
    needs = tuple(magic for _, magic in _MAGICS.values())

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if _kind(evidence.first) else Bid.NO

    def open(self, context: Context) -> ClosedDecoder:
        return ClosedDecoder()


class ClosedDecoder:
    """Says what it is."""

    __slots__ = ()

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        kind = _kind(bytes(next(iter(store.pieces(0, 64)), b"")))
        yield PartFailed("", Reason.UNSUPPORTED, f"This is {kind}, which cannot be opened here.")


def _kind(first: bytes) -> str:
    if not first.startswith(_AT_START):
        for at, magic in _FURTHER_ON:
            if first.startswith(magic, at):
                break
        else:
            return ""
    for name, (at, magic) in _MAGICS.items():
        if first.startswith(magic, at):
            return name
    return ""
