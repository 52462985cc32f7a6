"""A zip that all readers read alike, taken apart and put together again. What does not change keeps its exact bytes.

Readers differ where a zip is odd: two directories, headers that disagree, bytes that belong to no member, data behind
the end of a compressed stream. Such a zip cannot be cleaned: what is taken out for one reader may be there for another.
So every byte of the file must be accounted for, and every member must be what both of its headers say.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from icapscan.limits import MIB
from icapscan.sanitize.contract import CannotSanitize
from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.unpack import Unpacker
from icapscan.unwrap.zip_directory import Entry, disagreements
from icapscan.unwrap.zip_methods import OPENERS

MEMBERS_MAX = 10_000
"""Members of one zip; `Limits.parts` is the same."""
MEMBER_MAX = 64 * MIB
"""Bytes of a member that is read to be changed."""
HEAD = 64
"""First bytes of each member that are kept to tell what it is."""
_ZIP64_FIELD, _UNICODE_PATH = 0x0001, 0x7075
_NEW_DATE = 0x0021
"""1 January 1980: there is no clock here."""


class Member(Struct, frozen=True):
    """One member."""

    name: str
    """As its readers show it."""
    central: zh.Central
    raw: bytes
    """Its header in the directory."""
    local: zh.Local
    offset: int
    start: int
    """Where its data begins."""
    end: int
    """Where the next member begins."""

    @property
    def folder(self) -> bool:
        """There is nothing in it."""
        return self.central.name.endswith(b"/") and not self.central.size


class New(Struct, frozen=True):
    """What takes the place of a member, or is added."""

    name: str
    """Empty: the name of the member whose place it takes."""
    data: bytes


class ZipArchive:
    """One zip, checked."""

    def __init__(self, data: bytes, gate: Gate) -> None:
        """Raises `CannotSanitize` where it is odd, and `Stop` when the budget is spent."""
        self._data = data
        self._gate = gate
        at = data.rfind(zh.END)
        end = zh.parse_end(data[at:]) if at >= 0 else None
        if end is None or at + zh.END_SIZE + end.comment != len(data):
            raise CannotSanitize("The zip does not end with its end record.")
        if end.disk or end.directory_disk or data[at + 8 : at + 10] != data[at + 10 : at + 12]:
            raise CannotSanitize("The zip has several volumes.")
        if data[max(0, at - zh.LOCATOR64_SIZE) : at].startswith(zh.LOCATOR64):
            raise CannotSanitize("The zip has records for very large files.")
        if end.offset + end.size != at:
            raise CannotSanitize("The directory of the zip is not where its end record says.")
        self._end = data[at:]
        self.members = tuple(self._members(end, at))
        names = [member.name for member in self.members]
        if len(set(names)) != len(names):
            raise CannotSanitize("Two members of the zip have the same name.")
        self.heads = {member.name: self._checked(member) for member in self.members}
        """First bytes of each member; none where it is encrypted or packed in a way that is not supported."""

    def read(self, member: Member) -> bytes:
        """The unpacked data of a member that has a head. It was unpacked and counted before, and is what it says."""
        central = member.central
        if central.size > MEMBER_MAX:
            raise CannotSanitize("A member that is to be changed is too large.")
        self._gate.room()
        raw = self._data[member.start : member.start + central.packed]
        if central.method == zh.STORED:
            return raw
        if central.method == zh.DEFLATE:
            return zlib.decompressobj(-15).decompress(raw, max(1, central.size))
        return b"".join(self._unpacked(member))

    def rebuilt(self, changes: Mapping[str, New | None], added: Sequence[New] = ()) -> bytes:
        """The zip with other members in place of some, without those that are None, and with new ones at the end."""
        out, places = bytearray(), dict[str, tuple[int, bytes]]()
        for member in sorted(self.members, key=lambda one: one.offset):
            if member.name not in changes:
                places[member.name] = len(out), member.raw
                out += self._data[member.offset : member.end]
            elif (change := changes[member.name]) is not None:
                local, central = _written(member, change)
                places[member.name] = len(out), central
                out += local
        directory, count = bytearray(), len(added) + len(places)
        for member in self.members:
            if member.name in places:
                at, central = places[member.name]
                directory += _placed(central, at)
        for new in added:
            local, central = _added(new)
            directory += _placed(central, len(out))
            out += local
        if count > 0xFFFF or len(out) + len(directory) > 0xFFFF_FFFF:
            raise CannotSanitize("The zip became too large.")
        end = struct.pack("<4sHHHHII", zh.END, 0, 0, count, count, len(directory), len(out)) + self._end[20:]
        return bytes(out + directory + end)

    # Checks

    def _members(self, end: zh.End, stop: int) -> Iterator[Member]:
        """In the order of the directory. Every byte before the directory belongs to exactly one member."""
        data, at = self._data, end.offset
        found: list[tuple[zh.Central, bytes]] = []
        while at < stop:
            self._gate.room()
            size = zh.central_size(data[at : at + zh.CENTRAL_SIZE])
            central = zh.parse_central(data[at : at + size]) if data[at : at + 4] == zh.CENTRAL else None
            if central is None or at + central.header > stop or len(found) >= MEMBERS_MAX:
                raise CannotSanitize("The directory of the zip cannot be read.")
            found.append((central, data[at : at + central.header]))
            at += central.header
        if len(found) != end.entries or not found:
            raise CannotSanitize("The directory of the zip does not have as many entries as it says.")
        order = sorted(central.offset for central, _ in found)
        ends = dict(zip(order, [*order[1:], end.offset], strict=True))
        if order[0] or len(ends) != len(order):
            raise CannotSanitize("There are bytes in the zip that belong to no member.")
        for central, raw in found:
            yield self._member(central, raw, ends[central.offset])

    def _member(self, central: zh.Central, raw: bytes, end: int) -> Member:
        data, offset = self._data, central.offset
        head = data[offset : offset + zh.LOCAL_SIZE]
        if len(head) < zh.LOCAL_SIZE or head[:4] != zh.LOCAL:
            raise CannotSanitize("A member of the zip has no header.")
        local = zh.parse_local(data[offset : offset + zh.local_size(head)])
        start = offset + local.header
        if start + central.packed > end:
            raise CannotSanitize("Members of the zip overlap.")
        names = zh.names(central.name, central.flags, central.extra)
        odd = next(disagreements(Entry(central, offset, local, start)), None)
        if odd is not None or central.disk or zh.names(local.name, local.flags, local.extra) != names:
            raise CannotSanitize("The headers of a member of the zip disagree.")
        behind = data[start + central.packed : end]
        if behind not in (_descriptors(central) if local.open_ended else (b"",)):
            raise CannotSanitize("There are bytes in the zip that belong to no member.")
        return Member(names[0], central, raw, local, offset, start, end)

    def _checked(self, member: Member) -> bytes:
        central = member.central
        if central.locked or central.method not in OPENERS:
            return b""
        head = b""
        for piece in self._unpacked(member):
            if len(head) < HEAD:
                head += bytes(piece[: HEAD - len(head)])
        return head

    def _unpacked(self, member: Member) -> Iterator[bytes]:
        """The data in pieces. Raises `CannotSanitize` where it is not just what the headers say."""
        central = member.central
        unpacker = Unpacker(OPENERS[central.method](), self._gate)
        raw = memoryview(self._data)[member.start : member.start + central.packed]
        used = yield from unpacker.run(raw)
        if not unpacker.eof and central.method != zh.STORED:
            yield from unpacker.flush()
            if not unpacker.eof:
                raise CannotSanitize("The data of a member of the zip is cut short.")
        if (used, unpacker.size, unpacker.crc) != (len(raw), central.size, central.crc):
            raise CannotSanitize("The data of a member of the zip is not what its header says.")


def _descriptors(central: zh.Central) -> tuple[bytes, ...]:
    """What may stand behind the data (APPNOTE 4.3.9): with and without a signature, narrow and wide."""
    narrow = struct.pack("<III", central.crc, central.packed, central.size)
    wide = struct.pack("<IQQ", central.crc, central.packed, central.size)
    return zh.DESCRIPTOR + narrow, zh.DESCRIPTOR + wide, narrow, wide


def _placed(central: bytes, at: int) -> bytes:
    """A directory header that leads to ``at``."""
    return central[:42] + struct.pack("<I", at) + central[46:]


def _written(member: Member, new: New) -> tuple[bytes, bytes]:
    """Local header and data, and the directory header, of a member with other data. Dates and attributes stay."""
    flags, method, packed = member.central.flags & ~zh.HAS_DESCRIPTOR, zh.STORED, new.data
    if member.central.method != zh.STORED:
        method, packed = zh.DEFLATE, _deflated(new.data)
    name = member.central.name
    if new.name and new.name != member.name:
        name = new.name.encode()
        flags = flags & ~zh.UTF8 if new.name.isascii() else flags | zh.UTF8
    sizes = struct.pack("<III", zlib.crc32(new.data), len(packed), len(new.data))
    old, renamed = member.raw, name != member.central.name
    stamp = old[12:16]
    extra = _kept(member.local.extra, renamed)
    local = zh.LOCAL + struct.pack("<HHH", 20, flags, method) + stamp + sizes
    local += struct.pack("<HH", len(name), len(extra)) + name + extra
    extra = _kept(member.central.extra, renamed)
    comment = old[zh.CENTRAL_SIZE + len(member.central.name) + len(member.central.extra) :]
    central = old[:6] + struct.pack("<HHH", 20, flags, method) + stamp + sizes
    central += struct.pack("<HHH", len(name), len(extra), len(comment)) + old[34:46] + name + extra + comment
    return local + packed, central


def _added(new: New) -> tuple[bytes, bytes]:
    name, packed = new.name.encode(), _deflated(new.data)
    flags = 0 if new.name.isascii() else zh.UTF8
    common = struct.pack(
        "<HHHHHIIIHH", 20, flags, zh.DEFLATE, 0, _NEW_DATE, zlib.crc32(new.data), len(packed), len(new.data),
        len(name), 0,
    )  # fmt: skip
    central = zh.CENTRAL + b"\x14\x03" + common + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0) + name
    return zh.LOCAL + common + name + packed, central


def _kept(extra: bytes, renamed: bool) -> bytes:
    """The extra field without sizes and, for another name, without the old one."""
    out, at = b"", 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind != _ZIP64_FIELD and not (renamed and kind == _UNICODE_PATH):
            out += extra[at : at + 4 + size]
        at += 4 + size
    return out


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()
