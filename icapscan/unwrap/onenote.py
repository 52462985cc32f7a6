"""OneNote sections: the files in them (MS-ONESTORE 2.6.13). Each stands whole between two GUIDs."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartReader, PartStore
from icapscan.unwrap.active_content import reported
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent

SECTION = UUID("7b5c52e4-d88c-4da7-aeb1-5378d02996d3").bytes_le
"""First bytes of a section (2.3.1)."""
CONTENTS = UUID("43ff2fa1-efd9-4c76-9ee2-10ea5722765f").bytes_le
"""First bytes of a table of contents."""
BEGIN = UUID("bde316e7-2665-4511-a4c4-8d4d0b7a9eac").bytes_le
END = UUID("71fba722-0f79-4a0b-bb13-899256426b24").bytes_le
_PIECE = 64 * KIB
_PROGRAMS = (
    b"mz", b"l\0\0\0\1\x14\2\0", b"<hta", b"<html", b"<!doc", b"<script", b"<job", b"<?xml", b"<package",
    b"@echo", b"@set", b"powershell", b"function", b"var ", b"dim ", b"sub ", b"on error", b"createobject", b"start ",
    b"cmd",
)  # fmt: skip
"""Beginnings of programs, shortcuts and scripts, in lower case."""
_HEADER = 36
"""GUID, length in 64 bits, 12 bytes that are not used."""


class OneNoteFormat:
    """Bids on the GUID at the start."""

    name = "onenote"
    prefixes = (SECTION, CONTENTS)

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith((SECTION, CONTENTS)) else Bid.NO

    def open(self, context: Context) -> OneNoteDecoder:
        return OneNoteDecoder(context)


class OneNoteDecoder:
    """One section, read whole."""

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        return reported(self._events(store), self._members)

    def _events(self, store: PartStore) -> Iterator[PartEvent]:
        data = store.reader()
        try:
            at = data.find(BEGIN)
            while at >= 0:
                start = at + _HEADER
                size = int.from_bytes(data[at + 16 : at + 24], "little")
                yield from self._file(data, start, size)
                at = data.find(BEGIN, start)  # not behind its data: a wrong length hides nothing
        except Stop as stop:
            yield spent(stop)

    def _file(self, data: bytes | PartReader, start: int, size: int) -> Iterator[PartEvent]:
        """One file: as long as it says when that fits, else up to the GUID that ends it."""
        members = self._members
        end = start + size
        damaged = end > len(data)
        if damaged:
            found = data.find(END, start)
            end = found if found >= 0 else len(data)
        first = data[start : start + min(size, 64)].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
        yield from members.anomaly("onenote-file", first[:4].hex())
        if first.lower().startswith(_PROGRAMS):
            yield from members.anomaly("onenote-program", first[:4].hex())
        key, begin = members.begin((f"file{members.begun + 1}",))
        yield begin
        try:
            for at in range(start, end, _PIECE):
                yield from members.data(key, data[at : min(at + _PIECE, end)])
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        if damaged:
            yield PartFailed(key, Reason.MALFORMED, "A file in this section is longer than the section.")
        else:
            yield PartEnd(key)
