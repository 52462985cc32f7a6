"""multipart/byteranges (RFC 9110 14.6): the ranges of one content, put together as a client puts them together.

Each range is a body part and scanned as such. What is split between two of them shows only in the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from icapscan.findings import Anomaly, Reason
from icapscan.store import PartStore
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.mime_fields import HeaderReader
from icapscan.unwrap.multipart import Mark, Splitter

MEDIA_TYPE = "multipart/byteranges"
RUNS_MAX = 64
"""Times that the body is read to bring its ranges into order. A server sends them in the order it was asked for."""
_KEY = "joined"
_RANGE = re.compile(
    rb"^content-range[ \t]*:[ \t]*bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)[ \t\r]*$", re.I | re.M
)


class Piece(Struct, frozen=True):
    """One body part: its number, and where its bytes stand in the content. ``end`` is behind the last of them."""

    number: int
    start: int
    end: int
    total: int
    """-1 where it is not known."""
    size: int
    """Bytes that there are."""


def content_range(header: bytes, number: int = 0, size: int = 0) -> Piece | None:
    """The range that a header tells; None where it tells none, or more than one."""
    found = _RANGE.findall(header)
    if len(found) != 1:
        return None
    first, last, total = found[0]
    piece = Piece(number, int(first), int(last) + 1, -1 if total == b"*" else int(total), size)
    return piece if piece.start < piece.end else None


def joined(gate: Gate, boundary: bytes, store: PartStore) -> Iterator[PartEvent]:
    """The content that the ranges make up; a failure of the whole where they do not. Raises `Stop`."""
    pieces = _pieces(boundary, store)
    if not pieces:
        yield PartFailed("", Reason.UNSUPPORTED, "The ranges of this content do not say where they belong.")
        return
    ordered = sorted(pieces, key=lambda piece: (piece.start, piece.number))
    if len(ordered) > 1:
        yield AnomalyFound(Anomaly("ranges-joined", _KEY))
        yield PartBegin(_KEY, reading=1)
        runs = list(_runs(ordered))
        for run in runs[:RUNS_MAX]:
            yield from _data(gate, boundary, store, run)
        if len(runs) > RUNS_MAX:
            yield PartFailed(_KEY, Reason.OVER_LIMIT, "The ranges are too many, and not in order.")
        else:
            yield PartEnd(_KEY)
    if not _whole(ordered):
        yield PartFailed("", Reason.UNSUPPORTED, "These are only some ranges of a content.")


def _whole(ordered: list[Piece]) -> bool:
    at = 0
    for piece in ordered:
        if piece.start != at or piece.size != piece.end - piece.start:
            return False
        at = piece.end
    return all(piece.total == at for piece in ordered)


def _runs(ordered: list[Piece]) -> Iterator[set[int]]:
    """Numbers of body parts that can be read in one pass each."""
    run: set[int] = set()
    last = -1
    for piece in ordered:
        if piece.number < last:
            yield run
            run = set()
        run.add(piece.number)
        last = piece.number
    yield run


def _pieces(boundary: bytes, store: PartStore) -> list[Piece]:
    headers: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    for number, header, data in _read(boundary, store):
        if header is not None:
            headers[number] = header
        sizes[number] = sizes.get(number, 0) + len(data)
    found = [content_range(header, number, sizes[number]) for number, header in headers.items()]
    return [piece for piece in found if piece is not None]


def _data(gate: Gate, boundary: bytes, store: PartStore, wanted: set[int]) -> Iterator[PartEvent]:
    for number, _, data in _read(boundary, store):
        if number in wanted and data:
            if not gate.took(len(data)):
                gate.stop()
            yield PartData(_KEY, data)


def _read(boundary: bytes, store: PartStore) -> Iterator[tuple[int, bytes | None, bytes]]:
    """The body parts: number, header where it is complete just now, and data of the body."""
    splitter, number, reader, inside = Splitter(boundary), 0, HeaderReader(), False

    def take(marks: Iterator[tuple[Mark, bytes]]) -> Iterator[tuple[int, bytes | None, bytes]]:
        nonlocal number, reader, inside
        for mark, data in marks:
            if mark is Mark.DELIMITER:
                number, reader, inside = number + 1, HeaderReader(), True
            elif mark is Mark.CLOSE:
                inside = False
            elif inside and reader.block:
                yield number, None, data
            elif inside:
                rest = reader.feed(data)
                if rest is None and reader.too_long:
                    inside = False  # no header of a range
                elif rest is not None:
                    yield number, reader.block, rest

    for piece in store.pieces():
        yield from take(splitter.feed(bytes(piece)))
    yield from take(splitter.finish())
