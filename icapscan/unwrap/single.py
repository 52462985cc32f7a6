"""Single compressed files: gzip, bzip2, xz, LZMA, lzip, zstd, lz4, brotli. Their one child is what was compressed.

Members or frames that follow each other are one file, as the tools have it; since others stop after the first, that
is a second reading. What stands behind the last is a part of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from icapscan.findings import PartPath, Reason
from icapscan.limits import KIB
from icapscan.unwrap.archive_streams import LZ4, LZ4_LEGACY, LZIP, Bzip2, Lz4, Lz4Legacy, Lzip, LzmaAlone
from icapscan.unwrap.codings import CODINGS
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.layer import Coding, Layer
from icapscan.unwrap.members import Members
from icapscan.unwrap.streams import Brotli, Buffer, Lzma, Opener
from icapscan.unwrap.zstd import MAGIC as ZSTD

BLOCK = 16 * KIB
"""Input is decoded in blocks of this size, however it arrives: what a damaged one had given is then always the same."""
FIRST_MAX = 256 * KIB
"""A first member that is kept to be scanned without the others too."""
_HEAD_MAX = 4 * KIB
"""Bytes of a gzip header in which its file name is looked for."""
_SKIPPABLE = b"\x2a\x4d\x18"
"""Second to fourth byte of a skippable frame, of zstd as of lz4."""


class Kind(Struct, frozen=True):
    """What there is to know about one kind of compressed file."""

    name: str
    coding: Coding
    prefixes: tuple[bytes, ...]
    """Two or more first bytes, for the registry; none where only the name tells."""
    bid: Callable[[bytes], Bid]
    """From the first bytes."""
    suffixes: tuple[str, ...]
    """Ends of file names that the tools take off; a declared name is evidence where ``by_name`` is set."""
    short: tuple[str, ...] = ()
    """Ends that stand for ``.tar`` and this compression."""
    by_name: bool = False
    clamd: bool = False
    """clamd opens it too, so that it need not be given the content."""


def _magic(magic: bytes, least: int = 0) -> Callable[[bytes], Bid]:
    return lambda first: Bid.YES if first.startswith(magic) and len(first) >= least else Bid.NO


def _coding(name: str, opener: Opener, magic: bytes, sure: bool = True) -> Coding:
    def openers(head: Buffer) -> tuple[Opener, ...]:
        return (opener,) if bytes(head[: len(magic)]) == magic else ()

    return Coding(name, openers, magic=len(magic), sure=sure)


def _gzip_bid(first: bytes) -> Bid:
    return Bid.YES if first[:3] == b"\x1f\x8b\x08" else Bid.NO


def _bzip2_bid(first: bytes) -> Bid:
    block = first[4:10] in (b"1AY&SY", b"\x17rE8P\x90")
    return Bid.YES if first[:3] == b"BZh" and first[3:4] in b"123456789" and block else Bid.NO


def _zstd_bid(first: bytes) -> Bid:
    if first.startswith(ZSTD):
        return Bid.YES
    # A skippable frame may begin a file of either format; what follows it decides.
    return Bid.YES if _skipped(first)[:4] == ZSTD else Bid.NO


def _lz4_bid(first: bytes) -> Bid:
    if first.startswith((LZ4, LZ4_LEGACY)) and len(first) >= 8:
        return Bid.YES
    return Bid.YES if _skipped(first)[:4] in (LZ4, LZ4_LEGACY) else Bid.NO


def _skipped(first: bytes) -> bytes:
    while first[1:4] == _SKIPPABLE and first[0] & 0xF0 == 0x50 and len(first) >= 8:
        first = first[8 + int.from_bytes(first[4:8], "little") :]
    return first


def _lzma_bid(first: bytes) -> Bid:
    """LZMA_alone has no magic: properties, a dictionary of 2^n or 2^n + 2^(n-1), a size that is unknown or sane."""
    if len(first) < 14:
        return Bid.NO
    lp, lc = divmod(first[0] % 45, 9)
    if first[0] >= 225 or lc + lp > 4 or first[13] != 0:
        return Bid.NO
    dictionary, size = int.from_bytes(first[1:5], "little"), int.from_bytes(first[5:13], "little")
    top = 1 << max(0, dictionary.bit_length() - 1)
    known = dictionary in (top, top | top >> 1) and 4096 <= dictionary <= 1 << 30
    return Bid.MAYBE if known and (size == 2**64 - 1 or 0 < size < 1 << 38) else Bid.NO


def _lz4_openers(head: Buffer) -> tuple[Opener, ...]:
    magic = bytes(head[:4])
    if magic == LZ4_LEGACY:
        return (Lz4Legacy,)
    return (Lz4,) if magic == LZ4 or (magic[1:] == _SKIPPABLE and magic[0] & 0xF0 == 0x50) else ()


_XZ = b"\xfd7zXZ\0"
_SKIPPABLES = tuple(bytes([0x50 + number]) + _SKIPPABLE for number in range(16))
_LZMA_STARTS = tuple(bytes([number, 0]) for number in range(225))
_GZIP = CODINGS[b"gzip"]
_BZIP2 = _coding("bzip2", Bzip2, b"BZh")
_ZSTD = Coding("zstd", CODINGS[b"zstd"].openers, magic=4, sure=True)
_LZMA = Coding("lzma", lambda head: (LzmaAlone,), magic=1)
_LZ4 = Coding("lz4", _lz4_openers, magic=4, sure=True)
_BROTLI = Coding("br", lambda head: (Brotli,), magic=1)
KINDS = (
    Kind(
        "gzip", CODINGS[b"gzip"], (b"\x1f\x8b",), _gzip_bid, (".gz", ".gzip", "-gz", ".z"), (".tgz", ".taz"), clamd=True
    ),
    Kind(
        "bzip2",
        _coding("bzip2", Bzip2, b"BZh"),
        (b"BZh",),
        _bzip2_bid,
        (".bz2", ".bz"),
        (".tbz", ".tbz2", ".tb2"),
        clamd=True,
    ),
    Kind("xz", _coding("xz", Lzma, _XZ), (_XZ,), _magic(_XZ), (".xz",), (".txz",), clamd=True),
    Kind("lzma", _LZMA, _LZMA_STARTS, _lzma_bid, (".lzma",), (".tlz",)),
    Kind("lzip", _coding("lzip", Lzip, LZIP), (LZIP,), _magic(LZIP), (".lz",), (".tlz",)),
    Kind("zstd", _ZSTD, (ZSTD, *_SKIPPABLES), _zstd_bid, (".zst", ".zstd"), (".tzst",)),
    Kind("lz4", _LZ4, (LZ4, LZ4_LEGACY, *_SKIPPABLES), _lz4_bid, (".lz4",)),
    Kind("brotli", _BROTLI, (), lambda first: Bid.NO, (".br",), (".tbr",), True),
)
"""``zlib`` streams are no files."""


_CODING_OF = {"gzip": "gzip", "brotli": "br", "zstd": "zstd", "xz": "lzma", "lzma": "lzma"}


class SingleFormat:
    """One kind of compressed file."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.name
        self.prefixes = kind.prefixes
        self.coding = _CODING_OF.get(kind.name, "")
        """The content coding that undoes the same."""
        self._kind = kind
        self._ends = kind.suffixes + kind.short

    def bid(self, evidence: Evidence) -> Bid:
        kind = self._kind
        bid = kind.bid(evidence.first)
        if bid is Bid.NO and kind.by_name:
            ends = self._ends
            for name in evidence.declared.names:
                if name.lower().endswith(ends):
                    return Bid.MAYBE
        return bid

    def open(self, context: Context) -> SingleDecoder:
        return SingleDecoder(self._kind, context)


class _Layer(Layer):
    """Knows that a legacy lz4 stream shows no end of its own."""

    __slots__ = ()

    def finish(self) -> Iterator[bytes]:
        if isinstance(self._stream, Lz4Legacy) and self._stream.resting:
            self._end_stream()
            return
        yield from super().finish()


class SingleDecoder:
    """One compressed file."""

    __slots__ = (
        "_context", "_done", "_first", "_first_size", "_head", "_key", "_kind", "_layer", "_members", "_names", "_tail",
        "_waiting",
    )  # fmt: skip

    def __init__(self, kind: Kind, context: Context) -> None:
        self._kind = kind
        self._context = context
        self._members = Members(context, Audience.NOT_CLAMD if kind.clamd else Audience.ALL)
        self._layer = _Layer(kind.coding, context.gate)
        self._head = bytearray()
        self._waiting = bytearray()
        """Input of a block that is not whole."""
        self._key: PartPath | None = None
        self._tail: PartPath | None = None
        """The part of what stands behind the end."""
        self._names: tuple[str, ...] = ()
        self._first: list[bytes] | None = []
        """Output of the first member; None when it became too long, or was handed out."""
        self._first_size = 0
        self._done = False

    def feed(self, data: Buffer) -> Iterator[PartEvent]:
        if len(self._head) < _HEAD_MAX:
            self._head += data[: _HEAD_MAX - len(self._head)]
        view = memoryview(data)
        if self._waiting:
            missing = BLOCK - len(self._waiting)
            self._waiting += view[:missing]
            view = view[missing:]
            if len(self._waiting) < BLOCK:
                return
            block, self._waiting = self._waiting, bytearray()
            yield from self._pieces(self._layer.decode(bytes(block)))
        whole = len(view) - len(view) % BLOCK
        for at in range(0, whole, BLOCK):
            yield from self._pieces(self._layer.decode(view[at : at + BLOCK]))
        self._waiting += view[whole:]

    def finish(self) -> Iterator[PartEvent]:
        yield from self._pieces(self._layer.decode(bytes(self._waiting)))
        yield from self._pieces(self._layer.finish())
        if self._done:
            return
        layer = self._layer
        if layer.applied and self._key is None:
            yield from self._begin()
        if layer.applied and layer.streams > 1:
            yield from self._first_alone()
        if self._tail is not None:
            yield PartEnd(self._tail)
        if self._key is not None and layer.doubt is not None:
            yield PartFailed(self._key, Reason.MALFORMED, layer.doubt)
        elif self._key is not None:
            yield PartEnd(self._key)

    def _pieces(self, pieces: Iterator[bytes]) -> Iterator[PartEvent]:
        if self._done:
            return
        try:
            for piece in pieces:
                if self._layer.applied:
                    yield from self._piece(piece)
        except Stop as stop:
            yield from self._stopped(stop)

    def _piece(self, piece: bytes) -> Iterator[PartEvent]:
        if self._key is None:
            yield from self._begin()
        if self._layer.ended:
            if self._tail is None:
                yield from self._members.anomaly("junk-after-compressed-data", self._kind.name)
                self._tail, begin = self._members.begin(("after-the-end",))
                yield begin
            yield from self._members.data(self._tail, piece)
            return
        if self._layer.streams == 0:
            self._keep(piece)
        assert self._key is not None
        yield PartData(self._key, piece)

    def _keep(self, piece: bytes) -> None:
        self._first_size += len(piece)
        if self._first is not None:
            self._first.append(piece)
            if self._first_size > FIRST_MAX:
                self._first = None

    def _first_alone(self) -> Iterator[PartEvent]:
        """Readers that stop after the first member."""
        yield from self._members.anomaly("several-members", str(self._layer.streams))
        first, self._first = self._first, None
        if first:
            key, begin = self._members.begin(self._names, reading=1)
            yield begin
            for piece in first:
                yield from self._members.data(key, piece)
            yield PartEnd(key)

    def _stopped(self, stop: Stop) -> Iterator[PartEvent]:
        self._done = True
        if self._tail is not None:
            yield PartFailed(self._tail, stop.reason, stop.detail)
        if self._key is not None:
            yield PartFailed(self._key, stop.reason, stop.detail)
        elif self._context.bid is Bid.YES or stop.reason is Reason.OVER_LIMIT:
            yield PartFailed("", stop.reason, stop.detail)

    def _begin(self) -> Iterator[PartEvent]:
        self._names = self._find_names()
        self._key, begin = self._members.begin(self._names)
        yield begin

    def _find_names(self) -> tuple[str, ...]:
        """The names without their ends, as the tools make them; of gzip also the one in the header."""
        found = [_stripped(name, self._kind) for name in self._context.declared.names]
        if self._kind.name == "gzip":
            inside = gzip_name(bytes(self._head))
            if inside:
                found.append(inside)
        return tuple(dict.fromkeys(found)) or ("content",)


def _stripped(name: str, kind: Kind) -> str:
    lower = name.lower()
    for end in kind.short:
        if lower.endswith(end):
            return name[: -len(end)] + ".tar"
    for end in kind.suffixes:
        if lower.endswith(end) and len(name) > len(end):
            return name[: -len(end)]
    return name


def gzip_name(head: bytes) -> str:
    """FNAME of a gzip header (RFC 1952 2.3), or the empty string."""
    if len(head) < 10 or not head[3] & 8:
        return ""
    at = 10
    if head[3] & 4:
        at += 2 + int.from_bytes(head[10:12], "little")
    end = head.find(b"\0", at)
    if end < 0:
        return ""
    name = head[at:end]
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("latin-1")


SINGLE_FORMATS = tuple(SingleFormat(kind) for kind in KINDS)
