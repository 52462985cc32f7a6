"""The other readings of a message or multipart whose first reading met something that readers disagree about.

Each doubt calls for other choices (`Variation`), one or two at a time. A choice is first tried for nothing but the
hashes of what it gives; only parts with content that no reading before it gave are then told. So memory stays flat, and
an engine sees no bytes twice.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator

import msgspec.structs

from icapscan.findings import Anomaly, Reason
from icapscan.limits import Budget
from icapscan.store import PartStore
from icapscan.unwrap import byteranges
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.mime_entity import EntityDoubt
from icapscan.unwrap.mime_fields import FieldDoubt, HeaderEnd
from icapscan.unwrap.mime_reading import Reading
from icapscan.unwrap.mime_variation import RAW, STRICT, AnyDoubt, Start, Variation
from icapscan.unwrap.multipart import Match, SplitDoubt
from icapscan.unwrap.transfer import Doubt
from icapscan.unwrap.transfer_base64 import Base64Reading
from icapscan.unwrap.transfer_quoted import QuotedReading

READINGS_MAX = 200
"""Readings of one container. Real mail has a handful of doubts at most; past this the verdict is over-limit."""
CHANGES_MAX = 2
"""Choices that are combined in one reading."""
_TICK = AnomalyFound(Anomaly("alternative-readings"))
"""Told again and again while readings are tried, so that whoever iterates can breathe in between."""

_OTHER_BASE64: tuple[dict[str, object], ...] = tuple(
    {"base64": reading}
    for reading in Base64Reading
    if reading not in (Base64Reading.LENIENT, Base64Reading.URL_SAFE, Base64Reading.AS_TEXT)
)
_CHOICES: dict[AnyDoubt, tuple[dict[str, object], ...]] = {
    FieldDoubt.JUNK_LINE: (
        {"header_end": HeaderEnd.JUNK_LINE},
        {"base64": Base64Reading.SKIP_FIRST},
        {"base64": Base64Reading.UNTIL_BLANK},
    ),
    FieldDoubt.BLANK_LINE: ({"header_end": HeaderEnd.BLANK_LINE},),
    FieldDoubt.BARE_CR: ({"bare_cr": True},),
    SplitDoubt.CARRIAGE_RETURN: ({"bare_cr": True}, {"match": Match.ANYWHERE}),
    SplitDoubt.TAIL: ({"match": Match.PREFIX},),
    SplitDoubt.MIDLINE: ({"match": Match.ANYWHERE},),
    EntityDoubt.TYPES: ({"leaf": True},),
    EntityDoubt.NO_DELIMITER: ({"leaf": True},),
    EntityDoubt.UNCLOSED: ({"inner_first": True},),
    Doubt.JUNK: (*_OTHER_BASE64, {"encoding": RAW}),
    Doubt.PADDING: (*_OTHER_BASE64, {"encoding": RAW}),
    Doubt.CUT: (*_OTHER_BASE64, {"encoding": RAW}),
    Doubt.TRUNCATED: ({"base64": Base64Reading.AS_TEXT},),
    Doubt.URL_SAFE: ({"base64": Base64Reading.URL_SAFE},),
    Doubt.ESCAPE: (
        {"quoted": QuotedReading.DROP},
        {"quoted": QuotedReading.DROP_ALL},
        {"quoted": QuotedReading.ANY_LINE_END},
        {"encoding": RAW},
    ),
    Doubt.SOFT_CR: ({"quoted": QuotedReading.ANY_LINE_END},),
    Doubt.LOWER_CASE: ({"quoted": QuotedReading.DROP_ALL},),
    Doubt.SOFT_BLANKS: ({"quoted": QuotedReading.LITERAL_BLANKS},),
    Doubt.TRAILING_BLANKS: ({"quoted": QuotedReading.STRIP_BLANKS},),
}
"""What to try for a doubt: fields of a `Variation`."""


class _Quiet(Gate):
    """Lets a trial pass spend time, but no output: what it decodes is forgotten at once."""

    __slots__ = ()

    def took(self, count: int) -> bool:
        return True


def alternatives(gate: Gate, quiet: Gate, start: Start, first: Reading, store: PartStore) -> Iterator[PartEvent]:
    """The events of all further readings. Raises `Stop` when the budget is spent."""
    yield from _others(gate, quiet, start, first, store)
    if EntityDoubt.MANY_BOUNDARIES in first.doubts:
        yield PartFailed("", Reason.OVER_LIMIT, "There are too many boundaries to try each.")
    if start.entity is not None and start.entity.media_type == byteranges.MEDIA_TYPE:
        yield from byteranges.joined(gate, (*start.entity.boundaries, b"")[0], store)


def _others(gate: Gate, quiet: Gate, start: Start, first: Reading, store: PartStore) -> Iterator[PartEvent]:
    queue = deque(_next(STRICT, first, store))
    if not queue:
        return
    yield _TICK
    seen: set[bytes] = set()
    yield from _try(Reading(quiet, start), store, seen, {})
    done = {STRICT}
    number = 0
    while queue:
        variation = queue.popleft()
        if variation in done:
            continue
        done.add(variation)
        if len(done) > READINGS_MAX:
            yield PartFailed("", Reason.OVER_LIMIT, f"There are more than {READINGS_MAX} ways to read this.")
            return
        trial = Reading(quiet, start, variation)
        fresh: dict[str, bytes] = {}
        yield from _try(trial, store, seen, fresh)
        if fresh:
            number += 1
            yield from _tell(Reading(gate, start, variation), store, fresh, number)
        if _changes(variation) < CHANGES_MAX:
            queue += _next(variation, trial, store)


def quiet_gate(budget: Budget) -> Gate:
    """A gate for trial passes, on the same budget."""
    return _Quiet(budget)


def _next(variation: Variation, reading: Reading, store: PartStore) -> list[Variation]:
    """Variations that the doubts of a reading call for, one more choice each."""
    changes: list[dict[str, object]] = []
    # In one order, whatever the split and the process: a set has none, and readings are numbered as they are tried.
    for doubt in sorted(reading.doubts, key=lambda one: one.value):
        changes += _CHOICES.get(doubt, ())
        if doubt is EntityDoubt.BOUNDARIES:
            changes += [{"boundary": index} for index in _present(reading.boundaries, store)]
        elif doubt in (EntityDoubt.ENCODINGS, EntityDoubt.CODED_CONTAINER):
            changes += [{"encoding": index} for index in range(1, reading.encodings)]
    found = []
    for change in changes:
        (field,) = change
        if getattr(variation, field) == getattr(STRICT, field):
            found.append(msgspec.structs.replace(variation, **change))
    return found


def _present(boundaries: tuple[bytes, ...], store: PartStore) -> list[int]:
    """Which boundaries, of all but the first, occur at all."""
    missing = dict(enumerate(boundaries))
    missing.pop(0, None)
    found: list[int] = []
    tail = b""
    for piece in store.pieces():
        data = tail + bytes(piece)
        for index, boundary in list(missing.items()):
            if b"--" + boundary in data:
                found.append(index)
                del missing[index]
        tail = data[-1024:]
    return sorted(found)


def _changes(variation: Variation) -> int:
    return sum(getattr(variation, field) != getattr(STRICT, field) for field in Variation.__struct_fields__)


def _events(reading: Reading, store: PartStore) -> Iterator[PartEvent]:
    for piece in store.pieces():
        yield from reading.feed(bytes(piece))
        yield _TICK
    yield from reading.finish()


def _try(reading: Reading, store: PartStore, seen: set[bytes], fresh: dict[str, bytes]) -> Iterator[PartEvent]:
    """Hash all parts of a reading: those that were not ``seen`` are noted there and in ``fresh``."""
    hashes: dict[str, hashlib._Hash] = {}
    for event in _events(reading, store):
        if isinstance(event, PartBegin):
            hashes[event.path] = hashlib.sha256(event.content_type if b"boundary" in event.content_type else b"")
        elif isinstance(event, PartData):
            hashes[event.path].update(event.data)
        elif event is _TICK:
            yield event
        elif isinstance(event, (PartEnd, PartFailed)) and event.path in hashes:
            digest = hashes.pop(event.path).digest()
            if digest not in seen:
                seen.add(digest)
                fresh[event.path] = digest


def _tell(reading: Reading, store: PartStore, fresh: dict[str, bytes], number: int) -> Iterator[PartEvent]:
    """The parts in ``fresh`` only, under keys of this reading."""
    for event in _events(reading, store):
        if isinstance(event, AnomalyFound) or event.path not in fresh:
            continue
        key = f"{event.path}~{number}"
        if isinstance(event, PartBegin):
            yield msgspec.structs.replace(event, path=key, reading=number)
        elif isinstance(event, PartData):
            yield PartData(key, event.data)
        else:
            yield msgspec.structs.replace(event, path=key)
