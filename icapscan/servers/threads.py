"""Work in threads on what belongs to a transaction: who gives up waiting must not free what a thread still reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
_LONG = ThreadPoolExecutor(4, "long")
"""For work that may take many seconds: it must not fill the threads in which others wait for a disk or a hash."""


class Run(Protocol):
    """`Threads.run` or `Threads.run_long`."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]: ...


class Threads:
    """The threads of one transaction, of which one works at a time."""

    __slots__ = ("_running",)

    def __init__(self) -> None:
        self._running: asyncio.Future[object] | None = None

    async def run(self, work: Callable[..., T], /, *arguments: object) -> T:
        """``work(*arguments)`` in a thread. A cancellation ends the waiting, not the thread (`when_done`)."""
        return await self._run(None, work, *arguments)

    async def run_long(self, work: Callable[..., T], /, *arguments: object) -> T:
        """The same for work that may take many seconds: it waits for its kind only, and nobody else waits for it."""
        return await self._run(_LONG, work, *arguments)

    async def _run(self, executor: Executor | None, work: Callable[..., T], *arguments: object) -> T:
        running = asyncio.get_running_loop().run_in_executor(executor, work, *arguments)
        self._running = running  # type: ignore[assignment]
        return await asyncio.shield(running)

    def when_done(self, free: Callable[[], None]) -> None:
        """Call ``free`` when no thread works any more: now, or later."""
        running = self._running
        if running is None or running.done():
            free()
        else:

            def after(done: asyncio.Future[object]) -> None:
                if not done.cancelled():
                    done.exception()  # nobody waits for it any more
                free()

            running.add_done_callback(after)
