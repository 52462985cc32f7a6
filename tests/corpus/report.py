"""``python -m tests.corpus.report [WORD]``: the corpus by subset and rule, and every row that fails a rule."""

from __future__ import annotations

import sys
import time
from collections import defaultdict

from icapscan.limits import MIB
from tests.conftest import corpus_folder, corpus_rows
from tests.corpus.rules import listed, problems, rules_of, subset
from tests.corpus.walk import walk


def main(arguments: list[str]) -> None:
    """Walk the corpus, or the rows whose path has WORD in it, and print what came of it."""
    folder = corpus_folder()
    rows = [row for row in corpus_rows(folder) if all(word in row["path"] for word in arguments)]
    exceptions = listed("exceptions.tsv")
    table: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    failing: list[tuple[str, str, str]] = []
    began, grown, slowest = time.monotonic(), 0, (0.0, "")
    for row, facts in zip(rows, walk(folder, rows), strict=True):
        wrong = problems(row, facts)
        grown += facts.grown
        slowest = max(slowest, (facts.cpu, row["path"]))
        for rule in rules_of(row):
            counts = table[subset(row["path"])][rule]
            counts[2] += 1
            if rule not in wrong:
                counts[0] += 1
            elif (row["path"], rule) in exceptions:
                counts[1] += 1
            else:
                failing.append((row["path"], rule, wrong[rule]))
    for path, rule, what in failing:
        print(f"{path}\t{rule}\t{what}")
    print()
    for name, counted in sorted(table.items()):
        shown = (f"{rule} {good}/{all_}{f' ({listed_} excepted)' if listed_ else ''}"
                 for rule, (good, listed_, all_) in counted.items())  # fmt: skip
        print(f"{name:32}{'; '.join(shown)}")
    print(
        f"{len(rows)} files in {time.monotonic() - began:.1f} s; {len(failing)} rules fail; "
        f"memory grew by {grown / MIB:.0f} MiB; slowest {slowest[1]} with {slowest[0]:.2f} s"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
