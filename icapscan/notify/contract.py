"""What is told: a `Notice`, and the words for where it goes and what becomes of it."""

from __future__ import annotations

import enum

from msgspec import Struct

from icapscan.findings import Finding
from icapscan.notify.guard import Marks


class Channel(enum.Enum):
    """The ways to tell."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class Outcome(enum.Enum):
    """What became of one mail or one call."""

    SENT = "sent"
    FAILED = "failed"
    """Refused, or tried as often as it is worth."""
    DROPPED = "dropped"
    """Never tried: the queue was full, or the process ended."""
    HELD = "held"
    """Held back by a rate; counted in the next mail."""


class Notice(Struct, frozen=True, kw_only=True):
    """One transaction, after the decision about it was carried out. All texts but our own words are untrusted."""

    time: float
    """Seconds since the epoch."""
    host: str
    """Name of this scanner."""
    service: str = ""
    direction: str = ""
    """As the policy calls it: ``download``, ``upload``, ``mail``."""
    client: str = ""
    """Whom the proxy or relay serves (X-Client-IP), where it says so."""
    icap_client: str = ""
    """The proxy or relay itself, ``host:port``."""
    user: str = ""
    url: str = ""
    sender: str | None = None
    """Reverse-path of a mail, without angle brackets; ``""`` is the null one, None: not known."""
    recipients: tuple[str, ...] = ()
    """Forward-paths, without angle brackets."""
    subject: str = ""
    message_id: str = ""
    marks: Marks | None = None
    """What the header of a mail says of its making. None: it is not known, or not sure that this is a mail."""
    media_type: str = ""
    names: tuple[str, ...] = ()
    """File names: of the body, and of the parts that something was found in."""
    size: int = 0
    """Bytes of the body."""
    verdict: str = "clean"
    """The word of its `icapscan.findings.Level`."""
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    decision: str = ""
    """What was really done."""
    rule: str = ""
    """The rule that decided; empty: the defaults did."""
    rules: tuple[str, ...] = ()
    """The rules that want somebody told."""
    quarantine: str = ""
    """Id of the item that the body is kept as; ``failed`` where it could not be kept."""
    reference: str = ""
    """The number of the transaction in the log, and on the block page."""
    detail: str = ""
    """The sentence in the log, e.g. what could not be done."""

    @property
    def kept(self) -> str:
        """The id of the item in the quarantine, or nothing."""
        return "" if self.quarantine == "failed" else self.quarantine
