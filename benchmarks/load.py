"""The load generator of ``load.c``: compiled on first use, run, and its answer read."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.histogram import Histogram

HERE = Path(__file__).resolve().parent
SOURCES = [HERE / name for name in ("load.c", "load_request.c", "load_answer.c")]
BUILD = HERE / "build"

MARKER = "ICAPSCAN-BENCHMARK-MARKER-0123456789"
"""At the end of every marked body; clamd gets a signature for it, YARA a rule."""


class Load(Struct, frozen=True):
    """What one run of the load generator measured."""

    requests: int
    """Right answers that came in the measured time, refusals not counted."""
    seconds: float
    ended_ns: int
    """When the measured time ended, by `time.monotonic_ns`."""
    per_second: float
    status_200: int
    status_204: int
    marked: int
    caught: int
    refused: int
    """ICAP 503, where these are allowed."""
    unsent: int
    """Open loop: due, and never sent because all connections were busy. In ``latency`` with the time they waited."""
    unanswered: int
    reconnects: int
    bytes_out: int
    bytes_in: int
    latency: Histogram
    """To the last byte of the answer, from the first byte sent; open loop: from when it was due."""
    refusal_latency: Histogram
    cpu_user: float
    cpu_system: float
    error_kinds: dict[str, int]
    errors: int
    first_error: str

    @property
    def cpu_share(self) -> float:
        """Part of one processor that the load generator used."""
        return (self.cpu_user + self.cpu_system) / self.seconds

    @property
    def p50_ms(self) -> float:
        return self.latency.percentile_us(0.5) / 1000

    @property
    def p99_ms(self) -> float:
        return self.latency.percentile_us(0.99) / 1000


class Pace(Struct, frozen=True):
    """How long and how hard."""

    seconds: float
    warmup: float = 0.5
    connections: int = 16
    rate: float = 0.0
    """Requests a second in open loop; 0: closed loop."""
    refusals: bool = False
    """Whether ICAP 503 is an answer and not an error."""

    @property
    def arguments(self) -> list[str]:
        words = ["--seconds", str(self.seconds), "--warmup", str(self.warmup), "--connections", str(self.connections)]
        words += ["--rate", str(self.rate)] if self.rate else []
        return words + (["--refusals"] if self.refusals else [])


def compile_load() -> Path:
    """Compile the C files unless this very source was compiled before. Returns the program's path.

    Raises RuntimeError without a C compiler or with the compiler's words.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler: install Debian package gcc (and libc6-dev)")
    source = b"".join(path.read_bytes() for path in [*SOURCES, HERE / "load.h"])
    program = BUILD / f"load-{hashlib.sha256(source).hexdigest()[:12]}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), *map(str, SOURCES)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode != 0:
            raise RuntimeError(f"load.c does not compile:\n{said.stderr}")
    return program


def run_load(arguments: Sequence[str], pace: Pace) -> Load:
    """Run the load generator with ``arguments`` (where to, and what) at ``pace`` and say what came of it.

    Raises RuntimeError when the generator itself fails; wrong answers are in `Load.errors`.
    """
    command = [str(compile_load()), *arguments, *pace.arguments, "--seed", str(secrets.randbits(63))]
    said = subprocess.run(command, capture_output=True, timeout=pace.seconds + pace.warmup + 180, check=False)
    if said.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {said.returncode}: {said.stderr.decode()}")
    return msgspec.json.decode(said.stdout, type=Load)
