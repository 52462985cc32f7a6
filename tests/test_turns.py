"""Turns at unpacking: who works at the same time, who waits for whom, and that every turn is given back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from icapscan import turns
from icapscan.turns import Turns, Unpacking
from icapscan.unwrap.events import Waiting

START = Waiting()
PATIENCE = 30.0


class Body:
    """One body with a pipe for its child, and what it did so far."""

    def __init__(self, shared: Turns, seconds: float = PATIENCE) -> None:
        self.unpacking = Unpacking(shared, seconds)
        self.out, self.child = os.pipe()
        self.state = "waits"
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        try:
            await self.unpacking.pause(START)
            self.state = "works"
            while True:
                await self.unpacking.pause(Waiting(self.out))
                if os.read(self.out, 1) == b"":
                    break
                self.state += "."
            self.state = "ended"
        except TimeoutError:
            self.state = "timeout"
        finally:
            self.unpacking.end()
            os.close(self.out)

    def gives(self) -> None:
        """Its child has something."""
        os.write(self.child, b"x")

    def ends(self) -> None:
        os.close(self.child)

    async def becomes(self, state: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.state != state:
                assert not self.task.done(), self.state
                await asyncio.sleep(0.001)


async def a_while() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def run(work: Callable[[Turns], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        shared = Turns()
        await work(shared)
        assert not shared.short.locked() and not shared.long.locked() and shared.longs == 0

    asyncio.run(all_of_it())


def test_short_ones_take_turns() -> None:
    async def work(shared: Turns) -> None:
        first, second = Body(shared), Body(shared)
        await first.becomes("works")
        await a_while()
        assert second.state == "waits"
        first.ends()
        await second.becomes("works")
        second.ends()
        await asyncio.gather(first.task, second.task)
        assert first.state == second.state == "ended"

    run(work)


@pytest.mark.parametrize("talks", [False, True])
def test_a_long_one_lets_short_ones_pass(monkeypatch: pytest.MonkeyPatch, talks: bool) -> None:
    """Whether its child gives something in between or is silent."""
    monkeypatch.setattr(turns, "SHORT", 0.02)
    monkeypatch.setattr(turns, "_LOOK", 0.01)

    async def work(shared: Turns) -> None:
        long = Body(shared)
        await long.becomes("works")
        for _ in range(3):
            if talks:
                await asyncio.sleep(0.03)
                long.gives()
            short = Body(shared)
            await short.becomes("works")
            short.ends()
            await short.task
            assert short.state == "ended" and not long.task.done()
        long.ends()
        await long.task
        assert long.state == "ended"

    run(work)


def test_long_ones_take_turns_and_keep_what_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SHORT", 0.0)
    monkeypatch.setattr(turns, "_LOOK", 0.001)

    async def work(shared: Turns) -> None:
        bodies = [Body(shared) for _ in range(3)]
        first, second, third = bodies
        for one in bodies:
            one.gives()
        await first.becomes("works.")
        await a_while()
        assert [one.state for one in (second, third)] in (["waits", "waits"], ["works", "waits"])
        assert shared.longs >= 1
        first.ends()
        await second.becomes("works.")
        assert third.state != "works."
        second.ends()
        await third.becomes("works.")
        third.ends()
        await asyncio.gather(*(one.task for one in bodies))
        assert {one.state for one in bodies} == {"ended"}

    run(work)


def test_no_more_than_some_leave_the_short_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them has a child: one more keeps the short turn until another has ended."""
    monkeypatch.setattr(turns, "SHORT", 0.001)
    monkeypatch.setattr(turns, "_LOOK", 0.001)

    async def work(shared: Turns) -> None:
        bodies = [Body(shared) for _ in range(turns.LONG_MOST + 2)]
        *longs, keeps, waits = bodies
        async with asyncio.timeout(PATIENCE):
            while shared.longs < turns.LONG_MOST or keeps.state == "waits":
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert shared.longs == turns.LONG_MOST and waits.state == "waits"
        longs[0].ends()
        async with asyncio.timeout(PATIENCE):
            while waits.state == "waits":
                await asyncio.sleep(0.001)
        for one in (*longs[1:], keeps, waits):
            one.ends()
        await asyncio.gather(*(one.task for one in bodies))
        assert {one.state for one in bodies} == {"ended"}

    run(work)


@pytest.mark.parametrize("short", [0.0, 0.01, PATIENCE])
def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch, short: float) -> None:
    """For the first turn, for the second, and for its child."""
    monkeypatch.setattr(turns, "SHORT", short)
    monkeypatch.setattr(turns, "_LOOK", 0.001)

    async def work(shared: Turns) -> None:
        bodies = [Body(shared, seconds=0.1) for _ in range(4)]
        for one in bodies:
            one.gives()
        await asyncio.gather(*(one.task for one in bodies))
        assert {one.state for one in bodies} == {"timeout"}
        for one in bodies:
            one.ends()

    run(work)


@pytest.mark.parametrize("short", [0.0, PATIENCE])
def test_who_is_cancelled_gives_everything_back(monkeypatch: pytest.MonkeyPatch, short: float) -> None:
    monkeypatch.setattr(turns, "SHORT", short)

    async def work(shared: Turns) -> None:
        bodies = [Body(shared) for _ in range(4)]
        for one in bodies:
            one.gives()
        await asyncio.sleep(0.02)
        *given_up, last = bodies
        for one in given_up:
            one.task.cancel()
        await asyncio.wait([one.task for one in given_up])
        await last.becomes("works.")
        last.ends()
        await last.task
        assert last.state == "ended"
        for one in given_up:
            one.ends()

    run(work)


def test_a_long_step_lets_others_run() -> None:
    async def work(shared: Turns) -> None:
        one = Unpacking(shared, PATIENCE)
        assert not await one.pause(None)
        await asyncio.sleep(2 * turns.STEP)
        assert await one.pause(None)
        one.end()
        one.end()

    run(work)
