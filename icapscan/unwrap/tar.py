"""Tar archives of every dialect (v7, ustar, pax, GNU, star, Solaris), read as they arrive.

Directories, links and devices are no parts. What stands behind the end of the archive, or between headers that make
no sense, is a part of its own, so that nothing in a tar goes unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from icapscan.findings import PartPath, Reason
from icapscan.limits import KIB, MIB
from icapscan.unwrap import tar_headers as th
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import STEP, Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.streams import Buffer

PIECE = 64 * KIB
META_MAX = 8 * MIB
"""A pax header or long name that is kept; it may hold extended attributes, resource forks among them."""
_HOLE = bytes(64 * KIB)
_DATALESS = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Links, devices, directories, FIFOs: whatever size they give, most writers put no data there."""
_META = frozenset({b"x", b"X", b"g", b"L", b"K"})
_BLOCK = th.BLOCK


class TarFormat:
    """Bids on the first block: its checksum, or its magic."""

    name = "tar"

    def bid(self, evidence: Evidence) -> Bid:
        block = evidence.first[:_BLOCK]
        if len(block) < _BLOCK:
            return Bid.NO
        magic = block[257:262] == b"ustar"
        if not magic and block[:1] == b"\0":
            return Bid.NO
        if th.is_header(block):
            return Bid.YES
        return Bid.YES if magic and block[148:156].strip(b" \0").isdigit() else Bid.NO

    def open(self, context: Context) -> TarDecoder:
        return TarDecoder(context)


class _File:
    """What the next member is, from its header and those before it."""

    __slots__ = ("names", "pax", "real_size", "segments", "size")

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.pax: list[tuple[bytes, bytes]] = []
        self.segments: th.Segments | None = None
        self.size = 0
        self.real_size = 0


class TarDecoder:
    """One tar archive."""

    __slots__ = (
        "_buffer", "_done", "_ended", "_failure", "_file", "_final", "_global", "_header", "_junk", "_key", "_left",
        "_map", "_members", "_meta", "_pad", "_plain", "_position", "_segment", "_segments", "_started", "_state",
    )  # fmt: skip

    def __init__(self, context: Context) -> None:
        self._members = Members(context)
        self._buffer = bytearray()
        self._final = False
        self._done = False
        self._ended = False
        """A block of zeros was read after the last member."""
        self._started = False
        """A header was read."""
        self._state: Callable[[], Iterator[PartEvent]] = self._read_header
        self._file = _File()
        self._global: list[tuple[bytes, bytes]] = []
        self._header = th.Header(b"", 0, b"0")
        self._meta = bytearray()
        self._left = 0
        """Bytes of the current data still to come."""
        self._pad = 0
        self._key: PartPath | None = None
        """The open member."""
        self._plain: PartPath | None = None
        """The second reading of an open sparse member."""
        self._junk: PartPath | None = None
        """The open part of bytes that belong to no member."""
        self._failure: tuple[Reason, str] | None = None
        self._map = bytearray()
        self._segments: list[tuple[int, int]] = []
        """Of an old GNU sparse file, from several blocks."""
        self._segment = 0
        self._position = 0
        """Offset within the file that is expanded."""

    def feed(self, data: Buffer) -> Iterator[PartEvent]:
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            self._buffer += view[at : at + PIECE]
            yield from self._run()

    def finish(self) -> Iterator[PartEvent]:
        self._final = True
        yield from self._run()
        if self._done:
            return
        yield from self._end_junk()
        if self._key is not None:
            yield PartFailed(self._key, Reason.MALFORMED, "The member is cut short.")
            yield from self._end_plain()
            self._key = None
            return
        if not self._ended:
            yield from self._members.anomaly("tar-no-end")
        if self._state not in (self._read_header, self._read_junk) or self._file.names or self._file.pax:
            self._fail(Reason.MALFORMED, "The archive is cut short.")
        if self._failure is not None:
            yield PartFailed("", *self._failure)

    def _run(self) -> Iterator[PartEvent]:
        if self._done:
            return
        try:
            while True:
                before = self._state, len(self._buffer), self._left
                yield from self._state()
                if before == (self._state, len(self._buffer), self._left):
                    return
        except Stop as stop:
            self._done = True
            key = self._key or self._junk
            if key is not None:
                yield PartFailed(key, stop.reason, stop.detail)
            yield from self._end_plain()
            yield spent(stop)

    def _fail(self, reason: Reason, detail: str) -> None:
        self._failure = self._failure or (reason, detail)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    # Headers

    def _read_header(self) -> Iterator[PartEvent]:
        buffer = self._buffer
        if len(buffer) < _BLOCK:
            if self._final and buffer:
                yield from self._no_header()
            return
        if buffer[:_BLOCK] == th.ZEROS:
            zeros = len(buffer) - len(buffer.lstrip(b"\0"))
            del buffer[: zeros - zeros % _BLOCK]
            self._ended = True
            return
        if not th.is_header(buffer):
            yield from self._no_header()
            return
        yield from self._end_junk()
        self._started, self._ended = True, False
        header = self._header = th.parse(self._take(_BLOCK))
        if header.size < 0:
            self._fail(Reason.MALFORMED, "A member has an impossible size.")
            self._file = _File()
        elif header.kind in _META:
            yield from self._begin_meta(header)
        elif header.extended:
            self._segments = list(header.segments)
            self._state = self._read_extension
        else:
            yield from self._begin_file()

    def _no_header(self) -> Iterator[PartEvent]:
        """Bytes where a header should be are handed out as they are, up to the next header that has a magic."""
        if not self._started:
            self._done = True
            yield PartFailed("", Reason.MALFORMED, "The checksum of the first header is wrong.")
            return
        yield from self._members.anomaly("tar-not-a-header")
        self._junk, begin = self._members.begin(("not-a-member",), audience=Audience.ALL)
        yield begin
        self._state = self._read_junk

    def _read_junk(self) -> Iterator[PartEvent]:
        assert self._junk is not None
        buffer = self._buffer
        blocks = len(buffer) if self._final else len(buffer) - len(buffer) % _BLOCK
        at = buffer.find(b"ustar", 0, blocks)
        while at >= 0:
            begin = at - 257
            if begin >= 0 and begin % _BLOCK == 0 and th.is_header(buffer[begin : begin + _BLOCK]):
                blocks = begin
                self._state = self._read_header
                break
            at = buffer.find(b"ustar", at + 1, blocks)
        if blocks:
            yield from self._members.data(self._junk, self._take(blocks))

    def _end_junk(self) -> Iterator[PartEvent]:
        if self._junk is not None:
            yield PartEnd(self._junk)
            self._junk = None

    def _begin_meta(self, header: th.Header) -> Iterator[PartEvent]:
        self._meta.clear()
        self._left = header.size
        self._pad = -header.size % _BLOCK
        self._state = self._read_meta
        if header.size > META_MAX:
            yield from self._members.anomaly("tar-huge-header", str(header.size))
            self._fail(Reason.OVER_LIMIT, "A pax header or long name is too long.")

    def _read_meta(self) -> Iterator[PartEvent]:
        data = self._take(min(self._left, len(self._buffer)))
        self._left -= len(data)
        if len(self._meta) + len(data) <= META_MAX:
            self._meta += data
        if self._left == 0:
            self._end_meta(bytes(self._meta))
            self._meta.clear()
            self._state = self._skip_pad
        yield from ()

    def _end_meta(self, data: bytes) -> None:
        kind = self._header.kind
        if self._header.size > META_MAX:
            return  # only its beginning was kept, and the archive has failed
        if kind == b"L":
            self._file.names = [*self._file.names[-3:], data.partition(b"\0")[0]]
        elif kind in b"xX":
            self._file.pax = th.wanted(th.pax(data))
        elif kind == b"g":
            self._global = th.wanted(th.pax(data))

    def _skip_pad(self) -> Iterator[PartEvent]:
        self._pad -= len(self._take(min(self._pad, len(self._buffer))))
        if self._pad == 0 or self._final:
            self._state = self._read_header
        yield from ()

    def _read_extension(self) -> Iterator[PartEvent]:
        """More segments of an old GNU sparse file."""
        if len(self._buffer) >= _BLOCK:
            segments, more = th.parse_extension(self._take(_BLOCK))
            if len(self._segments) < th.MAP_MAX:
                self._segments += segments
            if not more:
                yield from self._begin_file()

    # Members

    def _begin_file(self) -> Iterator[PartEvent]:
        self._members.context.gate.room()
        header, file = self._header, self._file
        file.size, file.real_size = header.size, header.real_size
        if header.kind == b"S":
            file.segments = tuple(self._segments) if header.extended else header.segments
        for key, value in (*self._global, *file.pax):
            self._pax_record(file, key, value)
        if any(key.startswith(b"GNU.sparse.") for key, _ in file.pax) and file.segments is None:
            file.segments = th.pax_segments(file.pax)
        file.names.append(header.name)
        self._left = file.size
        self._pad = -file.size % _BLOCK
        if header.kind == b"M":
            yield from self._members.anomaly("multi-volume")
            self._fail(Reason.UNSUPPORTED, "This is one volume of an archive that has several.")
        self._state = self._choose

    @staticmethod
    def _pax_record(file: _File, key: bytes, value: bytes) -> None:
        if key in (b"path", b"GNU.sparse.name"):
            file.names.insert(0, value)
        elif key == b"size":
            file.size = th.decimal(value)
        elif key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
            file.real_size = th.decimal(value)
        elif key == b"SUN.holesdata":
            file.segments = th.sun_segments(value, file.real_size or file.size)

    def _choose(self) -> Iterator[PartEvent]:
        """What to do with the data, if there is any."""
        header, file = self._header, self._file
        if header.kind in _DATALESS and file.size:
            # Some old writers give the size of the linked file and no data, pax may have data for a link.
            if len(self._buffer) < _BLOCK and not self._final:
                return
            head = bytes(self._buffer[:_BLOCK])
            if not head or head == th.ZEROS or th.is_header(head):
                self._next()
                return
        directory = header.kind in _DATALESS or (header.kind in b"0\0" and header.name.endswith(b"/"))
        if not file.size and (directory or header.kind == b"V"):
            self._next()
            return
        self._key, begin = self._members.begin(_names(file.names))
        yield begin
        if file.segments is None:
            self._state = self._read_data
            return
        self._plain, begin = self._members.begin(_names(file.names), reading=1)
        yield begin
        if dict(file.pax).get(b"GNU.sparse.major") == b"1":
            self._map.clear()
            self._state = self._read_map
        else:
            self._segment = self._position = 0
            self._state = self._expand

    def _next(self) -> None:
        self._file = _File()
        self._left = self._pad = 0
        self._state = self._read_header

    def _read_data(self) -> Iterator[PartEvent]:
        assert self._key is not None
        data = self._take(min(self._left, len(self._buffer)))
        self._left -= len(data)
        if data:
            yield from self._members.data(self._key, data)
            yield from self._packed(data)
        if self._left == 0:
            yield from self._end_file()

    def _packed(self, data: bytes) -> Iterator[PartEvent]:
        """The data of a sparse file as it is packed, for readers that know nothing of holes."""
        if self._plain is not None:
            yield from self._members.data(self._plain, data)

    def _end_file(self) -> Iterator[PartEvent]:
        assert self._key is not None
        yield PartEnd(self._key)
        yield from self._end_plain()
        self._key = None
        self._file = _File()
        self._state = self._skip_pad

    def _end_plain(self) -> Iterator[PartEvent]:
        if self._plain is not None:
            yield PartEnd(self._plain)
            self._plain = None

    # Sparse files

    def _read_map(self) -> Iterator[PartEvent]:
        """The map of pax form 1.0: decimal numbers, one a line, before the data and padded to a block."""
        data = self._take(min(self._left, len(self._buffer), _BLOCK - len(self._map) % _BLOCK))
        self._left -= len(data)
        self._map += data
        yield from self._packed(data)
        if len(self._map) % _BLOCK == 0 or self._left == 0:
            lines = self._map.split(b"\n")
            count = th.decimal(bytes(lines[0]))
            if count > th.MAP_MAX or len(self._map) > META_MAX:
                self._members.context.gate.stop("segments of a sparse file")
            if len(lines) > 2 * count + 1:
                numbers = [th.decimal(bytes(line)) for line in lines[1 : 2 * count + 1]]
                self._file.segments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
                self._segment = self._position = 0
                self._state = self._expand
            elif self._left == 0:
                yield PartFailed(self._key or "", Reason.MALFORMED, "The map of a sparse file is cut short.")
                yield from self._end_plain()
                self._key = None
                self._file = _File()
                self._state = self._skip_pad

    def _expand(self) -> Iterator[PartEvent]:
        """The data of a sparse file with its holes, which count as output like everything else."""
        file = self._file
        assert self._key is not None and file.segments is not None
        while self._segment < len(file.segments):
            offset, length = file.segments[self._segment]
            yield from self._fill(offset)
            missing = offset + length - self._position
            if missing <= 0 or self._left == 0:
                self._segment += 1
                continue
            data = self._take(min(missing, self._left, len(self._buffer)))
            if not data:
                return
            self._left -= len(data)
            self._position += len(data)
            yield from self._members.data(self._key, data)
            yield from self._packed(data)
        yield from self._fill(file.real_size)
        self._state = self._read_data  # what the map does not name is appended

    def _fill(self, until: int) -> Iterator[PartEvent]:
        assert self._key is not None
        while self._position < until:
            hole = _HOLE[: min(until - self._position, STEP)]
            self._position += len(hole)
            yield from self._members.data(self._key, hole)


def _names(raw: list[bytes]) -> tuple[str, ...]:
    found = []
    for name in raw:
        try:
            found.append(name.decode("utf-8"))
        except UnicodeDecodeError:
            found.append(name.decode("latin-1"))
    return tuple(dict.fromkeys(found))
