"""Reads OLE2 compound files (MS-CFB 5.3): sector chains, directory, streams. Bounded, and tolerant as Office is.

Nothing is kept of a stream; a chain is followed while it is read. Every chain ends at the latest after as many sectors
as the file has, so that loops end.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from struct import Struct as Packed

from msgspec import Struct

from icapscan.limits import KIB
from icapscan.store import PartReader

MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PIECE = 64 * KIB
ENTRIES_MAX = 100_000
"""Directory entries that are read: 128 bytes each. `Limits.parts` is 10,000, an MSI has some hundred."""
_END = 0xFFFF_FFF8
"""Sector numbers from here on are marks: free, end of chain, FAT, DIFAT; the rest is reserved."""
_CUTOFF = 4096
"""Streams shorter than this stand in the mini stream (MS-CFB 2.2; the header's field must say so, and is ignored)."""
_U32 = Packed("<I")
_ENTRY = Packed("<64sHBBIII16sI16xIQ")
_LAST_ENTRY = 0xFFFF_FFFA
"""The highest number that an entry can have (MS-CFB 2.6.1)."""
_NO_ENTRY = 0xFFFF_FFFF

Data = bytes | PartReader


class Broken(Exception):
    """This cannot be read on. Never leaves this room."""


class Entry(Struct, frozen=True):
    """A storage or a stream of the directory."""

    number: int
    name: str
    path: str
    """Names of the storages it stands in and its own, joined by ``/``; empty for the root."""
    kind: int
    """1 storage, 2 stream, 5 root."""
    clsid: bytes
    start: int
    size: int


class OleFile:
    """A compound file, read where it lies."""

    def __init__(self, data: Data) -> None:
        """Raises `Broken` where there is no directory to read."""
        if len(data) < 512 or data[:8] != MAGIC:
            raise Broken("It has no header.")
        self._data = data
        self.damage: list[str] = []
        """What was wrong, in plain sentences; reading went on."""
        shift, mini_shift = data[30:31][0], data[32:33][0]
        if shift not in (7, 8, 9, 10, 11, 12, 13, 14):
            raise Broken("The size of its sectors is impossible.")
        self._sector = 1 << shift
        self._mini = 1 << (mini_shift if 4 <= mini_shift < shift else 6)
        self._head = max(512, self._sector)
        self._sectors = max(0, len(data) - self._head + self._sector - 1) // self._sector
        if _u32(data, 56) != _CUTOFF:
            self.damage.append("The header gives another size for short streams.")
        self._fat = self._read_fat()
        self._mini_fat = _words(b"".join(self._chain(_u32(data, 60))))
        self.entries = self._directory(_u32(data, 48))
        self._root = next((entry for entry in self.entries if entry.kind == 5), None)
        if self._root is None:
            raise Broken("It has no root.")
        self._mini_places: list[int] | None = None

    def read(self, entry: Entry) -> Iterator[bytes]:
        """The bytes of a stream in pieces. Damage ends it early, and is noted."""
        if entry.size == 0:
            return
        left = min(entry.size, len(self._data))
        pieces = self._mini_chain(entry.start) if entry.size < _CUTOFF else self._chain(entry.start)
        for piece in pieces:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                break
        if left > 0 or entry.size > len(self._data):
            self.damage.append("A stream is cut short.")

    def spans(self, entry: Entry) -> Iterator[tuple[int, int]]:
        """Where in the file the bytes of a stream stand: offset and size of each piece, in order."""
        left = min(entry.size, len(self._data))
        for at, size in self._mini_spans(entry.start) if entry.size < _CUTOFF else self._chain_spans(entry.start):
            if left <= 0:
                break
            yield at, min(size, left)
            left -= size

    def directory_spans(self) -> Iterator[tuple[int, int]]:
        """The same for the directory, whose entries have 128 bytes each."""
        return self._chain_spans(_u32(self._data, 48))

    def head(self, entry: Entry, most: int) -> bytes:
        """The first bytes of a stream, at most ``most``."""
        found = bytearray()
        before = len(self.damage)
        for piece in self.read(entry):
            found += piece
            if len(found) >= most:
                break
        del self.damage[before:]
        return bytes(found[:most])

    # Sectors

    def _read_fat(self) -> array[int]:
        """Sector numbers of the file allocation table's own sectors: 109 in the header, the others in the DIFAT."""
        data, per = self._data, self._sector // 4
        numbers = [_u32(data, 76 + 4 * at) for at in range(109)]
        number, seen = _u32(data, 68), 0
        while number < _END and seen <= self._sectors // per + 1:
            at = self._head + number * self._sector
            block = data[at : at + self._sector]
            if len(block) < self._sector:
                break
            found = _words(block)
            numbers += found[:-1]
            number = found[-1]
            seen += 1
        pieces = []
        for number in numbers:
            if number < _END:
                at = self._head + number * self._sector
                pieces.append(data[at : at + self._sector].ljust(self._sector, b"\xff"))
                if len(pieces) * per >= self._sectors:
                    break
        return _words(b"".join(pieces))

    def _chain(self, start: int) -> Iterator[bytes]:
        """The sectors from ``start`` on, neighbours joined up to about `PIECE`."""
        data = self._data
        for at, size in self._chain_spans(start):
            yield data[at : at + size]

    def _chain_spans(self, start: int) -> Iterator[tuple[int, int]]:
        """The same as offsets and sizes."""
        fat, sector, number = self._fat, self._sector, start
        total, joined_max = self._sectors, max(1, PIECE // sector)
        followed, last = 0, -1
        back: set[int] = set()
        """Where the chain went backwards to: a loop does so twice."""
        while number < total and followed < total:
            if number <= last:
                if number in back:
                    self.damage.append("A stream comes back to its own beginning.")
                    return
                back.add(number)
            first, count = number, 1
            following = fat[number] if number < len(fat) else _END
            while following == number + 1 and count < joined_max and following < total:
                number, count = following, count + 1
                following = fat[number] if number < len(fat) else _END
            followed += count
            yield self._head + first * sector, count * sector
            last, number = first + count - 1, following

    def _mini_chain(self, start: int) -> Iterator[bytes]:
        """A stream in the mini stream, which is the stream of the root. At most `_CUTOFF` bytes are of use."""
        data = self._data
        found = b"".join(data[at : at + size] for at, size in self._mini_spans(start))
        if found:
            yield found

    def _mini_spans(self, start: int) -> Iterator[tuple[int, int]]:
        """The same as offsets and sizes."""
        if self._mini_places is None:
            self._mini_places = self._places()
        places, mini, number = self._mini_places, self._mini, start
        table, per, given = self._mini_fat, self._sector // mini, 0
        while number < _END and given < _CUTOFF and number // per < len(places):
            yield places[number // per] + number % per * mini, mini
            given += mini
            number = table[number] if number < len(table) else _END

    def _places(self) -> list[int]:
        """Where in the file the sectors of the mini stream stand."""
        places: list[int] = []
        assert self._root is not None
        number, fat = self._root.start, self._fat
        while number < self._sectors and len(places) < self._sectors:
            places.append(self._head + number * self._sector)
            number = fat[number] if number < len(fat) else _END
        return places

    # Directory

    def _directory(self, start: int) -> tuple[Entry, ...]:
        raw = bytearray()
        for piece in self._chain(start):
            raw += piece
            if len(raw) >= ENTRIES_MAX * 128:
                self.damage.append("The directory is too long.")
                break
        rows = list(_ENTRY.iter_unpack(raw[: len(raw) // 128 * 128]))
        if not rows:
            raise Broken("It has no directory.")
        paths, missing = self._paths(rows)
        if missing:
            self.damage.append("The directory is cut short.")
        entries = []
        for number, row in enumerate(rows):
            kind = row[2]
            if kind in (1, 2, 5):
                size = row[10] & 0xFFFF_FFFF if self._sector <= 512 else row[10]  # MS-CFB 2.6.3: ignore the high half
                name = _name(row)
                path = paths.get(number, "" if number == 0 else name)  # an orphan is read all the same
                entries.append(Entry(number, name, path, kind if number else 5, row[7], row[9], size))
        return tuple(entries)

    @staticmethod
    def _paths(
        rows: list[tuple[bytes, int, int, int, int, int, int, bytes, int, int, int]],
    ) -> tuple[dict[int, str], bool]:
        """Walks the trees of siblings from the root; each entry once. Whether they lead to some that are not there."""
        paths: dict[int, str] = {0: ""}
        waiting = [(rows[0][6], "")]
        missing = False
        while waiting:
            number, within = waiting.pop()
            if number >= len(rows):
                missing = missing or number <= _LAST_ENTRY
                continue
            if number in paths:
                continue
            row = rows[number]
            path = paths[number] = f"{within}/{_name(row)}" if within else _name(row)
            waiting += [(row[4], within), (row[5], within)]
            if row[2] == 1:
                waiting.append((row[6], path[:1000]))
        return paths, missing


def _name(row: tuple[bytes, int, int, int, int, int, int, bytes, int, int, int]) -> str:
    size = min(max(row[1] - 2, 0), 62) if row[1] else 62
    return row[0][:size].decode("utf-16-le", "replace").partition("\0")[0]


def _words(data: bytes) -> array[int]:
    """Little-endian 32-bit numbers; a rest of fewer bytes is dropped."""
    words = array("I")
    words.frombytes(data[: len(data) // 4 * 4])
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _u32(data: Data, at: int) -> int:
    return int(_U32.unpack(data[at : at + 4])[0]) if at + 4 <= len(data) else _NO_ENTRY
