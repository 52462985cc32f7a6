"""Where the parts of a message stand: byte offsets of header and body of each, under the paths of the walker.

The structure is read with the same tools as `unwrap/` reads it with in its strict reading: bids, `HeaderReader`,
`parse`, `entity`, `Splitter`. Where that reading is not the only one, nothing is located and `Opaque` is raised:
what one reader takes for the body of a part, another might read as something else. What readers dispute *within* a part
(its transfer encoding, its names, junk in its header) does not matter here, for the part as a whole stands where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec.structs
from msgspec import Struct

from icapscan.findings import PartPath
from icapscan.sanitize.edits import virgin
from icapscan.store import PartReader, PartStore
from icapscan.unwrap.contract import FIRST, Bid, Declared, Evidence
from icapscan.unwrap.formats import Offer, registry
from icapscan.unwrap.libarchive import LibarchiveFormat
from icapscan.unwrap.mime import MIME
from icapscan.unwrap.mime_entity import Encoding, Entity, EntityDoubt, entity
from icapscan.unwrap.mime_fields import Fields, HeaderReader, known_fields, parse
from icapscan.unwrap.mime_variation import Start
from icapscan.unwrap.multipart import Mark, Splitter
from icapscan.unwrap.tree import child_base

PLACES_MAX = 10_000
"""As many as `Limits.parts` has by default."""
_FROM_LINE = re.compile(rb">?From [^\n]*\n")
"""As `unwrap.mime_fields` has it."""
_HARMLESS = frozenset({EntityDoubt.NAMES})
"""Doubts about a container that leave no doubt where its parts are."""


class Opaque(Exception):
    """The parts of a container cannot be located for sure. ``str(error)`` is one plain sentence."""


class Place(Struct, frozen=True):
    """One part of a container. The body goes up to the line end that belongs to the delimiter behind it."""

    key: str
    """Its number, as the walker counts."""
    start: int
    """Where its header begins."""
    header: bytes
    """The header as it stands, with the line that ends it."""
    body: int
    """Where its body begins: behind the header."""
    end: int
    """Where its body ends."""
    fields: Fields
    described: Entity
    certain: bool
    """Nobody doubts where the header ends and which fields it has."""

    @property
    def declared(self) -> Declared:
        """As the walker gives it to those who bid on the part."""
        described = self.described
        names = described.names or ((described.field,) if described.field else ())
        names = tuple(dict.fromkeys(name for name in names if name))
        return Declared(names, described.media_type, described.charset, MIME.name, described.content_type)

    @property
    def encoding(self) -> Encoding:
        """The transfer encoding that a strict reader undoes."""
        return self.described.encodings[0]

    def path(self, base: PartPath) -> PartPath:
        """Its path, in a container whose children are joined to ``base``."""
        return f"{base}/{self.key}" if base else self.key

    def base(self, base: PartPath) -> PartPath:
        """What the paths of its own children are joined to."""
        names = self.declared.names
        return child_base(self.path(base), names[0] if names else "")


class Container(Struct, frozen=True):
    """A message or a multipart, taken apart."""

    places: tuple[Place, ...]
    header: bytes
    """Of a message, its own; empty where it begins with a multipart."""
    body: int
    """Where its body begins."""
    described: Entity
    boundary: bytes | None
    """None: the one place is the body of the message, and shares its header."""
    line_end: bytes
    """CRLF or LF."""

    @property
    def first_field(self) -> int:
        """Where the header of a message has its first field: behind the From line of a mailbox, where there is one."""
        return self.body - len(self.header) + _above(self.header)


def locate(store: PartStore, start: int, end: int, declared: Declared) -> Container:
    """The parts of the message or multipart that stands in ``store`` from ``start`` to ``end``, encoded in no way.

    ``declared`` is what the walker knows of it. Raises `Opaque`.
    """
    begun = _start(store, start, end, declared)
    header, fields, at, certain = b"", Fields(), start, True
    described = begun.entity
    if described is None:
        header, certain = _header(virgin(store, start, end))
        if begun.fields_needed and known_fields(header) < begun.fields_needed:
            raise Opaque("It is not a mail.")
        fields, at = parse(header), start + len(header)
        described = entity(fields)
    line_end = _line_end(header or bytes(store.reader()[start : start + FIRST]))
    if not described.is_multipart:
        # As `Reading._enter`: whatever it is, it is the one part of this message.
        certain = certain and not fields.doubts
        above = _above(header)
        place = Place("1", start + above, header[above:], at, end, fields, described, certain)
        return Container((place,), header, at, described, None, line_end)
    if not certain or fields.doubts:
        raise Opaque("Mail readers do not agree about its header.")
    if described.doubts - _HARMLESS or len(described.boundaries) != 1:
        raise Opaque("Mail readers do not agree about its type or its boundary.")
    boundary = described.boundaries[0]
    places = tuple(_Multipart(store, at, end, described).places())
    return Container(places, header, at, described, boundary, line_end)


def is_container(store: PartStore, start: int, end: int, declared: Declared) -> bool:
    """Whether the walker opens the part that stands there as a message or multipart."""
    return MIME.bid(_evidence(store, start, end, declared)) is not Bid.NO


def is_mail(first: bytes, declared: Declared) -> bool:
    """The same from the first bytes of a part."""
    return MIME.bid(Evidence(first[:FIRST], False, declared)) is not Bid.NO


def _start(store: PartStore, start: int, end: int, declared: Declared) -> Start:
    """How the walker begins with it. Raises `Opaque` where another format could open it, too, and give it children."""
    begun: Start | None = None
    if start == end:
        raise Opaque("It is empty.")
    for offer in registry().offers(_evidence(store, start, end, declared)):
        if offer.entry.format is MIME:
            begun = MIME.start(declared, offer.bid)
        elif not _excluded(offer, store.reader(), start, end):
            raise Opaque(f"It can also be read as {offer.entry.format.name}.")
    if begun is None:
        raise Opaque("It is not a mail.")
    if begun.sniff or (begun.entity is not None and not begun.entity.is_multipart):
        raise Opaque("It is not declared as what it is.")
    return begun


def _evidence(store: PartStore, start: int, end: int, declared: Declared) -> Evidence:
    first = bytes(store.reader()[start : min(end, start + FIRST)])
    return Evidence(first, end - start <= FIRST, declared)


def _excluded(offer: Offer, data: bytes | PartReader, start: int, end: int) -> bool:
    """Whether a format that bid on the first bytes finds nothing in the rest for sure."""
    if isinstance(offer.entry.format, LibarchiveFormat):
        return offer.entry.format.excludes(data, start, end)
    first = b"\n" + bytes(data[start : min(end, start + FIRST)])  # see `Entry.needs`
    needs = offer.entry.needs
    return bool(needs) and not any(need in first or data.find(need, start, end) >= 0 for need in needs)


def _header(pieces: Iterator[bytes | memoryview]) -> tuple[bytes, bool]:
    """The header at the start of ``pieces``; and whether it is certain where it ends."""
    reader = HeaderReader()
    for piece in pieces:
        if reader.feed(bytes(piece)) is not None:
            return reader.block, True
        if reader.too_long:
            raise Opaque("Its header is too long.")
    reader.finish()
    return reader.block, not reader.cut_at_junk


def _above(header: bytes) -> int:
    found = _FROM_LINE.match(header)
    return found.end() if found is not None else 0


def _line_end(data: bytes) -> bytes:
    at = data.find(b"\n")
    return b"\n" if at == 0 or (at > 0 and data[at - 1 : at] != b"\r") else b"\r\n"


class _Multipart:
    """Finds the body parts of one multipart, as `unwrap.mime_parts.Parts` takes it apart, but keeps only offsets."""

    __slots__ = ("_at", "_count", "_default", "_described", "_header", "_nested", "_open", "_raw", "_start", "_stop",
                 "_store")  # fmt: skip

    def __init__(self, store: PartStore, start: int, end: int, described: Entity) -> None:
        self._store = store
        self._raw = store.reader()
        self._at = start
        """Behind the last piece."""
        self._stop = end
        self._described = described
        self._default = "message/rfc822" if described.media_type == "multipart/digest" else "text/plain"
        self._count = 0
        self._header: HeaderReader | None = None
        """Of the part whose header is being read."""
        self._start = start
        """Where that begins."""
        self._open: Place | None = None
        """The part whose body is being read; its end is not known."""
        self._nested = False
        """The last part that has begun is a multipart."""

    def places(self) -> Iterator[Place]:
        """The parts in order. Raises `Opaque`."""
        splitter = Splitter(self._described.boundaries[0])
        for piece in virgin(self._store, self._at, self._stop):
            yield from self._take(splitter.feed(bytes(piece)))
        yield from self._take(splitter.finish(self._nested))
        yield from self._end()
        if splitter.doubts:
            raise Opaque("Mail readers do not agree about its delimiters.")
        if not self._count:
            raise Opaque("It has no delimiter.")

    def _take(self, pieces: Iterator[tuple[Mark, bytes]]) -> Iterator[Place]:
        for mark, data in pieces:
            if mark is Mark.DATA:
                if self._header is not None:
                    self._read(self._header, data)
                self._at += len(data)
                continue
            yield from self._end()
            # The line end before a delimiter belongs to it, and is in no piece.
            between = bytes(self._raw[self._at : self._at + 2])
            self._at += len(between) - len(between.lstrip(b"\r\n")) + len(data)
            if mark is Mark.DELIMITER:
                self._count += 1
                if self._count > PLACES_MAX:
                    raise Opaque("It has too many parts.")
                self._header, self._start = HeaderReader(), self._at

    def _read(self, header: HeaderReader, data: bytes) -> None:
        """More of a header, and perhaps the first bytes of the body."""
        if header.feed(data) is not None:
            self._begin(header)
        elif header.too_long:
            raise Opaque("The header of a part is too long.")

    def _begin(self, header: HeaderReader) -> None:
        """The header is complete."""
        self._header = None
        fields = parse(header.block)
        described = entity(fields, self._default)
        self._nested = described.is_multipart
        body = self._start + len(header.block)
        certain = not fields.doubts and not header.cut_at_junk
        self._open = Place(str(self._count), self._start, header.block, body, body, fields, described, certain)

    def _end(self) -> Iterator[Place]:
        """The part that has begun, if there is one, ends here."""
        if self._header is not None:
            self._header.finish()
            self._begin(self._header)
        place, self._open = self._open, None
        if place is not None:
            self._check_closed(place)
            yield msgspec.structs.replace(place, end=self._at)

    def _check_closed(self, place: Place) -> None:
        """A multipart that is not closed might go on behind the delimiters of this one (as `mime_leaf.Leaf`)."""
        described = place.described
        if not described.is_multipart or len(described.boundaries) != 1 or place.encoding is not Encoding.IDENTITY:
            return
        if self._raw.find(b"--" + described.boundaries[0] + b"--", place.body, self._at) < 0:
            raise Opaque("A multipart in it is not closed.")
