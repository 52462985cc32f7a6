"""What a condition compares with: name patterns, networks, ranges of sizes and counts. Each is read from one text."""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from msgspec import Struct

from icapscan.policy.facts import Address

Known = bool | None
"""True, False, or None: not known yet (Kleene)."""

Network = IPv4Network | IPv6Network
NAME_MAX = 1024
"""Characters of a name that are compared, from its start and its end: an archive may give names of 64 KiB, and no file
system has any of more than 255."""
_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
    "tib": 1 << 40,
}  # fmt: skip
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)"
_COMPARED = re.compile(rf"\s*(<=|>=|<|>|=|==)?\s*{_NUMBER}\s*")
_FROM_TO = re.compile(rf"\s*{_NUMBER}\s*(?:\.\.|-|–)\s*{_NUMBER}\s*")
_WILD = re.compile(r"[*?\[]")
_ORDINARY = re.compile(r"[a-z0-9_-][a-z0-9._ -]*")


def both(parts: Iterable[Known]) -> Known:
    """Whether all hold."""
    unknown = False
    for part in parts:
        if part is False:
            return False
        unknown = unknown or part is None
    return None if unknown else True


def some(parts: Iterable[Known]) -> Known:
    """Whether one holds."""
    unknown = False
    for part in parts:
        if part:
            return True
        unknown = unknown or part is None
    return None if unknown else False


def no(part: Known) -> Known:
    """The contrary."""
    return None if part is None else not part


class Globs:
    """Shell patterns (``*``, ``?``, ``[a-z]``), without case. A text fits when one of them fits all of it."""

    __slots__ = ("_ends", "_match", "_plain", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(fold(text) for text in texts)
        plain, ends, others = set(), [], []
        for text in self.texts:
            if not _WILD.search(text):
                plain.add(text)
            elif text[0] == "*" and not _WILD.search(text, 1):  # almost all patterns of names are of this form
                ends.append(text[1:])
            else:
                others.append(fnmatch.translate(text))
        self._plain, self._ends = frozenset(plain), tuple(ends)
        self._match = re.compile("|".join(others)).match if others else None

    def fits(self, folded: str) -> bool:
        """Whether a text, put through `fold`, fits."""
        if folded in self._plain or folded.endswith(self._ends):
            return True
        return self._match is not None and self._match(folded) is not None

    def covers(self, other: Globs) -> bool:
        """Whether everything that fits ``other`` fits this too, as far as that is easy to say."""
        return all(any(_covers(mine, text) for mine in self.texts) for text in other.texts)


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    if any(char in wide for char in "?["):
        return False
    plain = not any(char in narrow for char in "*?[")
    # In a pattern that has only stars, a star of the narrow one can only be met by a star.
    return (plain or "*" in wide) and fnmatch.fnmatchcase(narrow, wide)


def fold(text: str) -> str:
    """``text`` as it is compared: without regard to case and to the width of characters."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


def plain_name(name: str) -> str:
    """A file name as it is compared: the last segment, without what a system drops or a reader does not see.

    Windows drops dots and blanks at the end, and takes what follows a colon for a stream of the file; characters that
    only turn the direction of writing (U+202E) make a program look harmless.
    """
    text = fold(name)
    if _ORDINARY.fullmatch(text) and text[-1] not in ". ":
        return text
    text = re.split(r"[/\\]", text)[-1]
    text = "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    return text.strip().rstrip(". ")


@lru_cache(maxsize=16384)
def name_forms(name: str) -> tuple[str, ...]:
    """The forms of a name of which one must fit where a rule stops something; the plain one first."""
    if len(name) > NAME_MAX:
        name = name[: NAME_MAX // 2] + name[-NAME_MAX // 2 :]
    plain = plain_name(name)
    stream = plain.partition(":")[0].rstrip(". ")
    return (plain, stream) if stream and stream != plain else (plain,)


class Range(Struct, frozen=True):
    """Numbers from ``low`` to ``high``, both included; ``high`` None: any."""

    low: int
    high: int | None
    text: str

    def fits(self, value: int, final: bool) -> Known:
        """Whether a number fits; where it is not ``final`` it may still grow."""
        if self.high is not None and value > self.high:
            return False
        if final:
            return value >= self.low
        return True if self.high is None and value >= self.low else None

    def covers(self, other: Range) -> bool:
        """Whether it holds every number of the other."""
        if self.low > other.low:
            return False
        return self.high is None or (other.high is not None and other.high <= self.high)

    @property
    def empty(self) -> bool:
        """Whether no number is in it."""
        return self.high is not None and self.high < self.low


def parse_range(text: str | int, *, units: bool) -> Range:
    """``"> 10 MB"``, ``"<= 4 KiB"``, ``"1 MB .. 10 MB"``, ``"= 0"``; with ``units`` false plain numbers.

    Raises ValueError for anything else.
    """
    shown = str(text)
    match = _FROM_TO.fullmatch(shown)
    if match:
        return Range(_count(match[1], match[2], units), _count(match[3], match[4], units), shown)
    match = _COMPARED.fullmatch(shown)
    if match is None:
        raise ValueError("not a comparison")
    count = _count(match[2], match[3], units)
    low, high = {
        ">": (count + 1, None), ">=": (count, None), "<": (0, count - 1), "<=": (0, count),
    }.get(match[1] or "=", (count, count))  # fmt: skip
    return Range(low, high, shown)


def _count(number: str, unit: str, units: bool) -> int:
    factor = _UNITS.get(unit.lower()) if units else 1 if not unit else None
    if factor is None:
        raise ValueError("unknown unit")
    exact = Decimal(number) * factor
    if exact != exact.to_integral_value():
        raise ValueError("not a whole number")
    return int(exact)


def parse_network(text: str) -> Network:
    """An address or a network. Raises ValueError, also where bits are set behind the prefix."""
    return ip_network(text.strip())


def in_networks(address: Address | None, networks: tuple[Network, ...]) -> bool:
    """Whether an address stands in one of the networks; an unknown one stands in none."""
    return address is not None and any(address.version == one.version and address in one for one in networks)
