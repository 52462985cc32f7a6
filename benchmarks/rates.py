"""Rows that load servers: in closed loop for the rate, in open loop for the latency."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from benchmarks.bodies import Bodies
from benchmarks.load import Load, Pace, run_load
from benchmarks.machine import Busy, own_cpu
from benchmarks.results import Figure
from benchmarks.rows import Row
from benchmarks.sides import Name, Side, Sides
from tests.peers.processes import cpu_seconds

PROBE_MOST = 16.0
"""Seconds within which a server has to answer marked and unmarked bodies before it is measured."""
TAIL_LOAD = 0.7
SWEEP_LOADS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)


class Bench(Struct, frozen=True):
    """What rows are measured with."""

    sides: Sides
    bodies: Bodies
    seconds: float

    def arguments(self, row: Row, side: Side, every: int) -> list[str]:
        """What the load generator is told, but for the pace."""
        words = [*side.arguments(row.mode, row.service), *self.bodies.arguments(row.body, every)]
        words += ["--allow204"] if row.allow_204 else []
        return words + ([f"--repeated={row.repeated}"] if row.repeated else [])

    def probe(self, row: Row, side: Side) -> None:
        """Raises RuntimeError unless the server blocks this row's marked bodies, and only these."""
        if not row.every:
            return
        seconds = 0.25
        while seconds <= PROBE_MOST:
            load = run_load(self.arguments(row, side, 2), Pace(seconds, 0.0, connections=2))
            if load.errors:
                raise RuntimeError(f"{side.name.value}: {row.name}: {load.errors} wrong, first: {load.first_error}")
            if load.caught and load.requests > load.caught:
                return
            seconds *= 4
        raise RuntimeError(f"{side.name.value}: {row.name}: no answers within {seconds / 4:.0f} s")

    def run(self, row: Row, side: Side, pace: Pace) -> Figure:
        """Load one server; the figure is its rate."""
        clamd_pid = self.sides.clamd.pid
        busy, server, clamd, own = Busy.now(), side.cpu(), cpu_seconds(clamd_pid), own_cpu()
        load: Load = run_load(self.arguments(row, side, row.every), pace)
        server, clamd = side.cpu() - server, cpu_seconds(clamd_pid) - clamd
        if side.pid == clamd_pid:
            server = 0.0
        foreign = Busy.now().foreign_since(busy, server + clamd + own_cpu() - own)
        each = pace.seconds / (pace.seconds + pace.warmup) / max(load.requests, 1) * 1e6
        return Figure(load.per_second, "1/s", load, server * each, clamd * each, foreign)


def rate_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """Each side once in closed loop; every second round begins with the other end."""
    pace = Pace(bench.seconds * row.longer, connections=row.connections)
    order = row.sides if number % 2 == 0 else row.sides[::-1]
    return {name.value: bench.run(row, bench.sides[name], pace) for name in order}


def tail_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """The peer's best rate, then both in open loop at 70 % of it; the figures are p99 from when a request was due."""
    peer = row.sides[0]
    best = bench.run(row, bench.sides[peer], Pace(bench.seconds)).value
    pace = Pace(bench.seconds * 2, connections=row.connections, rate=best * TAIL_LOAD)
    found = {}
    for name in row.sides if number % 2 == 0 else row.sides[::-1]:
        found[name.value] = _latency(bench.run(row, bench.sides[name], pace))
    return found


def _latency(figure: Figure) -> Figure:
    assert figure.load is not None
    return msgspec.structs.replace(figure, value=figure.load.p99_ms, unit="ms")


def sweep_round(bench: Bench, row: Row, number: int) -> dict[str, Figure]:
    """Both sides at rising rates, around the peer's best. Points: offered rate, p50 and p99 in milliseconds."""
    best = bench.run(row, bench.sides[row.sides[0]], Pace(bench.seconds)).value
    points: dict[Name, list[tuple[float, float, float]]] = {name: [] for name in row.sides}
    last = {}
    for part in SWEEP_LOADS:
        for name in row.sides:
            pace = Pace(bench.seconds, connections=row.connections, rate=best * part)
            last[name] = _latency(bench.run(row, bench.sides[name], pace))
            load = last[name].load
            assert load is not None
            points[name].append((best * part, load.p50_ms, load.p99_ms))
    return {
        name.value: Figure(one.value, one.unit, one.load, foreign=one.foreign, points=points[name])
        for name, one in last.items()
    }
