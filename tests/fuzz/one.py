"""Runs one fuzz target in this process, with atheris: ``python -m tests.fuzz.one TARGET FOLDER``. `run.py` starts it.

What breaks an invariant is written to ``FOLDER/crashes`` with its traceback, once for each place where it was raised,
and the run goes on; a hang, or too much memory, ends it. ``FOLDER/stats.json`` says what was done.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["icapscan.unwrap"]):
    from icapscan.unwrap import children
    from tests.fuzz.mutators import mutator
    from tests.fuzz.target import Target
    from tests.fuzz.targets import TARGETS

CPU_MOST = 20.0
"""Seconds of processor time for one input, its splits and comparisons included; a few thousand times the usual."""
PATIENCE = 120.0
"""Seconds of processor time after which one input counts as a hang: while this process is stopped none pass."""
STUCK = 4 * 3600
"""The same by the clock, for what hangs in a library or waits for something, pauses included."""
MEMORY_MOST = 1024
"""MiB of resident memory; instrumented, the interpreter and all decoders take about a tenth of that."""
PAUSE = 5.0
"""A longer gap between two inputs is time in which this process was stopped."""
_SAVE_EVERY = 2.0
_ROOT = str(Path(__file__).resolve().parents[2])


class Meter:
    """Counts, times and catches."""

    def __init__(self, target: Target, folder: Path, seconds: float, runs: int) -> None:
        self.target = target
        self.folder = folder
        self.seconds = seconds
        self.runs_wanted = runs
        self.runs = 0
        self.awake = 0.0
        self.slowest = 0.0
        self.crashes: dict[str, str] = {}
        self._now = b""
        self._last = self._saved = time.monotonic()

    def __call__(self, data: bytes) -> None:
        begun = time.process_time()
        self._now = data
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        try:
            self.target.check(data)
        except Exception as error:
            self._caught(error, data)
        spent = time.process_time() - begun
        self.runs += 1
        if spent > self.slowest:
            self.slowest = spent
            (self.folder / "slowest.bin").write_bytes(data)
            if spent > CPU_MOST:
                self._caught(AssertionError(f"one input took {spent:.1f} s"), data)
        now = time.monotonic()
        self.awake += min(now - self._last, PAUSE)
        self._last = now
        if now - self._saved > _SAVE_EVERY:
            self._saved = now
            self.save()
        if (self.runs_wanted and self.runs >= self.runs_wanted) or (self.seconds and self.awake >= self.seconds):
            self.save()
            sys.stderr.flush()
            os._exit(0)

    def hangs(self, *_: object) -> NoReturn:
        """The input at work takes too long."""
        traceback.print_stack()
        self._caught(AssertionError("one input hangs"), self._now)
        self.save()
        sys.stderr.flush()
        os._exit(70)

    def _caught(self, error: Exception, data: bytes) -> None:
        """Save the input, once for each place that raised."""
        frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(_ROOT)]
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-2:]]
        sentence = str(error).partition("\n")[0]
        sign = f"{type(error).__name__} {' '.join(places)}: {sentence[:60]}"
        key = hashlib.sha256(f"{type(error).__name__} {places} {sentence[:24]}".encode()).hexdigest()[:12]
        if key in self.crashes or len(self.crashes) >= 50:
            return
        self.crashes[key] = sign
        crashes = self.folder / "crashes"
        crashes.mkdir(exist_ok=True)
        (crashes / f"{key}.bin").write_bytes(data)
        (crashes / f"{key}.txt").write_text("".join(traceback.format_exception(error)), "utf-8", "backslashreplace")

    def save(self) -> None:
        """What was done so far."""
        used, children_used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = sum(one.ru_utime + one.ru_stime for one in (used, children_used))
        told = {
            "target": self.target.name,
            "executions": self.runs,
            "seconds": round(self.awake, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_rss_mib": used.ru_maxrss // 1024,
            "slowest_seconds": round(self.slowest, 3),
            "crashes": self.crashes,
        }
        partial = self.folder / "stats.part"
        partial.write_text(json.dumps(told, indent=1))
        partial.replace(self.folder / "stats.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one fuzz target.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    target, folder = TARGETS[given.target], given.folder
    if not target.children:
        children.CHILDREN_MAX = 0  # so that what would start one is told as a failure, as it is when there are too many
    meter = Meter(target, folder, given.seconds, given.runs)
    atexit.register(meter.save)
    signal.signal(signal.SIGPROF, meter.hangs)
    arguments = [
        sys.argv[0], str(folder / "corpus"), str(folder / "seeds"),
        f"-artifact_prefix={folder / 'crashes'}/", f"-max_len={target.longest}", f"-rss_limit_mb={MEMORY_MOST}",
        f"-timeout={STUCK}", f"-seed={given.seed}", "-report_slow_units=1000",
    ]  # fmt: skip

    if target.words:
        arguments.append(f"-dict={folder / 'words'}")

    def engine(data: bytes, most: int) -> bytes:
        mutated: bytes = atheris.Mutate(data, most)  # looked up each time: it is another one once fuzzing began
        return mutated

    atheris.Setup(arguments, meter, custom_mutator=mutator(target.mutator, target.words, engine))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
