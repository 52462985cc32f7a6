"""Drives decoders alone, without the walker: a body in any split in, the tree of its parts out."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from icapscan.findings import Reason
from icapscan.limits import MIB, Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import FIRST, Bid, Context, Declared, Decoder, Evidence, Format, WholeDecoder
from icapscan.unwrap.events import (
    AnomalyFound,
    Audience,
    PartBegin,
    PartData,
    PartEnd,
    PartEvent,
    PartFailed,
    Waiting,
)
from icapscan.unwrap.gate import Gate

WHOLE = 10**9


class Unpacked:
    """The parts of one body, found by ``formats`` as the walker would find them."""

    def __init__(
        self,
        body: bytes,
        formats: Sequence[Format],
        declared: Declared | None = None,
        step: int = WHOLE,
        limits: Limits | None = None,
        seed: int | None = None,
    ) -> None:
        self.parts: dict[str, bytes] = {}
        self.begins: dict[str, PartBegin] = {}
        self.failed: dict[str, Reason] = {}
        self.anomalies: list[tuple[str, str]] = []
        self.opened: dict[str, list[str]] = {}
        self.budget = Budget(limits or Limits())
        self.budget.take_body(len(body))
        self._formats = formats
        self._step = step
        self._random = None if seed is None else random.Random(seed)
        self._over = False
        self._open("", body, declared or Declared(), 0)

    @property
    def kinds(self) -> set[str]:
        """Kinds of all anomalies."""
        return {kind for kind, _ in self.anomalies}

    @property
    def clean(self) -> bool:
        """Nothing was left undone."""
        return not self.failed and self.budget.spent is None

    def holding(self, needle: bytes) -> list[str]:
        """Paths of the parts that hold these bytes."""
        return [path for path, data in self.parts.items() if needle in data]

    def leaves(self) -> dict[str, bytes]:
        """Parts that no decoder opened."""
        return {path: data for path, data in self.parts.items() if path not in self.opened}

    def _open(self, path: str, body: bytes, declared: Declared, depth: int) -> None:
        first = body[:FIRST]
        if not body or self._over:
            return
        evidence = Evidence(first, len(first) == len(body), declared)
        bids = [(format.bid(evidence), format) for format in self._formats]
        for bid, format in sorted(bids, key=lambda pair: -pair[0]):
            if bid is not Bid.NO:
                self._run(path, body, declared, depth, format, bid)

    def _run(self, path: str, body: bytes, declared: Declared, depth: int, format: Format, bid: Bid) -> None:
        decoder = format.open(Context(self.budget, Gate(self.budget), declared, bid))
        children = _Children(self, path, format.name, depth)
        if isinstance(decoder, Decoder):
            at = 0
            while at < len(body):
                size = self._random.randint(1, 40) if self._random else self._step
                children.take(decoder.feed(memoryview(body)[at : at + size]))
                at += size
            children.take(decoder.finish())
        if isinstance(decoder, WholeDecoder) and not children.ended:
            purse = Purse(len(body) + MIB, 0)
            store = PartStore(purse, Limits())
            store.append(body)
            try:
                children.take(decoder.read(store))
            finally:
                store.close()
        assert not children.growing, f"{format.name} left parts open: {list(children.growing)}"


class _Children:
    """What one decoder says of one part."""

    def __init__(self, tree: Unpacked, path: str, name: str, depth: int) -> None:
        self._tree = tree
        self._path = path
        self._name = name
        self._depth = depth
        self.growing: dict[str, list[bytes]] = {}
        self._begun: dict[str, PartBegin] = {}
        self.ended = False

    def take(self, events: Iterable[PartEvent | Waiting]) -> None:
        tree = self._tree
        for event in events:
            if isinstance(event, Waiting):
                continue
            if self.ended or tree._over:
                return
            if isinstance(event, PartBegin):
                assert "/" not in event.path and event.path and event.path not in self._begun, event.path
                self._begun[event.path] = event
                tree.opened.setdefault(self._path, []).append(self._name)
                if not tree.budget.take_part() or not tree.budget.may_open(self._depth + 1):
                    tree._over = True
                    self.growing.clear()
                    tree.failed[self._path] = Reason.OVER_LIMIT
                    return
                self.growing[event.path] = []
            elif isinstance(event, PartData):
                assert len(event.data), "no empty pieces"
                self.growing[event.path].append(bytes(event.data))
            elif isinstance(event, PartEnd):
                self._close(event.path)
            elif isinstance(event, PartFailed):
                self._fail(event)
            else:
                assert isinstance(event, AnomalyFound)
                if (event.anomaly.kind, event.anomaly.part) not in tree.anomalies:
                    tree.anomalies.append((event.anomaly.kind, event.anomaly.part))

    def _fail(self, event: PartFailed) -> None:
        self._tree.failed[self._joined(event.path)] = event.reason
        if event.path:
            self._close(event.path)
        else:
            self.ended = True
            for key in list(self.growing):
                self._close(key)

    def _joined(self, key: str) -> str:
        return f"{self._path}/{key}" if self._path and key else key or self._path

    def _close(self, key: str) -> None:
        data = b"".join(self.growing.pop(key))
        begin = self._begun[key]
        path = self._joined(key)
        while path in self._tree.parts:
            path += "~"
        self._tree.parts[path] = data
        self._tree.begins[path] = begin
        if begin.audience is not Audience.CLAMD:
            names = tuple(name for name in (begin.name, *begin.names) if name)
            declared = Declared(
                names, begin.media_type or "", begin.charset, self._name, begin.content_type, begin.in_skeleton
            )
            self._tree._open(path, data, declared, self._depth + 1)
