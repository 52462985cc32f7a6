"""Runs one of our child processes on a document: bounded output, ended for certain, and what it says besides."""

from __future__ import annotations

from icapscan.limits import KIB, MIB
from icapscan.sanitize.contract import CannotSanitize
from icapscan.store import PartStore
from icapscan.unwrap.children import Child, python, why
from icapscan.unwrap.gate import Gate

TOOK = "- "
"""Before each thing that was taken out, on standard error: nothing else there passes for one."""
GROWTH = 4
"""A cleaned document is about as large as it was; this many times its size, and a little, is too much."""
LITTLE = 16 * MIB


def run_child(module: str, arguments: list[str], data: bytes, gate: Gate) -> tuple[bytes, tuple[str, ...]]:
    """Standard output of the module, and what it took out: the lines of its standard error that begin with a dash.

    Raises `CannotSanitize` where it ended badly or gave too much, `Stop` when the budget is spent.
    """
    most = GROWTH * len(data) + LITTLE
    out = bytearray()
    store = PartStore.of(data)
    try:
        with Child(python(module, *arguments), store) as child:
            while piece := child.read(64 * KIB):
                gate.room()
                out += piece
                if len(out) > most or not gate.took(len(piece)):
                    raise CannotSanitize("The cleaned document is too large.")
            status, said = child.end()
    finally:
        store.close()
    if status:
        ended = why(status)
        raise CannotSanitize(ended[1] if ended else f"It could not be rewritten ({status}): {said[:200]}")
    lines = (line.removeprefix(TOOK) for line in said.splitlines() if line.startswith(TOOK))
    return bytes(out), tuple(dict.fromkeys(lines))
