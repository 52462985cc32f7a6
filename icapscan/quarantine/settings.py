"""The configuration table ``[quarantine]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from icapscan.limits import GIB, Count, Seconds

NextHop = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\s]+):\d{1,5}$")]
"""``host:port``; IPv6 in brackets."""
_DAY = 86400.0


class QuarantineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[quarantine]``: where bodies are kept that a rule takes out of the traffic, encrypted and within bounds."""

    enabled: bool = False
    folder: str | None = None
    """Belongs to the account of the scanner, mode 0700; made where only it is missing. On a local disk: SQLite."""
    key_file: str | None = None
    """32 random bytes, or their base64, that nobody else can read; made by ``icapscan quarantine key``."""
    old_key_files: tuple[str, ...] = ()
    """Keys of the past: what was kept with them can still be read, nothing new is written with them."""
    max_size: Annotated[int, Meta(ge=1, extra={"unit": "bytes"})] = 10 * GIB
    """Bytes on disk of all items together."""
    max_age: Seconds = 30 * _DAY
    """An item that is older is removed."""
    max_items: Count = 100_000
    full: Literal["refuse", "oldest"] = "refuse"
    """Where a bound is met: ``refuse`` the new item, and say so; ``oldest``: remove the oldest ones."""
    history: Seconds = 365 * _DAY
    """How long the rows of items that are gone, and the record of who did what, are kept."""
    next_hop: NextHop | None = None
    """SMTP server that released mails are given to: behind the scanner, not in front of it."""
    helo: str = ""
    """Name given in EHLO; empty: the host's name."""
    smtp_timeout: Seconds = 300.0
    """Longest wait for one reply of the next hop, for the one to the data twice as long (RFC 5321 4.5.3.2)."""
