"""Each of the 92 techniques of the evasion catalogue has a test that carries its number in its name."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
TECHNIQUES = {f"{number:02}" for number in range(1, 93)}
_TEST = re.compile(r"^def test_evasion_((?:[0-9]{2}_)+)", re.MULTILINE)


def numbers(text: str) -> set[str]:
    """The numbers in the names of the tests in a file's text."""
    return {number for found in _TEST.findall(text) for number in found.split("_") if number}


def test_every_technique_has_a_test() -> None:
    tested = {number for path in TESTS.rglob("test_*.py") for number in numbers(path.read_text("utf-8"))}
    assert sorted(TECHNIQUES - tested) == [] and tested <= TECHNIQUES


def test_the_numbers_are_read_from_names() -> None:
    text = (
        "def test_evasion_01_x() -> None: ...\ndef test_evasion_51_52_names() -> None: ...\n# def test_evasion_09_y\n"
    )
    assert numbers(text) == {"01", "51", "52"}
