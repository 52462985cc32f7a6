"""The corpus: every file as its manifest says. `python -m tests.corpus.report` shows the same as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from icapscan.findings import Level
from icapscan.limits import MIB, Limits
from tests.conftest import corpus_rows
from tests.corpus.rules import listed, problems, rules_of
from tests.corpus.walk import walk
from tests.peers.clamd import run_clamd


@pytest.mark.timeout(600)
def test_every_file_of_the_corpus_is_read_as_its_manifest_says(corpus: Path) -> None:
    rows = corpus_rows(corpus)
    excepted = listed("exceptions.tsv")
    wrong = []
    for row, facts in zip(rows, walk(corpus, rows), strict=True):
        for rule, what in problems(row, facts).items():
            if (row["path"], rule) not in excepted:
                wrong.append(f"{row['path']} is not {rule}: {what}")
    assert len(rows) > 1600
    assert not wrong, "\n".join(wrong)


def test_every_exception_names_a_row_and_a_rule_and_a_reason(corpus: Path) -> None:
    rows = {row["path"]: row for row in corpus_rows(corpus)}
    for (path, rule), reason in listed("exceptions.tsv").items():
        assert rule in rules_of(rows[path]) and len(reason) > 20, (path, rule)


def test_what_the_limit_on_the_ratio_keeps_back_is_there_with_a_higher_one(corpus: Path) -> None:
    """Two small files that grow more than a thousandfold: see the exceptions."""
    rows = [row for row in corpus_rows(corpus) if "_iso_rockridge_" in row["path"] and "ratio" in reason(row)]
    assert len(rows) == 2
    for row, facts in zip(rows, walk(corpus, rows, limits=Limits(ratio_from=128 * MIB)), strict=True):
        assert not problems(row, facts)


def reason(row: dict[str, str]) -> str:
    """Why this row is excepted from its leaves; empty where it is not."""
    return listed("exceptions.tsv").get((row["path"], "leaves of one reference"), "")


def test_with_clamd_every_wrapper_of_its_test_file_is_infected(corpus: Path, tmp_path: Path) -> None:
    rows = [row for row in corpus_rows(corpus) if row["verdict"] == "clam"]
    with run_clamd(tmp_path) as clamd:
        missed = [facts.path for facts in walk(corpus, rows, clamd.unix_address) if facts.level is not Level.INFECTED]
    assert len(rows) == 42 and not missed
