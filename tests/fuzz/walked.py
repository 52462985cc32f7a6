"""What must hold for the walker, whatever body it is given."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from icapscan.findings import Reason
from icapscan.limits import Budget
from icapscan.store import PartStore, Purse
from icapscan.unwrap import children
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.events import AnomalyFound, PartFailed
from icapscan.unwrap.formats import FORMATS, Registry
from icapscan.unwrap.libarchive import LIBARCHIVE_FORMATS
from icapscan.unwrap.sevenzip import SEVENZIP_FORMATS
from icapscan.unwrap.tree import PartReady, WalkEvent
from icapscan.unwrap.walker import Walker
from tests.fuzz import oracle
from tests.fuzz.oracle import LIMITS, SLACK

_CHILDREN = frozenset(one.name for one in LIBARCHIVE_FORMATS) | frozenset(one.name for one in SEVENZIP_FORMATS)
_IN_PROCESS = Registry(entry for entry in FORMATS if entry.format.name not in _CHILDREN)
"""Without those that start child processes: they have targets of their own."""
_NETS = ("Error: ", "Exception: ")
"""What the walker writes of a decoder that raised."""


class Walked:
    """Everything that the walker said of one body."""

    def __init__(self, data: bytes, split: Sequence[bytes], declared: Declared = oracle.NO_NAME) -> None:
        self.parts: dict[str, tuple[bytes, PartReady]] = {}
        self.failures: list[PartFailed] = []
        self.anomalies: set[tuple[str, str, str]] = set()
        self.budget = Budget(LIMITS)
        self._purse = Purse(LIMITS.memory, LIMITS.disk)
        self._virgin = PartStore(self._purse, LIMITS)
        self._order: list[str] = []
        walker = Walker(self.budget, self._store, self._virgin, declared=declared, formats=_IN_PROCESS)
        for piece in split:
            self.budget.take_body(len(piece))
            self._virgin.append(piece)
            self._take(walker.feed(piece))
            for events in walker.steps():
                self._take(events)
        for events in walker.finish():
            self._take(events)
        assert self._order[-1] == "" and self.parts[""][0] == data, "the body is always a part, and the last"
        walker.close()
        self._virgin.close()
        assert (self._purse.memory_left, self._purse.disk_left) == (LIMITS.memory, LIMITS.disk), "a store is not freed"

    def _store(self) -> PartStore:
        return PartStore(self._purse, LIMITS)

    def _take(self, events: Iterable[WalkEvent]) -> None:
        for event in events:
            if isinstance(event, PartReady):
                assert event.path not in self.parts, f"ready twice: {event.path!r}"
                event.path.encode("utf-8")
                "".join(event.declared.names).encode("utf-8")
                self.parts[event.path] = bytes(event.store.view()), event
                self._order.append(event.path)
                if event.path:
                    event.store.close()
            elif isinstance(event, PartFailed):
                assert not any(net in event.detail for net in _NETS), f"a decoder raised: {event.detail}"
                self.failures.append(event)
            else:
                assert isinstance(event, AnomalyFound)
                self.anomalies.add((event.anomaly.kind, event.anomaly.part, event.anomaly.detail))

    @property
    def reasons(self) -> set[Reason]:
        return {failure.reason for failure in self.failures}

    @property
    def contents(self) -> set[bytes]:
        """The bytes of all parts."""
        return {content for content, _ in self.parts.values()}

    def facts(self) -> dict[str, object]:
        """What must not depend on how the body was split."""
        return {
            "parts": {path: data for path, (data, _) in self.parts.items()},
            "told": {
                path: (one.declared, one.reading, one.audience, one.opened) for path, (_, one) in self.parts.items()
            },
            "failures": {(failure.path, failure.reason) for failure in self.failures},
            "anomalies": self.anomalies,
        }


def abandon(data: bytes, steps: int) -> None:
    """A walker that is given up after so many steps leaves no store and no child process behind."""
    purse = Purse(LIMITS.memory, LIMITS.disk)
    virgin, budget, given = PartStore(purse, LIMITS), Budget(LIMITS), list[PartStore]()
    walker = Walker(budget, lambda: PartStore(purse, LIMITS), virgin, formats=_IN_PROCESS)

    def given_away() -> Iterator[Iterable[WalkEvent]]:
        for at in range(0, len(data), 997):
            virgin.append(data[at : at + 997])
            yield walker.feed(data[at : at + 997])
        yield from walker.finish()

    for events in itertools.islice(given_away(), steps):
        given += [event.store for event in events if isinstance(event, PartReady) and event.store is not virgin]
    walker.close()
    for store in (*given, virgin):
        store.close()
    assert (purse.memory_left, purse.disk_left) == (LIMITS.memory, LIMITS.disk), "a store is not freed"
    assert not children._running, "a child process was forgotten"


def check(data: bytes) -> None:
    """Raise when an invariant does not hold for ``data``."""
    dice = oracle.dice(data)
    if dice.random() < 0.25:
        abandon(data, dice.randrange(30))
    whole = Walked(data, [data])
    cut = Walked(data, oracle.pieces(data, oracle.dice(data)))
    for one in (whole, cut):
        size = sum(len(content) for content, _ in one.parts.values()) - len(data)
        allowed = min(LIMITS.unpacked, max(LIMITS.ratio_from, int(len(data) * LIMITS.ratio)))
        assert one.budget.parts <= LIMITS.parts + 1
        assert size <= allowed + SLACK + LIMITS.depth * 4 * len(data), f"{size} bytes of parts where {allowed} may be"
        if one.budget.spent is not None:
            assert one.reasons & {Reason.OVER_LIMIT}, f"spent {one.budget.spent}, and nobody is told"
    if whole.budget.spent is None and cut.budget.spent is None:
        first, second = whole.facts(), cut.facts()
        for what in first:
            assert first[what] == second[what], (
                f"the split matters: {what}\n{first[what]!r:.3000}\n{second[what]!r:.3000}"
            )
