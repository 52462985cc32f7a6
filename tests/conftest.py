"""What all tests share: the corpus folder, and the rule that in CI nothing that is missing may just be skipped."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("icapscan", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("icapscan")


def in_ci() -> bool:
    """Whether this run is a continuous-integration run, where what is missing is a failure."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def missing(what: str) -> NoReturn:
    """Skip the test because ``what`` (a sentence that says what to install) is missing; in CI fail instead."""
    if in_ci():
        pytest.fail(f"in CI this is a failure: {what}", pytrace=False)
    pytest.skip(what)


def corpus_folder() -> Path:
    """The corpus: ``$ICAPSCAN_CORPUS``, else ``../shared/corpus`` beside the checkout; without it skip, in CI fail."""
    given = os.environ.get("ICAPSCAN_CORPUS")
    folder = Path(given) if given else ROOT.parent / "shared" / "corpus"
    if not (folder / "manifest.tsv").is_file():
        missing(f"there is no test corpus in {folder}; name its folder in ICAPSCAN_CORPUS")
    return folder


def corpus_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of the corpus manifest (tab-separated, no quoting), by column name."""
    with open(folder / "manifest.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of the corpus that lies beside the checkout."""
    return corpus_folder()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long values are named by their argument: some are made anew in each process, and all must have the same names."""
    return argname if isinstance(val, (bytes, str)) and len(val) > 40 else None
