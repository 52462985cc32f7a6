"""``python -m benchmarks.run``: icapscan beside c-icap, in one run, with one clamd."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import pytest
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.load import Load, compile_load, run_load
from benchmarks.report import Busy, Measured, Pair, Run, machine, save, show
from benchmarks.rows import Row, rows
from benchmarks.sides import Side, Sides, probe, run_sides, versions
from tests.peers.processes import cpu_seconds

WARMUP = 0.5


def measure(row: Row, sides: Sides, rounds: int, seconds: float) -> Measured:
    """``rounds`` pairs of one row; every second pair begins with the other side."""
    pairs = []
    for number in range(rounds):
        if row.service == "avscan":
            probe(sides.peer)
            probe(sides.ours)
        if number % 2 == 0:
            peer = _one(row, sides, sides.peer, seconds)
            ours = _one(row, sides, sides.ours, seconds)
        else:
            ours = _one(row, sides, sides.ours, seconds)
            peer = _one(row, sides, sides.peer, seconds)
        pairs.append(Pair(peer, ours))
    return Measured(row, pairs)


def _one(row: Row, sides: Sides, side: Side, seconds: float) -> Run:
    busy, server, clamd, self_cpu = Busy.now(), side.cpu(), cpu_seconds(sides.clamd.pid), _own_cpu()
    load: Load = run_load(
        side.port,
        row.service,
        row.size,
        connections=row.connections,
        seconds=seconds,
        warmup=WARMUP,
        allow_204=row.allow_204,
        marked=row.service == "avscan",
    )
    server, clamd = side.cpu() - server, cpu_seconds(sides.clamd.pid) - clamd
    own = server + clamd + _own_cpu() - self_cpu
    return Run(load, server, clamd, Busy.now().foreign_since(busy, own), seconds / (seconds + WARMUP))


def _own_cpu() -> float:
    """Processor seconds of this harness and of the load generators that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(
    full: Annotated[bool, typer.Option("--full", help="Also 1 and 128 connections, more and longer rounds.")] = False,
    rounds: Annotated[int, typer.Option(help="Pairs for each row; 0 = 3, with --full 5.")] = 0,
    seconds: Annotated[float, typer.Option(help="Measured seconds of each side and round; 0 = 3, with --full 5.")] = 0,
    only: Annotated[str, typer.Option(help="Only rows whose name contains this.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 when a target is missed.")] = False,
) -> None:
    """Exit code 0; 1 when an answer was wrong or missing (or, with --check, a target missed); 2 when it cannot run."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    rounds, seconds = rounds or (5 if full else 3), seconds or (5.0 if full else 3.0)
    chosen = [row for row in rows(full) if only in row.name]
    measured: list[Measured] = []
    try:
        compile_load()
        surroundings = machine(versions())
        with (
            tempfile.TemporaryDirectory(prefix="icapscan-bench-") as folder,
            run_sides(Path(folder)) as sides,
            Progress(console=console, transient=True) as progress,
        ):
            for row in progress.track(chosen, description="measuring"):
                measured.append(measure(row, sides, rounds, seconds))
    except (RuntimeError, AssertionError, pytest.skip.Exception) as error:
        console.print(f"[red]cannot measure:[/] {error}", highlight=False)
        raise typer.Exit(2) from None
    options: dict[str, object] = {"full": full, "rounds": rounds, "seconds": seconds, "warmup": WARMUP, "only": only}
    path = save(measured, surroundings, options)
    show(measured, console)
    wrong = [line for one in measured for line in one.errors]
    for line in wrong:
        console.print(f"[red]wrong answers:[/] {line}", highlight=False)
    console.print(f"saved as {path}", highlight=False)
    if wrong or (check and not all(one.kept for one in measured)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
