"""A bounded, repeatable run of every fuzz target, and the net that they are: planted mistakes are caught."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.formats import FORMATS, Entry, Registry
from icapscan.unwrap.gate import Stop
from tests.conftest import missing
from tests.fuzz import figures, mutators, oracle, run, seeds, walked
from tests.fuzz.targets import TARGETS
from tests.unwrap.toys import BOX, box, part

RUNS = 300
"""Inputs for each target, seeds included: not time, so that each run does the same."""


@pytest.fixture
def atheris() -> None:
    if importlib.util.find_spec("atheris") is None:
        missing("this test needs atheris (there are wheels for CPython 3.11 to 3.13 on Linux): pip install atheris")


@pytest.mark.timeout(1200)
def test_all_targets_for_a_while(atheris: None, tmp_path: Path) -> None:
    for told in run.run(list(TARGETS.values()), tmp_path, runs=RUNS, jobs=2):
        assert not told["crashes"], f"{told['target']}: {told['crashes']} (see docs/fuzzing.md)"
        assert told["executions"] >= RUNS // 20 and told["coverage"] > 0, told


@pytest.mark.timeout(600)
def test_a_target_runs_as_long_as_it_lacks(atheris: None, tmp_path: Path) -> None:
    had = {name: {"target": name, "executions": 1, "seconds": seconds, "cpu_seconds": 0.0, "crashes": {}}
           for name, seconds in (("closed", 1.0), ("lnk", 4.0))}  # fmt: skip
    (tmp_path / "figures.json").write_text(json.dumps(had))
    told = run.run([TARGETS["closed"], TARGETS["lnk"]], tmp_path, until=3)
    assert [one["target"] for one in told] == ["closed"]
    sums = figures.seconds(tmp_path / "figures.json")
    assert sums["closed"] >= 3 and sums["lnk"] == 4.0


def test_every_format_and_every_target() -> None:
    """No format without a target; each target has its invariant in its first line, and seeds that open something."""
    driven = {name for target in TARGETS.values() for name in target.formats}
    assert driven == {entry.format.name for entry in FORMATS}
    for target in TARGETS.values():
        assert target.invariant.endswith(".") and ":" in target.invariant
        made = seeds.made(target)
        assert len(made) > 0 and made == seeds.made(target)


@pytest.mark.parametrize("name", [name for name in TARGETS if not TARGETS[name].children])
def test_the_seeds_keep_the_invariants(name: str) -> None:
    for data in seeds.made(TARGETS[name]):
        TARGETS[name].check(data)


class Planted:
    """A decoder with one mistake."""

    name = "planted"

    def __init__(self, mistake: str) -> None:
        self._mistake = mistake
        self._context: Context | None = None
        self._count = 0

    def bid(self, evidence: Evidence) -> Bid:
        if self._mistake == "bid":
            raise IndexError
        return Bid.YES

    def open(self, context: Context) -> Planted:
        self._context = context
        self._count = 0
        return self

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        assert self._context is not None
        gate = self._context.gate
        self._count += 1
        match self._mistake:
            case "raises":
                bytes(data)[1000]
            case "key":
                yield PartBegin("../a")
            case "twice":
                yield PartBegin("a")
                yield PartEnd("a")
            case "not open":
                yield PartData("a", b"x")
            case "never ends":
                yield PartBegin(f"a{self._count}")
            case "split":
                yield PartBegin(str(self._count))
                yield PartEnd(str(self._count))
            case "uncounted" if self._count == 1:
                yield PartBegin("a")
                yield PartData("a", bytes(200_000))
                yield PartEnd("a")
            case "unbounded" if self._count == 1:
                yield PartBegin("a")
                for _ in range(100):
                    gate.took(100_000)
                    yield PartData("a", bytes(100_000))
                yield PartEnd("a")
            case "untold" if self._count == 1:
                gate.took(10_000_000)
            case "surrogate":
                yield PartBegin(f"a{self._count}", "\ud800")
                yield PartEnd(f"a{self._count}")

    def finish(self) -> Iterator[PartEvent]:
        yield from ()


MISTAKES = (
    "bid",
    "raises",
    "key",
    "twice",
    "not open",
    "never ends",
    "split",
    "uncounted",
    "unbounded",
    "untold",
    "surrogate",
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_decoder_with_a_mistake_is_caught(mistake: str) -> None:
    with pytest.raises((AssertionError, IndexError, UnicodeEncodeError)):
        oracle.check(Entry(Planted(mistake)), b"some input " * 20)


def test_a_decoder_without_a_mistake_passes() -> None:
    told = oracle.check(Entry(Planted("none")), b"some input")
    assert told is not None and not told.failures
    told = oracle.check(BOX, box(part(b"a", b"x" * 5000), part(b"b", b"y")))
    assert told is not None and told.contents == {b"x" * 5000, b"y"}


class Stopped(Planted):
    """Reads the whole part, and stops."""

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        yield PartFailed("a", Reason.ENCRYPTED, "locked")
        raise Stop(Reason.UNSUPPORTED, "no more")


def test_a_stop_is_a_failure() -> None:
    told = oracle.check(Entry(Stopped("none")), b"some input")
    assert told is not None and told.failures == {("a", Reason.ENCRYPTED), ("", Reason.UNSUPPORTED)}


def test_a_decoder_that_raises_in_the_walker_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    walked.check(b"any body")
    monkeypatch.setattr(walked, "_IN_PROCESS", Registry([Entry(Planted("raises"))]))
    with pytest.raises(AssertionError, match="a decoder raised"):
        walked.check(b"any body")


def test_mutations_change_and_are_repeatable() -> None:
    for target in TARGETS.values():
        if target.mutator is None:
            continue  # the engine's own mutations
        data = seeds.made(target)[0]
        mutate = mutators.mutator(target.mutator, target.words, lambda data, most: data[:most])
        changed = {mutate(data, target.longest, seed) for seed in range(60)}
        assert changed == {mutate(data, target.longest, seed) for seed in range(60)}
        assert len(changed) > 10 and all(len(one) <= target.longest for one in changed)


def test_a_mutated_tar_has_right_checksums() -> None:
    data = seeds.made(TARGETS["tar"])[0]
    for seed in range(20):
        block = mutators.tar_blocks(data, 1 << 20, random.Random(seed), (b"x",))[:512]
        kept = int(block[148:154].strip(b"\0 ") or b"0", 8)
        assert kept == sum(block[:148]) + 8 * 32 + sum(block[156:])


def test_figures_add_up(tmp_path: Path) -> None:
    told = {"target": "zip", "executions": 5, "seconds": 2.5, "cpu_seconds": 2.0, "peak_rss_mib": 60, "coverage": 9}
    told |= {"features": 20, "slowest_seconds": 0.5, "crashes": {"a": "b"}}
    figures.save(tmp_path / "f.json", [told])
    figures.save(tmp_path / "f.json", [told | {"crashes": {}, "peak_rss_mib": 50, "features": 30, "executions": 7}])
    one = json.loads((tmp_path / "f.json").read_text())["zip"]
    assert figures.row(one) == ("zip", "5", "4", "12", "2", "9", "30", "60 MiB", "0.50 s", "0")
    assert "| zip | 5 | 4 | 12 |" in figures.markdown([one])
