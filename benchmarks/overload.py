"""Twice what a server can do: it has to go on at its best rate, refuse the rest at once, and recover."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from benchmarks.exchange import Said, send_small
from benchmarks.load import Pace
from benchmarks.machine import family, shared_memory
from benchmarks.rates import Bench
from benchmarks.results import Figure
from benchmarks.rows import Row
from benchmarks.sides import DEADLINE
from tests.peers.processes import rss

MIB = 1024 * 1024
TIMES = 2.0
PROBE_SIZE = 4096
PROBE_PAUSE = 0.05
NORMAL = 0.1
"""Seconds within which a server that is idle answers a small body; it takes some 2 ms."""
AFTER = 3.0
"""Seconds for which it is still watched after the load."""


class _Beside:
    """Something that a thread does while the block runs."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError


class Watch(_Beside):
    """The largest value of ``look`` while the block runs, and before it."""

    def __init__(self, look: Callable[[], int], pause: float = 0.1) -> None:
        super().__init__()
        self.before = self.most = look()
        self._look, self._pause = look, pause

    def _run(self) -> None:
        while not self._end.wait(self._pause):
            self.most = max(self.most, self._look())

    @property
    def growth_mib(self) -> float:
        return (self.most - self.before) / MIB


def memory_of(pid: int) -> Callable[[], int]:
    """Resident memory of a server's present processes and all memory files of the machine, in bytes."""
    processes = family(pid)
    return lambda: sum(rss(one) for one in processes) + shared_memory()


class Prober(_Beside):
    """Small requests at an even pace, each over its own connection, from now to the end of the block."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.found: list[tuple[float, Said | None]] = []
        """When each began (`time.monotonic`), and what came of it; None: no answer."""

    def _run(self) -> None:
        with ThreadPoolExecutor(128) as pool:
            while not self._end.wait(PROBE_PAUSE):
                pool.submit(self._one)

    def _one(self) -> None:
        begun = time.monotonic()
        try:
            said: Said | None = send_small(self._port, PROBE_SIZE)
        except OSError:
            said = None
        self.found.append((begun, said))

    def recovered_after(self, end: float) -> float:
        """Seconds after ``end`` until every request is answered well and soon; infinity if that was not seen."""
        later = sorted((begun, said) for begun, said in self.found if begun >= end)
        bad = [begun for begun, said in later if not _well(said)]
        if not later or (bad and bad[-1] == later[-1][0]):
            return float("inf")
        return bad[-1] + PROBE_PAUSE - end if bad else 0.0


def _well(said: Said | None) -> bool:
    return said is not None and said.status == 204 and said.sending + said.waiting <= NORMAL


def overload_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """The best rate in closed loop; then open loop at twice that for some times the deadline, ICAP 503 allowed."""
    side = bench.sides[row.sides[0]]
    best = bench.run(row, side, Pace(bench.seconds, connections=64))
    pace = Pace(max(bench.seconds, 3 * DEADLINE), DEADLINE, row.connections, best.value * TIMES, refusals=True)
    with Prober(side.port) as prober, Watch(memory_of(side.pid)) as memory:
        loaded = bench.run(row, side, pace)
        time.sleep(AFTER)
    load = loaded.load
    assert load is not None
    answered = load.requests + load.refused
    recovery = prober.recovered_after(load.ended_ns / 1e9)
    return {
        "best, 1/s": best,
        "goodput, 1/s": loaded,
        "p99 of accepted, ms": Figure(load.p99_ms, "ms", foreign=loaded.foreign),
        "p99 of refusals, ms": Figure(load.refusal_latency.percentile_us(0.99) / 1000, "ms"),
        "refused": Figure(100 * load.refused / answered if answered else 0.0, "%"),
        "never sent": Figure(100 * load.unsent / (answered + load.unsent) if load.unsent else 0.0, "%"),
        "memory, MiB": Figure(memory.growth_mib, "MiB"),
        "recovery, ms": Figure(recovery * 1000, "ms"),
    }
