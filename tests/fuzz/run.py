"""Fuzzes the decoders: ``python -m tests.fuzz.run [TARGET…] --seconds N --jobs N``.

Each target runs in a process of its own. What it finds, and the inputs that it learnt, stay in a folder of its own
under ``--folder`` (outside the checkout), so that the next run goes on where this one ended. See docs/fuzzing.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.conftest import ROOT
from tests.fuzz import figures as fuzz_figures
from tests.fuzz import seeds
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

FOLDER = Path(tempfile.gettempdir()) / "icapscan-fuzz"
_STATUS = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)/", re.M)
_ENDS = re.compile(r"^SUMMARY: (.+)$|ERROR: (libFuzzer: .+)$", re.M)
_POLL = 0.2


class Job:
    """One target at work."""

    def __init__(self, target: Target, folder: Path, seconds: float, runs: int, seed: int) -> None:
        self.target = target
        self.folder = folder / target.name
        self.log = self.folder / "log"
        self.stopped = self.killed = False
        (self.folder / "stats.json").unlink(missing_ok=True)
        arguments = [sys.executable, "-m", "tests.fuzz.one", target.name, str(self.folder)]
        arguments += ["--seconds", str(seconds), "--runs", str(runs), "--seed", str(seed)]
        with open(self.log, "wb") as log:
            # One hash seed, so that a run with a fixed number of inputs does the same each time.
            environment = os.environ | {"PYTHONHASHSEED": str(seed)}
            self.process = subprocess.Popen(
                arguments, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def pause(self, wanted: bool) -> None:
        """Stop the process, or let it go on."""
        if wanted is not self.stopped:
            self.process.send_signal(signal.SIGSTOP if wanted else signal.SIGCONT)
            self.stopped = wanted

    def kill(self) -> None:
        """End it; what it did so far still counts."""
        if self.process.poll() is None:
            self.killed = True
            self.process.kill()
            self.process.wait()

    def figures(self) -> dict[str, Any]:
        """What it did; a process that ended by itself where it should not counts as a crash."""
        log = self.log.read_text("utf-8", "replace")
        try:
            told: dict[str, Any] = json.loads((self.folder / "stats.json").read_text())
        except FileNotFoundError:
            told = {"target": self.target.name, "executions": 0, "seconds": 0.0, "cpu_seconds": 0.0, "crashes": {}}
        status = _STATUS.findall(log)
        told["coverage"], told["features"], told["inputs"] = map(int, status[-1][1:]) if status else (0, 0, 0)
        told["invariant"] = self.target.invariant
        if self.process.returncode and not self.killed:
            ends = _ENDS.findall(log)
            why = next((one or other for one, other in ends), "") or log.strip().rpartition("\n")[2]
            told["crashes"]["process"] = f"exit status {self.process.returncode}: {why[:200]}"
        return told


def prepare(target: Target, folder: Path, corpus: Path | None) -> None:
    """The folders of a target, its seeds and its dictionary."""
    own = folder / target.name
    shutil.rmtree(own / "seeds", ignore_errors=True)
    for name in ("corpus", "seeds", "crashes"):
        (own / name).mkdir(parents=True, exist_ok=True)
    for found in (own / "crashes").iterdir():  # what broke an invariant before is tried again
        if found.suffix != ".txt":
            shutil.copy(found, own / "corpus")
        found.unlink()
    for number, data in enumerate((*seeds.made(target), *seeds.found(target, corpus))):
        (own / "seeds" / f"{number:04}").write_bytes(data)
    words = ["".join(f"\\x{byte:02x}" for byte in word) for word in target.words]
    (own / "words").write_text("".join(f'"{word}"\n' for word in words))


def run(
    targets: list[Target],
    folder: Path,
    *,
    seconds: float = 0,
    until: float = 0,
    runs: int = 0,
    jobs: int = 2,
    seed: int = 1,
    corpus: Path | None = None,
    pause_while: Path | None = None,
) -> list[dict[str, Any]]:
    """Run these targets, ``jobs`` at a time; their figures in the same order. All processes are dead at the end.

    With ``until``, each for the seconds that it lacks to that many in all runs of this folder, and not at all where it
    lacks none. The figures of each are added to those in the folder as soon as it is done, or when this is interrupted.
    """
    sums = folder / "figures.json"
    lengths = dict.fromkeys((target.name for target in targets), seconds)
    if until:
        done = fuzz_figures.seconds(sums)
        lengths = {name: until - done.get(name, 0) for name in lengths}
        targets = [target for target in targets if lengths[target.name] >= 1]
    waiting, working, figures = list(targets), list[Job](), dict[str, dict[str, Any]]()
    try:
        while waiting or working:
            pause = pause_while is not None and pause_while.exists()
            while waiting and len(working) < jobs and not pause:
                target = waiting.pop(0)
                prepare(target, folder, corpus)
                working.append(Job(target, folder, lengths[target.name], runs // 20 if target.children else runs, seed))
            for job in working:
                job.pause(pause)
                if job.process.poll() is not None:
                    figures[job.target.name] = job.figures()
                    fuzz_figures.save(sums, [figures[job.target.name]])
            working = [job for job in working if job.target.name not in figures]
            time.sleep(_POLL)
    finally:
        for job in working:
            job.kill()
            if job.target.name not in figures:
                fuzz_figures.save(sums, [job.figures()])
    return [figures[target.name] for target in targets]


def corpus_or_none() -> Path | None:
    """The corpus, where the tests would find it."""
    given = os.environ.get("ICAPSCAN_CORPUS")
    folder = Path(given) if given else ROOT.parent / "shared" / "corpus"
    return folder if (folder / "manifest.tsv").is_file() else None


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.run", description="Fuzz the decoders of icapscan.unwrap."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; without one: all")
    parser.add_argument("--seconds", type=float, default=20, help="for each target")
    parser.add_argument("--until", type=float, default=0, help="as long as each lacks to that many seconds in all")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target, instead of a time")
    parser.add_argument("--jobs", type=int, default=2, help="targets at the same time")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the mutations")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where inputs, findings and figures are kept")
    parser.add_argument("--pause-while", type=Path, help="do nothing while this file exists")
    given = parser.parse_args()
    unknown = set(given.targets) - set(TARGETS)
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    targets = [TARGETS[name] for name in given.targets or TARGETS]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was done so far is added up
    figures = run(
        targets, given.folder, seconds=0 if given.runs else given.seconds, until=given.until, runs=given.runs,
        jobs=given.jobs, seed=given.seed,
        corpus=corpus_or_none(), pause_while=given.pause_while,
    )  # fmt: skip
    console = Console(width=130)
    console.print(fuzz_figures.table(figures))
    for one in figures:
        for key, sign in one["crashes"].items():
            console.print(f"{one['target']}: {sign}", markup=False)
            console.print(f"  {given.folder / one['target'] / 'crashes' / key}.bin", markup=False)
    return 1 if any(one["crashes"] for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
