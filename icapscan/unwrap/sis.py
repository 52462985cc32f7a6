"""Symbian installation files of EPOC release 3 to 6 (.sis): a table of files, each plain or packed by zlib."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.streams import Inflate
from icapscan.unwrap.unpack import Unpacker
from icapscan.unwrap.zip_directory import Bytes
from icapscan.unwrap.zip_methods import Stored

_UID = (0x10000419).to_bytes(4, "little")
_NOT_PACKED = 8
"""Option bit: files are stored plain."""
_SIMPLE, _LANGUAGES = 0, 1
FILES_MAX = 10_000


class SisFormat:
    """Bids on the third UID."""

    name = "sis"

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first[8:12] == _UID and len(evidence.first) >= 100 else Bid.NO

    def open(self, context: Context) -> SisDecoder:
        return SisDecoder(context)


class SisDecoder:
    """One installation file, read whole."""

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        data = store.reader()
        packed = not _word(data, 0x24, 2) & _NOT_PACKED
        languages, files = _word(data, 0x12, 2), _word(data, 0x14, 2)
        at = _word(data, 0x34)
        try:
            for _ in range(min(files, FILES_MAX)):
                kind = _word(data, at)
                if kind not in (_SIMPLE, _LANGUAGES) or at + 36 > len(data):
                    yield PartFailed("", Reason.UNSUPPORTED, "The table of this installation file is not understood.")
                    return
                count = languages if kind == _LANGUAGES else 1
                name = _text(data, _word(data, at + 24), _word(data, at + 20))
                for number in range(count):
                    where = at + 28 + 4 * count + 4 * number
                    yield from self._file(store, name, _word(data, where), _word(data, where - 4 * count), packed)
                at += 28 + 12 * count
        except Stop as stop:
            yield spent(stop)

    def _file(self, store: PartStore, name: str, start: int, size: int, packed: bool) -> Iterator[PartEvent]:
        key, begin = self._members.begin((name,))
        yield begin
        unpacker = Unpacker(Inflate(15) if packed else Stored(), self._members.context.gate)
        left = size
        try:
            for piece in store.pieces(start):
                for out in unpacker.run(piece[:left]):
                    yield PartData(key, out)
                left -= len(piece)
                if left <= 0 or unpacker.eof:
                    break
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            if stop.reason is not Reason.MALFORMED:
                raise
            return
        if (packed and not unpacker.eof) or (not packed and left > 0):
            yield PartFailed(key, Reason.MALFORMED, "The file is cut short.")
        else:
            yield PartEnd(key)


def _word(data: Bytes, at: int, size: int = 4) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _text(data: Bytes, at: int, size: int) -> str:
    return data[at : at + min(size, 1024)].decode("utf-16-le", "replace").replace("\\", "/")
