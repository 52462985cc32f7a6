"""Windows shortcuts (MS-SHLLINK): what they start, as text, and what is appended to them."""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartReader, PartStore
from icapscan.unwrap.active_content import reported
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent

MAGIC = bytes.fromhex("4c0000000114020000000000c000000000000046")
"""Size of the header and its class (2.1)."""
BLOCKS_MAX = 64
"""Extra data blocks; eleven kinds are known."""
_STRINGS = ((0x04, "name"), (0x08, "path"), (0x10, "folder"), (0x20, "arguments"), (0x40, "icon"))
"""StringData (2.4): the flag that says that it is there, and what we call it; in this order."""
_TARGETS = (0xA0000001, 0xA0000006)
"""Blocks of environment variables and Darwin data: a target in 260 bytes, then in 520 bytes of UTF-16."""
_PIECE = 64 * KIB
_APPENDED_MIN = 4
Data = bytes | PartReader


class LnkFormat:
    """Bids on the header."""

    name = "lnk"
    prefixes = (MAGIC,)

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith(MAGIC) else Bid.NO

    def open(self, context: Context) -> LnkDecoder:
        return LnkDecoder(context)


class LnkDecoder:
    """One shortcut, read whole."""

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context, Audience.ALL)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        return reported(self._events(store), self._members)

    def _events(self, store: PartStore) -> Iterator[PartEvent]:
        data = store.reader()
        try:
            lines, end = _parse(data)
            text = "\n".join(f"{name}: {value}" for name, value in lines)
            yield from self._members.anomaly("shortcut", " ".join(value for _, value in lines))
            if text:
                yield from self._part("shortcut.txt", text.encode("utf-8", "replace"), 0, 1 << 62)
            if end < 0:
                yield PartFailed("", Reason.MALFORMED, "This shortcut is cut short.")
            elif len(data) - end >= _APPENDED_MIN:
                yield from self._members.anomaly("shortcut-appended", f"{len(data) - end} bytes")
                yield from self._part("appended", data, end, len(data))
        except Stop as stop:
            yield spent(stop)

    def _part(self, name: str, data: Data, start: int, end: int) -> Iterator[PartEvent]:
        members = self._members
        key, begin = members.begin((name,))
        yield begin
        try:
            for at in range(start, min(end, len(data)), _PIECE):
                yield from members.data(key, data[at : at + _PIECE])
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)


def _parse(data: Data) -> tuple[list[tuple[str, str]], int]:
    """The texts of a shortcut with what they are, and where it ends, -1 where it is cut short."""
    flags = int.from_bytes(data[20:24], "little")
    wide = bool(flags & 0x80)
    lines: list[tuple[str, str]] = []
    at = 76
    if flags & 1:  # the list of items that lead to the target
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    if flags & 2:
        at += max(4, int.from_bytes(data[at : at + 4], "little"))
    for flag, name in _STRINGS:
        if flags & flag:
            size = int.from_bytes(data[at : at + 2], "little") * (2 if wide else 1)
            raw = data[at + 2 : at + 2 + size]
            lines.append((name, raw.decode("utf-16-le" if wide else "cp1252", "replace").strip("\0")))
            at += 2 + size
    if at > len(data):
        return lines, -1
    for _ in range(BLOCKS_MAX):
        size = int.from_bytes(data[at : at + 4], "little")
        if size < 4:
            return lines, min(at + 4, len(data))
        if int.from_bytes(data[at + 4 : at + 8], "little") in _TARGETS:
            lines.append(("target", data[at + 268 : at + 788].decode("utf-16-le", "replace").partition("\0")[0]))
            lines.append(("target", data[at + 8 : at + 268].partition(b"\0")[0].decode("cp1252", "replace")))
        at += size
        if at > len(data):
            return lines, -1
    return lines, at
