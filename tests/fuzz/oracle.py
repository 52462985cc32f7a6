"""Drives one decoder alone and judges everything that it says. A decoder is *sound* when for any input:

1. A bid raises nothing, and a decoder nothing but `Stop`, which the walker turns into its reason. Anything else would
   only become a reason by the walker's net, and is a mistake.
2. Its events are well formed: keys are relative and harmless, a part begins once, has data only while it is open, and
   is closed at the end; what is told has names and details that can be written as UTF-8.
3. Its output is counted by the gate and bounded: it stops within a step of a spent budget.
4. Any split of the input gives the same parts, failures and anomalies.
5. A spent budget is told with its reason.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from icapscan.findings import Reason
from icapscan.limits import KIB, MIB, Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import FIRST, Bid, Context, Declared, Evidence
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.formats import Entry, Registry
from icapscan.unwrap.gate import STEP, Gate, Stop

LIMITS = Limits(
    depth=5, parts=300, unpacked=2 * MIB, ratio=60, ratio_from=512 * KIB, seconds=3600, memory=64 * MIB, disk=1,
    part_in_bytes=4 * KIB, part_in_memory=64 * MIB,
)  # fmt: skip
"""Small, so that an input can reach them; time does not matter, since it differs from run to run."""
SLACK = 2 * STEP
"""Output past a spent budget: the step that spent it, and what was in hand."""
NO_NAME = Declared()


class Ending(Struct, frozen=True):
    """How a part ended."""

    failed: Reason | None
    data: bytes


class Told:
    """Everything that one decoder said, judged as it is said."""

    def __init__(self) -> None:
        self.begins: dict[str, PartBegin] = {}
        self.ended: dict[str, Ending] = {}
        self.failures: set[tuple[str, Reason]] = set()
        self.anomalies: set[tuple[str, str, str]] = set()
        self.output = 0
        self.over = False
        """There were more parts than may be; the walker would stop here."""
        self.done = False
        """The decoder gave up the part itself and gets nothing more."""
        self._open: dict[str, bytearray] = {}

    def take(self, event: PartEvent | Waiting, budget: Budget) -> None:
        """One event; raises `AssertionError` where it is not well formed."""
        match event:
            case Waiting():
                pass
            case PartBegin(path=key):
                assert key and not key.startswith("/") and ".." not in key.split("/"), f"a bad key: {key!r}"
                assert key not in self.begins, f"begun twice: {key!r}"
                key.encode("utf-8")
                for name in (event.name, *event.names):
                    (name or "").encode("utf-8")  # a lone surrogate would break whoever logs it
                self.begins[key] = event
                self._open[key] = bytearray()
                self.over = not budget.take_part()
            case PartData(path=key, data=data):
                assert key in self._open, f"data of a part that is not open: {key!r}"
                self._open[key] += data
                self.output += len(data)
            case PartEnd(path=key):
                assert key in self._open, f"the end of a part that is not open: {key!r}"
                self.ended[key] = Ending(None, bytes(self._open.pop(key)))
            case PartFailed(path=key, reason=reason):
                assert event.detail, "a failure without a sentence"
                event.detail.encode("utf-8")
                self.failures.add((key, reason))
                if key in self._open:
                    self.ended[key] = Ending(reason, bytes(self._open.pop(key)))
                self.done = not key
            case AnomalyFound(anomaly=odd):
                assert odd.kind, "an anomaly without a kind"
                f"{odd.part}{odd.detail}".encode()
                self.anomalies.add((odd.kind, odd.part, odd.detail))

    def close(self) -> None:
        """The decoder has nothing more to say."""
        assert self.done or self.over or not self._open, f"parts that never end: {sorted(self._open)}"
        for key, data in self._open.items():
            self.ended[key] = Ending(None, bytes(data))
        self._open.clear()

    @property
    def contents(self) -> set[bytes]:
        """The bytes of all parts."""
        return {ending.data for ending in self.ended.values()}

    def facts(self) -> dict[str, object]:
        """What must not depend on how the input was split."""
        return {
            "parts": {key: (begin, self.ended.get(key)) for key, begin in self.begins.items()},
            "failures": self.failures,
            "anomalies": self.anomalies,
            "output": self.output,
        }


def dice(data: bytes) -> random.Random:
    """The same choices for the same input."""
    return random.Random(zlib.crc32(data))


def pieces(data: bytes, seed: random.Random) -> list[bytes]:
    """``data`` in pieces: now and then very short ones, else cut at a few places; empty ones among them."""
    if seed.random() < 0.15:
        longest = seed.choice((1, 2, 7, 61) if len(data) < 1500 else (61, 500))
        cuts, at = [], 0
        while at < len(data):
            cuts.append(at)
            at += seed.randint(0, longest)
    else:
        cuts = [seed.randint(0, len(data)) for _ in range(seed.choice((1, 2, 5, 12)))]
    edges = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def alone(
    entry: Entry,
    data: bytes,
    split: Sequence[bytes] | None = None,
    declared: Declared = NO_NAME,
    limits: Limits = LIMITS,
) -> tuple[Told, Budget] | None:
    """``data`` through one decoder, fed in these pieces, then as a whole; None where the format makes no bid."""
    evidence = Evidence(data[:FIRST], len(data) <= FIRST, declared)
    assert isinstance(entry.format.bid(evidence), Bid)
    offers = Registry([entry]).offers(evidence)
    if not offers:
        return None
    budget, told = Budget(limits), Told()
    budget.take_body(len(data))
    decoder = entry.format.open(Context(budget, Gate(budget), declared, offers[0].bid))
    store = PartStore(Purse(limits.memory, limits.disk), limits)
    try:
        store.append(data)
        for step in _steps(decoder, store, split if split is not None else (data,)):
            run(step, told, budget)
            if told.done or told.over:
                break
        told.close()
    finally:
        store.close()
    bounded(told, budget, limits, len(data))
    return told, budget


def _steps(decoder: object, store: PartStore, split: Sequence[bytes]) -> Iterator[Iterable[PartEvent | Waiting]]:
    feed, read = getattr(decoder, "feed", None), getattr(decoder, "read", None)
    assert feed is not None or read is not None
    if feed is not None:
        for piece in split:
            copy = bytearray(piece)
            yield feed(memoryview(copy))
            copy[:] = b"\xaa" * len(copy)  # only valid during the iteration
        yield decoder.finish()  # type: ignore[attr-defined]
    if read is not None:
        yield read(store)


def run(events: Iterable[PartEvent | Waiting], told: Told, budget: Budget) -> None:
    """One step of a decoder, as the walker takes it."""
    try:
        for event in events:
            told.take(event, budget)
            if told.done or told.over:
                close = getattr(events, "close", None)
                if close is not None:
                    close()
                return
    except Stop as stop:
        told.take(PartFailed("", stop.reason, stop.detail), budget)


def bounded(told: Told, budget: Budget, limits: Limits, size: int) -> None:
    """Output is counted, bounded, and a spent budget is told."""
    allowed = min(limits.unpacked, max(limits.ratio_from, int(size * limits.ratio)))
    assert budget.unpacked <= allowed + SLACK or budget.spent is not None
    assert told.output <= allowed + SLACK + size, f"{told.output} bytes came out where {allowed} may"
    assert told.output <= budget.unpacked + 2 * size + 64 * KIB, f"{told.output} bytes, {budget.unpacked} counted"
    if budget.spent is not None and not told.over:
        reasons = {reason for _, reason in told.failures}
        assert reasons & {Reason.OVER_LIMIT, Reason.ENCRYPTED}, f"spent {budget.spent}, and nobody is told"


def check(entry: Entry, data: bytes, declared: Declared = NO_NAME) -> Told | None:
    """Raise `AssertionError`, or what the decoder raised, when an invariant does not hold for ``data``."""
    first = alone(entry, data, declared=declared)
    if first is None:
        return None
    whole, budget = first
    again = alone(entry, data, pieces(data, dice(data)), declared)
    assert again is not None
    cut, budget_cut = again
    if budget.spent is None and budget_cut.spent is None:
        same(whole, cut)
    return whole


def same(whole: Told, cut: Told) -> None:
    """The same was said, whatever the split."""
    one, two = whole.facts(), cut.facts()
    for what in one:
        assert one[what] == two[what], f"the split matters for {what}:\n{one[what]!r:.3000}\n{two[what]!r:.3000}"
