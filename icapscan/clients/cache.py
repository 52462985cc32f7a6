"""Verdicts that need not be asked for twice: same service, same ISTag, same bytes, same question (PROTOCOL C48)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from icapscan.clients.result import Outcome, ScanResult

_KEPT = frozenset({Outcome.CLEAN, Outcome.INFECTED})
"""What the server may judge otherwise next time, such as policy and what it could not scan, is asked again."""


class VerdictCache:
    """The last verdicts of one service. It is emptied when the service's ISTag changes."""

    def __init__(self, entries: int, seconds: float) -> None:
        self._most = entries
        self._seconds = seconds
        self._kept: OrderedDict[Hashable, tuple[float, ScanResult]] = OrderedDict()
        self._istag: str | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def seen(self, istag: str | None) -> None:
        """An answer carried this ISTag (None: it carried none)."""
        if istag is not None and istag != self._istag:
            self._kept.clear()
            self._istag = istag

    def get(self, key: Hashable, now: float) -> ScanResult | None:
        """The verdict of the current ISTag, if one is kept and not too old. ``now`` in seconds of a monotonic clock."""
        found = self._kept.get(key)
        if found is None:
            return None
        since, result = found
        if now - since > self._seconds:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return result

    def put(self, key: Hashable, result: ScanResult, now: float) -> None:
        """Keep a verdict, where it is one that stays true as long as its ISTag does."""
        if not self._most or result.istag is None or result.istag != self._istag or result.outcome not in _KEPT:
            return
        if not result.whole or result.adapted is not None:
            return
        self._kept[key] = (now, result)
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
