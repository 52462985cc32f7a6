"""Drives one archive decoder alone, and a whole body through the walker; collects what comes out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

from icapscan.findings import Anomaly, Reason
from icapscan.limits import Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import FIRST, Bid, Context, Declared, Evidence, Format, WholeDecoder
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.passwords import Passwords
from icapscan.unwrap.tree import PartReady
from icapscan.unwrap.walker import Walker


class Got:
    """What a decoder, or the walker, made of some bytes."""

    def __init__(self, limits: Limits) -> None:
        self.budget = Budget(limits)
        self.parts: dict[str, bytes] = {}
        self.begins: dict[str, PartBegin] = {}
        self.failures: list[PartFailed] = []
        self.anomalies: list[Anomaly] = []
        self.hashes: set[str] = set()
        self.leaves: dict[str, str] = {}
        self._open: dict[str, list[bytes]] = {}

    @property
    def kinds(self) -> set[str]:
        """Kinds of the anomalies."""
        return {anomaly.kind for anomaly in self.anomalies}

    @property
    def reasons(self) -> set[Reason]:
        """Why not everything could be read."""
        return {failure.reason for failure in self.failures}

    @property
    def spent(self) -> str | None:
        """The limit that was reached."""
        deep = any("limit on depth" in failure.detail for failure in self.failures)
        return self.budget.spent or ("depth" if deep else None)

    @property
    def contents(self) -> list[bytes]:
        return list(self.parts.values())

    def take(self, event: PartEvent) -> None:
        """One event; asserts that the decoder keeps to the contract."""
        if isinstance(event, PartBegin):
            assert event.path not in self.begins and event.path and not event.path.startswith("/")
            assert ".." not in event.path.split("/")
            self.begins[event.path] = event
            self._open[event.path] = []
            self.budget.take_part()
        elif isinstance(event, PartData):
            self._open[event.path].append(bytes(event.data))
        elif isinstance(event, PartEnd):
            self.parts[event.path] = b"".join(self._open.pop(event.path))
        elif isinstance(event, PartFailed):
            self.failures.append(event)
            if event.path in self._open:
                self.parts[event.path] = b"".join(self._open.pop(event.path))
        elif isinstance(event, AnomalyFound):
            self.anomalies.append(event.anomaly)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` cut at these places."""
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def drive(
    fmt: Format,
    data: bytes,
    *,
    split: Iterable[bytes] | None = None,
    limits: Limits | None = None,
    declared: Declared | None = None,
    bid: Bid | None = None,
) -> Got:
    """``data`` through one decoder, fed in these pieces, then as a whole where the decoder wants that."""
    limits = limits or Limits()
    got = Got(limits)
    got.budget.take_body(len(data))
    declared = declared or Declared()
    if bid is None:
        bid = fmt.bid(Evidence(data[:FIRST], len(data) <= FIRST, declared))
        if bid is Bid.NO:
            return got
    decoder = fmt.open(Context(got.budget, Gate(got.budget), declared, bid))
    for event in _events(decoder, data, split):
        got.take(event)
        if isinstance(event, PartFailed) and not event.path:
            break
    assert not got._open, "a part did not end"
    return got


def _events(decoder: object, data: bytes, split: Iterable[bytes] | None) -> Iterator[PartEvent]:
    feed: Callable[[bytes], Iterable[PartEvent]] | None = getattr(decoder, "feed", None)
    if feed is not None:
        for piece in split if split is not None else (data,):
            yield from feed(piece)
        yield from decoder.finish()  # type: ignore[attr-defined]
    if isinstance(decoder, WholeDecoder):
        store = PartStore.of(data)
        yield from (event for event in decoder.read(store) if not isinstance(event, Waiting))
        store.close()


def walk(
    data: bytes,
    *,
    name: str = "",
    limits: Limits | None = None,
    piece: int = 65536,
    passwords: Passwords | None = None,
) -> Got:
    """``data`` through the walker with all formats."""
    limits = limits or Limits()
    got = Got(limits)
    purse = Purse(limits.memory, limits.disk)
    virgin = PartStore(purse, limits)
    walker = Walker(
        got.budget,
        lambda: PartStore(purse, limits),
        virgin,
        declared=Declared((name,) if name else ()),
        passwords=passwords,
    )

    def handle(events: Iterable[object]) -> None:
        for event in events:
            if isinstance(event, PartReady):
                digest = hashlib.sha256()
                for block in event.store.pieces():
                    digest.update(block)
                got.hashes.add(digest.hexdigest())
                if event.leaf:
                    got.leaves[event.path] = digest.hexdigest()
                if event.store is not virgin:
                    event.store.close()
            elif isinstance(event, PartFailed):
                got.failures.append(event)
            elif isinstance(event, AnomalyFound):
                got.anomalies.append(event.anomaly)

    try:
        for at in range(0, len(data), piece):
            block = data[at : at + piece]
            got.budget.take_body(len(block))
            virgin.append(block)
            handle(walker.feed(block))
            for events in walker.steps():
                handle(events)
        for events in walker.finish():
            handle(events)
    finally:
        walker.close()
        virgin.close()
    return got
