"""One program run to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from msgspec import Struct


class Said(Struct, frozen=True):
    """``text``: standard output and error together."""

    exit_code: int
    text: str


def run_program(command: Sequence[str], seconds: float = 60.0) -> Said:
    """Run ``command``; one that does not end by itself is killed and fails the test with what it said so far."""
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")
        raise AssertionError(f"{command[0]} did not end within {seconds:.0f} s\n{text}") from None
    return Said(ran.returncode, ran.stdout.decode(errors="replace"))
