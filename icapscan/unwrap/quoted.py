"""Text that looks like quoted-printable although nobody says so: another reading of it, decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from icapscan.findings import Anomaly
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.mime import MIME, is_text
from icapscan.unwrap.transfer_quoted import QuotedPrintable

KEY = "quoted-printable"
_SOFT = re.compile(rb"[^\s=]=\r?\n")
_ESCAPE = re.compile(rb"=[0-9A-F]{2}")
_SOFT_MIN, _ESCAPES_MIN = 2, 20
"""Soft line breaks, or escapes, in the first bytes that make it likely."""


class QuotedDecoder:
    """The whole text, decoded, as one part."""

    __slots__ = ("_begun", "_context", "_ended", "_stream")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stream = QuotedPrintable(text=True)
        self._begun = False
        self._ended = False

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        """More text."""
        return self._give(self._stream.feed(bytes(data)))

    def finish(self) -> Iterator[PartEvent]:
        """The text is complete."""
        yield from self._give(self._stream.finish())
        if self._begun and not self._ended:
            yield PartEnd(KEY)

    def _give(self, data: bytes) -> Iterator[PartEvent]:
        if not data or self._ended:
            return
        try:
            self._context.gate.room()
            if not self._begun:
                self._begun = True
                yield AnomalyFound(Anomaly("quoted-printable-undeclared"))
                declared = self._context.declared
                names = declared.names
                yield PartBegin(KEY, names[0] if names else None, declared.media_type or None, 1, names[1:])
            if not self._context.gate.took(len(data)):
                self._context.gate.stop()
            yield PartData(KEY, data)
        except Stop as stop:
            self._ended = True
            yield PartFailed("", stop.reason, stop.detail)


class QuotedFormat:
    """Text with soft line breaks or many escapes."""

    name = "quoted"

    def bid(self, evidence: Evidence) -> Bid:
        """By the first bytes; never twice on the same text."""
        first = evidence.first
        if evidence.declared.within == self.name or b"=" not in first:
            return Bid.NO
        if not is_text(evidence) or MIME.bid(evidence) is not Bid.NO:
            return Bid.NO
        # Counted before the patterns look closer, which takes longer on almost every text.
        soft = first.count(b"=\n") + first.count(b"=\r\n")
        if soft >= _SOFT_MIN and len(_SOFT.findall(first)) >= _SOFT_MIN:
            return Bid.MAYBE
        if first.count(b"=") >= _ESCAPES_MIN and len(_ESCAPE.findall(first)) >= _ESCAPES_MIN:
            return Bid.MAYBE
        return Bid.NO

    def open(self, context: Context) -> QuotedDecoder:
        """A decoder of one text."""
        return QuotedDecoder(context)


QUOTED = QuotedFormat()
