"""One pass over a message or a multipart in one reading: header, body parts, transfer encodings, events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from icapscan.findings import Anomaly
from icapscan.limits import MIB
from icapscan.unwrap.events import AnomalyFound, Audience, PartBegin, PartData, PartEnd, PartEvent
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.mime_entity import Encoding, Entity, entity
from icapscan.unwrap.mime_fields import FieldDoubt, HeaderReader, known_fields, parse
from icapscan.unwrap.mime_leaf import Leaf
from icapscan.unwrap.mime_parts import Parts
from icapscan.unwrap.mime_variation import STRICT, AnyDoubt, Start, Variation, encoding_of

SKELETON = "skeleton"
"""Key of the part that has what is in no part of its own: headers, and small texts once more."""
SKELETON_MAX = 4 * MIB
_KEPT_MAX = 1 * MIB
_BARE_CR = re.compile(rb"\r(?!\n)")


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
        coded = self.start.entity is None and encoding_of(variation, described) is not Encoding.IDENTITY
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
            yield PartBegin(SKELETON, media_type="message/rfc822", audience=Audience.CLAMD)
            for piece in self._skeleton:
                yield PartData(SKELETON, piece)
            yield PartEnd(SKELETON)
            return
        yield from self._kept_texts()

    def _kept_texts(self) -> Iterator[PartEvent]:
        """The texts that clamd was not given, because they were to be in a skeleton."""
        for key, data in self._kept:
            yield PartBegin(f"{key}~clamd", audience=Audience.CLAMD)
            if data:
                yield PartData(f"{key}~clamd", data)
            yield PartEnd(f"{key}~clamd")
