"""Who gives up waiting for a thread does not free what the thread still reads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from icapscan.servers.threads import Threads


def test_it_is_freed_when_the_thread_is_done() -> None:
    async def main() -> None:
        threads, begun, may_end = Threads(), threading.Event(), threading.Event()
        freed: list[bool] = []

        def work() -> str:
            begun.set()
            assert may_end.wait(30) and not freed
            return "done"

        waiting = asyncio.create_task(threads.run(work))
        await asyncio.to_thread(begun.wait, 30)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        threads.when_done(lambda: freed.append(True))
        assert not freed
        may_end.set()
        while not freed:
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_it_is_freed_at_once_where_nothing_runs() -> None:
    async def main() -> None:
        freed: list[int] = []
        threads = Threads()
        threads.when_done(lambda: freed.append(1))
        assert await threads.run(lambda number: number + 1, 41) == 42
        threads.when_done(lambda: freed.append(2))
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 / 0)
        threads.when_done(lambda: freed.append(3))
        assert freed == [1, 2, 3]

    asyncio.run(main())


def test_an_error_that_nobody_waits_for_is_not_told_by_the_loop() -> None:
    async def main() -> None:
        said: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        threads, may_end = Threads(), threading.Event()
        freed: list[bool] = []

        def work() -> None:
            may_end.wait(30)
            raise OSError

        waiting = asyncio.create_task(threads.run(work))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        threads.when_done(lambda: freed.append(True))
        may_end.set()
        while not freed:
            await asyncio.sleep(0.001)
        del threads, waiting
        await asyncio.sleep(0.01)
        assert not said

    asyncio.run(main())


def test_long_work_holds_up_nobody_else() -> None:
    async def main() -> None:
        may_end = threading.Event()
        long = [asyncio.create_task(Threads().run_long(may_end.wait, 30)) for _ in range(64)]
        try:
            await asyncio.sleep(0.05)
            async with asyncio.timeout(30):
                assert await Threads().run(lambda: 42) == 42
                assert await asyncio.to_thread(lambda: 43) == 43
            assert not any(one.done() for one in long)
        finally:
            may_end.set()
        assert all(await asyncio.gather(*long))

    asyncio.run(main())
