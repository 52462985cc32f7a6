"""The load generator of ``load.c``: compiled on first use, run, and its answer read."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
from pathlib import Path

import msgspec
from msgspec import Struct

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "load.c"
BUILD = HERE / "build"

MARKER = "ICAPSCAN-BENCHMARK-MARKER-0123456789"
"""In every `MARKED_EVERY`-th scanned body; clamd gets a signature for it."""
MARKED_EVERY = 997


class Latency(Struct, frozen=True):
    """Microseconds from the first byte sent to the last byte of the answer; buckets are 3 % wide."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Load(Struct, frozen=True):
    """What one run of the load generator measured."""

    requests: int
    seconds: float
    per_second: float
    status_200: int
    status_204: int
    marked: int
    caught: int
    reconnects: int
    bytes_out: int
    bytes_in: int
    latency_us: Latency
    cpu_seconds: float
    """Processor time of the load generator itself, in the measured time."""
    cpu_user: float
    cpu_system: float
    error_kinds: dict[str, int]
    errors: int
    first_error: str

    @property
    def cpu_share(self) -> float:
        """Part of one processor that the load generator used."""
        return self.cpu_seconds / self.seconds


def compile_load() -> Path:
    """Compile ``load.c`` unless this very source was compiled before. Returns the program's path.

    Raises RuntimeError without a C compiler or with the compiler's words.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler: install Debian package gcc (and libc6-dev)")
    program = BUILD / f"load-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(SOURCE)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode != 0:
            raise RuntimeError(f"load.c does not compile:\n{said.stderr}")
    return program


def run_load(
    port: int,
    service: str,
    size: int,
    *,
    connections: int = 16,
    seconds: float = 3.0,
    warmup: float = 0.5,
    allow_204: bool = False,
    marked: bool = False,
) -> Load:
    """Load ``icap://127.0.0.1:port/service`` with RESPMODs of ``size`` bytes for ``seconds`` and say what came of it.

    ``marked``: every 997th body ends in `MARKER` and has to be blocked. Raises RuntimeError when the generator fails.
    """
    command = [
        str(compile_load()),
        *("--port", str(port), "--service", service, "--size", str(size), "--connections", str(connections)),
        *("--seconds", str(seconds), "--warmup", str(warmup), "--seed", str(secrets.randbits(63))),
    ]
    if allow_204:
        command += ["--allow204"]
    if marked:
        command += ["--marker", MARKER, "--every", str(MARKED_EVERY)]
    said = subprocess.run(command, capture_output=True, timeout=seconds + warmup + 120, check=False)
    if said.returncode != 0:
        raise RuntimeError(f"load generator on port {port} ended with {said.returncode}: {said.stderr.decode()}")
    return msgspec.json.decode(said.stdout, type=Load)
