"""Toy formats for tests of the walker, and a way to drive it.

``BOX`` is a container of frames, read as a stream: a tag, a key of one byte, a length of three digits, and the data.
The tags: ``+`` data of a child (begins it when it is new), ``-`` end, ``!`` failure, ``?`` anomaly, ``X`` raises.
``CHEST`` is the same with another magic, read when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from icapscan.findings import Anomaly, Reason
from icapscan.limits import Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Bid, Context, Declared, Decoder, Evidence, WholeDecoder
from icapscan.unwrap.events import AnomalyFound, Audience, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.formats import Entry, Registry
from icapscan.unwrap.tree import PartReady, WalkEvent
from icapscan.unwrap.walker import Walker

BOX_MAGIC, CHEST_MAGIC = b"BOX1", b"CHEST"
WHOLE = 1 << 30


def frame(tag: bytes, key: bytes = b"", data: bytes = b"") -> bytes:
    """One frame, its data in pieces of at most 999 bytes."""
    if not data:
        return tag + (key or b"_") + b"000"
    pieces = [data[at : at + 999] for at in range(0, len(data), 999)]
    return b"".join(tag + key + b"%03d" % len(piece) + piece for piece in pieces)


def part(key: bytes, data: bytes) -> bytes:
    """A whole child."""
    return frame(b"+", key, data) + frame(b"-", key)


def box(*frames: bytes, magic: bytes = BOX_MAGIC) -> bytes:
    """A container."""
    return magic + b"".join(frames)


class BoxDecoder:
    """Reads frames as they arrive."""

    def __init__(self, context: Context, magic: bytes, audience: Audience, names: dict[str, str]) -> None:
        self._skip = len(magic)
        self._context = context
        self._audience = audience
        self._names = names
        self._held = b""
        self._begun: set[str] = set()

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        self._held += bytes(data)
        if self._skip:
            if len(self._held) < self._skip:
                return
            self._held, self._skip = self._held[self._skip :], 0
        while len(self._held) >= 5:
            size = int(self._held[2:5])
            if len(self._held) < 5 + size:
                return
            tag, key, data = self._held[:1], chr(self._held[1]), self._held[5 : 5 + size]
            self._held = self._held[5 + size :]
            yield from self._frame(tag, key, data)

    def finish(self) -> Iterator[PartEvent]:
        if self._held and self._context.bid is Bid.YES:
            yield PartFailed("", Reason.MALFORMED, "cut short")

    def _frame(self, tag: bytes, key: str, data: bytes) -> Iterator[PartEvent]:
        if tag == b"X":
            raise RuntimeError("a decoder with a mistake")
        if tag == b"+":
            if key not in self._begun:
                self._begun.add(key)
                yield PartBegin(key, self._names.get(key), audience=self._audience)
            self._context.gate.room()
            yield PartData(key, memoryview(data))
            self._context.gate.took(len(data))
        elif tag == b"-":
            yield PartEnd(key)
        elif tag == b"!":
            yield PartFailed("" if key == "_" else key, Reason.ENCRYPTED, "locked")
        elif tag == b"?":
            yield AnomalyFound(Anomaly("odd", "" if key == "_" else key))


class ChestDecoder:
    """The same from a complete part."""

    def __init__(self, stream: BoxDecoder) -> None:
        self._stream = stream

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        for piece in store.pieces(size=1000):
            yield from self._stream.feed(piece)
        yield from self._stream.finish()


class Toy:
    """The format of either."""

    def __init__(
        self,
        name: str = "box",
        magic: bytes = BOX_MAGIC,
        bid: Bid = Bid.YES,
        audience: Audience = Audience.ALL,
        names: dict[str, str] | None = None,
        whole: bool = False,
    ) -> None:
        self.name = name
        self._magic = magic
        self._bid = bid
        self._audience = audience
        self._names = names or {}
        self._whole = whole
        self.asked = 0

    def bid(self, evidence: Evidence) -> Bid:
        self.asked += 1
        return self._bid if evidence.first.startswith(self._magic) else Bid.NO

    def open(self, context: Context) -> Decoder | WholeDecoder:
        stream = BoxDecoder(context, self._magic, self._audience, self._names)
        return ChestDecoder(stream) if self._whole else stream


BOX = Entry(Toy(), prefixes=(BOX_MAGIC,))
CHEST = Entry(Toy("chest", CHEST_MAGIC, whole=True), prefixes=(CHEST_MAGIC,))
TOYS = Registry([BOX, CHEST])


class Walked:
    """Everything that a walker said of a body, with the bytes of every part."""

    def __init__(
        self,
        body: bytes,
        step: int = WHOLE,
        *,
        formats: Registry = TOYS,
        limits: Limits | None = None,
        declared: Declared | None = None,
        purse: Purse | None = None,
        coding: bytes = b"",
    ) -> None:
        self.purse = purse or Purse(1 << 30, 1 << 30)
        before = (self.purse.memory_left, self.purse.disk_left)
        self.limits = limits or Limits()
        self.budget = Budget(self.limits)
        self.parts: dict[str, bytes] = {}
        self.order: list[str] = []
        self.ready: dict[str, PartReady] = {}
        self.failed: list[tuple[str, Reason]] = []
        self.details: list[str] = []
        self.anomalies: list[tuple[str, str]] = []
        store = PartStore.of(b"")
        walker = Walker(
            self.budget,
            self._new_store,
            store,
            declared=declared or Declared(),
            formats=formats,
            content_encoding=coding,
        )
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            store._purse.memory_left += len(piece)
            self.budget.take_body(len(piece))
            store.append(piece)
            self._take(walker.feed(piece))
        for events in walker.finish():
            self._take(events)
        assert self.order[-1] == "" and self.parts[""] == body, "the body is always a part, and the last"
        walker.close()
        assert (self.purse.memory_left, self.purse.disk_left) == before, "every store is free again"

    def _new_store(self) -> PartStore:
        return PartStore(self.purse, self.limits)

    def _take(self, events: Iterable[WalkEvent]) -> None:
        for event in events:
            if isinstance(event, PartReady):
                assert event.path not in self.parts, "a path is ready once"
                self.parts[event.path] = bytes(event.store.view())
                self.ready[event.path] = event
                self.order.append(event.path)
                if event.path:
                    event.store.close()
            elif isinstance(event, PartFailed):
                self.failed.append((event.path, event.reason))
                self.details.append(event.detail)
            else:
                self.anomalies.append((event.anomaly.kind, event.anomaly.part))

    @property
    def leaves(self) -> set[str]:
        return {path for path, ready in self.ready.items() if ready.leaf}

    def facts(self) -> tuple[object, ...]:
        """What must not depend on how the body was split."""
        told = {path: (one.declared, one.reading, one.audience, one.opened) for path, one in self.ready.items()}
        return self.parts, told, sorted(map(str, self.failed)), sorted(self.anomalies)
