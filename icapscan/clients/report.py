"""A foreign server's answer in the words of ``icapscan scan --json``: for the command line and for mail adapters."""

from __future__ import annotations

import os
from typing import BinaryIO

from msgspec import Struct

from icapscan.clients.errors import ClientTimeout, InvalidArgument
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Cause, Mode, Outcome, ScanResult
from icapscan.clients.source import sha256_of, source_of
from icapscan.errors import IcapscanError
from icapscan.findings import Level, Reason
from icapscan.wire.verdict_headers import ThreatKind

_WORDS = {
    "encrypt": Reason.ENCRYPTED,
    "password": Reason.ENCRYPTED,
    "limit": Reason.OVER_LIMIT,
    "size": Reason.OVER_LIMIT,
    "large": Reason.OVER_LIMIT,
    "malformed": Reason.MALFORMED,
    "corrupt": Reason.MALFORMED,
    "timeout": Reason.TIMEOUT,
    "engine": Reason.ENGINE_FAILED,
}
"""What servers write into the name of a container violation, and what it means."""


class ReportFinding(Struct, frozen=True):
    """One name that the server gave."""

    engine: str
    name: str
    part: str


class Report(Struct, frozen=True):
    """One line of ``icapscan icap --json``: the keys of ``scan --json``, then those of ICAP."""

    path: str
    verdict: str
    reason: str | None
    findings: tuple[ReportFinding, ...]
    anomalies: tuple[str, ...]
    size: int
    sha256: str
    status: int | None
    """ICAP status; None when there was no answer that could be read."""
    istag: str | None
    server: str
    outcome: str | None
    """``clean``, ``modified``, ``infected`` or ``blocked``; None after an error."""
    whole: bool
    """False: the server answered before it had seen the whole body."""
    error: str | None = None

    @property
    def exit_code(self) -> int:
        """0 clean, 1 infected or suspicious, 2 not (fully) scanned."""
        return {Level.CLEAN.word: 0, Level.UNSCANNED.word: 2}.get(self.verdict, 1)


def verdict_of(result: ScanResult) -> tuple[Level, Reason | None]:
    """Blocked or changed without a name is SUSPICIOUS; what the server could not look into is UNSCANNED."""
    if result.outcome is Outcome.CLEAN:
        return Level.CLEAN, None
    if result.outcome is Outcome.INFECTED:
        return Level.INFECTED, None
    if result.cause is not Cause.UNSCANNABLE:
        return Level.SUSPICIOUS, None
    name = (result.threat or "").lower()
    if not result.threats:
        return Level.UNSCANNED, Reason.ENGINE_FAILED  # an HTTP 5xx page in place of the body
    return Level.UNSCANNED, next((reason for word, reason in _WORDS.items() if word in name), Reason.UNSUPPORTED)


async def report_scan(client: IcapClient, path: str, file: BinaryIO, *, mode: Mode = Mode.RESPMOD) -> Report:
    """Scan ``file`` (seekable) and say what came of it; an error is a report of something unscanned.

    Raises `InvalidArgument` for what cannot be sent at all.
    """
    source = source_of(file)
    digest = sha256_of(source)
    size = source.size
    try:
        result = await client.scan(file, name=os.path.basename(path), mode=mode)
    except InvalidArgument:
        raise
    except IcapscanError as error:
        reason = Reason.TIMEOUT if isinstance(error, ClientTimeout) else Reason.ENGINE_FAILED
        status = getattr(error, "status", None)
        word = Level.UNSCANNED.word
        return Report(path, word, reason.value, (), (), size, digest, status, None, client.url, None, False, str(error))
    level, why = verdict_of(result)
    findings = tuple(
        ReportFinding("icap", threat.name, threat.file)
        for threat in result.threats
        if threat.kind is not ThreatKind.UNSCANNABLE
    )
    return Report(
        path, level.word, why.value if why else None, findings, (), size, digest, result.status, result.istag,
        result.server, result.outcome.value, result.whole,
    )  # fmt: skip
