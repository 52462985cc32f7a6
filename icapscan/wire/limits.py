"""Bounds on what is read from a peer before it makes sense (PROTOCOL S36, S50, S56, S66, C44)."""

from __future__ import annotations

from msgspec import Struct

KIB = 1024


class WireLimits(Struct, frozen=True):
    """In bytes unless said otherwise. The defaults are those of Squid and c-icap or a little above."""

    line: int = 8 * KIB
    """Request or status line; Squid's largest URL is 8 KiB."""
    head: int = 64 * KIB
    """Start line and field block together; Squid reads 64 KiB."""
    fields: int = 200
    """Field lines in one block."""
    http_head: int = 64 * KIB
    """Each encapsulated HTTP head."""
    chunk_line: int = 4 * KIB
    extensions: int = 64 * KIB
    """Chunk-extension bytes of one body, beside a tenth of its data."""
    trailer: int = 16 * KIB
    preview_surplus: int = 64 * KIB
    """Preview bytes beyond the announced number."""
    blank_lines: int = 8
    """Empty lines before a start line (RFC 2616 4.1)."""


DEFAULT = WireLimits()
