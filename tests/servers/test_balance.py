"""Who takes the next connection."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from icapscan.servers.balance import Loads, retire, shared_loads
from icapscan.servers.listen import Acceptor, bind


def loads(workers: int) -> tuple[int, list[Loads]]:
    descriptor = shared_loads(workers)
    return descriptor, [Loads(os.dup(descriptor), workers, slot) for slot in range(workers)]


@pytest.mark.parametrize(
    ("mine", "other", "fewer"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 1, False),
        (5, 6, False),
        (8, 7, False),
        (9, 7, True),
        (80, 75, False),
        (80, 60, True),
    ],
)
def test_a_worker_leaves_connections_to_one_with_fewer(mine: int, other: int, fewer: bool) -> None:
    descriptor, (first, second) = loads(2)
    first.set(mine)
    second.set(other)
    assert first.others_have_fewer(mine) is fewer
    os.close(descriptor)


def test_nothing_is_left_to_a_worker_that_is_not_there() -> None:
    descriptor, (first, second) = loads(2)
    assert not first.others_have_fewer(100), "the second has not started"
    second.set(0)
    assert first.others_have_fewer(100)
    retire(descriptor, 1)
    assert not first.others_have_fewer(100)
    os.close(descriptor)


def test_one_worker_alone_takes_everything() -> None:
    descriptor, (only,) = loads(1)
    assert not only.others_have_fewer(10_000)
    os.close(descriptor)


def test_a_connection_is_taken_after_looking_away_once_though_the_other_worker_hangs() -> None:
    async def run() -> int:
        descriptor, (mine, hung) = loads(2)
        hung.set(0)
        taken: list[asyncio.Protocol] = []

        def make() -> asyncio.Protocol:
            taken.append(asyncio.Protocol())
            return taken[-1]

        listening = bind("127.0.0.1:0", "test")
        acceptor = Acceptor(asyncio.get_running_loop(), listening, make, None, 1.0)
        acceptor.share(mine, lambda: 5)
        acceptor.start()
        clients = [socket.create_connection(listening.getsockname(), timeout=10) for _ in range(3)]
        async with asyncio.timeout(30):
            while len(taken) < 3:
                await asyncio.sleep(0.01)
        acceptor.stop()
        for client in clients:
            client.close()
        os.close(descriptor)
        return len(taken)

    assert asyncio.run(run()) == 3
