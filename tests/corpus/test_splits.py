"""Any split of any file of the corpus gives the same parts, failures and anomalies."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import corpus_rows
from tests.corpus.splits import LARGE, bodies, cut, outcome, single, whole

SMALL = 24 * 1024
"""Bytes of a file up to which it may be in the sample."""
SAMPLE = 1_200_000
"""Bytes that the ordinary run feeds one by one."""
MESSAGES = ("mime", "mime-evasion", "mime-filename", "http-response", "yenc", "uuencode", "base64", "tnef")
"""Kinds whose decoders are fed; archives and documents are in the full run."""


def rows_of(corpus: Path, *kinds: str) -> list[dict[str, str]]:
    """The rows of these kinds, or of all, in an order that has nothing to do with what is in them."""
    rows = [row for row in corpus_rows(corpus) if not kinds or row["kind"] in kinds]
    return sorted(rows, key=lambda row: hashlib.sha256(row["path"].encode()).digest())


def differences(file: Path, kind: str) -> list[str]:
    """What byte by byte, or in random pieces where it is large, is not as it is in one piece."""
    found = []
    for body in bodies(file, kind):
        if len(body.data) <= LARGE:
            pieces = single(body.data)
        else:
            dice = random.Random(len(body.data))
            pieces = cut(body.data, (dice.randrange(len(body.data)) for _ in range(2000)))
        found.append(whole(body).differs(outcome(body, pieces)))
    return [f"{file.name}: {what}" for what in found if what]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_any_split_of_any_corpus_message_gives_the_same_parts(corpus: Path, data: st.DataObject) -> None:
    rows = [row for row in rows_of(corpus, *MESSAGES) if (corpus / row["path"]).stat().st_size <= LARGE]
    row = data.draw(st.sampled_from(rows))
    for body in bodies(corpus / row["path"], row["kind"]):
        places = data.draw(st.lists(st.integers(0, len(body.data)), max_size=40))
        assert not whole(body).differs(outcome(body, cut(body.data, places))), row["path"]


@pytest.mark.timeout(600)
def test_a_sample_of_the_corpus_byte_by_byte(corpus: Path) -> None:
    left, walked, wrong = SAMPLE, 0, []
    for row in rows_of(corpus, *MESSAGES):
        file = corpus / row["path"]
        size = file.stat().st_size
        if size <= min(SMALL, left):
            left -= size
            walked += 1
            wrong += differences(file, row["kind"])
    assert walked > 100 and left < SMALL
    assert not wrong, "\n".join(wrong)


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(8))
def test_the_whole_corpus_byte_by_byte(corpus: Path, part: int) -> None:
    wrong = []
    for number, row in enumerate(rows_of(corpus)):
        if number % 8 == part:
            wrong += differences(corpus / row["path"], row["kind"])
    assert not wrong, "\n".join(wrong)
