"""The stream view of a zip: local headers and their data in the order in which they arrive, no directory needed.

After each member the next local header is *searched*, so that what stands between members, behind the directory or
before the archive is seen too. `Seen` tells the directory view (`zip_directory.py`) what was emitted.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Generator, Iterator

from icapscan.findings import PartPath, Reason
from icapscan.limits import MIB
from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.events import Audience, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members
from icapscan.unwrap.streams import Buffer
from icapscan.unwrap.unpack import PIECE, Unpacker
from icapscan.unwrap.zip_methods import CLAMD, ENDS_ITSELF, OPENERS

_LOOK_BACK = 24
"""A data descriptor with signature and 64-bit sizes (4.3.9)."""
_MARK = re.compile(rb"PK(?:\x07\x08|\x03\x04|\x01\x02)")
HEADERS_MAX = 100_000
"""Local headers of one part that are followed; folders and encrypted members count here although they are no parts."""
HEADER_BYTES_MAX = 16 * MIB
"""Bytes of all those headers, which are kept for the directory view."""
MARKS_MAX = 10_000
"""Signatures without a header behind them: each costs a little time."""
_NAME_MAX = 4096
"""Name in a local header that was found by searching; a longer one is taken for an accident of the bytes."""


class Seen:
    """A local header of the stream view, and what became of its data."""

    __slots__ = ("begun", "complete", "crc", "local", "locked", "offset", "reason", "size", "start", "used")

    def __init__(self, offset: int, local: zh.Local) -> None:
        self.offset = offset
        self.start = offset + local.header
        """Where its data begins."""
        self.local = local
        self.used = 0
        """Bytes of data that it really has."""
        self.size = 0
        """Bytes that came of it."""
        self.crc = 0
        self.begun = False
        """There is a part for it."""
        self.complete = False
        """Its data came to its end."""
        self.locked = local.locked
        self.reason: Reason | None = None
        """Why nothing, or not all, could be decoded."""


class StreamView:
    """Feed it bytes; ``sure`` says that this is a zip, so that trouble is told even when no member could be read."""

    __slots__ = (
        "_at", "_buffer", "_expected", "_final", "_header_bytes", "_key", "_left", "_marks", "_members",
        "_search_from", "_seen", "_state", "_unpacker", "ends", "known", "overrun", "reading", "seen", "sure",
    )  # fmt: skip

    def __init__(self, members: Members, sure: bool, at: int = 0, known: dict[int, Seen] | None = None) -> None:
        self._members = members
        self._buffer = bytearray()
        self._at = at
        """Where in the part the buffer begins."""
        self._final = False
        self._state: Callable[[], Iterator[PartEvent]] = self._seek
        self._seen: Seen | None = None
        self._key: PartPath | None = None
        self._unpacker: Unpacker | None = None
        self._left = 0
        """Bytes of stored or skipped data still to come."""
        self._expected = sure
        """A header is due where this view stands; one that was found by searching has to look like one."""
        self._search_from = 0
        """In stored data of unknown size: bytes at the start of the buffer that hold no mark."""
        self.sure = sure
        self.seen: dict[int, Seen] = {}
        """By offset of the local header."""
        self.known = known if known is not None else {}
        """Headers that another view has read: this one ends there."""
        self.overrun: list[int] = []
        """Where data should have ended by its header and did not: another reader begins there."""
        self.reading = 0
        self._header_bytes = 0
        self._marks = 0
        self.ends = False
        """This view met a header that is known."""

    def feed(self, data: Buffer) -> Iterator[PartEvent]:
        """More of the part. Raises `Stop` when the budget is spent."""
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            self._buffer += view[at : at + PIECE]
            yield from self._run()

    def finish(self) -> Iterator[PartEvent]:
        """The part is complete."""
        self._final = True
        yield from self._run()
        seen = self._seen
        if seen is not None and self._state == self._skip:
            self._leave()
        elif seen is not None:
            if seen.local.open_ended and seen.local.method == zh.STORED and not seen.locked:
                # All the rest was taken for it, in which a reader by the directory may find other members.
                yield from self._members.anomaly("zip-no-descriptor", self._title(seen))
                yield from self._fail(seen, Reason.MALFORMED, "The end of the data is not found.")
            else:
                yield from self._fail(seen, Reason.MALFORMED, "The data is cut short.")

    def _run(self) -> Iterator[PartEvent]:
        while not self.ends:
            before = self._state, self._at, self._search_from
            yield from self._state()
            if before == (self._state, self._at, self._search_from):
                return
        self._buffer.clear()

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count

    # Between members

    def _seek(self) -> Iterator[PartEvent]:
        found = self._buffer.find(zh.LOCAL)
        skip = found if found >= 0 else max(0, len(self._buffer) - (0 if self._final else len(zh.LOCAL) - 1))
        if skip:
            self._expected = False
            self._drop(skip)
        if found >= 0:
            self._state = self._header
        yield from ()

    def _header(self) -> Iterator[PartEvent]:
        buffer = self._buffer
        if self._at in self.known:
            self.ends = True
            return
        size = zh.local_size(buffer) if len(buffer) >= zh.LOCAL_SIZE else zh.LOCAL_SIZE
        if len(buffer) < size:
            if self._final:
                self._skip_mark()
            return
        local = zh.parse_local(bytes(buffer[:size]))
        if not (self._expected or _plausible(local)):
            self._skip_mark()
            return
        seen = self._seen = self.seen[self._at] = Seen(self._at, local)
        self._header_bytes += size
        if len(self.seen) > HEADERS_MAX or self._header_bytes > HEADER_BYTES_MAX:
            self._members.context.gate.stop("zip headers")
        self._drop(size)
        yield from self._choose(seen)

    def _skip_mark(self) -> None:
        self._marks += 1
        if self._marks > MARKS_MAX:
            self._members.context.gate.stop("zip signatures")
        self._drop(len(zh.LOCAL))
        self._state = self._seek

    def _choose(self, seen: Seen) -> Iterator[PartEvent]:
        """How to read the data of this member."""
        local = seen.local
        self._members.context.gate.room()
        opener = OPENERS.get(local.method)
        known = not local.open_ended or local.packed not in (0, 0xFFFFFFFF)
        if seen.locked or opener is None:
            seen.reason = Reason.ENCRYPTED if seen.locked else Reason.UNSUPPORTED
            self._left = local.packed if known else 0
            self._state = self._skip
        elif local.method == zh.STORED:
            self._left = local.packed
            self._search_from = 0
            self._state = self._stored_unknown if local.open_ended else self._stored
        else:
            self._unpacker = Unpacker(opener(), self._members.context.gate)
            self._state = self._unpack if local.packed or local.open_ended else self._empty
        yield from ()

    # Data

    def _empty(self) -> Iterator[PartEvent]:
        """No data, says the header; some readers decompress all the same."""
        seen, head = self._seen, bytes(self._buffer[:4])
        assert seen is not None
        if len(head) < 4 and not self._final:
            return
        if head[:2] == b"PK" or not head:
            yield from self._close(seen)
        else:
            self._state = self._unpack

    def _skip(self) -> Iterator[PartEvent]:
        """Nothing that can be decoded here; the directory view tries its own ways and tells."""
        count = min(self._left, len(self._buffer))
        self._left -= count
        seen = self._seen
        assert seen is not None
        seen.used += count
        self._drop(count)
        if not self._left:
            seen.complete = True
            self._leave()
        yield from ()

    def _stored(self) -> Iterator[PartEvent]:
        seen = self._seen
        assert seen is not None
        count = min(self._left, len(self._buffer))
        self._left -= count
        yield from self._take(seen, count)
        if not self._left:
            yield from self._close(seen)

    def _stored_unknown(self) -> Iterator[PartEvent]:
        """Stored, and the size stands behind the data: look for a descriptor that fits, or the next header."""
        seen = self._seen
        assert seen is not None
        buffer = self._buffer
        mark = _MARK.search(buffer, self._search_from)
        if mark is None:
            if self._final and (last := self._descriptor_end(seen, len(buffer), False)) is not None:
                yield from self._take(seen, last)
                yield from self._close(seen)
                return
            keep = 0 if self._final else _LOOK_BACK + 3
            yield from self._take(seen, max(0, len(buffer) - keep))
            self._search_from = max(0, len(buffer) - 3)
            return
        at = mark.start()
        if len(buffer) < at + _LOOK_BACK and not self._final:
            if at > _LOOK_BACK:
                yield from self._take(seen, at - _LOOK_BACK)
            return
        end = self._descriptor_end(seen, at, buffer[at : at + 4] == zh.DESCRIPTOR)
        if end is None:
            self._search_from = at + 1
            return
        yield from self._take(seen, end)
        yield from self._close(seen)

    def _descriptor_end(self, seen: Seen, at: int, signed: bool) -> int | None:
        """Where in the buffer the data ends if a descriptor stands at the mark (or, without signature, before it)."""
        buffer = self._buffer
        for width in (4, 8):
            begin = at + 4 if signed else at - 4 - 2 * width
            sizes = buffer[max(0, begin) + 4 : begin + 4 + width]
            end = at if signed else begin
            if begin >= 0 and len(sizes) == width and int.from_bytes(sizes, "little") == seen.used + end:
                return end
        return None

    def _unpack(self) -> Iterator[PartEvent]:
        seen, unpacker = self._seen, self._unpacker
        assert seen is not None and unpacker is not None
        local = seen.local
        given = len(self._buffer)
        bounded = local.packed > 0 and not local.open_ended
        left = local.packed - unpacker.used
        if bounded and left > 0:
            given = min(given, left)
        elif bounded:  # it should have ended here: go on, and let another view begin here
            bounded = False
            if seen.start + local.packed not in self.overrun:
                self.overrun.append(seen.start + local.packed)
        if unpacker.block != PIECE:  # see there
            block = unpacker.block - unpacker.used % unpacker.block
            if given < block and not self._final and not (bounded and given == left):
                return
            given = min(given, block)
        before = unpacker.used
        try:
            used = yield from self._output(seen, unpacker.run(bytes(self._buffer[:given])))
        except Stop as stop:
            seen.used = unpacker.used
            yield from self._fail(seen, stop.reason, stop.detail)
            if stop.reason is not Reason.MALFORMED:
                raise
            self._drop(unpacker.used - before)
            self.overrun.append(seen.start)  # it may be none of this: another reader looks for members in it
            return
        self._drop(used)
        seen.used, seen.crc, seen.size = unpacker.used, unpacker.crc, unpacker.size
        if unpacker.eof or (bounded and unpacker.used >= local.packed and local.method not in ENDS_ITSELF):
            self.sure = True
            yield from self._close(seen)

    def _output(self, seen: Seen, pieces: Generator[bytes, None, int]) -> Generator[PartEvent, None, int]:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return int(end.value)
            yield from self._begin(seen)
            assert self._key is not None
            yield PartData(self._key, piece)

    def _take(self, seen: Seen, count: int) -> Iterator[PartEvent]:
        """The first ``count`` bytes of the buffer are data of a stored member."""
        if not count:
            return
        data = bytes(self._buffer[:count])
        self._drop(count)
        self._search_from = max(0, self._search_from - count)
        seen.used += count
        seen.size += count
        seen.crc = zlib.crc32(data, seen.crc)
        yield from self._begin(seen)
        assert self._key is not None
        try:
            yield from self._members.data(self._key, data)
        except Stop as stop:
            yield from self._fail(seen, stop.reason, stop.detail)
            raise

    # The part of a member

    def _begin(self, seen: Seen) -> Iterator[PartEvent]:
        if self._key is None:
            local = seen.local
            names = zh.names(local.name, local.flags, local.extra)
            audience = None if local.method in CLAMD else Audience.ALL
            self._key, begin = self._members.begin(names, self.reading, audience)
            seen.begun = True
            yield begin

    def _close(self, seen: Seen) -> Iterator[PartEvent]:
        """The data is complete."""
        seen.complete = True
        if seen.size or not seen.local.name.endswith(b"/"):
            yield from self._begin(seen)
        if self._key is not None:
            yield PartEnd(self._key)
        self._leave()
        yield from self._compare(seen)

    def _compare(self, seen: Seen) -> Iterator[PartEvent]:
        """The data against what its header says; what stands in a descriptor is compared by the directory view."""
        local = seen.local
        if local.open_ended:
            return
        if (local.packed != seen.used and local.method != zh.STORED) or seen.size != local.size:
            yield from self._members.anomaly("zip-size", self._title(seen))
        elif seen.crc != local.crc:
            yield from self._members.anomaly("zip-crc", self._title(seen))

    def _fail(self, seen: Seen, reason: Reason, detail: str) -> Iterator[PartEvent]:
        """The data could not be decoded to its end: what there is of it is scanned."""
        seen.reason = reason
        if self._key is None and self.sure and not seen.locked:
            yield from self._begin(seen)
        if self._key is not None:
            yield PartFailed(self._key, reason, detail)
        self._leave()

    def _leave(self) -> None:
        self._key = self._unpacker = self._seen = None
        self._state = self._seek
        self._expected = True

    @staticmethod
    def _title(seen: Seen) -> str:
        return zh.names(seen.local.name, seen.local.flags, b"")[0]


def _plausible(local: zh.Local) -> bool:
    """Whether this can be a header at all: the four bytes of its signature stand in many a program."""
    return (
        local.method in zh.METHODS
        and local.needed & 0xFF <= 100
        and 0 < len(local.name) <= _NAME_MAX
        and local.flags & 0xC000 == 0
    )
