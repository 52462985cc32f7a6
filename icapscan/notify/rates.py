"""How many mails a minute: one bucket for all of them, one for each address. What is held back is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

ADDRESSES_MAX = 10_000
"""Addresses that are remembered; what is new after that is held back until some of them are at rest."""
_MINUTE = 60.0


class _Bucket:
    """So many mails at once, and so many more each minute."""

    __slots__ = ("at", "held", "left")

    def __init__(self, most: float, now: float) -> None:
        self.left = most
        self.at = now
        self.held = 0
        """Mails held back since the last one."""

    def refill(self, rate: float, now: float) -> None:
        """Add what the time since the last look is worth."""
        self.left = min(max(1.0, rate), self.left + (now - self.at) * rate / _MINUTE)
        self.at = now


class Rates:
    """The buckets of one notifier. Thread-safe."""

    def __init__(self, rate: float, each: float, now: Callable[[], float] = time.monotonic) -> None:
        """Mails a minute in all and to one address; a fraction is less than one a minute. ``now``: in seconds."""
        self._rate = rate
        self._each = each
        self._now = now
        self._lock = threading.Lock()
        self._all = _Bucket(max(1.0, rate), now())
        self._addresses: dict[str, _Bucket] = {}
        self._pruned = -_MINUTE

    def take(self, address: str) -> int | None:
        """How many mails to ``address`` were held back since the last one; None: this one is held back too."""
        with self._lock:
            now = self._now()
            bucket = self._bucket(address.lower(), now)
            if bucket is None:
                return None
            bucket.refill(self._each, now)
            self._all.refill(self._rate, now)
            if bucket.left < 1 or self._all.left < 1:
                bucket.held += 1
                return None
            bucket.left -= 1
            self._all.left -= 1
            held, bucket.held = bucket.held, 0
            return held

    def give_back(self, address: str, held: int) -> None:
        """The mail that was to tell of ``held`` others did not arrive: the next one tells of them."""
        with self._lock:
            bucket = self._addresses.get(address.lower())
            if bucket is not None:
                bucket.held += held

    def owed(self, address: str) -> int:
        """Mails to ``address`` that were held back since the last one."""
        with self._lock:
            bucket = self._addresses.get(address.lower())
            return bucket.held if bucket is not None else 0

    def _bucket(self, address: str, now: float) -> _Bucket | None:
        bucket = self._addresses.get(address)
        if bucket is None:
            if len(self._addresses) >= ADDRESSES_MAX:
                self._forget(now)
            if len(self._addresses) >= ADDRESSES_MAX:
                return None
            bucket = self._addresses[address] = _Bucket(max(1.0, self._each), now)
        return bucket

    def _forget(self, now: float) -> None:
        """Forget addresses that may get as many mails as a new one, and are owed nothing."""
        if now - self._pruned < _MINUTE / 60:
            return
        self._pruned = now
        for address, bucket in list(self._addresses.items()):
            bucket.refill(self._each, now)
            if not bucket.held and bucket.left >= max(1.0, self._each):
                del self._addresses[address]
