"""The regular expressions of the package: none repeats a group possessively.

Python 3.11 takes such a group for matched although its last round was broken off: ``(?:a:b)*+`` matches ``a:``. Single
characters may be repeated that way, which is what makes a pattern linear.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

import icapscan

_PARSER: Any = importlib.import_module("re._parser")
"""What `re.compile` itself parses with; the library has no public one."""
_SINGLE = {"LITERAL", "NOT_LITERAL", "IN", "ANY"}


def possessive_groups(node: Any) -> Iterator[Any]:
    """What is repeated possessively in a parsed pattern, and is more than one character."""
    if isinstance(node, (tuple, list, _PARSER.SubPattern)):
        items = list(node)
        if len(items) == 2 and str(items[0]) == "POSSESSIVE_REPEAT":
            repeated = list(items[1][2])
            if len(repeated) != 1 or str(repeated[0][0]) not in _SINGLE:
                yield repeated
        for item in items:
            yield from possessive_groups(item)


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Every pattern that is a global of a module."""
    for module in pkgutil.walk_packages(icapscan.__path__, "icapscan."):
        if module.name.endswith("__main__"):
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:
            continue  # what it needs is not installed here; where it is, this test sees it
        yield from ((f"{module.name}.{name}", one) for name, one in names.items() if isinstance(one, re.Pattern))


@pytest.mark.parametrize("pattern", [r"(?:a:b)*+", r"x(?:(?:a|bc)++)?", r"((?:[a-c]d){2,5}+)"])
def test_what_is_looked_for_is_found(pattern: str) -> None:
    assert list(possessive_groups(_PARSER.parse(pattern)))


def test_no_pattern_repeats_a_group_possessively() -> None:
    seen = dict(patterns())
    assert len(seen) > 100
    for name, pattern in seen.items():
        assert not list(possessive_groups(_PARSER.parse(pattern.pattern, pattern.flags & ~re.DEBUG))), name
