"""The directory view of a zip: every end record that can be found, the directories they name, and their entries.

Entries whose data the stream view has emitted are compared with it and not emitted again; the others are. What the
two views, or two headers, say differently is an anomaly.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from msgspec import Struct

from icapscan.limits import MIB
from icapscan.store import PartReader
from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.events import PartEvent
from icapscan.unwrap.members import Members
from icapscan.unwrap.zip_stream import HEADERS_MAX

ENDS_MAX = 32
"""End records that are followed; joined archives have a handful."""
TAIL = 1 * MIB
"""Where an end record is looked for in a part that does not begin like a zip. Readers look in the last 64 KiB."""
EXAMINED_MAX = 1000
"""End records that are looked at, whether they lead anywhere or not."""
Bytes = bytes | PartReader


class Entry(Struct, frozen=True):
    """One entry of a directory, with the local header that it leads to."""

    central: zh.Central
    offset: int
    """Of the local header in the part."""
    local: zh.Local | None
    """None where no local header stands there."""
    start: int
    """Where its data begins."""


class Directory(Struct, frozen=True):
    """One central directory as one end record leads to it."""

    at: int
    """Where it begins in the part."""
    shift: int
    """What is to be added to the offsets in it: bytes that stand before the archive."""
    end: zh.End


def directories(data: Bytes, members: Members, covered: list[tuple[int, int]]) -> Iterator[Directory | PartEvent]:
    """Every directory of ``data``, the last first; none is looked for in ``covered``, the sorted data of members.

    Yields anomalies in between. Raises `Stop` when the budget is spent.
    """
    found = 0
    known: set[tuple[int, int]] = set()
    for examined, at in enumerate(_ends(data)):
        if examined == EXAMINED_MAX:
            members.context.gate.stop("zip end records")
        end = zh.parse_end(data[at : at + zh.END_SIZE])
        closes = end is not None and at + zh.END_SIZE + end.comment == len(data)
        if end is None or (not closes and _within(covered, at)):
            continue
        comment = end.comment
        end, size_at = _widen(data, at, end)
        places = [place for place in _places(data, end, size_at) if place not in known]
        if not places and end.entries:
            if not found and not known:
                yield from members.anomaly("zip-directory-not-found")
            continue
        found += 1
        if found > ENDS_MAX:
            members.context.gate.stop("zip directories")
        if at + zh.END_SIZE + comment < len(data):
            yield from members.anomaly("zip-data-after-end")
        for place in places:
            known.add(place)
            if place[1]:
                yield from members.anomaly("zip-data-before", str(place[1]))
            yield Directory(place[0], place[1], end)
        if not places:
            yield Directory(at, 0, end)  # empty archive
    if found > 1:
        yield from members.anomaly("zip-several-ends", str(found))


def _within(covered: list[tuple[int, int]], at: int) -> bool:
    place = bisect.bisect_right(covered, (at, 1 << 62)) - 1
    return place >= 0 and at < covered[place][1]


def tail_archive(data: Bytes) -> int | None:
    """Where the archive begins that readers find who look for an end record in the last bytes; None: there is none."""
    at = data.rfind(zh.END, max(0, len(data) - TAIL))
    for _ in range(ENDS_MAX):
        if at < 0:
            return None
        end = zh.parse_end(data[at : at + zh.END_SIZE])
        if end is not None:
            end, size_at = _widen(data, at, end)
            for where, shift in _places(data, end, size_at):
                first = zh.parse_central(data[where : where + zh.central_size(data[where : where + zh.CENTRAL_SIZE])])
                # One that is cut short leads to no header, but there are readers who make do with it.
                return max(0, min(where, shift + (first.offset if first is not None else 0)))
        at = data.rfind(zh.END, max(0, len(data) - TAIL), at)
    return None


def _ends(data: Bytes) -> Iterator[int]:
    at = data.rfind(zh.END)
    while at >= 0:
        yield at
        at = data.rfind(zh.END, 0, at)


def _widen(data: Bytes, at: int, end: zh.End) -> tuple[zh.End, int]:
    """The zip64 record in place of ``end`` where there is one; and where the directory ends at the latest."""
    if data[max(0, at - zh.LOCATOR64_SIZE) : at][:4] != zh.LOCATOR64:
        return end, at
    locator = at - zh.LOCATOR64_SIZE
    named = zh.parse_locator64(data[locator:at]) or 0
    searched = data.rfind(zh.END64, max(0, locator - 65_536), locator)
    for where in (named, searched):
        if where >= 0 and data[where : where + 4] == zh.END64:
            wide = zh.parse_end64(data[where : where + zh.END64_SIZE])
            if wide is not None:
                return wide, where
    return end, at


def _places(data: Bytes, end: zh.End, size_at: int) -> Iterator[tuple[int, int]]:
    """Where the directory may begin, with the shift: just before its end record, where the record says, or both."""
    before = size_at - end.size
    if before >= 0 and data[before : before + 4] == zh.CENTRAL:
        yield before, before - end.offset
    if end.offset != before and data[end.offset : end.offset + 4] == zh.CENTRAL:
        yield end.offset, 0


def entries(data: Bytes, directory: Directory, members: Members) -> Iterator[Entry | PartEvent]:
    """The entries of one directory. Raises `Stop` when the budget is spent."""
    at, count = directory.at, 0
    while data[at : at + 4] == zh.CENTRAL:
        members.context.gate.room()
        central = zh.parse_central(data[at : at + zh.central_size(data[at : at + zh.CENTRAL_SIZE])])
        if central is None:
            yield from members.anomaly("zip-directory-cut")
            return
        at += central.header
        count += 1
        if count > HEADERS_MAX:
            members.context.gate.stop("zip headers")
        yield _entry(data, central, directory.shift)
    declared = directory.end.entries
    if count != declared and count & 0xFFFF != declared:
        yield from members.anomaly("zip-entry-count", f"{count} instead of {declared}")


def _entry(data: Bytes, central: zh.Central, shift: int) -> Entry:
    for offset in dict.fromkeys((central.offset + shift, central.offset)):
        head = data[offset : offset + zh.LOCAL_SIZE] if offset >= 0 else b""
        if head[:4] == zh.LOCAL and len(head) == zh.LOCAL_SIZE:
            local = zh.parse_local(data[offset : offset + zh.local_size(head)])
            return Entry(central, offset, local, offset + local.header)
    return Entry(central, central.offset + shift, None, 0)


def disagreements(entry: Entry) -> Iterator[str]:
    """What the two headers of a member say differently (APPNOTE 4.3.7: they are to be the same)."""
    central, local = entry.central, entry.local
    if local is None:
        yield "zip-no-local-header"
        return
    if local.name != central.name:
        yield "zip-name"
    if local.method != central.method:
        yield "zip-method"
    if (local.flags ^ central.flags) & (zh.ENCRYPTED | zh.STRONG):
        yield "zip-encryption-flag"
    if (local.flags ^ central.flags) & zh.HAS_DESCRIPTOR:
        yield "zip-flags"
    if not local.open_ended:
        if (local.packed, local.size) != (central.packed, central.size):
            yield "zip-size"
        if local.crc != central.crc:
            yield "zip-crc"
