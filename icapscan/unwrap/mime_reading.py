"""One pass over a message or a multipart in one reading: header, body parts, transfer encodings, events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB, MIB
from icapscan.unwrap.events import AnomalyFound, Audience, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.mime_entity import Encoding, Entity, EntityDoubt, entity
from icapscan.unwrap.mime_fields import FieldDoubt, HeaderEnd, HeaderReader, known_fields, parse
from icapscan.unwrap.multipart import Mark, Match, Sniffer, SplitDoubt, Splitter
from icapscan.unwrap.transfer import (
    Base64Reading,
    Doubt,
    Identity,
    QuotedPrintable,
    QuotedReading,
    Transfer,
    base64,
)
from icapscan.unwrap.uu import Uuencode

AnyDoubt = FieldDoubt | EntityDoubt | SplitDoubt | Doubt
SMALL = 64 * KIB
"""Text and nested multiparts up to this size travel in the skeleton instead of being sent to clamd one by one."""
SKELETON_MAX = 4 * MIB
_KEPT_MAX = 1 * MIB
_BARE_CR = re.compile(rb"\r(?!\n)")
_TEXTS = frozenset({"text/plain", "text/html", ""})


class Variation(Struct, frozen=True):
    """The choices of one reading; as it is made, those of a strict reader."""

    header_end: HeaderEnd = HeaderEnd.EMPTY_LINE
    bare_cr: bool = False
    """A CR alone ends a line."""
    match: Match = Match.EXACT
    boundary: int = 0
    """Which of the candidates."""
    encoding: int = 0
    """Which of the candidates; `RAW` for none of them."""
    base64: Base64Reading = Base64Reading.LENIENT
    quoted: QuotedReading = QuotedReading.KEEP
    leaf: bool = False
    """A message that is declared to be a multipart is taken for a single body."""
    inner_first: bool = False
    """A nested multipart goes on to its own closing delimiter, past the delimiters of the outer one."""


STRICT = Variation()
RAW = -1


class Start(Struct, frozen=True):
    """What a decoder begins with: a message, or the body of a multipart whose header is known."""

    entity: Entity | None = None
    """None: a header comes first."""
    sniff: bool = False
    """Nobody says that this is a multipart: nothing is told until one is found."""
    fields_needed: int = 0
    """Well-known fields below which this is no message after all."""
    skeleton: bool = False
    """Make a skeleton."""
    covered: bool = False
    """The skeleton of a part above holds this one."""


class Body(Protocol):
    """The body of an entity in one reading."""

    def feed(self, data: bytes) -> Iterator[PartEvent]: ...

    def finish(self) -> Iterator[PartEvent]: ...


class Reading:
    """One pass. `feed` and `finish` yield events with relative keys, and raise `Stop` when the budget is spent."""

    __slots__ = (
        "_body", "_cr", "_header", "_kept", "_kept_size", "_silent", "_skeleton", "_skeleton_size", "boundaries",
        "doubts", "encodings", "gate", "spoke", "start", "variation",
    )  # fmt: skip

    def __init__(self, gate: Gate, start: Start, variation: Variation = STRICT) -> None:
        self.gate = gate
        self.start = start
        self.variation = variation
        self.doubts: dict[AnyDoubt, str] = {}
        """What readers do not agree about, with the key of the part where it was first seen."""
        self.boundaries: tuple[bytes, ...] = ()
        self.encodings = 1
        """Candidates that there were."""
        self.spoke = False
        self._silent = False
        self._cr = b""
        self._skeleton: list[bytes] = []
        self._skeleton_size = 0
        self._kept: list[tuple[str, bytes]] = []
        self._kept_size = 0
        self._header: HeaderReader | None = None
        self._body: Body | None = None
        if start.entity is None:
            self._header = HeaderReader(variation.header_end)
        else:
            self._enter(start.entity)

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        """More bytes."""
        if self._silent:
            return
        self.gate.room()
        if self.variation.bare_cr:
            data = self._without_bare_cr(data)
        if self._header is not None:
            rest = self._header.feed(data)
            if rest is None:
                if not self._header.too_long:
                    return
                rest = self._header.give_up()
                if rest is None:
                    self.gate.stop("header bytes")
            self._open_body()
            data = rest
        if self._body is not None and data:
            yield from self._body.feed(data)

    def finish(self) -> Iterator[PartEvent]:
        """The end; anomalies, and the skeleton if there were none."""
        if self._cr and not self._silent:
            cr, self._cr = self._cr, b""
            yield from self.feed(cr)
            self._cr = b""
        if self._header is not None and not self._silent:
            rest = self._header.finish()
            self._open_body()
            if self._body is not None and rest:
                yield from self._body.feed(rest)
        if self._silent or self._body is None:
            return
        yield from self._body.finish()
        if self.variation is STRICT and (self.spoke or not self.start.sniff):
            yield from self._sum_up()

    # For the bodies

    def doubt(self, doubt: AnyDoubt, key: str) -> None:
        """Note that readers disagree."""
        self.doubts.setdefault(doubt, key)

    def doubt_header(self, header: HeaderReader, key: str) -> None:
        """Note that nobody can tell where a header ends."""
        if header.cut_at_junk:
            self.doubt(FieldDoubt.JUNK_LINE, key)
            if header.blank_later:
                self.doubt(FieldDoubt.BLANK_LINE, key)

    def add_to_skeleton(self, data: bytes) -> None:
        """Structure or small text for clamd."""
        if data and self.start.skeleton and self.variation is STRICT:
            self._skeleton_size += len(data)
            if self._skeleton_size <= SKELETON_MAX:
                self._skeleton.append(data)

    def keep(self, key: str, data: bytes) -> bool:
        """Keep the decoded form of a text that is in the skeleton, in case there will be none. False: no room."""
        self._kept_size += len(data)
        if self._kept_size > _KEPT_MAX:
            return False
        self._kept.append((key, data))
        return True

    # Steps

    def _open_body(self) -> None:
        header, self._header = self._header, None
        assert header is not None
        fields = parse(header.block)
        if self.start.fields_needed and known_fields(header.block) < self.start.fields_needed:
            self._silent = True
            return
        self.add_to_skeleton(header.block)
        self.doubt_header(header, "")
        for doubt in fields.doubts:
            self.doubt(doubt, "")
        self._enter(entity(fields))

    def _enter(self, described: Entity) -> None:
        for doubt in described.doubts:
            self.doubt(doubt, "")
        variation = self.variation
        self.encodings = max(self.encodings, len(described.encodings))
        coded = self.start.entity is None and _encoding(variation, described) is not Encoding.IDENTITY
        if self.start.entity is not None or (described.is_multipart and not variation.leaf and not coded):
            self.boundaries = described.boundaries
            self._body = Parts(self, described)
        else:
            self._body = Leaf(self, "1", described)

    def _without_bare_cr(self, data: bytes) -> bytes:
        data = self._cr + data
        self._cr = data[-1:] if data.endswith(b"\r") else b""
        return _BARE_CR.sub(b"\n", data[: len(data) - len(self._cr)])

    def _sum_up(self) -> Iterator[PartEvent]:
        for doubt, key in self.doubts.items():
            yield AnomalyFound(Anomaly(doubt.value, key))
        if not self.start.skeleton:
            if self.doubts:
                yield from self._kept_texts()
            return
        if self._skeleton_size > SKELETON_MAX:
            yield AnomalyFound(Anomaly("skeleton-too-large"))
        elif not self.doubts:
            yield PartBegin("skeleton", media_type="message/rfc822", audience=Audience.CLAMD)
            for piece in self._skeleton:
                yield PartData("skeleton", piece)
            yield PartEnd("skeleton")
            return
        yield from self._kept_texts()

    def _kept_texts(self) -> Iterator[PartEvent]:
        """The texts that clamd was not given, because they were to be in a skeleton."""
        for key, data in self._kept:
            yield PartBegin(f"{key}~clamd", audience=Audience.CLAMD)
            if data:
                yield PartData(f"{key}~clamd", data)
            yield PartEnd(f"{key}~clamd")


class Leaf:
    """One body part whose content is handed on decoded: a leaf, or a container that the walker opens in turn."""

    __slots__ = (
        "_begun", "_closing", "_described", "_failure", "_held", "_key", "_raw", "_raw_size", "_reading", "_small",
        "_tail", "_transfer",
    )  # fmt: skip

    def __init__(
        self, reading: Reading, key: str, described: Entity, failure: tuple[Reason, str] | None = None
    ) -> None:
        self._reading = reading
        self._key = key
        self._described = described
        self._failure = failure or _unscannable(described)
        reading.encodings = max(reading.encodings, len(described.encodings))
        encoding = _encoding(reading.variation, described)
        self._transfer = _transfer(encoding, reading.variation)
        # Text and nested structure that every reader sees alike, until it turns out to be large.
        self._small = (
            reading.variation is STRICT
            and (reading.start.skeleton or reading.start.covered)
            and (described.media_type in _TEXTS or (described.is_container and encoding is Encoding.IDENTITY))
            and not described.attachment
            and not described.doubts
        )
        self._held: list[bytes] = []
        """Decoded, of what is small."""
        self._raw: list[bytes] = []
        self._raw_size = 0
        self._begun = False
        self._closing = b""
        """The closing delimiter of a nested multipart, until it was seen."""
        self._tail = b""
        if described.is_multipart and len(described.boundaries) == 1 and encoding is Encoding.IDENTITY:
            self._closing = b"--" + described.boundaries[0] + b"--"

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        if self._closing:
            self._look_for_closing(data)
        out = self._transfer.feed(data)
        if self._small:
            self._raw_size += len(data)
            if self._raw_size <= SMALL:
                self._raw.append(data)
                self._held.append(out)
                return
            self._small = False
            held, self._held, self._raw = self._held, [], []
            yield from self._give(b"".join(held))
        yield from self._give(out)

    def finish(self) -> Iterator[PartEvent]:
        out = self._transfer.finish()
        if self._closing:
            self._reading.doubt(EntityDoubt.UNCLOSED, self._key)
        self._judge(self._transfer.doubts)
        if self._small:
            out = b"".join(self._held) + out
            yield from self._give(out, Audience.NOT_CLAMD if self._in_skeleton(out) else Audience.ALL)
        else:
            yield from self._give(out)
        if self._failure is not None:
            reason, detail = self._failure
            if reason is not Reason.MALFORMED:
                yield AnomalyFound(Anomaly(self._described.media_type.replace("/", "-"), self._key, detail))
            yield PartFailed(self._key, reason, detail)
        else:
            yield PartEnd(self._key)

    def _judge(self, doubts: set[Doubt]) -> None:
        """Note what is odd in the encoded bytes; some of it no reader can decode for sure."""
        text = self._described.media_type.startswith("text/")
        if text:
            doubts.discard(Doubt.LOWER_CASE)
        for doubt in doubts:
            self._reading.doubt(doubt, self._key)
        if self._failure is None and (Doubt.BROKEN in doubts or (Doubt.ESCAPE in doubts and not text)):
            self._failure = Reason.MALFORMED, "The content is not encoded as its Content-Transfer-Encoding says."

    def _in_skeleton(self, decoded: bytes) -> bool:
        """Put a small part into the skeleton; whether it is there."""
        if self._transfer.doubts or self._closing:
            return False
        if not self._described.is_container and not self._reading.keep(self._key, decoded):
            return False
        for piece in self._raw:
            self._reading.add_to_skeleton(piece)
        return True

    def _give(self, data: bytes, audience: Audience = Audience.ALL) -> Iterator[PartEvent]:
        if not self._begun:
            self._begun = self._reading.spoke = True
            yield self._begin(audience)
        if data:
            if not self._reading.gate.took(len(data)):
                self._reading.gate.stop()
            yield PartData(self._key, data)

    def _begin(self, audience: Audience) -> PartBegin:
        described = self._described
        names = described.names or ((described.field,) if described.field else ())
        return PartBegin(
            self._key,
            names[0] if names else None,
            described.media_type,
            names=names[1:],
            charset=described.charset,
            audience=audience,
            content_type=described.content_type,
            in_skeleton=audience is Audience.NOT_CLAMD,
        )

    def _look_for_closing(self, data: bytes) -> None:
        data = self._tail + data
        if self._closing in data:
            self._closing = b""
        else:
            self._tail = data[-len(self._closing) :]


class Parts:
    """The body of a multipart: preamble, body parts, epilogue."""

    __slots__ = (
        "_body", "_closes", "_count", "_default", "_described", "_header", "_inner", "_nested", "_reading",
        "_sniffer", "_splitter", "_zone",
    )  # fmt: skip

    def __init__(self, reading: Reading, described: Entity) -> None:
        self._reading = reading
        self._described = described
        variation = reading.variation
        self._splitter: Splitter | None = None
        self._sniffer: Sniffer | None = None
        if reading.start.sniff or not described.boundaries:
            self._sniffer = Sniffer()
        else:
            boundary = described.boundaries[min(variation.boundary, len(described.boundaries) - 1)]
            self._splitter = Splitter(boundary, variation.match)
        self._default = "message/rfc822" if described.media_type == "multipart/digest" else "text/plain"
        self._count = 0
        self._closes = 0
        self._header: HeaderReader | None = None
        self._body: Leaf | None = None
        self._zone = "preamble"
        self._inner = self._nested = False
        """A nested multipart takes all the rest."""

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        if self._splitter is None:
            yield from self._sniff(data, False)
        else:
            yield from self._take(self._splitter.feed(data))

    def finish(self) -> Iterator[PartEvent]:
        if self._splitter is None:
            yield from self._sniff(b"", True)
        if self._splitter is not None:
            yield from self._take(self._splitter.finish(self._nested))
            yield from self._end_part()
            for doubt in self._splitter.doubts:
                self._reading.doubt(doubt, "")
        if not self._count and not self._reading.start.sniff:
            self._reading.doubt(EntityDoubt.NO_DELIMITER, "")

    def _sniff(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        assert self._sniffer is not None
        found = self._sniffer.feed(data, final)
        if found is not None:
            token, rest = found
            self._splitter = Splitter(token, self._reading.variation.match)
            self._reading.doubt(EntityDoubt.UNDECLARED, "")
            yield from self._take(self._splitter.feed(rest))

    def _take(self, pieces: Iterator[tuple[Mark, bytes]]) -> Iterator[PartEvent]:
        for mark, data in pieces:
            if mark is Mark.DATA:
                yield from self._data(data)
                continue
            if self._inner and self._body is not None:
                yield from self._body.feed(b"\r\n" + data)
                continue
            yield from self._end_part()
            self._reading.add_to_skeleton(data if data.endswith(b"\n") else data + b"\n")
            if mark is Mark.DELIMITER:
                self._count += 1
                self._zone = ""
                self._header = HeaderReader(self._reading.variation.header_end)
            else:
                self._closes += 1
                self._zone = "epilogue" if self._closes == 1 else f"epilogue{self._closes}"

    def _data(self, data: bytes) -> Iterator[PartEvent]:
        if self._body is not None:
            yield from self._body.feed(data)
        elif self._header is not None:
            rest = self._header.feed(data)
            if rest is None and self._header.too_long:
                rest = self._header.give_up()
                if rest is None:
                    self._reading.gate.stop("header bytes")
            if rest is not None:
                yield from self._begin_part(rest)
        else:
            data = data.lstrip()
            if data:
                key = self._zone
                self._body = Leaf(self._reading, key, Entity("text/plain", b""))
                yield from self._body.feed(data)

    def _begin_part(self, rest: bytes) -> Iterator[PartEvent]:
        header, self._header = self._header, None
        assert header is not None
        key = str(self._count)
        fields = parse(header.block)
        described = entity(fields, self._default)
        self._reading.add_to_skeleton(header.block)
        self._reading.doubt_header(header, key)
        for field_doubt in fields.doubts:
            self._reading.doubt(field_doubt, key)
        for entity_doubt in described.doubts:
            self._reading.doubt(entity_doubt, key)
        self._body = Leaf(self._reading, key, described, self._failure(described))
        self._nested = described.is_multipart
        self._inner = self._reading.variation.inner_first and described.is_multipart
        if rest:
            yield from self._body.feed(rest)

    def _failure(self, described: Entity) -> tuple[Reason, str] | None:
        if self._described.media_type == "multipart/encrypted" and described.media_type != "application/pgp-encrypted":
            return Reason.ENCRYPTED, "The part is encrypted (RFC 1847)."
        return None

    def _end_part(self) -> Iterator[PartEvent]:
        if self._header is not None:
            rest = self._header.finish()
            yield from self._begin_part(rest)
        if self._body is not None:
            body, self._body = self._body, None
            yield from body.finish()
            self._reading.add_to_skeleton(b"\r\n")


def _encoding(variation: Variation, described: Entity) -> Encoding:
    if variation.encoding == RAW:
        return Encoding.IDENTITY
    return described.encodings[min(variation.encoding, len(described.encodings) - 1)]


def _unscannable(described: Entity) -> tuple[Reason, str] | None:
    if described.media_type == "message/partial":
        return Reason.UNSUPPORTED, "A fragment of a message cannot be scanned (RFC 2046 5.2.2)."
    if described.media_type == "message/external-body":
        return Reason.UNSUPPORTED, "The content is somewhere else (RFC 2046 5.2.3)."
    return None


def _transfer(encoding: Encoding, variation: Variation) -> Transfer:
    if encoding is Encoding.BASE64:
        return base64(variation.base64)
    if encoding is Encoding.QUOTED_PRINTABLE:
        return QuotedPrintable(variation.quoted)
    if encoding is Encoding.UUENCODE:
        return Uuencode()
    return Identity()  # yEnc and BinHex say where they begin, and are found in the text
