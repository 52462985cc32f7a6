"""Programs with an archive behind them (self-extractors): the archive is handed out as a part, to be opened as one.

Zip needs no such help (`zip_directory.py` finds it by its end), nor does NSIS (`sevenzip.py`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.rar_headers import RAR4, RAR5
from icapscan.unwrap.zip_directory import Bytes

PROGRAMS = (b"MZ", b"\x7fELF", b"#!/bin/", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")
ARCHIVES_MAX = 8
"""Archives in one program that are handed out; an installer has one or two."""
SIGNATURES_MAX = 10_000
"""Signatures that are looked at, whether an archive follows or not."""
_MAGICS = (b"7z\xbc\xaf\x27\x1c", RAR4, RAR5, b"MSCF\0\0\0\0")


class SelfExtractFormat:
    """Bids MAYBE on programs."""

    name = "self-extractor"
    prefixes = PROGRAMS

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.MAYBE if evidence.first.startswith(PROGRAMS) else Bid.NO

    def open(self, context: Context) -> SelfExtractDecoder:
        return SelfExtractDecoder(context)


class SelfExtractDecoder:
    """One program, searched when it is complete."""

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        data = store.reader()
        end = 0
        try:
            for at in sorted(self._signatures(data)):
                size = _size(data, at)
                if at < end or not size:
                    continue
                end = at + size
                if self._members.begun == ARCHIVES_MAX:
                    self._members.context.gate.stop("archives in a program")
                yield from self._hand_out(store, at, size)
        except Stop as stop:
            yield spent(stop)

    def _signatures(self, data: Bytes) -> list[int]:
        found = []
        for magic in _MAGICS:
            at = data.find(magic)
            while at >= 0:
                found.append(at)
                if len(found) > SIGNATURES_MAX:
                    self._members.context.gate.stop("archive signatures")
                at = data.find(magic, at + 1)
        return found

    def _hand_out(self, store: PartStore, at: int, size: int) -> Iterator[PartEvent]:
        key, begin = self._members.begin((f"archive-at-{at}",))
        yield begin
        try:
            for piece in store.pieces(at):
                yield from self._members.data(key, piece[:size])
                size -= len(piece)
                if size <= 0:
                    break
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)


def _size(data: Bytes, at: int) -> int:
    """Bytes of the archive that begins there; 0 where the signature stands in the program's own text."""
    left = len(data) - at
    head = data[at : at + 64]
    if head[:2] == b"7z":
        if len(head) < 32 or zlib.crc32(head[12:32]) != int.from_bytes(head[8:12], "little"):
            return 0
        return min(left, 32 + int.from_bytes(head[12:20], "little") + int.from_bytes(head[20:28], "little"))
    if head[:4] == b"MSCF":
        size = int.from_bytes(head[8:12], "little")
        return size if 36 < size <= left and head[12:16] == bytes(4) and head[24:26] == b"\x03\x01" else 0
    if head[6] == 0:
        return left if head[9:10] == b"\x73" else 0  # the main header comes first
    return left if zlib.crc32(_header5(head)) == int.from_bytes(head[8:12], "little") else 0


def _header5(head: bytes) -> bytes:
    """The first header of a rar 5 archive, its size included, for its checksum."""
    size = head[12] if len(head) > 12 else 0x80
    return head[12 : 13 + size] if size < 0x80 and 13 + size <= len(head) else b""
