"""Archives that only 7-Zip reads: arj, chm, NSIS, szdd, wim, and others; and what libarchive could not do.

Its command line runs as a child process with bounds, lists and writes to its standard output, never to a file. It is
optional: where it is not installed these are UNSUPPORTED.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import cache

from msgspec import Struct

from icapscan.findings import PartPath, Reason
from icapscan.limits import KIB, MIB
from icapscan.store import PartStore
from icapscan.unwrap.bounded import PART
from icapscan.unwrap.children import Child, why, within_bounds
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent

LISTING_MAX = 8 * MIB
"""Of what 7-Zip lists; `Limits.parts` entries of ordinary length are 3 MiB."""
ALONE_MAX = 100
"""Members that are taken out one by one, where their sizes are not known or the archive is damaged."""
_READ = 64 * KIB


@cache
def program() -> str | None:
    """Where 7-Zip is, if it is installed."""
    return shutil.which("7zz") or shutil.which("7z") or shutil.which("7za")


class Kind(Struct, frozen=True):
    """One kind of archive."""

    name: str
    prefixes: tuple[bytes, ...]
    fits: Callable[[bytes], bool] = lambda first: True


def _is_arj(first: bytes) -> bool:
    """ARJ technical information: two bytes of magic, the size of a header, whose first byte is its own size."""
    size = int.from_bytes(first[2:4], "little")
    return 30 <= size <= 2600 and 30 <= first[4] <= size


KINDS = (
    Kind("arj", (b"\x60\xea",), lambda first: len(first) > 10 and _is_arj(first)),
    Kind("chm", (b"ITSF",)),
    Kind("szdd", (b"SZDD\x88\xf0\x27\x33", b"SZ \x88\xf0\x27\x33\xd1", b"KWAJ\x88\xf0\x27\xd1")),
    Kind("wim", (b"MSWIM\0\0\0",)),
    Kind("squashfs", (b"hsqs", b"sqsh")),
    Kind("vhd", (b"conectix",)),
    Kind("vhdx", (b"vhdxfile",)),
    Kind("vmdk", (b"KDMV",)),
    Kind("qcow", (b"QFI\xfb",)),
    Kind("nsis", (b"MZ",)),
)
_NSIS = b"\xef\xbe\xad\xdeNullsoftInst"
"""Stands at a multiple of 512 bytes behind the program."""


_CLAMD = frozenset({"arj", "chm", "szdd", "nsis"})
"""clamd opens them too, so that it need not be given the members."""


class SevenZipFormat:
    """One kind of archive that only 7-Zip reads."""

    def __init__(self, kind: Kind) -> None:
        self.name = kind.name
        self.prefixes = kind.prefixes
        self._kind = kind

    def bid(self, evidence: Evidence) -> Bid:
        kind = self._kind
        if not evidence.first.startswith(kind.prefixes) or not kind.fits(evidence.first):
            return Bid.NO
        return Bid.MAYBE if kind.name == "nsis" else Bid.YES

    def open(self, context: Context) -> SevenZipDecoder:
        return SevenZipDecoder(self._kind, context)


class SevenZipDecoder:
    """One archive, read whole by 7-Zip."""

    __slots__ = ("_kind", "_members")

    def __init__(self, kind: Kind, context: Context) -> None:
        self._kind = kind
        self._members = Members(context, Audience.NOT_CLAMD if kind.name in _CLAMD else Audience.ALL)

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        if self._kind.name == "nsis" and store.reader().find(_NSIS) < 0:
            return
        if program() is None:
            yield PartFailed("", Reason.UNSUPPORTED, "7-Zip is not installed here, so this archive cannot be opened.")
            return
        try:
            outcome = yield from unpack(store, self._members, set())
        except Stop as stop:
            yield spent(stop)
            return
        if outcome.failure is not None:
            yield PartFailed("", *outcome.failure)


def disk(store: PartStore, members: Members) -> Iterator[PartEvent | Waiting]:
    """What may be an image of a disk; where 7-Zip finds nothing in it, it was none, and nothing is said."""
    if program() is None:
        yield PartFailed("", Reason.UNSUPPORTED, "7-Zip is not installed here, so this disk image cannot be opened.")
        return
    try:
        outcome = yield from unpack(store, members, set())
    except Stop as stop:
        yield spent(stop)
        return
    if outcome.found and outcome.failure is not None:
        yield PartFailed("", *outcome.failure)


class Listed(Struct, frozen=True):
    """One entry of a listing."""

    path: str
    size: int | None
    crc: int | None
    encrypted: bool
    folder: bool


class Outcome(Struct, frozen=True):
    """What became of an archive."""

    found: int
    """Members that were listed."""
    failure: tuple[Reason, str] | None
    """Why not everything could be read."""


class _Failed(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.why = reason, detail


def unpack(store: PartStore, members: Members, done: set[str]) -> Generator[PartEvent | Waiting, None, Outcome]:
    """The members that are not ``done`` yet. Raises `Stop` when the budget is spent."""
    try:
        password, entries = yield from _list(store, members.context.passwords.costly)
    except _Failed as failed:
        return Outcome(0, failed.why)
    wanted = [entry for entry in entries if not entry.folder and entry.path not in done]
    try:
        if any(entry.encrypted for entry in wanted):
            password = yield from _password(store, wanted, (password, "", *members.context.passwords.costly))
        if len(wanted) == len([entry for entry in entries if not entry.folder]) and _sizes_known(wanted):
            yield from _all(store, members, wanted, password)
        elif len(wanted) <= ALONE_MAX:
            for entry in wanted:
                yield from _alone(store, members, entry, password)
        else:
            yield from _joined(store, members, password)
    except _Failed as failed:
        return Outcome(len(entries), failed.why)
    return Outcome(len(entries), None)


def unpack_named(
    store: PartStore, members: Members, wanted: list[tuple[str, int]]
) -> Generator[PartEvent | Waiting, None, list[tuple[Reason, str] | None]]:
    """Some members only, by name and size; for each, why it failed. Raises `Stop` when the budget is spent."""
    results: list[tuple[Reason, str] | None] = []
    for name, size in wanted[:ALONE_MAX]:
        try:
            yield from _alone(store, members, Listed(name, size, None, False, False), "")
            results.append(None)
        except _Failed as failed:
            results.append(failed.why)
    return results + [(Reason.OVER_LIMIT, "There are too many such members.")] * (len(wanted) - len(results))


# Listing


def _list(store: PartStore, passwords: tuple[str, ...]) -> Generator[Waiting, None, tuple[str, list[Listed]]]:
    """The password that opens the directory, and what is in it."""
    error = ""
    for password in ("", *passwords):
        yield Waiting()
        with Child(_command("l", "-slt", "-ba", password=password), store) as child:
            data = yield from child.exactly(LISTING_MAX)
            more = len(data) == LISTING_MAX
            status, error = child.end()
        if more:
            raise _Failed(Reason.OVER_LIMIT, "The list of members is too long.")
        if (ended := why(status)) is not None:
            raise _Failed(*ended)
        if status == 0 or data:
            return password, _parse(data)
        if "ncrypted" not in error and "assword" not in error:
            break
    raise _Failed(*_said(error))


def _parse(data: bytes) -> list[Listed]:
    entries = []
    for block in data.decode("utf-8", "replace").replace("\r", "").split("\n\n"):
        fields = dict(line.partition(" = ")[::2] for line in block.split("\n") if " = " in line)
        if "Path" in fields:
            entries.append(_listed(fields))
    return entries


def _listed(fields: dict[str, str]) -> Listed:
    size, crc = fields.get("Size", ""), fields.get("CRC", "")
    return Listed(
        fields["Path"],
        int(size) if size.isdecimal() else None,
        int(crc, 16) if len(crc) == 8 and all(digit in "0123456789ABCDEF" for digit in crc) else None,
        fields.get("Encrypted") == "+",
        fields.get("Folder") == "+" or fields.get("Attributes", "").startswith("D"),
    )


def _sizes_known(entries: list[Listed]) -> bool:
    return all(entry.size is not None for entry in entries)


# Taking out


def _password(store: PartStore, entries: list[Listed], passwords: tuple[str, ...]) -> Generator[Waiting, None, str]:
    """A password that opens the smallest encrypted member; the first one where none does."""
    smallest = min((entry for entry in entries if entry.encrypted), key=lambda entry: entry.size or 0)
    for password in dict.fromkeys(passwords):
        yield Waiting()
        with Child(_command("t", f"-i!{smallest.path}", password=password), store) as child:
            yield from child.exactly(LISTING_MAX)
            status, _ = child.end()
        if status == 0:
            return password
    return passwords[0]


def _all(
    store: PartStore, members: Members, entries: list[Listed], password: str
) -> Generator[PartEvent | Waiting, None, None]:
    """Everything in one go, cut where the listing says that a member ends."""
    wrong = False
    yield Waiting()
    with Child(_command("x", "-so", password=password), store) as child:
        for entry in entries:
            right = yield from _one(child, members, entry, entry.size or 0)
            wrong |= not right
        extra = yield from _rest(child, members)
        status, error = child.end()
    if status or wrong or extra:
        raise _Failed(*(why(status) or _said(error)))


def _one(child: Child, members: Members, entry: Listed, size: int) -> Generator[PartEvent | Waiting, None, bool]:
    """One member of known size; whether it is what the listing says."""
    key, begin = members.begin((entry.path,))
    yield begin
    crc = 0
    left = size
    while left:
        data = yield from child.more(min(left, _READ))
        if not data:
            break
        left -= len(data)
        crc = zlib.crc32(data, crc)
        yield from _data(members, key, data)
    yield PartEnd(key)
    return not left and (entry.crc is None or entry.crc == crc)


def _rest(child: Child, members: Members) -> Generator[PartEvent | Waiting, None, int]:
    """What comes after the last listed member; nothing, as a rule."""
    size = 0
    key: PartPath | None = None
    while data := (yield from child.more(_READ)):
        if key is None:
            key, begin = members.begin(("not-listed",))
            yield begin
        size += len(data)
        yield from _data(members, key, data)
    if key is not None:
        yield PartEnd(key)
    return size


def _alone(
    store: PartStore, members: Members, entry: Listed, password: str
) -> Generator[PartEvent | Waiting, None, None]:
    """One member, by its name, which is no pattern (-spd)."""
    size = 0
    yield Waiting()
    with Child(_command("x", "-so", "-spd", f"-i!{entry.path}", password=password), store) as child:
        data = yield from child.more(_READ)
        if data or entry.size == 0:
            key, begin = members.begin((entry.path,))
            yield begin
            while data:
                size += len(data)
                yield from _data(members, key, data)
                data = yield from child.more(_READ)
            yield PartEnd(key)
        status, error = child.end()
    if status:
        raise _Failed(*(why(status) or _said(error)))
    if size == 0 if entry.size is None else size != entry.size:
        raise _Failed(Reason.MALFORMED, "7-Zip: a member is not of the size that is said.")


def _joined(store: PartStore, members: Members, password: str) -> Generator[PartEvent | Waiting, None, None]:
    """Too many members of unknown size to take them out one by one: all of them as one part."""
    yield Waiting()
    with Child(_command("x", "-so", password=password), store) as child:
        yield from _rest(child, members)
        status, error = child.end()
    if status:
        raise _Failed(*(why(status) or _said(error)))


def _data(members: Members, key: PartPath, data: bytes) -> Iterator[PartEvent]:
    try:
        yield from members.data(key, data)
    except Stop as stop:
        yield PartFailed(key, stop.reason, stop.detail)
        raise


def _command(verb: str, *switches: str, password: str) -> list[str]:
    where = program()
    assert where is not None
    return within_bounds(where, verb, *switches, f"-p{password}", "-bd", "-sccUTF-8", "-mmt1", "--", PART)


def _said(error: str) -> tuple[Reason, str]:
    """What 7-Zip complained about."""
    lower = error.lower()
    line = next((line for line in reversed(error.splitlines()) if line.strip()), "it failed").strip()[:120]
    if "password" in lower or "encrypted" in lower:
        return Reason.ENCRYPTED, "It is encrypted."
    if "unsupported" in lower:
        return Reason.UNSUPPORTED, f"7-Zip: {line}."
    if "allocate" in lower or "memory" in lower:
        return Reason.OVER_LIMIT, f"7-Zip: {line}."
    return Reason.MALFORMED, f"7-Zip: {line}."


SEVENZIP_FORMATS = tuple(SevenZipFormat(kind) for kind in KINDS)
