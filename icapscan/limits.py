"""Every bound on a transaction: the number, its reason, its precedent; and the one `Budget` nested decoders spend."""

from __future__ import annotations

import time
from typing import Annotated

from msgspec import Meta, Struct

BYTES = {"unit": "bytes"}
"""Marks a number that may be written with a unit."""
SECONDS = {"unit": "seconds"}
"""Marks a number that may be written as a time."""
Bytes = Annotated[int, Meta(ge=0, extra=BYTES)]
"""A size in bytes. In a configuration file also a string with a unit: ``"64 KiB"``, ``"200 MB"``."""
Seconds = Annotated[float, Meta(gt=0, extra=SECONDS)]
"""A time in seconds. In a configuration file also a string with a unit: ``"250 ms"``, ``"2 min"``."""
Count = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(gt=1)]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds per transaction and per process (configuration table ``[limits]``)."""

    body: Bytes = 2 * GIB
    """Virgin body that is scanned at most; a larger one is UNSCANNED(over-limit)."""
    depth: Count = 16
    """Containers inside containers. ClamAV: MaxRecursion 17."""
    parts: Count = 10_000
    """Parts of one body. ClamAV: MaxFiles 10,000."""
    unpacked: Bytes = 1 * GIB
    """Bytes that all decoders together may produce for one body. ClamAV: MaxScanSize 400 MB."""
    ratio: Ratio = 250.0
    """Unpacked bytes for each body byte, once `ratio_from` bytes were unpacked. Real text packs up to about 100."""
    ratio_from: Bytes = 16 * MIB
    """Unpacked bytes below which the ratio does not matter: a small bomb costs nothing."""
    seconds: Seconds = 120.0
    """End of the body to the verdict. Squid's icap_io_timeout is 15 min, a relay's data timeout 10 min."""
    memory: Bytes = 512 * MIB
    """The purse: memory for stored bodies in all workers together."""
    disk: Bytes = 16 * GIB
    """Unlinked files for stored bodies in all workers together."""
    part_in_bytes: Bytes = 64 * KIB
    """A part up to this size stays a bytes object (Squid's 204 bound is the same)."""
    part_in_memory: Bytes = 8 * MIB
    """A part up to this size stays in a memfd; a larger one moves to an unlinked file."""


class Budget:
    """What one transaction may still spend; shared by all its decoders.

    Every ``take_*`` returns whether the whole amount was still there; the first that was not sets `spent`
    to a word for the log and stays set, so that the verdict becomes UNSCANNED(over-limit).
    """

    __slots__ = ("_limits", "_seconds", "_since", "body", "parts", "spent", "unpacked")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seconds = 0.0
        self._since: float | None = time.monotonic()
        self.body = 0
        self.unpacked = 0
        self.parts = 0
        self.spent: str | None = None

    def take_body(self, count: int) -> bool:
        """Count ``count`` more bytes of the virgin body."""
        self.body += count
        return self._within("body", self.body <= self._limits.body)

    def output_left(self) -> int:
        """Bytes that a decoder may produce next, so that output is bounded before it is produced (0 when spent)."""
        if self.spent:
            return 0
        limits = self._limits
        by_ratio = max(limits.ratio_from, int(self.body * limits.ratio))
        return max(0, min(limits.unpacked, by_ratio) - self.unpacked)

    def take_output(self, count: int) -> bool:
        """Count ``count`` bytes that a decoder produced."""
        self.unpacked += count
        if self.unpacked > self._limits.unpacked:
            return self._within("unpacked", False)
        by_ratio = max(self._limits.ratio_from, int(self.body * self._limits.ratio))
        return self._within("ratio", self.unpacked <= by_ratio)

    def take_part(self) -> bool:
        """Count one more part; the body itself is the first."""
        self.parts += 1
        return self._within("parts", self.parts <= self._limits.parts)

    def may_open(self, depth: int) -> bool:
        """Whether a part that is ``depth`` containers deep may be looked into (the body itself is 0).

        Where not, nothing is spent: that part is over the limit, and the others of the body are still read.
        """
        return depth <= self._limits.depth

    def take_time(self) -> bool:
        """Whether decoding may go on; the whole body may take `Limits.seconds` of decoding wall time."""
        running = time.monotonic() - self._since if self._since is not None else 0.0
        return self._within("seconds", self._seconds + running <= self._limits.seconds)

    def rest(self) -> None:
        """Stop the clock: a sender that takes its time does not spend ours. It runs from the beginning."""
        if self._since is not None:
            self._seconds += time.monotonic() - self._since
            self._since = None

    def work(self) -> None:
        """Let the clock run again."""
        if self._since is None:
            self._since = time.monotonic()

    def exhaust(self, what: str) -> None:
        """Mark the budget as spent by ``what`` (a decoder met a bound of its own, such as a window size)."""
        self._within(what, False)

    def _within(self, what: str, kept: bool) -> bool:
        if not kept and self.spent is None:
            self.spent = what
        return kept
