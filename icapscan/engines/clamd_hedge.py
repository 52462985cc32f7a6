"""A second clamd for a part that the first one is slow with (``engines.clamd.hedge``); the first whole answer counts.

It costs scans that nobody needs, so it is done only where it is asked for, never while others wait for a place, and at
most one more daemon has the same part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from icapscan.engines.clamd_backends import Backend, Backends
from icapscan.store import PartStore
from icapscan.wire.clamd import Outcome, Reply

ANSWERED = frozenset({Outcome.CLEAN, Outcome.FOUND})
"""What a daemon says that has scanned the whole part."""
Ask = Callable[[Backend], Coroutine[Any, Any, Reply | None]]
"""One daemon's reply, None where it cannot be reached. Keeps the deadline by itself; may raise `OSError`."""


async def ask_two(
    ask: Ask, backends: Backends, first: Backend, store: PartStore, seconds: float
) -> tuple[Backend, Reply | None]:
    """Which daemon's reply counts, and the reply; ``first`` is asked at once, another after ``seconds``.

    A failure of one never counts while the other may still answer. The place at ``first`` is the caller's, the one at
    the other is given back here. Raises what ``ask`` raised where neither has replied.
    """
    loop = asyncio.get_running_loop()
    asked = {loop.create_task(ask(first)): first}
    try:
        await asyncio.wait(asked, timeout=seconds)
        if not any(task.done() for task in asked):
            other = backends.take_now(store.size, (first,))
            if other is not None:
                store.lend()  # whoever comes second may read on when the scan is over
                asked[loop.create_task(_and_release(ask, backends, other))] = other
        pending = set(asked)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            whole = [
                (asked[task], reply)
                for task in done
                if not task.exception() and (reply := task.result()) is not None and reply.outcome in ANSWERED
            ]
            if whole:  # of two at the same time the one that found something
                return max(whole, key=lambda one: one[1].outcome is Outcome.FOUND)
        for task, backend in asked.items():
            if not task.exception() and task.result() is not None:
                return backend, task.result()
        return first, next(iter(asked)).result()
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _and_release(ask: Ask, backends: Backends, backend: Backend) -> Reply | None:
    try:
        return await ask(backend)
    finally:
        backends.release(backend)
