"""The gate through which everything decoded passes: output is bounded before it is produced, and counted after."""

from __future__ import annotations

from typing import NoReturn

from icapscan.findings import Reason
from icapscan.limits import KIB, Budget

STEP = 256 * KIB
"""Most bytes that a decoder is asked for at once: large enough for speed, small enough to be kept for a moment."""


class Stop(Exception):
    """Decoding of a part ends here. Never leaves this room: it becomes a `PartFailed`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Gate:
    """Meters the output of the decoders of one body against their common `Budget`."""

    __slots__ = ("_budget",)

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def room(self) -> int:
        """The bytes to ask a decoder for next: at least 1, so that the end of a stream is noticed.

        Raises `Stop` when the budget is spent.
        """
        budget = self._budget
        if budget.spent is not None or not budget.take_time():
            self.stop()
        return max(1, min(STEP, budget.output_left()))

    def took(self, count: int) -> bool:
        """Count ``count`` bytes of output; whether they were still within the budget."""
        return self._budget.take_output(count)

    def stop(self, what: str | None = None) -> NoReturn:
        """Raise `Stop` because the budget is spent, or because ``what`` went past a bound of its own."""
        if what is not None:
            self._budget.exhaust(what)
        raise Stop(Reason.OVER_LIMIT, f"The limit on {self._budget.spent} was reached while decoding.")
