"""Sizes and times with units, as they are written in a configuration, in and out."""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]+)\s*")

_BYTES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10,
    "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
_SECONDS = {
    "ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600), "d": Decimal(86400),
}  # fmt: skip
_SECONDS_SHOWN = {"d": 86400, "h": 3600, "min": 60, "s": 1}

BYTES_WORDS = "B, KB, MB, GB, TB (by 1000), KiB, MiB, GiB, TiB (by 1024)"
SECONDS_WORDS = "ms, s, min, h, d"
BYTES_MAX = 2**63 - 1
"""The largest file offset of the system."""


def parse_bytes(text: str) -> int:
    """The bytes that ``text`` names, e.g. ``"64 KiB"``. Raises ValueError when it names no whole number of bytes."""
    number, unit = _split(text)
    factor = {name.lower(): value for name, value in _BYTES.items()}.get(unit.lower())
    if factor is None:
        raise ValueError("unknown unit")
    exact = number * factor
    if exact != exact.to_integral_value():
        raise ValueError("not a whole number of bytes")
    return int(exact)


def parse_seconds(text: str) -> float:
    """The seconds that ``text`` names, e.g. ``"250 ms"``. Raises ValueError for anything else."""
    number, unit = _split(text)
    factor = _SECONDS.get(unit)
    if factor is None:
        raise ValueError("unknown unit")
    return float(number * factor)


def format_bytes(count: int) -> str:
    """``count`` bytes with the largest unit that is exact, e.g. ``64 KiB``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]} {unit}"
    return f"{count} B"


def format_seconds(seconds: float) -> str:
    """``seconds`` with a unit that keeps it exact, e.g. ``2 min`` or ``250 ms``."""
    for unit, factor in _SECONDS_SHOWN.items():
        if seconds >= factor and seconds % factor == 0:
            return f"{int(seconds // factor)} {unit}"
    thousandths = Decimal(repr(seconds)) * 1000
    return f"{thousandths.normalize():f} ms" if seconds < 1 else f"{Decimal(repr(seconds)):f} s"


def _split(text: str) -> tuple[Decimal, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("not a number with a unit")
    return Decimal(match[1]), match[2]
