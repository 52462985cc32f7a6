"""Each server rule and each hostile input of the protocol notes has a test that carries its number in its name."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
RULES = {f"s{number}" for number in range(1, 125)} | {f"d{number}" for number in range(1, 121)}
LEFT_OUT = {
    "s40": "optional: ICAP has no passwords here; access is a matter of the network and of TLS client certificates",
}
"""Rules marked O that are not built. Other optional ones are, or have a test that they do no harm."""
_TEST = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
_NUMBER = re.compile(r"(?<=_)[sd][0-9]+(?=_|$)")


def numbers(text: str) -> set[str]:
    """The rule numbers in the names of the tests in a file's text."""
    return {number for name in _TEST.findall(text) for number in _NUMBER.findall(name)}


def test_every_rule_has_a_test() -> None:
    tested = {number for path in TESTS.rglob("test_*.py") for number in numbers(path.read_text("utf-8"))}
    assert sorted(RULES - tested - set(LEFT_OUT)) == []
    assert sorted(set(LEFT_OUT) & tested) == [], "these are left out and tested"


def test_the_numbers_are_read_from_names() -> None:
    text = "def test_s1_d20_x() -> None: ...\nclass A:\n    def test_c3_s124(self) -> None: ...\n"
    text += "# def testing_s9\ns7 = 1\ndef helper_s8() -> None: ...\n"
    assert numbers(text) == {"s1", "d20", "s124"}
