"""The configuration table ``[policy]``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Answer = Literal["block", "allow"]


class UnscannedSettings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """``[policy.unscanned]``: what happens to a body that could not be scanned, by reason.

    Our own failures are not in this table: they are answered with ICAP 500/503 unless ``failures = "allow"`` says so.
    """

    over_limit: Answer = "block"
    encrypted: Answer = "block"
    malformed: Answer = "block"
    unsupported: Answer = "block"


class PolicySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[policy]``"""

    infected: Literal["block"] = "block"
    suspicious: Answer = "allow"
    """``allow``: passed with headers that say so."""
    ranges: Literal["refuse", "allow"] = "refuse"
    """``refuse``: requests lose their Range fields, and a response that is only a range is UNSCANNED(unsupported);
    ``allow``: each range is scanned by itself, and what only the whole would show is not seen."""
    unscanned: UnscannedSettings = UnscannedSettings()
    failures: Literal["error", "allow"] = "error"
    """``error``: ICAP 500/503 when an engine failed or was too slow; ``allow`` fails open, and the log says so."""
    rules: tuple[dict[str, object], ...] = ()
    """Ordered rules; not implemented in this release: a rule here is a configuration error, never ignored."""
