"""More work than can be done: what is answered, how soon, and who has to wait for whom.

A clamd of known capacity stands behind a real ``icapscan serve``, so that twice the sustainable rate is a number.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from msgspec import Struct

from tests.e2e.raw import Answer, Connection, head, scan
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR, body
from tests.peers.slow_clamd import run_slow_clamd

THREADS = 4
SCAN_SECONDS = 0.02
CAPACITY = THREADS / SCAN_SECONDS
"""Scans a second of the clamd; what is really reached is measured."""
DEADLINE = 2.0
"""`limits.seconds` in the tests of overload."""
GUARD = 30.0
"""Seconds after which a request counts as not answered."""
MB = 1_000_000


class Outcome(Struct, frozen=True):
    """What became of one request."""

    infected: bool
    status: int
    """0: no answer; 403: blocked."""
    seconds: float
    """From the moment it was due."""
    ended: float
    """On the monotonic clock."""


class Client:
    """An open loop: requests are sent when they are due, on a connection that is free or on a new one."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._number = 0

    async def at_rate(self, rate: float, seconds: float) -> list[Outcome]:
        """What became of ``rate * seconds`` requests, sent at even distances."""
        loop = asyncio.get_running_loop()
        begun, tasks = loop.time(), []
        for number in range(math.ceil(rate * seconds)):
            due = begun + number / rate
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            tasks.append(loop.create_task(self.ask(due)))
        return await asyncio.gather(*tasks)

    async def closed(self, connections: int, seconds: float) -> list[Outcome]:
        """What became of the requests of ``connections`` clients that each wait for one answer after the other."""
        loop = asyncio.get_running_loop()
        until, outcomes = loop.time() + seconds, []

        async def one() -> None:
            while loop.time() < until:
                outcomes.append(await self.ask(loop.time()))

        await asyncio.gather(*(one() for _ in range(connections)))
        return outcomes

    async def ask(self, due: float) -> Outcome:
        """One request; each tenth has EICAR in it, and no two are the same."""
        self._number += 1
        infected = self._number % 10 == 0
        content = b"%d %f " % (self._number, due) * 40 + (EICAR if infected else b"")
        request = head(len(content)) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        try:
            async with asyncio.timeout(GUARD):
                status = await self._exchange(request)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            status = 0
        now = asyncio.get_running_loop().time()
        return Outcome(infected, status, now - due, now)

    async def _exchange(self, request: bytes) -> int:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        try:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            if status == 200:
                page = await reader.readuntil(b"\r\n\r\n")
                assert page.startswith(b"HTTP/1.1 403 "), page
                await reader.readuntil(b"\r\n0\r\n\r\n")
                status = 403
            if b"\r\nConnection: close\r\n" in answer:
                writer.close()
            else:
                self._idle.append((reader, writer))
        except BaseException:
            writer.close()
            raise
        return status

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


class Overload(Struct, frozen=True):
    """A calm time, a time of twice as many requests, and what came after it."""

    seconds: float
    best: float
    """Answers a second in the calm time."""
    calm: list[Outcome]
    busy: list[Outcome]
    in_time: int
    """Bodies accepted while requests came, without those that still waited when the last one was sent."""
    after: list[Outcome]
    last: Answer
    """To EICAR at the very end."""

    def __str__(self) -> str:
        refused = sorted(one.seconds for one in self.busy if one.status == 503)
        accepted = sorted(one.seconds for one in _accepted(self.busy))
        middle, end = accepted[len(accepted) // 2], accepted[-1]
        text = f"calm {self.best:.0f}/s (clamd: {CAPACITY:.0f}/s); asked {2 * self.best:.0f}/s: "
        text += f"accepted {self.in_time / self.seconds:.0f}/s, median {middle:.2f} s, last {end:.2f} s"
        if refused:
            text += f"; {len(refused)} x 503, median {refused[len(refused) // 2]:.2f} s, last {refused[-1]:.2f} s"
        return text


async def _overload(address: tuple[str, int], seconds: float) -> Overload:
    client = Client(address)
    loop = asyncio.get_running_loop()
    calm = await client.closed(16, 2)
    best = len(calm) / 2
    begun = loop.time()
    busy = await client.at_rate(2 * best, seconds)
    in_time = sum(one.ended <= begun + seconds for one in _accepted(busy))
    await asyncio.sleep(1)
    after = await client.closed(16, 1)
    client.close()
    return Overload(seconds, best, calm, busy, in_time, after, await asyncio.to_thread(scan, address, EICAR))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1, 8.0), id="1-worker"),
        pytest.param((2, 30.0), id="2-workers", marks=pytest.mark.full),
    ],
)
def overload(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overload]:
    workers, seconds = request.param
    folder = tmp_path_factory.mktemp("overload")
    with run_slow_clamd(folder / "clamd", threads=THREADS, seconds=SCAN_SECONDS) as clamd:
        settings = {
            "server.workers": workers,
            "server.max_connections": 10_000,
            "engines.yara.enabled": False,
            "engines.clamd.address": [clamd.address],
            "limits.seconds": DEADLINE,
            "log.transactions": False,
        }
        with run_icapscan(folder / "icapscan", settings) as server:
            result = asyncio.run(_overload(server.address, seconds))
    print(f"\n{workers} worker(s): {result}")
    yield result


def _accepted(outcomes: list[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.status in (204, 403)]


def test_the_calm_time_is_calm(overload: Overload) -> None:
    """Else the other tests of overload would show nothing."""
    assert {one.status for one in overload.calm if one.infected} == {403}
    assert {one.status for one in overload.calm if not one.infected} == {204}
    assert overload.best > CAPACITY / 2
    assert {one.status for one in overload.busy} == {204, 403, 503}


def test_at_twice_the_rate_every_request_is_answered_rightly_or_with_503(overload: Overload) -> None:
    assert {one.status for one in overload.busy if one.infected} <= {403, 503}
    assert {one.status for one in overload.busy if not one.infected} <= {204, 503}


@pytest.mark.full  # it measures time
def test_at_twice_the_rate_no_answer_comes_after_the_deadline(overload: Overload) -> None:
    late = sorted(one.seconds for one in overload.busy if one.seconds > DEADLINE + 1)
    assert not late, f"{len(late)} of {len(overload.busy)} answers came late, the last after {late[-1]:.1f} s"


@pytest.mark.full  # it measures time
def test_at_twice_the_rate_as_many_are_accepted_as_before(overload: Overload) -> None:
    rate = overload.in_time / overload.seconds
    assert rate >= 0.7 * overload.best, str(overload)


@pytest.mark.full  # it measures time
def test_at_twice_the_rate_most_refusals_come_at_once(overload: Overload) -> None:
    """And not at the deadline, when whoever asked has waited for nothing."""
    refused = sorted(one.seconds for one in overload.busy if one.status == 503)
    assert refused[len(refused) // 2] < DEADLINE / 2, str(overload)


def test_after_the_overload_all_is_as_before(overload: Overload) -> None:
    """A second after the last answer."""
    assert {one.status for one in overload.after if one.infected} == {403}
    assert {one.status for one in overload.after if not one.infected} == {204}
    assert overload.last.blocked


# Large and small bodies side by side


class Large:
    """Large uploads in threads, all at once. When each answer came is kept."""

    def __init__(self, server: IcapscanServer, count: int, size: int, *, sent: bool = False) -> None:
        """``sent``: it has begun when all of each is sent, else when a megabyte of each is."""
        self.answers: list[tuple[float, Answer]] = []
        self._server = server
        self._size = size
        self._sent = sent
        self._begun = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._begun.acquire(timeout=GUARD)
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        with Connection(self._server.address, seconds=150) as connection:
            connection.send(head(self._size))
            for at, piece in enumerate(body(self._size, f"large {number} {self._size}")):
                connection.send_chunks([piece])
                if at == 16 and not self._sent:
                    self._begun.release()
            connection.send_end()
            if self._sent:
                self._begun.release()
            answer = connection.read_answer()
            self.answers.append((time.monotonic(), answer))


def _small_first(server: IcapscanServer, large: Large, small: int, count: int) -> None:
    """``count`` bodies of ``small`` bytes, sent while large ones are on their way, are answered before any of those."""
    for warm in (b"a", b"a" * small):
        assert scan(server.address, warm).status == 204
    with large, Connection(server.address) as connection:
        answers = [connection.scan(b"%d" % number + bytes(small)) for number in range(count)]
        ended = time.monotonic()
    assert [answer.status for answer in answers] == [204] * count
    assert [answer.status for _, answer in large.answers] == [204] * 3
    early = sum(when < ended for when, _ in large.answers)
    assert early == 0, f"{early} of 3 large bodies were answered before the last of {count} small ones"


def _one_worker(folder: Path, **settings: object) -> IcapscanServer:
    fixed = {"server.workers": 1, "cache.enabled": False, "log.transactions": False}
    return run_icapscan(folder, {**fixed, **settings})


@pytest.mark.full  # a race of clients: on a busy machine the small one may itself be held up
@pytest.mark.parametrize("size", [40 * MB, 200 * MB], ids=["40 MB", "200 MB"])
def test_small_bodies_do_not_wait_for_large_ones_that_arrive(tmp_path: Path, size: int) -> None:
    with _one_worker(tmp_path) as server:
        _small_first(server, Large(server, 3, size), 1_000, 50)


SLOW_RULE = r"rule Slow { condition: for any i in (1..filesize \ 4) : (uint32(i) == 0x0badcafe and uint32(0) == i) }"
"""Takes YARA some 25 ms for a megabyte."""


@pytest.mark.parametrize("small", [1_000, 100_000], ids=["1 kB", "100 kB"])
def test_small_bodies_do_not_wait_for_large_ones_that_are_being_scanned(tmp_path: Path, small: int) -> None:
    """One more than there are threads for matching (`engines.yara.threads`)."""
    rules = tmp_path / "slow.yar"
    rules.write_text(SLOW_RULE)
    with _one_worker(tmp_path / "icapscan", **{"engines.yara.rules": [str(rules)]}) as server:
        _small_first(server, Large(server, 3, 40 * MB, sent=True), small, 10)
