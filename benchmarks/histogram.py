"""Latencies as ``load.c`` counts them: an HDR histogram, in sparse counts, so that rounds add up exactly."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

SUB_BITS = 7
"""A bucket is 1/128 of its power of two wide, so that no figure is off by more than 0.4 %."""


class Histogram(Struct, frozen=True):
    """Nanoseconds: how many, their sum, the longest, and pairs of bucket and count in rising order."""

    count: int
    sum_ns: int
    max_ns: int
    buckets: list[tuple[int, int]]

    def percentile_us(self, part: float) -> float:
        """Microseconds that ``part`` (0 to 1) of all stay below, give or take half a bucket; 0.0 without any."""
        seen = 0
        for bucket, count in self.buckets:
            seen += count
            if seen >= part * self.count:
                return middle_ns(bucket) / 1000
        return 0.0

    @property
    def mean_us(self) -> float:
        return self.sum_ns / self.count / 1000 if self.count else 0.0


def middle_ns(bucket: int) -> float:
    """The middle of a bucket in nanoseconds."""
    if bucket < 1 << SUB_BITS:
        return bucket + 0.5
    shift = (bucket >> SUB_BITS) - 1
    low = ((1 << SUB_BITS) + (bucket & ((1 << SUB_BITS) - 1))) << shift
    return low + (1 << shift) / 2


def merged(some: Iterable[Histogram]) -> Histogram:
    """All of them as one."""
    total: dict[int, int] = {}
    count = sum_ns = max_ns = 0
    for one in some:
        count, sum_ns, max_ns = count + one.count, sum_ns + one.sum_ns, max(max_ns, one.max_ns)
        for bucket, found in one.buckets:
            total[bucket] = total.get(bucket, 0) + found
    return Histogram(count, sum_ns, max_ns, sorted(total.items()))
