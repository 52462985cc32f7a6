"""Turns: how bodies that are unpacked in child processes share one worker, so that none holds up the others for long.

Each begins in the *short* turn, which one body has at a time. What has not ended after `SHORT` seconds leaves it to the
next, and goes on in the *long* turn, which one has at a time as well: a large archive holds up other large ones, and
nobody else. One that waits for the long turn keeps its child, which stops by itself at a full pipe. That takes memory,
so no more than `LONG_MOST` leave the short turn; another one keeps it until one of those has ended.
"""

from __future__ import annotations

import asyncio
import time

from icapscan.unwrap.events import Waiting

STEP = 0.005
"""Seconds of unpacking after which other transactions get their turn."""
SHORT = 3.0
"""Seconds of the short turn. Nearly all archives in mails are unpacked in a fraction of one."""
LONG_MOST = 4
_LOOK = 0.5
"""How often one that keeps the short turn looks whether it may leave it."""


class Turns:
    """What the bodies of one worker share."""

    __slots__ = ("long", "longs", "short")

    def __init__(self) -> None:
        self.short = asyncio.Lock()
        self.long = asyncio.Lock()
        self.longs = 0
        """Bodies that have left the short turn and not ended."""


class Unpacking:
    """One body that is being unpacked."""

    __slots__ = ("_begun", "_deadline", "_held", "_is_long", "_turns", "_until")

    def __init__(self, turns: Turns, seconds: float) -> None:
        """``seconds``: what it may take from now on, waiting included."""
        now = time.monotonic()
        self._turns = turns
        self._deadline = now + seconds
        self._until = now + STEP
        self._held: asyncio.Lock | None = None
        self._begun = 0.0
        """When it got the short turn."""
        self._is_long = False

    async def pause(self, waiting: Waiting | None) -> bool:
        """Between two steps: whether others had their turn.

        Raises `TimeoutError` when waiting took too long. Whatever it raises, `end` is to be called.
        """
        if waiting is None:
            if time.monotonic() <= self._until:
                return False
            await asyncio.sleep(0)
        elif waiting.descriptor is not None:
            await self._readable(waiting.descriptor)
        elif self._held is None:
            await self._take(self._turns.short)
            self._begun = time.monotonic()
        self._leave_short()
        if self._is_long and self._held is None:
            await self._take(self._turns.long)
        self._until = time.monotonic() + STEP
        return True

    def end(self) -> None:
        """No step comes any more. Idempotent."""
        self._give_back()
        if self._is_long:
            self._is_long = False
            self._turns.longs -= 1

    async def _take(self, turn: asyncio.Lock) -> None:
        async with asyncio.timeout(self._left()):
            await turn.acquire()
            self._held = turn

    def _give_back(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            held.release()

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _leave_short(self) -> None:
        """Leave the short turn where its time is over and not too many have left it."""
        turns = self._turns
        over = self._held is turns.short and time.monotonic() - self._begun >= SHORT
        if over and turns.longs < LONG_MOST:
            self._give_back()
            self._is_long = True
            turns.longs += 1

    async def _readable(self, descriptor: int) -> None:
        """Wait for input, or its end; a child that is busy for long with its first bytes leaves the short turn too."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _set, ready)
        try:
            while not ready.done():
                left = self._left()
                if left <= 0:
                    raise TimeoutError
                if self._held is self._turns.short:
                    left = min(left, max(self._begun + SHORT - time.monotonic(), _LOOK))
                await asyncio.wait([ready], timeout=left)
                self._leave_short()
        finally:
            loop.remove_reader(descriptor)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
