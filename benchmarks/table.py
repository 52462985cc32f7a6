"""``python -m benchmarks.table FILE.json``: the results of one run as the Markdown table of docs/benchmarks.md."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
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
    return joined(HEADS, LEFT, (line for one in read(path).rows for line in lines(one)))


def joined(heads: Sequence[str], left: set[int], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; ``left`` are the columns of words, the others are numbers."""
    rules = ["---" if at in left else "--:" for at in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rules, *rows))


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1])))
