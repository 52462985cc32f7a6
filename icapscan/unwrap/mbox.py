"""mbox files (RFC 4155): messages in a row, each behind a line that starts with ``From ``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.mime_entity import MESSAGES
from icapscan.unwrap.mime_fields import known_fields

_SEPARATOR = b"\nFrom "
_LINE = re.compile(rb"From \S{1,320} +[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d[^\r\n]{0,80}\r?\n")
_LINE_MAX = 512
_START = re.compile(rb"From [^\r\n]{1,500}\r?\n(?=>?[!-9;-~]{1,60}:)")


class MboxDecoder:
    """One part for each message, without its ``From `` line."""

    __slots__ = ("_context", "_count", "_ended", "_pending")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pending = b"\n"
        self._count = 0
        self._ended = False

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        """More of the file."""
        return self._guarded(self._pending + bytes(data), False)

    def finish(self) -> Iterator[PartEvent]:
        """The file is complete."""
        yield from self._guarded(self._pending, True)
        if self._count and not self._ended:
            yield PartEnd(str(self._count))

    def _guarded(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        if self._ended:
            return
        try:
            self._context.gate.room()
            yield from self._split(data, final)
        except Stop as stop:
            self._ended = True
            yield PartFailed("", stop.reason, stop.detail)

    def _split(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        start = search = 0
        while (at := data.find(_SEPARATOR, search)) >= 0:
            if len(data) - at < _LINE_MAX and not final:
                break
            found = (_START if not self._count else _LINE).match(data, at + 1)
            if found is None:
                search = at + 1
                continue
            yield from self._give(data[start : at + 1])
            if self._count:
                yield PartEnd(str(self._count))
            self._count += 1
            yield PartBegin(str(self._count), media_type="message/rfc822")
            start = search = found.end()
        keep = len(data) if final else at if at >= 0 else max(start, len(data) - len(_SEPARATOR))
        yield from self._give(data[start:keep])
        self._pending = data[keep:]

    def _give(self, data: bytes) -> Iterator[PartEvent]:
        if data and self._count:
            if not self._context.gate.took(len(data)):
                self._context.gate.stop()
            yield PartData(str(self._count), data)


class MboxFormat:
    """Files that begin with a ``From `` line and a mail header."""

    name = "mbox"

    def bid(self, evidence: Evidence) -> Bid:
        """By the first line, and the field below it."""
        first = evidence.first
        if first[:5] != b"From " or _START.match(first) is None:
            return Bid.NO
        if evidence.declared.media_type in MESSAGES:
            return Bid.NO  # one message, with a line too many
        return Bid.YES if known_fields(first) >= 2 else Bid.NO

    def open(self, context: Context) -> MboxDecoder:
        """A decoder of one file."""
        return MboxDecoder(context)


MBOX = MboxFormat()
