"""A bounded, repeatable run of the ICAP fuzzer."""

from __future__ import annotations

import pytest

from tests.fuzz import fuzz_icap


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_d112_random_mutations_of_real_conversations(seed: int) -> None:
    kinds = fuzz_icap.run(1500, seed)
    assert kinds > 30  # the mutations reach many different ends


@pytest.mark.full
def test_d112_many_random_mutations() -> None:
    assert fuzz_icap.run(60_000, 4) > 150
