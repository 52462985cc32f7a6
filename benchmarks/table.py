"""``python -m benchmarks.table FILE.json``: the results of one run as the Markdown table of docs/benchmarks.md."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.report import lines
from benchmarks.results import read

HEADS = (
    "row", "peer", "value", "p99 ms", "cpu µs", "load", "ours", "value", "p99 ms", "cpu µs", "load", "ratio", "worst",
    "target",
)  # fmt: skip
LEFT = {0, 1, 6}


def markdown(path: Path) -> str:
    """The table of the run saved in ``path``. Raises `msgspec.ValidationError` for another kind of file."""
    saved = read(path)
    rules = ["---" if at in LEFT else "--:" for at in range(len(HEADS))]
    table = [list(HEADS), rules, *(line for one in saved.rows for line in lines(one))]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1])))
