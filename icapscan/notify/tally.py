"""What became of mails and calls, counted over the life of a process."""

from __future__ import annotations

import threading

from icapscan.notify.contract import Channel, Outcome


class Tally:
    """Counters by channel and outcome. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[Channel, Outcome], int] = {}

    def add(self, channel: Channel, outcome: Outcome, count: int = 1) -> None:
        """Count ``count`` more."""
        with self._lock:
            key = (channel, outcome)
            self._counts[key] = self._counts.get(key, 0) + count

    def count(self, channel: Channel, outcome: Outcome) -> int:
        """One of them."""
        with self._lock:
            return self._counts.get((channel, outcome), 0)

    def rows(self) -> list[tuple[str, str, int]]:
        """``channel, outcome, count`` of what there was, as words."""
        with self._lock:
            return [(channel.value, outcome.value, count) for (channel, outcome), count in self._counts.items()]
