"""An OLE2 file that is changed where it lies: streams keep their places and sizes, storages leave the directory."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from icapscan.sanitize.contract import CannotSanitize
from icapscan.unwrap.ole_file import Broken, Entry, OleFile

_ROW = 128
_KIND, _COLOR, _LEFT, _RIGHT, _CHILD, _CLASS = 66, 67, 68, 72, 76, slice(80, 96)
_NOBODY = 0xFFFF_FFFF
_RED, _BLACK = 0, 1


class OleEditor:
    """One file. Raises `CannotSanitize` where it is damaged: Office may then read it in another way."""

    def __init__(self, data: bytes) -> None:
        self._size = len(data)
        self.data = bytearray(data)
        try:
            self.file = OleFile(data)
        except Broken as error:
            raise CannotSanitize(f"The OLE2 file cannot be read: {error}") from None
        self._rows = [at + row for at, size in self.file.directory_spans() for row in range(0, size - _ROW + 1, _ROW)]
        self.by_number = {entry.number: entry for entry in self.file.entries}
        self.parents: dict[int, int] = {}
        """Who stands in whom; entries that no tree leads to are not here."""
        self.children: dict[int, list[int]] = {}
        self._walk()
        self.removed: set[int] = set()
        self._changed: set[int] = set()
        self._orphaning: set[int] = set()
        """Storages that something was taken out of: their trees are built anew in the end."""

    def read(self, entry: Entry) -> bytearray:
        """A stream as it is now. Raises `CannotSanitize` where it is cut short."""
        data = self.data
        found = bytearray(b"".join(data[at : at + size] for at, size in self.file.spans(entry)))
        if len(found) != entry.size:
            raise CannotSanitize("A stream of the OLE2 file is cut short.")
        return found

    def write(self, entry: Entry, stream: bytes | bytearray) -> None:
        """A stream of the same size in its place."""
        begin = 0
        for at, size in self.file.spans(entry):
            piece = stream[begin : begin + size]
            self.data[at : at + len(piece)] = piece
            begin += size
        if begin != len(stream) or len(self.data) != self._size:
            raise CannotSanitize("A stream of the OLE2 file is cut short.")
        self._changed.add(entry.number)

    def blank(self, entry: Entry) -> None:
        """Nothing but zeros in a stream."""
        self.write(entry, bytes(len(self.read(entry))))

    def is_blank(self, entry: Entry) -> bool:
        """Whether it was blanked, or is gone."""
        return entry.number in self._changed and not any(self.read(entry))

    def without_class(self, entry: Entry) -> None:
        """A storage that no program is named for."""
        at = self._rows[entry.number]
        self.data[at + _CLASS.start : at + _CLASS.stop] = bytes(16)
        self._changed.add(entry.number)

    def below(self, number: int) -> list[Entry]:
        """All entries in a storage, it included."""
        waiting, found = [number], []
        while waiting:
            one = waiting.pop()
            found.append(self.by_number[one])
            waiting += self.children.get(one, ())
        return found

    def remove(self, entry: Entry) -> None:
        """Take a storage or stream out of the directory, everything in it blanked."""
        for one in self.below(entry.number):
            if one.kind == 2:
                self.blank(one)
            self.removed.add(one.number)
        parent = self.parents.get(entry.number)
        if parent is not None and parent not in self.removed:
            self.children[parent].remove(entry.number)
            self._orphaning.add(parent)
        for one in self.below(entry.number):
            at = self._rows[one.number]
            self.data[at : at + _ROW] = bytes(_LEFT) + b"\xff" * 12 + bytes(_ROW - _CLASS.start)

    def result(self) -> bytes:
        """The changed file. Raises `CannotSanitize` where reading met damage."""
        if self.file.damage:
            raise CannotSanitize(f"The OLE2 file is damaged: {self.file.damage[0]}")
        for storage in self._orphaning - self.removed:
            self._relink(storage, self.children[storage])
        return bytes(self.data)

    # The directory (MS-CFB 2.6.4: the entries of a storage are a red-black tree)

    def _walk(self) -> None:
        waiting = [0]
        seen = {0}
        while waiting:
            storage = waiting.pop()
            pending = [self._field(storage, _CHILD)]
            while pending:
                number = pending.pop()
                if number == _NOBODY:
                    continue
                if number in seen or number not in self.by_number:
                    raise CannotSanitize("The directory of the OLE2 file is damaged.")
                seen.add(number)
                self.parents[number] = storage
                self.children.setdefault(storage, []).append(number)
                pending += [self._field(number, _LEFT), self._field(number, _RIGHT)]
                if self.by_number[number].kind == 1:
                    waiting.append(number)

    def _relink(self, storage: int, numbers: list[int]) -> None:
        """A new tree of these entries: balanced, and only its last level red where that is not full."""
        order = sorted(numbers, key=lambda number: _order(self.by_number[number].name))
        last = len(order).bit_length() - 1
        full = len(order) == (1 << last + 1) - 1
        waiting = [(0, len(order), 0, storage, _CHILD)]
        self._set(storage, _CHILD, _NOBODY)
        for number in order:
            self._set(number, _LEFT, _NOBODY)
            self._set(number, _RIGHT, _NOBODY)
        while waiting:
            begin, end, level, above, side = waiting.pop()
            if begin >= end:
                continue
            middle = (begin + end) // 2
            number = order[middle]
            self._set(above, side, number)
            self.data[self._rows[number] + _COLOR] = _RED if level == last and not full and level else _BLACK
            waiting += [(begin, middle, level + 1, number, _LEFT), (middle + 1, end, level + 1, number, _RIGHT)]

    def _field(self, number: int, field: int) -> int:
        at = self._rows[number] + field
        return int.from_bytes(self.data[at : at + 4], "little")

    def _set(self, number: int, field: int, value: int) -> None:
        at = self._rows[number] + field
        self.data[at : at + 4] = struct.pack("<I", value)


def _order(name: str) -> tuple[int, list[str]]:
    """How names are compared: shorter ones first, then in upper case (MS-CFB 2.6.4)."""
    upper = [char.upper() if len(char.upper()) == 1 else char for char in name]
    return len(name.encode("utf-16-le", "surrogatepass")), upper


def named(entries: Iterable[Entry], *names: str) -> list[Entry]:
    """The entries of these names, whatever their case."""
    return [entry for entry in entries if entry.name.lower() in names]
