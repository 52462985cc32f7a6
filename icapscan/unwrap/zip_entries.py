"""What the directory of a zip leads to beyond what the stream view has emitted, and where the two disagree."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.events import Audience, PartData, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members
from icapscan.unwrap.unpack import Unpacker
from icapscan.unwrap.zip_directory import Bytes, Directory, Entry, directories, disagreements, entries
from icapscan.unwrap.zip_locked import Locked, other_ways
from icapscan.unwrap.zip_methods import CLAMD, ENDS_ITSELF, OPENERS
from icapscan.unwrap.zip_stream import Seen, StreamView

VIEWS_MAX = 16
"""Further stream views, begun where a header says that its data ends and it does not."""


class DirectoryView:
    """The directory view of one part, after its stream view."""

    __slots__ = (
        "_done", "_failure", "_gate", "_locked", "_members", "_seen", "_starts", "_stream", "_told",
    )  # fmt: skip

    def __init__(self, members: Members, stream: StreamView) -> None:
        self._members = members
        self._gate = members.context.gate
        self._stream = stream
        self._seen = stream.seen
        self._starts = {seen.start: seen for seen in stream.seen.values()}
        self._told: set[int] = set()
        """Offsets of local headers that some directory leads to."""
        self._done: dict[tuple[int, int, int], int] = {}
        """(start, method, bytes of data) of what was emitted for a directory: bytes of output."""
        self._failure: tuple[Reason, str] | None = None
        """What is wrong with the archive as a whole."""
        self._locked: list[Locked] = []

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        """Everything beyond the stream view. Raises `Stop` when the budget is spent."""
        data = store.reader()
        found = False
        covered = sorted((seen.start, seen.start + seen.used) for seen in self._seen.values() if seen.begun)
        for item in directories(data, self._members, covered):
            if isinstance(item, Directory):
                found = True
                yield from self._directory(data, store, item)
            else:
                yield item
        yield from self._further_views(store)
        yield from self._beside(found, data[:4])
        yield from other_ways(store, self._members, self._locked)
        if self._failure is not None:
            yield PartFailed("", *self._failure)

    def _directory(self, data: Bytes, store: PartStore, directory: Directory) -> Iterator[PartEvent]:
        end = directory.end
        if end.disk not in (0, 0xFFFF) or end.directory_disk not in (0, 0xFFFF):
            yield from self._volume()
        extents: list[tuple[int, int]] = []
        for item in entries(data, directory, self._members):
            if isinstance(item, Entry):
                extents.append((item.offset, max(item.start, item.offset) + item.central.packed))
                yield from self._entry(store, item)
            else:
                yield item
        extents.sort()
        if any(extents[at][1] > extents[at + 1][0] for at in range(len(extents) - 1)):
            yield from self._members.anomaly("zip-overlap")

    def _volume(self) -> Iterator[PartEvent]:
        yield from self._members.anomaly("multi-volume")
        self._failure = Reason.UNSUPPORTED, "This is one volume of a zip that has several."

    def _fail(self, reason: Reason, detail: str) -> None:
        self._failure = self._failure or (reason, detail)

    # Entries

    def _entry(self, store: PartStore, entry: Entry) -> Iterator[PartEvent]:
        central, names = entry.central, _names(entry)
        for kind in disagreements(entry):
            yield from self._members.anomaly(kind, names[0] if names else "")
        if entry.local is None:
            yield from self._members.failed(names, Reason.MALFORMED, "It has no local header.")
            return
        self._told.add(entry.offset)
        seen = self._starts.get(entry.start)
        same = seen is not None and _same(seen, entry)
        if central.locked:
            if not (same and seen is not None and seen.complete and seen.crc == central.crc):
                self._locked.append(Locked(Reason.ENCRYPTED, names, central.size, "It is encrypted."))
        elif central.method not in OPENERS:
            self._locked.append(Locked(Reason.UNSUPPORTED, names, central.size, _unsupported(central.method)))
        elif same and seen is not None and entry.local.name == central.name:
            yield from self._compare(store, entry, seen)
        else:
            yield from self._decode(store, entry, central.packed, 0 if seen is None else 1)

    def _compare(self, store: PartStore, entry: Entry, seen: Seen) -> Iterator[PartEvent]:
        """The stream view has it. A second entry for the same data is charged as if it were decoded again."""
        central = entry.central
        data = entry.start, central.method, central.packed
        if data in self._done:
            self._charge(seen.size)
        self._done[data] = seen.size
        if seen.complete:
            self._check(entry, seen.size, seen.crc)
            yield from self._other_sizes(store, entry, seen.size)

    def _charge(self, size: int) -> None:
        if not self._gate.took(size):
            self._gate.stop()
        self._gate.room()

    def _check(self, entry: Entry, size: int, crc: int) -> None:
        """Data that neither header describes is damaged."""
        central, local = entry.central, entry.local
        if crc == central.crc and size == central.size:
            return
        if local is not None and not local.open_ended and crc == local.crc and size == local.size:
            return
        self._fail(Reason.MALFORMED, "The data of a member is not what its headers say.")

    def _other_sizes(self, store: PartStore, entry: Entry, size: int) -> Iterator[PartEvent]:
        """Readers that go by a declared size: they cut what is longer, and read on where stored data is longer."""
        central, local = entry.central, entry.local
        assert local is not None
        for declared in {central.size} if local.open_ended else {central.size, local.size}:
            if 0 < declared < size:
                yield from self._decode(store, entry, central.packed, 1, most=declared)
            elif declared > size and central.method == zh.STORED and entry.start + size < store.size:
                yield from self._decode(store, entry, declared, 1)

    def _decode(
        self, store: PartStore, entry: Entry, packed: int, reading: int, most: int | None = None
    ) -> Iterator[PartEvent]:
        """Emit the entry's data, at most ``most`` bytes of it."""
        central = entry.central
        packed = min(packed, store.size - entry.start)
        data = entry.start, central.method, packed if most is None else -most
        if data in self._done:
            self._charge(self._done[data])
            return
        if not central.size and not central.packed and central.name.endswith(b"/"):
            return
        unpacker = Unpacker(OPENERS[central.method](), self._gate)
        audience = None if central.method in CLAMD else Audience.ALL
        key, begin = self._members.begin(_names(entry), reading, audience)
        yield begin
        failed = None
        try:
            for piece in _output(store, entry.start, packed, unpacker):
                if most is not None and unpacker.size >= most:
                    yield PartData(key, piece[: len(piece) - (unpacker.size - most)])
                    break
                yield PartData(key, piece)
        except Stop as stop:
            failed = stop
        self._done[data] = unpacker.size
        yield from self._end(entry, key, unpacker, failed, packed if most is None else 0)
        if failed is None and most is None and reading == 0:
            yield from self._other_sizes(store, entry, unpacker.size)

    def _end(self, entry: Entry, key: str, unpacker: Unpacker, failed: Stop | None, packed: int) -> Iterator[PartEvent]:
        central, local = entry.central, entry.local
        short = packed > 0 and not unpacker.eof and (central.method in ENDS_ITSELF or packed < central.packed)
        if failed is None and not short:
            yield PartEnd(key)
            if packed == central.packed and packed:
                self._check(entry, unpacker.size, unpacker.crc)
        elif failed is None:
            yield PartFailed(key, Reason.MALFORMED, "The data is cut short.")
        else:
            yield PartFailed(key, failed.reason, failed.detail)
            if failed.reason is not Reason.MALFORMED:
                raise failed
        if local is not None and local.locked and unpacker.crc != central.crc:
            self._locked.append(Locked(Reason.ENCRYPTED, _names(entry), central.size, "It is encrypted."))

    # What no directory leads to

    def _further_views(self, store: PartStore) -> Iterator[PartEvent]:
        begins = self._stream.overrun
        for count, at in enumerate(begins):
            if count >= VIEWS_MAX:
                self._gate.stop("zip readings")
            view = StreamView(self._members, False, at, self._seen)
            view.reading = 1
            for piece in store.pieces(at):
                yield from view.feed(piece)
                if view.ends:
                    break
            yield from view.finish()
            self._seen.update(view.seen)

    def _beside(self, found: bool, start: bytes) -> Iterator[PartEvent]:
        """Members that only the stream view has; a zip without any directory."""
        if not found and start in (zh.DESCRIPTOR, zh.NOT_SPANNED):
            yield from self._volume()
        elif not found:
            yield from self._members.anomaly("zip-no-directory")
        for seen in self._seen.values():
            if seen.offset in self._told:
                continue
            names = zh.names(seen.local.name, seen.local.flags, seen.local.extra)
            if found and (seen.begun or seen.reason):
                yield from self._members.anomaly("zip-not-in-directory", names[0])
            if seen.locked:
                self._locked.append(Locked(Reason.ENCRYPTED, names, seen.local.size, "It is encrypted."))
            elif seen.local.method not in OPENERS:
                detail = _unsupported(seen.local.method)
                self._locked.append(Locked(Reason.UNSUPPORTED, names, seen.local.size, detail))
            elif seen.complete and not seen.local.open_ended and seen.crc != seen.local.crc:
                self._fail(Reason.MALFORMED, "The data of a member is not what its header says.")
        if not (found or self._members.begun or self._locked):
            self._fail(Reason.MALFORMED, "No member of this zip could be read.")


def _output(store: PartStore, start: int, packed: int, unpacker: Unpacker) -> Iterator[bytes]:
    left = packed
    for piece in store.pieces(start):
        if left <= 0 or unpacker.eof:
            return
        yield from unpacker.run(piece[:left])
        left -= len(piece)


def _same(seen: Seen, entry: Entry) -> bool:
    """Whether the stream view has emitted just the data that this entry stands for."""
    central = entry.central
    if seen.locked or seen.local.method != central.method or (not seen.begun and not seen.complete):
        return False
    if central.method in ENDS_ITSELF and seen.complete:
        return seen.used <= central.packed
    return seen.used == central.packed or not seen.complete


def _names(entry: Entry) -> tuple[str, ...]:
    """The names in both headers, the directory's first."""
    central, local = entry.central, entry.local
    found = zh.names(central.name, central.flags, central.extra)
    if local is not None and local.name != central.name:
        found += zh.names(local.name, local.flags, local.extra)
    return tuple(dict.fromkeys(found))


def _unsupported(method: int) -> str:
    return f"The zip method {method} ({zh.METHODS.get(method, 'unknown')}) is not supported."
