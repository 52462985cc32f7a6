"""The body of a multipart in one reading: preamble, body parts with their headers, epilogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from icapscan.findings import Reason
from icapscan.unwrap.events import PartEvent
from icapscan.unwrap.mime_entity import Entity, EntityDoubt, entity
from icapscan.unwrap.mime_fields import HeaderReader, parse
from icapscan.unwrap.mime_leaf import Leaf
from icapscan.unwrap.multipart import Mark, Sniffer, Splitter

if TYPE_CHECKING:
    from icapscan.unwrap.mime_reading import Reading


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
        else:
            yield from self._end_part()
        if not self._count and not self._reading.start.sniff:
            self._reading.doubt(EntityDoubt.NO_DELIMITER, "")

    def _sniff(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        assert self._sniffer is not None
        before, token, rest = self._sniffer.feed(data, final)
        declared = not self._reading.start.sniff
        if before and declared:
            yield from self._data(before)
        if token is not None:
            self._splitter = Splitter(token, self._reading.variation.match)
            if not declared:
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
