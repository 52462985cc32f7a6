"""Uploads as ``application/x-www-form-urlencoded`` (URL Standard 5.1): each long value, decoded, as a part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from icapscan.limits import KIB
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.names import text_of

LONG = 60
"""Bytes of a value, as written, below which it stays in the form: EICAR takes 68 or more."""
MEDIA_TYPE = "application/x-www-form-urlencoded"
_NAME_MAX = 256
_STEP = 64 * KIB
_MARK = re.compile(rb"[&=]")


class UrlEncodedDecoder:
    """A form; the names of the parts are those of the fields."""

    __slots__ = ("_begun", "_context", "_count", "_ended", "_held", "_in_value", "_name", "_percent")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count = 0
        self._name = b""
        self._in_value = False
        self._held = b""
        """The value while it is short."""
        self._percent = b""
        """A percent sign and at most one digit, whose rest is still to come."""
        self._begun = False
        self._ended = False

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        """More of the form."""
        for at in range(0, len(data), _STEP):
            if self._ended:
                return
            try:
                self._context.gate.room()
                yield from self._take(bytes(data[at : at + _STEP]))
            except Stop as stop:
                self._ended = True
                yield PartFailed("", stop.reason, stop.detail)

    def finish(self) -> Iterator[PartEvent]:
        """The form is complete."""
        if self._ended:
            return
        try:
            yield from self._close()
        except Stop as stop:
            yield PartFailed("", stop.reason, stop.detail)

    def _take(self, data: bytes) -> Iterator[PartEvent]:
        at = 0
        while at < len(data):
            if not self._in_value:
                mark = _MARK.search(data, at)
                end = mark.start() if mark is not None else len(data)
                self._name = (self._name + data[at:end])[:_NAME_MAX]
                at = end + 1
                if mark is not None:
                    self._in_value = mark[0] == b"="
                    if not self._in_value:
                        self._name = b""
                continue
            end = data.find(b"&", at)
            yield from self._value(data[at : end if end >= 0 else len(data)])
            if end < 0:
                return
            at = end + 1
            yield from self._close()

    def _value(self, data: bytes) -> Iterator[PartEvent]:
        if not self._begun:
            self._held += data
            if len(self._held) < LONG:
                return
            data, self._held = self._held, b""
            self._begun = True
            self._count += 1
            name = text_of(unquote_to_bytes(self._name.replace(b"+", b" ")))
            yield PartBegin(str(self._count), name or None)
        data = self._percent + data
        cut = data.rfind(b"%", max(0, len(data) - 2))
        cut = cut if cut >= 0 else len(data)
        self._percent = data[cut:]
        yield from self._give(data[:cut])

    def _close(self) -> Iterator[PartEvent]:
        if self._begun:
            yield from self._give(self._percent)
            yield PartEnd(str(self._count))
        self._begun = self._in_value = False
        self._name = self._held = self._percent = b""

    def _give(self, data: bytes) -> Iterator[PartEvent]:
        # A plus that stands for a blank is no character of base64 either way; one that was meant is written %2B.
        data = unquote_to_bytes(data.replace(b"+", b" ")) if data else data
        if data:
            if not self._context.gate.took(len(data)):
                self._context.gate.stop()
            yield PartData(str(self._count), data)


class UrlEncodedFormat:
    """Declared forms only."""

    name = "urlencoded"

    def bid(self, evidence: Evidence) -> Bid:
        """By the declared type."""
        return Bid.MAYBE if evidence.declared.media_type == MEDIA_TYPE else Bid.NO

    def open(self, context: Context) -> UrlEncodedDecoder:
        """A decoder of one form."""
        return UrlEncodedDecoder(context)


URLENCODED = UrlEncodedFormat()
