"""What is measured: one row for each service, size, number of connections and offer of 204."""

from __future__ import annotations

from msgspec import Struct

KIB = 1024
ECHO_SIZES = (200, 4 * KIB, 32 * KIB)
SCAN_SIZES = (200, 4 * KIB, 32 * KIB, 256 * KIB, 1024 * KIB)

ECHO_TARGETS = {200: 1.5, 32 * KIB: 2.0}
"""Ratio that icapscan's ``/echo`` has to reach against c-icap's, copying the body back."""
SCAN_TARGET = 0.9
"""Ratio that ``/avscan`` has to reach against virus_scan, at every size."""


class Row(Struct, frozen=True):
    """One comparison."""

    service: str
    """``echo`` or ``avscan``, on both sides."""
    size: int
    """Bytes of each body."""
    connections: int
    allow_204: bool
    target: float | None
    """Least ratio icapscan / c-icap, where one is promised."""

    @property
    def name(self) -> str:
        """E.g. ``/echo 32 KiB copy x16``: copied back, over 16 connections."""
        size = f"{self.size} B" if self.size < KIB else f"{self.size // KIB} KiB"
        return f"/{self.service} {size} {'204' if self.allow_204 else 'copy'} x{self.connections}"


def rows(full: bool) -> list[Row]:
    """16 connections; ``full``: also 1 and 128."""
    found = []
    for connections in (1, 16, 128) if full else (16,):
        promised = connections == 16
        for size in ECHO_SIZES:
            for allow in (False, True):
                target = ECHO_TARGETS.get(size) if promised and not allow else None
                found.append(Row("echo", size, connections, allow, target))
        for size in SCAN_SIZES:
            found.append(Row("avscan", size, connections, True, SCAN_TARGET if promised else None))
    return found
