"""The configuration table ``[policy]``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Answer = Literal["block", "allow"]
ClassAnswer = Literal["block", "allow", "sanitize", "defer"]


class UnscannedSettings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """``[policy.unscanned]``: what happens to a body that could not be scanned, by reason.

    Our own failures are not in this table: they are answered with ICAP 500/503 unless ``failures = "allow"`` says so.
    """

    over_limit: Answer = "block"
    encrypted: Answer = "block"
    malformed: Answer = "block"
    unsupported: Answer = "block"


class TrafficSettings(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """``[policy.web]`` and ``[policy.mail]``: what differs for that traffic, by class. None: as ``[policy]`` has it."""

    infected: Literal["block", "sanitize"] | None = None
    """``sanitize``: what is infected is cleaned or taken out, and the rest is passed."""
    uncleanable: Literal["block", "defer"] | None = None
    """What ``sanitize`` could not make good. Never passed."""
    suspicious: ClassAnswer | None = None
    macro: ClassAnswer | None = None
    encrypted: ClassAnswer | None = None
    over_limit: ClassAnswer | None = None
    malformed: ClassAnswer | None = None
    unsupported: ClassAnswer | None = None
    failures: Literal["error", "defer", "allow"] | None = None


class PolicySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[policy]``"""

    infected: Literal["block"] = "block"
    suspicious: Answer = "allow"
    """``allow``: passed with headers that say so."""
    ranges: Literal["strip", "refuse", "allow"] = "strip"
    """``strip``: requests lose their Range fields, and a response that is only a range is UNSCANNED(unsupported);
    ``refuse``: requests for ranges are UNSCANNED(unsupported) as well; ``allow``: each range is scanned by itself, and
    what only the whole would show is not seen."""
    macro: Answer = "allow"
    """Documents with macros in which nothing else was found."""
    unscanned: UnscannedSettings = UnscannedSettings()
    failures: Literal["error", "allow"] = "error"
    """``error``: ICAP 500/503 when an engine failed or was too slow; ``allow`` fails open, and the log says so."""
    web: TrafficSettings = TrafficSettings()
    mail: TrafficSettings = TrafficSettings()
    rules: tuple[dict[str, object], ...] = ()
    """Ordered rules, as written: `icapscan.policy.rules` reads them."""
