"""Archives that libarchive reads: 7z, rar, cab, cpio, iso, ar, lha, xar, rpm, compress.

It runs in a child process with bounds (docs/decisions/unwrap-archives.md). What it cannot do, 7-Zip is asked for where
that is installed. The library is looked for only when such an archive comes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

from msgspec import Struct

from icapscan.findings import PartPath, Reason
from icapscan.store import PartReader, PartStore
from icapscan.unwrap import rar_headers, sevenzip
from icapscan.unwrap.children import Child, python, why
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.libarchive_child import BLOCK, FRAME, NOT_INSTALLED
from icapscan.unwrap.members import Members, spent

_SEVENZIP = b"7z\xbc\xaf\x27\x1c"
_ISO_AT, _ISO = 32769, (b"CD001", b"BEA01", b"NSR02", b"NSR03")
_BOOT_AT, _BOOT = 510, b"\x55\xaa"
_FOOTER, _VHD = 512, b"conectix"
"""Where ISO 9660 and UDF have their magic (ECMA-119 8.1.2, ECMA-167 2/9.1)."""


class Kind(Struct, frozen=True):
    """One kind of archive."""

    name: str
    formats: tuple[str, ...]
    """Names of libarchive's readers."""
    prefixes: tuple[bytes, ...]
    """First bytes, for the registry; empty: asked about every part."""
    fits: Callable[[bytes], bool] = lambda first: True
    """A closer look at the first bytes."""
    needs: tuple[bytes, ...] = ()
    """What a short part must have somewhere, for the registry."""
    suffix: str = ""
    """End of the file name that is taken off, where the archive has no names of its own."""


def _is_lha(first: bytes) -> bool:
    return first[2:5] in (b"-lh", b"-lz", b"-pm") and first[6:7] == b"-"


def _is_cpio(first: bytes) -> bool:
    """Binary cpio has two bytes of magic; a plausible mode and name length must follow."""
    if first[:2] not in (b"\xc7\x71", b"\x71\xc7"):
        return first[:6] in (b"070701", b"070702", b"070707", b"070727")
    order = "little" if first[:2] == b"\xc7\x71" else "big"
    mode = int.from_bytes(first[6:8], order)  # type: ignore[arg-type]
    length = int.from_bytes(first[20:22], order)  # type: ignore[arg-type]
    return (
        mode >> 12 in (1, 2, 4, 6, 8, 10, 12) and 1 < length <= 1024 and first[26 + length - 1 : 26 + length] == b"\0"
    )


KINDS = (
    Kind("7z", ("7zip",), (_SEVENZIP,)),
    Kind("rar", ("rar", "rar5"), (b"Rar!\x1a\x07",)),
    Kind("cab", ("cab",), (b"MSCF",), lambda first: first[4:8] == bytes(4)),
    Kind("cpio", ("cpio",), (b"0707", b"\xc7\x71", b"\x71\xc7"), _is_cpio),
    Kind("ar", ("ar",), (b"!<arch>\n",)),
    Kind("lha", ("lha",), (), _is_lha, (b"-lh", b"-lz", b"-pm")),
    Kind("xar", ("xar",), (b"xar!",)),
    Kind("rpm", ("cpio",), (b"\xed\xab\xee\xdb",)),
    Kind("compress", ("raw",), (b"\x1f\x9d",), suffix=".Z"),
    Kind("iso", ("iso9660",), ()),
)


_CLAMD = frozenset({"7z", "rar", "cab", "cpio", "iso", "lha", "xar"})
"""clamd opens them too (1.4), so that it need not be given the members."""


class LibarchiveFormat:
    """One kind of archive that libarchive reads."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.name
        self.prefixes = kind.prefixes
        self.needs = kind.needs
        self._kind = kind

    def bid(self, evidence: Evidence) -> Bid:
        kind, first = self._kind, evidence.first
        if kind.name == "iso":  # its magic stands far behind the first bytes, or at the end
            return Bid.NO if evidence.whole else Bid.MAYBE
        if kind.prefixes and not first.startswith(kind.prefixes):
            return Bid.NO
        return Bid.YES if kind.fits(first) else Bid.NO

    def open(self, context: Context) -> LibarchiveDecoder:
        return LibarchiveDecoder(self._kind, context)

    def excludes(self, data: bytes | PartReader, start: int, end: int) -> bool:
        """Whether the part from ``start`` to ``end`` is none of this kind for sure, although the bid was MAYBE."""
        if self._kind.name != "iso" or data[start + _ISO_AT : min(end, start + _ISO_AT + 5)] in _ISO:
            return False
        boot, footer = data[start + _BOOT_AT : start + _BOOT_AT + 2], data[max(start, end - _FOOTER) : end][:8]
        return boot != _BOOT and footer != _VHD


class LibarchiveDecoder:
    """One archive, read whole by a child process."""

    __slots__ = ("_context", "_kind", "_members")

    def __init__(self, kind: Kind, context: Context) -> None:
        self._kind = kind
        self._context = context
        self._members = Members(context, Audience.NOT_CLAMD if kind.name in _CLAMD else Audience.ALL)

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        if self._kind.name == "iso" and _magic_of_image(store) not in _ISO:
            if _is_disk(store):
                yield from sevenzip.disk(store, Members(self._context, Audience.ALL))
            return
        if self._kind.name == "compress" and not _is_compressed(store):
            yield PartFailed("", Reason.MALFORMED, "This is no compressed file, although it begins like one.")
            return
        try:
            yield from self._read(store)
        except Stop as stop:
            yield spent(stop)

    def _read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        failure = yield from self._volumes(store)
        outcome = yield from unpack(store, self._members, self._kind.formats, self._names())
        trouble = outcome.failure or next((reason for _, reason, _ in outcome.failed), None)
        if trouble is not None and sevenzip.program() is not None:
            second = yield from sevenzip.unpack(store, self._members, outcome.done)
            if second.failure is None and (second.found or not outcome.failure):
                outcome = Outcome(outcome.done, [], None)
            else:
                outcome = Outcome(outcome.done, outcome.failed, _graver(outcome.failure, second.failure))
        for key, reason, detail in outcome.failed:
            yield PartFailed(key, reason, detail)
        failure = failure or outcome.failure
        if failure is not None:
            yield PartFailed("", *failure)

    def _names(self) -> tuple[str, ...]:
        """Of the one member of an archive that has no names."""
        suffix = self._kind.suffix
        return tuple(
            name[: -len(suffix)] if name.endswith(suffix) else name for name in self._context.declared.names if suffix
        )

    def _volumes(self, store: PartStore) -> Generator[PartEvent, None, tuple[Reason, str] | None]:
        """What the archive says about volumes and encryption before anything is unpacked."""
        kind, data = self._kind.name, store.reader()
        volume = encrypted = False
        if kind == "rar":
            said = rar_headers.facts(data)
            volume, encrypted = said.volume, said.encrypted
        elif kind == "cab":
            volume = bool(int.from_bytes(data[30:32], "little") & 3)  # a cabinet before it, a cabinet behind it
        elif kind == "7z":
            volume = 32 + int.from_bytes(data[12:20], "little") + int.from_bytes(data[20:28], "little") > len(data)
        if volume:
            yield from self._members.anomaly("multi-volume")
            return Reason.UNSUPPORTED, "This is one volume of an archive that has several, or it is cut short."
        return (Reason.ENCRYPTED, "It is encrypted.") if encrypted else None


class Outcome(Struct, frozen=True):
    """What became of an archive."""

    done: set[str]
    """Names of the members that were read to their end."""
    failed: list[tuple[PartPath, Reason, str]]
    """Members of which only a part, or nothing, was read. Their parts have ended."""
    failure: tuple[Reason, str] | None
    """Why the archive could not be read to its end."""


def unpack(
    store: PartStore,
    members: Members,
    formats: tuple[str, ...],
    names: tuple[str, ...] = (),
    only_encrypted: bool = False,
) -> Generator[PartEvent | Waiting, None, Outcome]:
    """The members of an archive as the child reads them. Raises `Stop` when the budget is spent."""
    outcome = Outcome(set(), [], None)
    command = python("icapscan.unwrap.libarchive_child", "encrypted" if only_encrypted else "all", ",".join(formats))
    yield Waiting()
    with Child(command, store, members.context.passwords.cheap) as child:
        failure = yield from _members(child, members, outcome, names)
        if failure is None:
            return outcome
        child.kill() if failure.fatal else None
        status, _ = child.end()
    if failure.fatal:
        raise Stop(failure.reason, failure.detail)
    ended = why(status)
    if status == NOT_INSTALLED:
        ended = Reason.UNSUPPORTED, "libarchive is not installed here, so this archive cannot be opened."
    return Outcome(outcome.done, outcome.failed, ended or (failure.reason, failure.detail))


class _Failure(Struct, frozen=True):
    reason: Reason
    detail: str
    fatal: bool = False
    """The budget is spent."""


def _members(
    child: Child, members: Members, outcome: Outcome, names: tuple[str, ...]
) -> Generator[PartEvent | Waiting, None, _Failure | None]:
    """Follow the frames; None after the last one."""
    key, name = "", ""
    while True:
        letter, payload = yield from _frame(child)
        try:
            if letter == b"N":
                name = payload.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode("utf-8")
                key, begin = members.begin(names or (name,))
                yield begin
            elif letter == b"D":
                yield from members.data(key, payload)
            elif letter == b"E":
                outcome.done.add(name)
                yield PartEnd(key)
                key = ""
            elif letter == b"F":
                yield PartEnd(key)
                outcome.failed.append((key, *_reason(payload)))
                key = ""
            elif letter == b"Z":
                return None
            else:
                if key:
                    yield PartEnd(key)
                    outcome.failed.append((key, Reason.MALFORMED, "The unpacker stopped in it."))
                reason, detail = _reason(payload) if letter == b"A" else (Reason.MALFORMED, "The unpacker stopped.")
                return _Failure(reason, detail)
        except Stop as stop:
            if key:
                yield PartFailed(key, stop.reason, stop.detail)
            return _Failure(stop.reason, stop.detail, fatal=True)


def _frame(child: Child) -> Generator[Waiting, None, tuple[bytes, bytes]]:
    head = yield from child.exactly(FRAME.size)
    if len(head) < FRAME.size:
        return b"", b""
    letter, size = FRAME.unpack(head)
    payload = (yield from child.exactly(min(size, BLOCK))) if size else b""
    return (letter, payload) if len(payload) == size else (b"", b"")


def _reason(payload: bytes) -> tuple[Reason, str]:
    word, _, detail = payload.decode("utf-8", "replace").partition(" ")
    return Reason(word), detail


def _graver(first: tuple[Reason, str] | None, second: tuple[Reason, str] | None) -> tuple[Reason, str] | None:
    """Two unpackers failed: encrypted says more than the rest, else the first one's word counts."""
    if second is not None and (first is None or second[0] in (Reason.ENCRYPTED, Reason.OVER_LIMIT)):
        return second
    return first


def _is_compressed(store: PartStore) -> bool:
    """Whether libarchive will take it for compress(1): else it would hand out the same bytes as a member."""
    head = bytes(next(iter(store.pieces(0, 3)), b""))
    return len(head) == 3 and 9 <= head[2] & 0x1F <= 16 and not head[2] & 0x60


def _is_disk(store: PartStore) -> bool:
    """Whether this may be a disk with partitions, a volume of FAT or NTFS, or a fixed VHD, which ends with its sign."""
    return _at(store, _BOOT_AT, len(_BOOT)) == _BOOT or _at(store, store.size - _FOOTER, len(_VHD)) == _VHD


def _at(store: PartStore, start: int, size: int) -> bytes:
    whole = store.contents()
    return whole[start : start + size] if whole is not None else bytes(next(iter(store.pieces(start, size)), b""))


def _magic_of_image(store: PartStore) -> bytes:
    return _at(store, _ISO_AT, 5) if store.size >= _ISO_AT + 5 else b""


LIBARCHIVE_FORMATS = tuple(LibarchiveFormat(kind) for kind in KINDS)
