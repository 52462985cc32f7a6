"""Mail and everything that is built like it: RFC 5322 messages, MIME multiparts (RFC 2046), form-data (RFC 7578).

One decoder takes one message or one multipart apart; what is nested stands in its parts and is opened in turn. It tells
the reading of a strict reader while the bytes arrive. Where readers disagree it tells the other readings at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec.structs

from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Declared, Evidence
from icapscan.unwrap.events import PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.mime_alternatives import alternatives, quiet_gate
from icapscan.unwrap.mime_entity import MESSAGES, entity
from icapscan.unwrap.mime_fields import Fields, known_fields
from icapscan.unwrap.mime_reading import Reading
from icapscan.unwrap.mime_variation import Start

_FIRST_LINE = re.compile(rb"[\s\0\x80-\xff]{0,80}(?:>?From |[A-Za-z][!-9;-~]{1,60}[ \t]*:)")
_CONTENT_LINE = re.compile(rb"\s{0,80}content-[a-z-]{2,30}[ \t]*:", re.I)
_TEXT_BYTES = bytes(range(32, 256)) + b"\t\n\r\f\v\x1b"
_TEXT_TYPES = frozenset(
    {"application/javascript", "application/x-javascript", "application/json", "application/xml", "image/svg+xml",
     "application/xhtml+xml", "application/hta"}
)  # fmt: skip
ODD_SHARE = 20
"""One byte of so many may be none of a text. In compressed or encrypted data every ninth is none."""
LOOK = 2048
"""First bytes that are looked at for field names, or for text."""


class MimeDecoder:
    """A message or a multipart, fed as it arrives; further readings from the whole of it."""

    __slots__ = ("_context", "_ended", "_reading", "_start")

    def __init__(self, context: Context, start: Start) -> None:
        self._context = context
        self._start = start
        self._reading = Reading(context.gate, start)
        self._ended = False

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        """More bytes."""
        return self._guarded(self._reading.feed(bytes(data)))

    def finish(self) -> Iterator[PartEvent]:
        """The end."""
        return self._guarded(self._reading.finish())

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        """All other readings, where the first one met a doubt."""
        gate = self._context.gate
        return self._guarded(alternatives(gate, quiet_gate(self._context.budget), self._start, self._reading, store))

    def _guarded(self, events: Iterable[PartEvent]) -> Iterator[PartEvent]:
        if self._ended:
            return
        try:
            yield from events
        except Stop as stop:
            self._ended = True
            yield PartFailed("", stop.reason, stop.detail)


class MimeFormat:
    """Messages and multiparts that are declared, and messages that look like one."""

    name = "mime"

    def bid(self, evidence: Evidence) -> Bid:
        """By declared type, else by the field names at the start."""
        declared = evidence.declared
        if declared.media_type in MESSAGES or declared.media_type.startswith("multipart"):
            return Bid.YES
        if b"boundary" in declared.content_type.lower():
            return Bid.MAYBE
        if evidence.first.startswith(b"From "):
            return Bid.NO  # an mbox, see there
        return _looks_like_mail(evidence.first)

    def open(self, context: Context) -> MimeDecoder:
        """A decoder for one message or multipart."""
        return MimeDecoder(context, self.start(context.declared, context.bid))

    def start(self, declared: Declared, bid: Bid) -> Start:
        """What a decoder begins with, for a part that this format bids on; ``sanitize/`` begins with the same."""
        skeleton, covered = not declared.in_skeleton, declared.in_skeleton
        if declared.media_type.startswith("multipart") or b"boundary" in declared.content_type.lower():
            described = entity(Fields(types=_types(declared)))
            if not declared.content_type:  # nobody told us the boundary, which is no fault of the body
                described = msgspec.structs.replace(described, doubts=frozenset())
            sniff = not declared.media_type.startswith("multipart")
            return Start(described, sniff and not described.boundaries, 0, skeleton, covered)
        return Start(None, False, 0 if bid is Bid.YES else 1, skeleton, covered)


class UndeclaredFormat:
    """Multiparts in what is called text, or anything else: found by their delimiters."""

    name = "multipart"

    def bid(self, evidence: Evidence) -> Bid:
        """Any text may hold one, unless it is opened as a message or multipart anyway."""
        return Bid.MAYBE if is_text(evidence) and MIME.bid(evidence) is Bid.NO else Bid.NO

    def open(self, context: Context) -> MimeDecoder:
        """A decoder that says nothing until it finds a delimiter with MIME fields below it."""
        return MimeDecoder(context, Start(entity(Fields()), sniff=True))


MIME = MimeFormat()
UNDECLARED = UndeclaredFormat()


def looks_like_text(first: bytes) -> bool:
    """Whether bytes are text in an encoding that has ASCII in it. A few odd bytes in it hide nothing."""
    first = first[:LOOK]
    return bool(first) and len(first.translate(None, _TEXT_BYTES)) * ODD_SHARE <= len(first)


def is_text(evidence: Evidence) -> bool:
    """Whether a part is text, or a reader would take it for text because of its type, whatever it begins with."""
    media_type = evidence.declared.media_type
    return media_type.startswith("text/") or media_type in _TEXT_TYPES or looks_like_text(evidence.first)


def _looks_like_mail(first: bytes) -> Bid:
    if _FIRST_LINE.match(first) is None:
        return Bid.NO
    known = known_fields(first[:LOOK])
    if known >= 3:
        return Bid.YES
    if known == 2 or (known and _CONTENT_LINE.match(first) is not None):
        return Bid.MAYBE
    return Bid.NO


def _types(declared: Declared) -> tuple[bytes, ...]:
    if declared.content_type:
        return tuple(declared.content_type.split(b"\n"))
    return (declared.media_type.encode("latin-1", "replace"),)
