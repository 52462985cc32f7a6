"""``engines.clamd.hedge``: a second daemon for a part that the first one is slow with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from icapscan.engines.clamd import ClamdEngine
from icapscan.engines.contract import Report
from icapscan.store import PartStore
from tests.conformance.engine import make_part
from tests.engines.fake_clamd import FakeClamd, Line, Play, engine_for, fake_clamd, reasons, scan

pytestmark = pytest.mark.usefixtures("each_loop")

HEDGE = 0.05
CLEAN = b"%d: fd[12]: OK\0"
FOUND = b"%d: fd[12]: Evil FOUND\0"
BROKEN = b"%d: fd[12]: Something bad ERROR\0"


def answers(said: bytes, seconds: float = 0.0) -> Play:
    """Says the same of everything, after a while."""

    async def play(line: Line) -> None:
        number = 0
        while True:
            await line.command()
            number += 1
            await asyncio.sleep(seconds)
            await line.say(said % number)

    return play


async def silent(line: Line) -> None:
    await line.command()
    await line.reader.read()


async def gone(line: Line) -> None:
    await line.command()
    line.hang_up()


@asynccontextmanager
async def two(
    tmp_path: Path, first: Play, second: Play, unix: bool = True, hedge: float = HEDGE
) -> AsyncIterator[tuple[ClamdEngine, FakeClamd, FakeClamd]]:
    """An engine whose first part goes to ``first``."""
    paths = (tmp_path / "a", tmp_path / "b") if unix else (None, None)
    async with fake_clamd(first, paths[0]) as (one, a), fake_clamd(second, paths[1]) as (other, b):
        engine = engine_for(a, b, hedge=hedge)
        try:
            yield engine, one, other
        finally:
            await engine.close()


def report_of(tmp_path: Path, first: Play, second: Play, seconds: float = 5.0, unix: bool = True) -> Report:
    async def main() -> Report:
        async with two(tmp_path, first, second, unix) as (engine, _, _):
            report = await scan(engine, seconds=seconds)
            assert all(backend.busy == 0 for backend in engine._backends.all)
            return report

    return asyncio.run(main())


@pytest.mark.parametrize("unix", [True, False], ids=["unix", "tcp"])
@pytest.mark.parametrize("said", [CLEAN, FOUND], ids=["clean", "found"])
def test_the_second_answers_where_the_first_is_silent(tmp_path: Path, said: bytes, unix: bool) -> None:
    report = report_of(tmp_path, silent, answers(said), unix=unix)
    assert not report.unscanned and [one.name for one in report.findings] == ["Evil"] * (said is FOUND)


def test_the_first_answers_where_the_second_is_silent(tmp_path: Path) -> None:
    report = report_of(tmp_path, answers(FOUND, 4 * HEDGE), silent)
    assert [one.name for one in report.findings] == ["Evil"]


@pytest.mark.parametrize("bad", [gone, answers(BROKEN)], ids=["gone", "error"])
def test_a_failure_of_the_second_does_not_count_while_the_first_may_answer(tmp_path: Path, bad: Play) -> None:
    report = report_of(tmp_path, answers(FOUND, 4 * HEDGE), bad)
    assert [one.name for one in report.findings] == ["Evil"] and not report.unscanned


def test_a_failure_of_the_first_does_not_count_while_the_second_may_answer(tmp_path: Path) -> None:
    report = report_of(tmp_path, answers(BROKEN, 2 * HEDGE), answers(CLEAN, 6 * HEDGE))
    assert not report.unscanned and not report.findings


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [(silent, silent, "timeout"), (answers(BROKEN, 2 * HEDGE), answers(BROKEN), "engine-failed")],
    ids=["silent", "error"],
)
def test_two_that_fail_are_never_clean(tmp_path: Path, first: Play, second: Play, reason: str) -> None:
    report = report_of(tmp_path, first, second, seconds=0.5)
    assert reasons(report) == [reason] and not report.findings


def test_one_that_answers_in_time_is_the_only_one_asked(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path, answers(CLEAN), silent, hedge=5.0) as (engine, one, other):
            for _ in range(5):
                assert reasons(await scan(engine)) == []
            assert (one.connections, other.connections) == (1, 0)

    asyncio.run(main())


def test_it_is_only_done_where_it_is_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path, silent, answers(CLEAN), hedge=0.0) as (engine, _, other):
            assert reasons(await scan(engine, seconds=4 * HEDGE)) == ["timeout"]
            assert other.connections == 0

    asyncio.run(main())


def test_nobody_else_is_asked_while_others_wait_for_a_place(tmp_path: Path) -> None:
    async def main() -> None:
        paths = tmp_path / "a", tmp_path / "b"
        async with fake_clamd(silent, paths[0]) as (one, a), fake_clamd(silent, paths[1]) as (other, b):
            engine = engine_for(a, b, connections=1, hedge=HEDGE)
            scans = [asyncio.ensure_future(scan(engine, seconds=60)) for _ in range(4)]
            async with asyncio.timeout(30):
                while one.connections + other.connections < 2:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(4 * HEDGE)
            assert (one.connections, other.connections) == (1, 1)
            for waiting in scans:
                waiting.cancel()
            await asyncio.wait(scans)
            assert all(backend.busy == 0 for backend in engine._backends.all)
            await engine.close()

    asyncio.run(main())


def test_a_cancelled_scan_leaves_both(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path, silent, silent) as (engine, _, other):
            task = asyncio.ensure_future(scan(engine))
            while not other.connections:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert all(backend.busy == 0 for backend in engine._backends.all)

    asyncio.run(main())


def test_what_a_slow_daemon_may_still_read_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare: list[tuple[int, int]] = []
    monkeypatch.setattr("icapscan.store._spare", spare)

    async def ask(first: Play, then: Callable[[PartStore], None]) -> None:
        async with two(tmp_path, first, answers(CLEAN)) as (engine, _, _):
            part = make_part(b"hello", "bytes")
            assert reasons(await engine.scan(part, 5.0)) == []
            then(part.store)
            part.store.close()

    asyncio.run(ask(silent, PartStore.recycle))
    assert not spare
    asyncio.run(ask(answers(CLEAN), PartStore.recycle))
    assert len(spare) == 1
