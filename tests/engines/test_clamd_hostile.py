"""Daemons that answer like no clamd should: every one is a reason, never clean, and never harms the next scan."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from icapscan.engines.clamd import ClamdEngine
from tests.conformance.engine import SECONDS, make_part
from tests.engines.calling import CallingClamd
from tests.engines.fake_clamd import ENGINE, Line, Play, engine_for, fake_clamd, reasons, scan

pytestmark = pytest.mark.usefixtures("each_loop")

OK = b"%d: fd[12]: OK\0"


@pytest.fixture(autouse=True, scope="module", params=[ClamdEngine, CallingClamd])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test by `scan` and by `begin`."""
    token = ENGINE.set(request.param)
    yield
    ENGINE.reset(token)


def play_once(said: bytes, then: Callable[[Line], None] | None = None) -> Play:
    """Answer the first command of the first connection with ``said``; behave well on all later connections."""

    async def play(line: Line) -> None:
        if line.number == 1:
            await line.command()
            await line.say(said)
            if then:
                then(line)
                return
            await line.reader.read()
            return
        await honest(line)

    return play


async def honest(line: Line) -> None:
    number = 0
    while True:
        await line.command()
        number += 1
        await line.say(OK % number)


def first_and_second(
    tmp_path: Path, play: Play, unix: bool = True, seconds: float = SECONDS
) -> tuple[list[str], list[str], int]:
    """Reasons of two scans in turn, and how many connections there were."""

    async def main() -> tuple[list[str], list[str], int]:
        async with fake_clamd(play, tmp_path / "s" if unix else None) as (fake, address):
            engine = engine_for(address)
            first = await scan(engine, seconds=seconds)
            second = await scan(engine)
            await engine.close()
            assert not first.findings and not second.findings
            return reasons(first), reasons(second), fake.connections

    return asyncio.run(main())


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        b"garbage\0", b"\0", b"1: \0", b"1: fd[12]: okay\0", b"x" * 100_000, b"1: fd[12]: Something bad ERROR\0",
        b"OK\0", b"1: fd[12]: OK\n\0",
    ],
)  # fmt: skip
def test_garbage_is_a_failure_and_the_connection_is_not_used_again(tmp_path: Path, said: bytes, unix: bool) -> None:
    assert first_and_second(tmp_path, play_once(said), unix) == (["engine-failed"], [], 2)


@pytest.mark.parametrize("said", [b"2: fd[12]: OK\0", b"0: fd[12]: OK\0", b"fd[12]: OK\0", b"9999999999: stream: OK\0"])
def test_an_answer_for_another_command_is_a_failure(tmp_path: Path, said: bytes) -> None:
    assert first_and_second(tmp_path, play_once(said)) == (["engine-failed"], [], 2)


@pytest.mark.parametrize(
    "said",
    [b"1: fd[12]: OK\x001: fd[12]: Evil FOUND\0", b"1: fd[12]: OK\x002: fd[12]: OK\0", b"1: fd[12]: OK\0002: fd"],
)
def test_more_than_one_answer_is_a_failure(tmp_path: Path, said: bytes) -> None:
    assert first_and_second(tmp_path, play_once(said)) == (["engine-failed"], [], 2)


@pytest.mark.parametrize("end", [Line.hang_up, Line.reset])
@pytest.mark.parametrize("said", [b"", b"1", b"1: fd[12]: O", b"1: fd[12]: OK"])
@pytest.mark.parametrize("unix", [True, False])
def test_an_end_before_the_whole_answer_is_a_failure(
    tmp_path: Path, said: bytes, end: Callable[[Line], None], unix: bool
) -> None:
    assert first_and_second(tmp_path, play_once(said, end), unix) == (["engine-failed"], [], 2)


@pytest.mark.parametrize("unix", [True, False])
@pytest.mark.parametrize("said", [b"", b"1: fd[12]: O"])
def test_no_answer_is_a_timeout(tmp_path: Path, said: bytes, unix: bool) -> None:
    assert first_and_second(tmp_path, play_once(said), unix, seconds=0.4) == (["timeout"], [], 2)


def test_an_answer_that_comes_too_late_is_nobodys(tmp_path: Path) -> None:
    """The late OK of a part that timed out must not become the verdict of the next one."""

    async def play(line: Line) -> None:
        await line.command()
        if line.number == 1:
            await asyncio.sleep(0.3)
            await line.say(OK % 1)
            await line.say(OK % 2)
            return
        await line.say(b"1: fd[12]: Evil FOUND\0")

    async def main() -> None:
        async with fake_clamd(play, tmp_path / "s") as (_, address):
            engine = engine_for(address, connections=1)
            assert reasons(await scan(engine, seconds=0.05)) == ["timeout"]
            await asyncio.sleep(0.5)
            assert [finding.name for finding in (await scan(engine)).findings] == ["Evil"]
            await engine.close()

    asyncio.run(main())


def test_an_answer_without_a_question_ends_the_connection(tmp_path: Path) -> None:
    """A daemon that says OK before it was asked gets its connection closed: the next scan asks a fresh one."""

    async def play(line: Line) -> None:
        await line.command()
        await line.say(OK % 1)
        if line.number == 1:
            await asyncio.sleep(0.05)
            await line.say(OK % 2)
            await line.reader.read()
            return
        await line.command()
        await line.say(b"2: fd[12]: Evil FOUND\0")

    async def main() -> None:
        async with fake_clamd(play, tmp_path / "s") as (fake, address):
            engine = engine_for(address)
            assert reasons(await scan(engine)) == []
            await asyncio.sleep(0.3)
            await scan(engine)
            assert fake.connections == 2
            await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize("farewell", [b"", b"COMMAND READ TIMED OUT\0"])
@pytest.mark.parametrize("when", ["idle", "asked"])
def test_a_stale_connection_is_replaced_unseen(tmp_path: Path, when: str, farewell: bytes) -> None:
    """clamd may close an idle connection at any time, also in the moment of the next command."""

    async def play(line: Line) -> None:
        await line.command()
        await line.say(OK % 1)
        if line.number == 1:
            if when == "asked":
                await line.command()
            else:
                await asyncio.sleep(0.05)
            await line.say(farewell)
            return
        await line.reader.read()

    async def main() -> None:
        async with fake_clamd(play, tmp_path / "s") as (fake, address):
            engine = engine_for(address)
            assert reasons(await scan(engine)) == []
            if when == "idle":
                await asyncio.sleep(0.3)
            assert reasons(await scan(engine)) == []
            assert fake.connections == 2
            await engine.close()

    asyncio.run(main())


def test_only_one_retry_for_a_stale_connection(tmp_path: Path) -> None:
    async def play(line: Line) -> None:
        await line.command()
        if line.number == 1:
            await line.say(OK % 1)
            await line.command()

    async def main() -> None:
        async with fake_clamd(play, tmp_path / "s") as (fake, address):
            engine = engine_for(address)
            assert reasons(await scan(engine)) == []
            assert reasons(await scan(engine)) == ["engine-failed"]
            assert fake.connections == 2
            await engine.close()

    asyncio.run(main())


def test_a_daemon_without_sessions_gets_one_command_a_connection(tmp_path: Path) -> None:
    async def play(line: Line) -> None:
        word = await line.reader.readuntil(b"\0")
        if word == b"zIDSESSION\0":
            await line.say(b"UNKNOWN COMMAND\0")
            return
        assert word == b"zFILDES\0"
        await line.reader.readexactly(1)
        await line.say(b"fd[9]: Evil FOUND\0")

    async def main() -> None:
        async with fake_clamd(play, tmp_path / "s") as (fake, address):
            engine = engine_for(address)
            for _ in range(3):
                assert [finding.name for finding in (await scan(engine)).findings] == ["Evil"]
            assert fake.connections == 4
            await engine.close()

    asyncio.run(main())


@pytest.mark.parametrize("take", [0, 1_000_000])
def test_an_early_answer_ends_the_sending(take: int) -> None:
    """clamd refuses a stream that is too long while it is still being sent, and hangs up with bytes unread."""

    async def play(line: Line) -> None:
        await line.reader.readuntil(b"zINSTREAM\0")
        await line.reader.readexactly(take)
        await line.say(b"1: INSTREAM size limit exceeded. ERROR\0")
        await asyncio.sleep(0.1)

    async def main() -> None:
        async with fake_clamd(play) as (_, address):
            engine = engine_for(address)
            assert reasons(await scan(engine, bytes(60_000_000), kind="memfd")) == ["over-limit"]
            await engine.close()

    asyncio.run(main())


def test_a_daemon_that_stops_reading_is_a_timeout() -> None:
    async def play(line: Line) -> None:
        await asyncio.sleep(SECONDS)

    async def main() -> None:
        async with fake_clamd(play) as (_, address):
            engine = engine_for(address)
            assert reasons(await scan(engine, bytes(60_000_000), seconds=0.3, kind="memfd")) == ["timeout"]
            await engine.close()

    asyncio.run(main())


def test_a_store_that_cannot_be_read_is_a_failure() -> None:
    async def main() -> None:
        async with fake_clamd(honest) as (_, address):
            engine = engine_for(address)
            part = make_part(bytes(300_000), "memfd")
            os.ftruncate(part.store.fileno(), 1000)
            report = await asyncio.wait_for(engine.scan(part, SECONDS), SECONDS)
            assert reasons(report) == ["engine-failed"]
            assert reasons(await scan(engine)) == []
            await engine.close()

    asyncio.run(main())


def test_nobody_there_is_a_failure(tmp_path: Path) -> None:
    async def main() -> None:
        for address in (f"unix:{tmp_path}/none", "tcp:127.0.0.1:1", "tcp:[::1]:1", "tcp:no-such-host.invalid:3310"):
            engine = engine_for(address)
            assert reasons(await scan(engine)) == ["engine-failed"]
            await engine.close()

    asyncio.run(main())


def test_the_wait_for_a_connection_counts(tmp_path: Path) -> None:
    """More scans than connections queue; one whose deadline comes first is a timeout, the others are served in turn."""

    async def main() -> None:
        go = asyncio.Event()

        async def play(line: Line) -> None:
            await line.command()
            await go.wait()
            await line.say(OK % 1)
            number = 1
            while True:
                await line.command()
                number += 1
                await line.say(OK % number)

        async with fake_clamd(play, tmp_path / "s") as (fake, address):
            engine = engine_for(address, connections=2)
            scans = [asyncio.ensure_future(scan(engine)) for _ in range(20)]
            await asyncio.sleep(0.05)
            assert reasons(await scan(engine, seconds=0.05)) == ["timeout"]
            go.set()
            assert [reasons(report) for report in await asyncio.gather(*scans)] == [[]] * 20
            assert fake.connections == 2
            await engine.close()

    asyncio.run(main())


def test_cancelled_scans_give_their_places_back(tmp_path: Path) -> None:
    async def main() -> None:
        async def play(line: Line) -> None:
            if line.number > 2:
                await honest(line)
            await line.reader.read()

        async with fake_clamd(play, tmp_path / "s") as (_, address):
            engine = engine_for(address, connections=2)
            scans = [asyncio.ensure_future(scan(engine)) for _ in range(10)]
            await asyncio.sleep(0.05)
            for task in scans:
                task.cancel()
            await asyncio.wait(scans)
            assert reasons(await scan(engine)) == []
            await engine.close()

    asyncio.run(main())


def test_another_daemon_takes_over_and_the_dead_one_is_passed_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with fake_clamd(honest, tmp_path / "s") as (fake, address):
            engine = engine_for(f"unix:{tmp_path}/none", address)
            for _ in range(20):
                assert reasons(await scan(engine)) == []
            assert fake.connections == 1
            await engine.close()

    asyncio.run(main())


def test_where_too_many_wait_the_next_is_told_at_once(tmp_path: Path) -> None:
    """It would have to wait longer than it may: 503 now is better than 503 after the whole time."""

    async def slow(line: Line) -> None:
        number = 0
        while True:
            await line.command()
            number += 1
            await asyncio.sleep(0.02)
            await line.say(OK % number)

    async def main() -> None:
        async with fake_clamd(slow, tmp_path / "s") as (fake, address):
            engine = engine_for(address, connections=1)
            for _ in range(8):  # it learns how quickly places become free
                assert [one.unscanned for one in await asyncio.gather(*(scan(engine) for _ in range(10)))] == [()] * 10
            order: list[str] = []

            async def one() -> None:
                report = await scan(engine, seconds=0.5)
                order.append(report.unscanned[0].detail if report.unscanned else "scanned")
                assert reasons(report) in ([], ["timeout"])

            await asyncio.gather(*(one() for _ in range(100)))
            told = [detail for detail in order if detail == "Too many parts wait for clamd."]
            assert order[: len(told)] == told and len(told) > 50, order
            assert order.count("scanned") > 5
            assert reasons(await scan(engine)) == [], "the queue is gone, and so is the reason"
            await engine.close()
            assert fake.failures == []

    asyncio.run(main())


def test_the_least_busy_daemon_is_asked(tmp_path: Path) -> None:
    async def main() -> None:
        go = asyncio.Event()
        asked = [0, 0]

        def play(which: int) -> Play:
            async def answer(line: Line) -> None:
                await line.command()
                asked[which] += 1
                await go.wait()
                await line.say(OK % 1)
                await line.reader.read()

            return answer

        async with fake_clamd(play(0), tmp_path / "a") as (_, a), fake_clamd(play(1), tmp_path / "b") as (_, b):
            engine = engine_for(a, b, connections=3)
            scans = [asyncio.ensure_future(scan(engine)) for _ in range(6)]
            await asyncio.sleep(0.1)
            assert asked == [3, 3]
            go.set()
            await asyncio.gather(*scans)
            await engine.close()

    asyncio.run(main())


def test_a_part_over_the_limit_is_not_asked_about(tmp_path: Path) -> None:
    async def main() -> None:
        async with fake_clamd(honest, tmp_path / "s") as (fake, address):
            engine = engine_for(address, file_max=1000)
            assert reasons(await scan(engine, bytes(1001))) == ["over-limit"]
            assert fake.connections == 0
            assert reasons(await scan(engine, bytes(1000))) == []
            await engine.close()
        async with fake_clamd(honest) as (fake, address):
            engine = engine_for(address, stream_max=1000)
            assert reasons(await scan(engine, bytes(1001))) == ["over-limit"]
            assert fake.connections == 0
            await engine.close()

    asyncio.run(main())
