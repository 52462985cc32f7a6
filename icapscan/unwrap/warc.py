"""Web archives (ISO 28500, WARC 1.1): records of a header and so many bytes, read as they arrive.

libarchive reads them too, but the versions around lose their way after a record that is longer than one block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from icapscan.findings import PartPath, Reason
from icapscan.limits import KIB
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.streams import Buffer

PIECE = 64 * KIB
HEADER_MAX = 64 * KIB
_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,19})[ \t]*\r?$", re.I | re.M)
_NAME = re.compile(rb"^warc-(?:target-uri|record-id):[ \t]*([^\r\n]+)", re.I | re.M)


class WarcFormat:
    """Bids on the version line."""

    name = "warc"
    prefixes = (b"WARC/",)

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith(b"WARC/") else Bid.NO

    def open(self, context: Context) -> WarcDecoder:
        return WarcDecoder(context)


class WarcDecoder:
    """One web archive."""

    __slots__ = ("_buffer", "_done", "_key", "_left", "_members")

    def __init__(self, context: Context) -> None:
        self._members = Members(context, Audience.ALL)
        self._buffer = bytearray()
        self._key: PartPath | None = None
        self._left = 0
        """Bytes of the open record still to come."""
        self._done = False

    def feed(self, data: Buffer) -> Iterator[PartEvent]:
        view = memoryview(data)
        for at in range(0, len(view), PIECE):
            self._buffer += view[at : at + PIECE]
            yield from self._run()

    def finish(self) -> Iterator[PartEvent]:
        if self._done:
            return
        if self._key is not None:
            yield PartFailed(self._key, Reason.MALFORMED, "The record is cut short.")
        elif self._buffer.strip():
            yield PartFailed("", Reason.MALFORMED, "The archive is cut short.")

    def _run(self) -> Iterator[PartEvent]:
        try:
            while not self._done and self._buffer:
                if self._key is not None:
                    yield from self._record()
                    continue
                before = len(self._buffer)
                yield from self._header()
                if self._key is None and len(self._buffer) == before:
                    return
        except Stop as stop:
            self._done = True
            if self._key is not None:
                yield PartFailed(self._key, stop.reason, stop.detail)
            yield spent(stop)

    def _header(self) -> Iterator[PartEvent]:
        buffer = self._buffer
        blank = len(buffer) - len(buffer.lstrip(b"\r\n"))
        del buffer[:blank]
        end = _END.search(buffer)
        if end is None:
            if len(buffer) > HEADER_MAX:
                yield from self._broken()
            return
        header = bytes(buffer[: end.start()])
        length = _LENGTH.search(header)
        if not header.startswith(b"WARC/") or length is None:
            yield from self._broken()
            return
        del buffer[: end.end()]
        name = _NAME.search(header)
        self._left = int(length[1])
        self._key, begin = self._members.begin((name[1].decode("utf-8", "replace").strip() if name else "",))
        yield begin
        if not self._left:
            yield from self._end()

    def _record(self) -> Iterator[PartEvent]:
        assert self._key is not None
        data = bytes(self._buffer[: self._left])
        del self._buffer[: len(data)]
        self._left -= len(data)
        yield from self._members.data(self._key, data)
        if not self._left:
            yield from self._end()

    def _end(self) -> Iterator[PartEvent]:
        assert self._key is not None
        yield PartEnd(self._key)
        self._key = None

    def _broken(self) -> Iterator[PartEvent]:
        self._done = True
        yield PartFailed("", Reason.MALFORMED, "A record of this web archive has no header that makes sense.")
