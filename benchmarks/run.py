"""``python -m benchmarks.run``: icapscan beside its peers, in one run, with one clamd."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.arrival import arrival_round
from benchmarks.bodies import Bodies
from benchmarks.load import compile_load
from benchmarks.machine import commit, machine
from benchmarks.memory import idle_round, uploads_round
from benchmarks.overload import overload_round
from benchmarks.rates import Bench, rate_round, sweep_round, tail_round
from benchmarks.relaying import relay_round
from benchmarks.report import show
from benchmarks.results import Figure, Measured, Round, new_path, save
from benchmarks.rows import Kind, Row, rows
from benchmarks.sides import Sides, versions

METHODS: dict[Kind, Callable[[Bench, Row, int], dict[str, Figure]]] = {
    Kind.RATE: rate_round,
    Kind.TAIL: tail_round,
    Kind.SWEEP: sweep_round,
    Kind.ARRIVAL: arrival_round,
    Kind.OVERLOAD: overload_round,
    Kind.IDLE: idle_round,
    Kind.UPLOADS: uploads_round,
    Kind.RELAY: relay_round,
}
ONCE = {Kind.SWEEP, Kind.IDLE, Kind.UPLOADS}
"""Kinds that are long, and whose figures do not waver."""


def measure(row: Row, bench: Bench, rounds: int) -> Measured:
    """All rounds of one row, after every server has shown that it scans what the row sends."""
    for name in row.sides:
        bench.probe(row, bench.sides[name])
    count = 1 if row.kind in ONCE else rounds
    return Measured(row, [Round(METHODS[row.kind](bench, row, number)) for number in range(count)])


def main(
    full: Annotated[bool, typer.Option("--full", help="All rows, more and longer rounds.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds for each row; 0 = 3, with --full 5.")] = 0,
    seconds: Annotated[
        float, typer.Option(help="Measured seconds of each side and round; 0 = 1.6, with --full 4.")
    ] = 0,
    only: Annotated[str, typer.Option(help="Only rows whose name contains this (or one of several, by '|').")] = "",
    check: Annotated[bool, typer.Option("--check", help="Exit code 1 when a target is missed.")] = False,
) -> None:
    """Exit code 0; 1 when an answer was wrong or missing (or, with --check, a target missed); 2 when it cannot run."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    rounds, seconds = rounds or (5 if full else 3), seconds or (4.0 if full else 1.6)
    chosen = [row for row in rows(full) if any(word in row.name for word in only.split("|"))]
    options: dict[str, object] = {"full": full, "rounds": rounds, "seconds": seconds, "only": only}
    measured: list[Measured] = []
    try:
        compile_load()
        surroundings, path, measured_commit = machine(versions()), new_path(), commit()
        with (
            tempfile.TemporaryDirectory(prefix="icapscan-bench-") as name,
            Sides(Path(name)) as sides,
            Progress(console=console, transient=True) as progress,
        ):
            bench = Bench(sides, Bodies(Path(name) / "bodies"), seconds)
            for row in progress.track(chosen, description="measuring"):
                measured.append(measure(row, bench, rounds))
                save(path, measured_commit, measured, surroundings, options)
    except (RuntimeError, AssertionError, pytest.skip.Exception) as error:
        console.print(f"[red]cannot measure:[/] {error}", highlight=False, markup=True)
        raise typer.Exit(2) from None
    show(measured, console)
    wrong = [line for one in measured for line in one.errors]
    for line in wrong:
        console.print(f"[red]wrong answers:[/] {line}", highlight=False)
    console.print(f"saved as {path}", highlight=False)
    if wrong or (check and not all(one.kept(each) for one in measured for each in one.row.checks)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
