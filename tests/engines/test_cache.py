"""Answers that are used again: only for the same bytes, only whole ones, only while the engines are the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.engines.cache import CachedEngine, CacheSettings, ReportCache, glimpse_of
from icapscan.engines.contract import Cancel, Part, Report
from icapscan.engines.fanout import Fanout, eicar
from icapscan.findings import Finding, Reason, Unscanned
from icapscan.store import PartStore
from tests.engines.calling import CallingCache

CACHE: ContextVar[type[CachedEngine]] = ContextVar("CACHE", default=CachedEngine)
HIT = b"bad bytes "
LARGE = 2 * 1024 * 1024


@pytest.fixture(autouse=True, scope="module", params=[CachedEngine, CallingCache])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test by `scan` and by `begin`."""
    token = CACHE.set(request.param)
    yield
    CACHE.reset(token)


class Counted:
    """Finds `HIT`, counts its scans; ``wait`` holds them up, ``reason`` makes it fail."""

    name = "counted"
    audience = "clamd"

    def __init__(self) -> None:
        self.scans = 0
        self.wait: Callable[[], Awaitable[object]] | None = None
        self.reason: Reason | None = None
        self.first_fails = False

    async def scan(self, part: Part, seconds: float) -> Report:
        self.scans += 1
        fails = self.first_fails and self.scans == 1
        data = bytes(part.store.view())
        if self.wait is not None:
            await self.wait()
        if fails or self.reason is not None:
            reason = self.reason or Reason.ENGINE_FAILED
            return Report(self.name, unscanned=(Unscanned(reason, part.path, self.name),))
        return Report(self.name, (Finding(self.name, "Bad", part.path),) if HIT in data or eicar() in data else ())

    begins = True

    def may_begin(self, part: Part) -> bool:
        return True

    def begin(self, part: Part, seconds: float, then: Callable[[Report], None]) -> Cancel:
        task = asyncio.ensure_future(self.scan(part, seconds))
        task.add_done_callback(lambda done: None if done.cancelled() else then(done.result()))

        def cancel() -> None:
            task.cancel()

        return cancel

    async def version(self) -> str:
        return "1"

    async def close(self) -> None:
        return None


class Named(Counted):
    """Its answer depends on the name as well."""

    def depends_on(self, part: Part) -> Hashable:
        return part.name


def made(**settings: object) -> tuple[Counted, ReportCache, CachedEngine]:
    engine, cache = Counted(), ReportCache(CacheSettings(**settings))  # type: ignore[arg-type]
    return engine, cache, CACHE.get()(engine, cache)


def part(data: bytes, path: str = "", name: str = "") -> Part:
    return Part(path, PartStore.of(data), name)


def ask(engine: CachedEngine, *parts: Part) -> list[Report]:
    async def run() -> list[Report]:
        return [await engine.scan(one, 10.0) for one in parts]

    return asyncio.run(run())


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 100_000, HIT * 30_000, HIT + bytes(LARGE)])
def test_the_third_time_is_answered_from_memory(data: bytes) -> None:
    engine, cache, cached = made()
    first, second, third = ask(cached, part(data, "a"), part(data, "b"), part(data, "c/d"))
    assert engine.scans == 2 and len(cache) == 1
    assert (first.cached, second.cached, third.cached) == (False, False, True)
    assert [bool(one.findings) for one in (first, second, third)] == [HIT in data] * 3
    assert [one.part for one in third.findings] == (["c/d"] if HIT in data else [])
    assert (cache.firsts, cache.misses, cache.hits) == (1, 1, 1)


@given(st.lists(st.sampled_from([b"a" * 500, b"a" * 501, HIT * 60, bytes(1000), bytes(999) + b"x"]), max_size=20))
def test_the_answer_is_always_that_of_the_engine(bodies: list[bytes]) -> None:
    _, _, cached = made()
    for report, body in zip(ask(cached, *map(part, bodies)), bodies, strict=True):
        assert bool(report.findings) is (HIT in body) and not report.unscanned


def test_what_only_looks_the_same_is_scanned() -> None:
    """Same size, same start, middle and end."""
    engine, _, cached = made()
    clean = bytearray(10_000)
    bad = clean.copy()
    bad[2000 : 2000 + len(HIT)] = HIT
    assert glimpse_of(PartStore.of(bytes(clean))) == glimpse_of(PartStore.of(bytes(bad)))
    reports = ask(cached, *(part(bytes(one)) for one in (clean, clean, clean, bad, bad, bad)))
    assert [bool(one.findings) for one in reports] == [False, False, False, True, True, True]
    assert engine.scans == 3


@pytest.mark.parametrize("reason", list(Reason))
def test_what_was_not_scanned_is_never_kept(reason: Reason) -> None:
    engine, cache, cached = made()
    engine.reason = reason
    for report in ask(cached, *(part(b"data") for _ in range(4))):
        assert report.unscanned and not report.cached
    assert engine.scans == 4 and len(cache) == 0
    engine.reason = None
    assert not ask(cached, part(b"data"))[0].unscanned


def test_an_answer_that_depends_on_the_name_is_kept_for_that_name() -> None:
    engine = Named()
    cached = CACHE.get()(engine, ReportCache(CacheSettings()))
    ask(cached, *(part(b"data", name=name) for name in ("a.exe", "a.exe", "b.exe", "a.exe", "b.exe")))
    assert engine.scans == 3


def test_a_new_istag_forgets_everything_and_what_is_under_way() -> None:
    engine, cache, cached = made()
    ask(cached, part(b"data"), part(b"data"))
    assert len(cache) == 1
    Fanout([cached]).forget()
    assert len(cache) == 0

    async def while_it_changes() -> None:
        gate = asyncio.Event()
        engine.wait = gate.wait
        running = asyncio.create_task(cached.scan(part(b"data"), 10.0))
        await asyncio.sleep(0)
        cached.forget()
        gate.set()
        await running

    asyncio.run(while_it_changes())
    assert len(cache) == 0


def test_the_same_bytes_at_the_same_time_are_scanned_once() -> None:
    engine, cache, cached = made()

    async def run() -> list[Report]:
        gate = asyncio.Event()
        engine.wait = gate.wait
        tasks = [asyncio.create_task(cached.scan(part(HIT * 100, str(number)), 10.0)) for number in range(20)]
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        return list(await asyncio.gather(*tasks))

    reports = asyncio.run(run())
    assert engine.scans == 1 and cache.hits == 19
    assert [report.findings[0].part for report in reports] == [str(number) for number in range(20)]


def test_bytes_that_look_the_same_do_not_wait_for_each_other() -> None:
    engine, _, cached = made()
    bad = bytearray(10_000)
    bad[2000 : 2000 + len(HIT)] = HIT

    async def run() -> list[Report]:
        gate = asyncio.Event()
        engine.wait = gate.wait
        tasks = [asyncio.create_task(cached.scan(part(data), 10.0)) for data in (bytes(10_000), bytes(bad))]
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set()
        return list(await asyncio.gather(*tasks))

    clean, infected = asyncio.run(run())
    assert engine.scans == 2 and not clean.findings and infected.findings


@pytest.mark.parametrize("how", ["fails", "cancelled"])
def test_whoever_waits_for_a_scan_that_gives_up_scans_by_itself(how: str) -> None:
    engine, _, cached = made()
    engine.first_fails = how == "fails"

    async def run() -> Report:
        gate = asyncio.Event()
        engine.wait = gate.wait
        first = asyncio.create_task(cached.scan(part(HIT * 9), 10.0))
        await asyncio.sleep(0)
        second = asyncio.create_task(cached.scan(part(HIT * 9), 10.0))
        for _ in range(3):
            await asyncio.sleep(0)
        if how == "cancelled":
            first.cancel()
        gate.set()
        await asyncio.wait({first})
        return await second

    report = asyncio.run(run())
    assert report.findings and not report.unscanned and engine.scans == 2


def test_whoever_waits_does_so_for_its_own_time_only() -> None:
    engine, _, cached = made()

    async def run() -> Report:
        forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        engine.wait = lambda: asyncio.shield(forever)
        first = asyncio.create_task(cached.scan(part(b"data"), 10.0))
        while not engine.scans:
            await asyncio.sleep(0)
        engine.wait = None
        report = await cached.scan(part(b"data"), 0.05)
        first.cancel()
        return report

    assert not asyncio.run(run()).cached and engine.scans == 2


def test_it_is_bounded_by_bytes_and_by_age() -> None:
    now = [0.0]
    cache = ReportCache(CacheSettings(memory=10_000, seconds=5.0), 2, lambda: now[0])
    for number in range(100):
        cache.put(("e", str(number), None), (), "")
        assert cache.size <= 5000
    assert len(cache) == 12
    assert cache.get(("e", "0", None)) is None and cache.get(("e", "99", None)) is not None
    cache.put(("e", "huge", None), (Finding("e", "x" * 6000),), "")
    assert cache.get(("e", "huge", None)) is None
    now[0] = 5.0
    assert cache.get(("e", "99", None)) is None and cache.size == 400 * 11


def test_glimpses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icapscan.engines.cache.SEEN_MOST", 10)
    cache = ReportCache(CacheSettings())
    assert not any(cache.seen((number, 0)) for number in range(35))
    assert cache.seen((34, 0)) and not cache.seen((0, 0))
    assert len(cache._seen) <= 10 and len(cache._seen_before) <= 10


def test_the_self_test_asks_the_engine_itself() -> None:
    engine, _, cached = made()
    fanout = Fanout([cached])
    for _ in range(3):
        assert asyncio.run(fanout.self_test()) == {"counted": None}
    assert engine.scans == 3
    engine.reason = Reason.ENGINE_FAILED
    assert asyncio.run(fanout.self_test())["counted"] is not None


def test_it_passes_on_what_the_fan_out_asks_of_an_engine() -> None:
    _, _, cached = made()
    assert cached.audience == "clamd" and getattr(cached, "scan_now", None) is None
