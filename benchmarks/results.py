"""What came of it: figures, rounds, ratios; and the JSON file with everything."""

from __future__ import annotations

import datetime
import os
import statistics
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.load import Load
from benchmarks.rows import Check, Row

RESULTS = Path(__file__).resolve().parent / "results"


class Figure(Struct, frozen=True):
    """One measured value of one round."""

    value: float
    unit: str
    load: Load | None = None
    server_us: float = 0.0
    """Processor microseconds of the server for each answer, without clamd's."""
    clamd_us: float = 0.0
    foreign: float = 0.0
    """Share of the machine's processors that went to anything else meanwhile, 0 to 1."""
    points: list[tuple[float, float, float]] = []
    """For plots: what the kind of row says."""


class Round(Struct, frozen=True):
    """All figures of a row, one right after the other, by their labels."""

    figures: dict[str, Figure]

    def values(self) -> dict[str, float]:
        return {label: figure.value for label, figure in self.figures.items()}


class Measured(Struct, frozen=True):
    """One row with all its rounds."""

    row: Row
    rounds: list[Round]

    def ratios(self, check: Check) -> list[float]:
        """Round by round."""
        return [check.ratio(one.values()) for one in self.rounds]

    def ratio(self, check: Check) -> float:
        """The median of the ratios round by round."""
        return statistics.median(self.ratios(check))

    def worst(self, check: Check) -> float:
        """Of all rounds."""
        return max(self.ratios(check)) if check.lower else min(self.ratios(check))

    def kept(self, check: Check) -> bool:
        return check.kept(self.ratio(check))

    def figures(self, label: str) -> list[Figure]:
        """That figure of every round."""
        return [one.figures[label] for one in self.rounds if label in one.figures]

    def median(self, label: str) -> float:
        return statistics.median(figure.value for figure in self.figures(label))

    @property
    def labels(self) -> list[str]:
        return list(self.rounds[0].figures)

    @property
    def errors(self) -> list[str]:
        """Every figure in which an answer was wrong or missing."""
        return [
            f"{self.row.name}: {label}, round {number}: {load.errors} errors, first: {load.first_error}"
            for number, one in enumerate(self.rounds, 1)
            for label, figure in one.figures.items()
            if (load := figure.load) is not None and load.errors
        ]

    @property
    def foreign(self) -> float:
        """The largest share of the machine that something else took in any round."""
        return max(figure.foreign for one in self.rounds for figure in one.figures.values())


class Saved(Struct, frozen=True):
    """A file of results."""

    time: str
    commit: str
    machine: dict[str, object]
    load_average_after: tuple[float, float, float]
    options: dict[str, object]
    rows: list[Measured]


def new_path() -> Path:
    """``benchmarks/results/TIME.json``"""
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}.json"


def save(
    path: Path,
    commit: str,
    measured: list[Measured],
    surroundings: dict[str, object],
    options: dict[str, object],
) -> None:
    """Write everything so far. ``commit`` is that of the start."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    saved = Saved(when, commit, surroundings, os.getloadavg(), options, measured)
    path.write_bytes(msgspec.json.encode(saved))


def read(path: Path) -> Saved:
    """Raises `msgspec.ValidationError` for another kind of file."""
    return msgspec.json.decode(path.read_bytes(), type=Saved)
