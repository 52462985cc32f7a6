"""ActiveMime: the OLE2 file with the macros of a document that was saved as XML or MHTML. Zlib behind a header."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.streams import Inflate
from icapscan.unwrap.unpack import Unpacker

MAGIC = b"ActiveMime"
_HEADER_MAX = 0x100
"""The header is 50 bytes long, or longer by what it says itself; the stream is looked for in so many."""
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


class ActiveMimeFormat:
    """Bids on the magic word."""

    name = "activemime"
    prefixes = (MAGIC,)

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith(MAGIC) else Bid.NO

    def open(self, context: Context) -> ActiveMimeDecoder:
        return ActiveMimeDecoder(context)


class ActiveMimeDecoder:
    """One ActiveMime file."""

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context, Audience.ALL)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        head = bytes(store.reader()[:_HEADER_MAX])
        starts = [at for at in (head.find(magic, len(MAGIC)) for magic in _ZLIB) if at >= 0]
        if not starts:
            yield PartFailed("", Reason.MALFORMED, "There is no compressed data in this ActiveMime file.")
            return
        key = ""
        try:
            key, begin = self._members.begin(("macros.mso",))
            yield begin
            unpacker = Unpacker(Inflate(15), self._members.context.gate)
            for piece in store.pieces(min(starts)):
                for out in unpacker.run(piece):
                    yield PartData(key, out)
                if unpacker.eof:
                    break
        except Stop as stop:
            if key:
                yield PartFailed(key, stop.reason, stop.detail)
            if stop.reason is Reason.OVER_LIMIT:
                yield spent(stop)
            return
        if unpacker.eof:
            yield PartEnd(key)
        else:
            yield PartFailed(key, Reason.MALFORMED, "The compressed data is cut short.")
