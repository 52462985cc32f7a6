"""Answers of an engine that are used again for the same bytes: by SHA-256, for as long as the engines are the same.

What comes for the first time costs no digest: only what looks like something seen before (`glimpse_of`) is hashed, so a
report is kept from the second time on, and unique bodies never fill the cache. Bodies that look alike while one of them
is being scanned are hashed too, and the same bytes are scanned once.

Never kept: a report that says UNSCANNED, for whatever reason. Who asks while the same bytes are being scanned waits,
within its own deadline, and is scanned by itself where the other gave no whole answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from icapscan.engines.contract import Cancel, Engine, Part, PromptEngine, Report
from icapscan.findings import Finding
from icapscan.limits import MIB, Bytes, Seconds
from icapscan.store import PartReader, PartStore

HASH_INLINE = 1 * MIB
"""A larger part is hashed in a thread: about 1.5 GB/s, so this is half a millisecond."""
SEEN_MOST = 65_536
"""Glimpses that are remembered, in each of two halves; the older half is forgotten as a whole."""
_ENTRY = 400
"""Bytes that an entry takes at least: its key, its place, a report without findings."""
_FINDING = 300
_EDGE = 128
"""Bytes at the start, in the middle and at the end that a glimpse looks at."""
Glimpse = tuple[int, int]
Key = tuple[str, str, Hashable]
"""Engine (empty: all of them, about a whole body), SHA-256, and what else the answer depends on."""
Mark = tuple[Key, int]
"""Where something is to be kept, and the epoch in which its scan began."""


class CacheSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[cache]``: answers of the engines for parts that were scanned before."""

    enabled: bool = True
    memory: Bytes = 32 * MIB
    """Bytes that all workers together keep answers in."""
    seconds: Seconds = 3600.0
    """An answer is used for so long at most. It ends earlier when the ISTag changes."""


class _Entry(Struct, frozen=True):
    findings: tuple[Finding, ...]
    path: str
    """Of the part that was scanned: findings begin with it."""
    until: float
    size: int


class _Flight:
    """A scan that runs."""

    __slots__ = ("_over", "_result", "_waited", "extra", "store")

    def __init__(self, store: PartStore, extra: Hashable) -> None:
        self.store = store
        self.extra = extra
        self._over = False
        self._result: Report | None = None
        self._waited: asyncio.Future[Report | None] | None = None

    def land(self, report: Report | None) -> None:
        """It is over. None: it gave no whole answer."""
        self._over, self._result = True, report
        if self._waited is not None and not self._waited.done():
            self._waited.set_result(report)

    def result(self) -> asyncio.Future[Report | None]:
        """What it will have given; made only where somebody waits for it."""
        if self._waited is None:
            self._waited = asyncio.get_running_loop().create_future()
            if self._over:
                self._waited.set_result(self._result)
        return self._waited


class ReportCache:
    """The memory of one worker, for all of its engines. Bounded by bytes and by age."""

    def __init__(self, settings: CacheSettings, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = settings.memory // max(1, workers)
        self._seconds = settings.seconds
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._seen: set[Glimpse] = set()
        self._seen_before: set[Glimpse] = set()
        self.epoch = 0
        """Changes when everything is forgotten."""
        self.size = 0
        """Bytes that the entries take."""
        self.hits = 0
        self.misses = 0
        """Scans of parts that had been seen before and yet had no answer that could be used."""
        self.firsts = 0
        """Scans of parts that look like nothing seen before."""

    def __len__(self) -> int:
        return len(self._entries)

    def seen(self, glimpse: Glimpse) -> bool:
        """Whether something looked like this before; from now on it did."""
        if glimpse in self._seen:
            return True
        known = glimpse in self._seen_before
        if len(self._seen) >= SEEN_MOST:
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(glimpse)
        return known

    def get(self, key: Key) -> _Entry | None:
        """What is known."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, findings: tuple[Finding, ...], path: str) -> None:
        """Keep a whole answer."""
        if key in self._entries:
            self._drop(key)
        size = _ENTRY + sum(_FINDING + len(one.name) + len(one.part) for one in findings) + len(path)
        if size > self._most:
            return
        self._entries[key] = _Entry(findings, path, self._clock() + self._seconds, size)
        self.size += size
        while self.size > self._most:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """The engines changed: nothing that is known holds any more."""
        self.epoch += 1
        self._entries.clear()
        self.size = 0

    def _drop(self, key: Key) -> None:
        self.size -= self._entries.pop(key).size


class BodyCache:
    """Whole bodies that were CLEAN: neither engines nor decoders are asked again.

    In the same memory as the reports, so that one bound holds for both and both are forgotten together.
    """

    __slots__ = ("_cache",)

    def __init__(self, cache: ReportCache) -> None:
        self._cache = cache

    def recall(self, body: bytes, subject: Hashable) -> tuple[Mark | None, bool]:
        """Whether ``body``, said to be ``subject``, was clean before; and what `keep` wants once it turns out to be.

        No mark for what comes for the first time: it costs no digest.
        """
        size = len(body)
        return self._recall((size, _glimpse(body, size)), lambda: hashlib.sha256(body).hexdigest(), subject)

    def recall_stored(self, store: PartStore, subject: Hashable) -> tuple[Mark | None, bool]:
        """The same for a body that came in pieces. A long one is never known: its digest would hold up the others."""
        return (None, False) if store.size > HASH_INLINE else self._recall(glimpse_of(store), store.sha256, subject)

    def _recall(self, glimpse: Glimpse, digest: Callable[[], str], subject: Hashable) -> tuple[Mark | None, bool]:
        cache, (size, look) = self._cache, glimpse
        if not cache.seen((-1 - size, look)):
            return None, False
        key = ("", digest(), subject)
        if cache.get(key) is not None:
            cache.hits += 1
            return None, True
        return (key, cache.epoch), False

    def keep(self, mark: Mark) -> None:
        """It was clean. What was scanned before the engines changed is not kept."""
        key, epoch = mark
        if epoch == self._cache.epoch:
            self._cache.put(key, (), "")


class CachedEngine:
    """An engine whose answers are kept. What `icapscan.engines.fanout` asks of an engine beyond the contract passes
    through; ``scan_now`` is not offered where the engine has none.
    """

    def __init__(self, engine: Engine, cache: ReportCache) -> None:
        self._engine = engine
        self._cache = cache
        self._flights: dict[Glimpse, _Flight] = {}
        self._extra: Callable[[Part], Hashable] = getattr(engine, "depends_on", _nothing)
        self._prompt = cast(PromptEngine, engine) if getattr(engine, "begins", False) else None
        self.name = engine.name

    @property
    def bare(self) -> Engine:
        """The engine itself, for a test whether it works."""
        return self._engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forget(self) -> None:
        """The ISTag changed. A scan that runs may be one of the older engines: its answer is not kept."""
        self._cache.clear()

    async def version(self) -> str:
        return await self._engine.version()

    async def close(self) -> None:
        await self._engine.close()

    async def scan(self, part: Part, seconds: float) -> Report:
        glimpse = glimpse_of(part.store)
        flight = self._flights.get(glimpse)
        known = self._cache.seen(glimpse)
        if flight is None and not known:
            self._cache.firsts += 1
            return await self._fly(part, seconds, glimpse)
        began = time.monotonic()
        extra = self._extra(part)
        key = (self.name, await _sha256(part.store), extra)
        if (report := self._kept(key, part)) is not None:
            return report
        if flight is not None and flight.extra == extra and await self._flies(flight, glimpse, key[1]):
            report = await self._join(flight, part, began + seconds)
            if report is not None:
                return report
        self._cache.misses += 1
        epoch = self._cache.epoch
        report = await self._fly(part, max(0.001, began + seconds - time.monotonic()), glimpse)
        if _keepable(report) and epoch == self._cache.epoch:
            self._cache.put(key, report.findings, part.path)
        return report

    def may_begin(self, part: Part) -> bool:
        """Whether `begin` would start at once, or knows the answer."""
        return self._prompt is not None and self._prompt.may_begin(part)

    def begin(self, part: Part, seconds: float, then: Callable[[Report], None]) -> Report | Cancel | None:
        """As `scan`, where nobody is waited for but the engine itself."""
        assert self._prompt is not None
        store = part.store
        glimpse = glimpse_of(store)
        if glimpse in self._flights or store.size > HASH_INLINE:
            return None
        extra, key, epoch = self._extra(part), None, self._cache.epoch
        if self._cache.seen(glimpse):
            key = (self.name, store.sha256(), extra)
            if (report := self._kept(key, part)) is not None:
                return report
            self._cache.misses += 1
        else:
            self._cache.firsts += 1
        flight = _Flight(store, extra)

        def landed(report: Report) -> None:
            self._flights.pop(glimpse, None)
            try:
                good = _keepable(report) and epoch == self._cache.epoch
                flight.land(_moved(report, part.path, "") if good else None)
                if good and key is not None:
                    self._cache.put(key, report.findings, part.path)
            finally:
                then(report)

        def cancel() -> None:
            self._flights.pop(glimpse, None)
            flight.land(None)
            stop()

        begun = self._prompt.begin(part, seconds, landed)
        if begun is None or isinstance(begun, Report):
            return begun
        stop = begun
        self._flights[glimpse] = flight
        return cancel

    def _kept(self, key: Key, part: Part) -> Report | None:
        entry = self._cache.get(key)
        if entry is None:
            return None
        self._cache.hits += 1
        return _moved(Report(self.name, entry.findings, cached=True), entry.path, part.path)

    async def _fly(self, part: Part, seconds: float, glimpse: Glimpse) -> Report:
        """Scan, and let others who ask for the same bytes meanwhile have the answer."""
        if glimpse in self._flights:
            return await self._engine.scan(part, seconds)
        flight = self._flights[glimpse] = _Flight(part.store, self._extra(part))
        whole: Report | None = None
        epoch = self._cache.epoch
        try:
            report = await self._engine.scan(part, seconds)
            if _keepable(report) and epoch == self._cache.epoch:
                whole = _moved(report, part.path, "")
            return report
        finally:
            del self._flights[glimpse]
            flight.land(whole)

    async def _flies(self, flight: _Flight, glimpse: Glimpse, digest: str) -> bool:
        """Whether a scan that still runs is one of these bytes."""
        if self._flights.get(glimpse) is not flight:
            return False
        try:
            same = await _sha256(flight.store) == digest
        except (OSError, ValueError):
            return False
        return same and self._flights.get(glimpse) is flight  # else its store was freed, and who knows what was read

    async def _join(self, flight: _Flight, part: Part, until: float) -> Report | None:
        """The answer of a scan that runs, if it comes in time and is a whole one."""
        left = until - time.monotonic()
        result = flight.result()
        done, _ = await asyncio.wait((result,), timeout=max(0.0, left))
        if not done or (report := result.result()) is None:
            return None
        self._cache.hits += 1
        return replace(_moved(report, "", part.path), cached=True)


def glimpse_of(store: PartStore) -> Glimpse:
    """What can be said of a part without reading it all: equal parts have equal glimpses, others mostly not."""
    known = store.glimpse
    if known is None or known[0] != store.size:  # a store only grows
        known = store.glimpse = (store.size, _glimpse(store.reader(), store.size))
    return known


def _glimpse(data: bytes | PartReader, size: int) -> int:
    if size <= 3 * _EDGE:
        return zlib.crc32(data[0:size])
    middle = size // 2
    mark = zlib.crc32(data[0:_EDGE])
    mark = zlib.crc32(data[middle : middle + _EDGE], mark)
    return zlib.crc32(data[size - _EDGE : size], mark)


async def _sha256(store: PartStore) -> str:
    if store.size <= HASH_INLINE:
        return store.sha256()
    return await asyncio.to_thread(store.sha256)


def _keepable(report: Report) -> bool:
    return not report.unscanned and not report.allowed


def _moved(report: Report, before: str, now: str) -> Report:
    """The same of a part that stands elsewhere: every finding is about the part itself or begins with its path."""
    if before == now or not report.findings:
        return report
    return replace(report, findings=tuple(replace(one, part=now + one.part[len(before) :]) for one in report.findings))


def _nothing(part: Part) -> Hashable:
    return None
