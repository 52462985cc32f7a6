"""What must hold for each row of the corpus manifest, and where it does not: exceptions, each with its reason."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from icapscan.findings import Level
from icapscan.limits import MIB
from tests.corpus.walk import Facts

HERE = Path(__file__).parent
CPU_MAX = 5.0
"""Seconds after which a file counts as a hang (EVASION.md 88)."""
MEMORY_MAX = 64 * MIB
"""Most that one file may raise the peak of the process by, besides the store of its largest part."""
_KNOWN = ("agree", "reference", "author", "decoded", "made")
_LEAF_KINDS = (
    "mime", "mime-filename", "archive", "yenc", "uuencode", "base64", "quoted-printable", "tnef", "clam-wrapper",
)  # fmt: skip
_SHA256 = re.compile(r"[0-9a-f]{64}")

Rule = Callable[[dict[str, str], Facts], str]
"""What is wrong, or empty."""


def rules_of(row: dict[str, str]) -> dict[str, Rule]:
    """The rules that a row is under, by name."""
    verdict, how = row["verdict"], row["how"]
    rules: dict[str, Rule] = {"sound": _sound}
    if verdict in _BY_VERDICT:
        rules[verdict] = _BY_VERDICT[verdict]
    if row["kind"] in _LEAF_KINDS and not verdict.startswith("eicar"):
        if how.startswith(_KNOWN) and row["sha256"]:
            rules["leaves"] = _leaves
        elif how.startswith("single") and row["sha256"]:
            rules["leaves of one reference"] = _leaves
        elif how.startswith("ambiguous") and _SHA256.search(row["alternatives"]):
            rules["every reading"] = _every_reading
    return rules


def problems(row: dict[str, str], facts: Facts) -> dict[str, str]:
    """What is wrong with a row, by rule."""
    found = {name: rule(row, facts) for name, rule in rules_of(row).items()}
    return {name: what for name, what in found.items() if what}


def listed(file: str) -> dict[tuple[str, str], str]:
    """A list of rows that fail a rule: (path, rule) to the reason. Lines: path, rule, reason, tab-separated."""
    with open(HERE / file, encoding="utf-8", newline="") as lines:
        rows = csv.reader((line for line in lines if not line.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE)
        return {(row[0], row[1]): row[2] for row in rows if row}


def subset(path: str) -> str:
    """The name that results are summed up by: the first two folders."""
    return "/".join(path.split("/")[:2])


def _sound(row: dict[str, str], facts: Facts) -> str:
    if facts.crash:
        return facts.crash
    if facts.cpu > CPU_MAX:
        return f"took {facts.cpu:.1f} s"
    memory = facts.grown - facts.largest
    return f"took {memory / MIB:.0f} MiB" if memory > MEMORY_MAX else ""


def _said(facts: Facts) -> str:
    found = [finding.name for finding in facts.findings]
    return ", ".join([facts.level.word, *sorted(facts.reasons), *found])


def _eicar(row: dict[str, str], facts: Facts) -> str:
    return "" if facts.level is Level.INFECTED else _said(facts)


def _never_clean(row: dict[str, str], facts: Facts) -> str:
    return "" if facts.level is Level.INFECTED or facts.unscanned else _said(facts)


def _not_clean(row: dict[str, str], facts: Facts) -> str:
    """Where a standard password opens it, what is in it counts."""
    return "" if facts.level is not Level.CLEAN else _said(facts)


def _limit(row: dict[str, str], facts: Facts) -> str:
    return "" if "over-limit" in facts.reasons else _said(facts)


def _clean(row: dict[str, str], facts: Facts) -> str:
    bad = [finding for finding in facts.findings if finding.level in (Level.INFECTED, Level.SUSPICIOUS)]
    return ", ".join(f"{finding.level.word}: {finding.name} in {finding.part!r}" for finding in bad)


def _leaves(row: dict[str, str], facts: Facts) -> str:
    return _missing(row["sha256"].split(","), facts.hashes)


def _every_reading(row: dict[str, str], facts: Facts) -> str:
    """A reader with other line ends, or that counts the one before a delimiter to the part, reads the same."""
    return _missing(_SHA256.findall(row["alternatives"]), facts.hashes | facts.other_line_ends)


def _missing(expected: Iterable[str], hashes: set[str]) -> str:
    wanted = list(dict.fromkeys(expected))
    gone = [digest for digest in wanted if digest not in hashes]
    return f"{len(gone)} of {len(wanted)} missing: {', '.join(digest[:12] for digest in gone[:4])}" if gone else ""


_BY_VERDICT: dict[str, Rule] = {
    "clean": _clean,
    "eicar": _eicar,
    "eicar-or-reject": _never_clean,
    "eicar-or-limit": _never_clean,
    "clam": _eicar,
    "limit": _limit,
    "encrypted": _not_clean,
    "incomplete-volume": _never_clean,
}
