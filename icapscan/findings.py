"""What is known about a body: parts, findings, anomalies, and the verdict they add up to."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from msgspec import Struct

PartPath = str
"""Where a part stands: names joined by ``/``, e.g. ``2/report.zip/a.exe``; the body itself is ``""``."""


class Level(enum.IntEnum):
    """What we know, in rising order: the verdict of a body is the highest of its parts."""

    CLEAN = 0
    UNSCANNED = 1
    SUSPICIOUS = 2
    INFECTED = 3

    @property
    def word(self) -> str:
        """The word used in JSON, logs and headers."""
        return self.name.lower()


class Reason(enum.Enum):
    """Why a body, or a part of it, is UNSCANNED."""

    OVER_LIMIT = "over-limit"
    ENCRYPTED = "encrypted"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    ENGINE_FAILED = "engine-failed"
    TIMEOUT = "timeout"


class Finding(Struct, frozen=True):
    """An engine says: this part matches that name."""

    engine: str
    name: str
    part: PartPath = ""
    level: Level = Level.INFECTED
    tags: tuple[str, ...] = ()


class Anomaly(Struct, frozen=True):
    """A decoder says: this part is not as the standard has it. Scanning went on."""

    kind: str
    part: PartPath = ""
    detail: str = ""


class Unscanned(Struct, frozen=True):
    """Something that was not, or not wholly, scanned."""

    reason: Reason
    part: PartPath = ""
    engine: str = ""
    """The engine that failed; empty when no engine could look, e.g. a spent budget."""
    detail: str = ""
    """One plain sentence for the log."""


class Verdict(Struct, frozen=True):
    """What we know of one body. ``reason`` is set when anything in it is unscanned, whatever the level."""

    level: Level
    reason: Reason | None = None
    findings: tuple[Finding, ...] = ()
    unscanned: tuple[Unscanned, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()

    @property
    def name(self) -> str | None:
        """The name of the gravest finding (the first among equals), or None."""
        return max(self.findings, key=lambda finding: finding.level).name if self.findings else None


CLEAN = Verdict(Level.CLEAN)

_GRAVEST_FIRST = (
    Reason.ENGINE_FAILED,
    Reason.TIMEOUT,
    Reason.OVER_LIMIT,
    Reason.ENCRYPTED,
    Reason.MALFORMED,
    Reason.UNSUPPORTED,
)
"""Our own failures come first: they are answered with 500/503 whatever else was unscannable."""


def summarize(
    findings: Iterable[Finding] = (), unscanned: Iterable[Unscanned] = (), anomalies: Iterable[Anomaly] = ()
) -> Verdict:
    """The verdict that these amount to. Anything unscanned without a finding is UNSCANNED, never CLEAN."""
    findings, unscanned, anomalies = tuple(findings), tuple(unscanned), tuple(anomalies)
    if not (findings or unscanned or anomalies):
        return CLEAN
    level = max((finding.level for finding in findings), default=Level.CLEAN)
    reason = None
    if unscanned:
        level = max(level, Level.UNSCANNED)
        given = {item.reason for item in unscanned}
        reason = next(reason for reason in _GRAVEST_FIRST if reason in given)
    return Verdict(level, reason, findings, unscanned, anomalies)
