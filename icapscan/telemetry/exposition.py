"""The counters in Prometheus text format, through a collector of our own: the workers' numbers are already summed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from icapscan.telemetry.counters import SCAN_BOUNDS, Gauges, Snapshot

_COUNTERS = (
    ("requests", "ICAP requests by service, method and what was answered.", ("service", "method", "reply")),
    ("verdicts", "Bodies by verdict and by the reason of what was not scanned.", ("verdict", "reason")),
    ("findings", "Findings by engine.", ("engine",)),
    ("engine_failures", "Parts that an engine did not scan, by reason.", ("engine", "reason")),
    ("reports", "Answers about parts: from an engine, or from the cache of earlier ones.", ("source",)),
    ("notices", "Notices by channel (mail, webhook) and what became of them.", ("channel", "outcome")),
)


def render(merged: Snapshot, gauges: Gauges) -> bytes:
    """The text of ``/metrics``, content type ``text/plain; version=0.0.4``."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(merged, gauges))
    return generate_latest(registry)


class _Numbers(Collector):
    def __init__(self, merged: Snapshot, gauges: Gauges) -> None:
        self._merged = merged
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for kind, words, labels in _COUNTERS:
            family = CounterMetricFamily(f"icapscan_{kind}", words, labels=labels)
            for *key, count in self._merged[kind]:
                family.add_metric([str(part) for part in key], count)
            yield family
        yield self._scan_seconds()
        yield CounterMetricFamily("icapscan_bytes_in", "ICAP bytes received.", value=self._merged["bytes_in"])
        yield CounterMetricFamily("icapscan_bytes_out", "ICAP bytes sent.", value=self._merged["bytes_out"])
        yield from self._now()

    def _scan_seconds(self) -> Metric:
        counts = self._merged["scan_seconds"]["buckets"]
        total, buckets = 0, []
        for bound, count in zip([*map(str, SCAN_BOUNDS), "+Inf"], counts, strict=True):
            total += count
            buckets.append((bound, total))
        return HistogramMetricFamily(
            "icapscan_scan_seconds",
            "Time from the end of a body to its verdict.",
            buckets=buckets,
            sum_value=self._merged["scan_seconds"]["sum"],
        )

    def _now(self) -> Iterator[Metric]:
        now = self._gauges
        yield InfoMetricFamily("icapscan", "This scanner.", value={"version": now.version, "istag": now.istag})
        for name, words, value in (
            ("icapscan_ready", "1 when bodies are scanned, 0 when the self-test or an engine failed.", int(now.ready)),
            ("icapscan_workers", "Worker processes that run.", now.workers),
            ("icapscan_connections", "Open ICAP connections.", now.connections),
            ("icapscan_purse_memory_free_bytes", "Memory that bodies may still take.", now.purse_memory_free),
            ("icapscan_purse_disk_free_bytes", "Disk that bodies may still take.", now.purse_disk_free),
        ):
            yield GaugeMetricFamily(name, words, value=value)
