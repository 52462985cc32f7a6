"""What is said about one ICAP transaction when it ended: the source of the log line and of the counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icapscan.findings import Verdict


@dataclass(eq=False)
class TransactionRecord:
    """One transaction. Texts are untrusted bytes from the peer, to be escaped by whoever prints them.

    A dataclass without slots and not a `Struct`: what a transaction leaves at its default costs it nothing, and
    attributes that are set one by one are set about three times as fast.
    """

    client: str = ""
    """Peer address, ``host:port``."""
    service: str = ""
    """Service name, or "" when the request did not get that far."""
    method: str = ""
    """REQMOD, RESPMOD, OPTIONS, or "" for a request that could not be parsed."""
    http_method: bytes = b""
    url: bytes = b""
    """From the encapsulated request head, or empty."""
    user: bytes = b""
    """Decoded X-Authenticated-User or X-Client-Username, or empty."""
    client_ip: bytes = b""
    """X-Client-IP as sent, or empty."""
    size: int = 0
    """Bytes of the virgin body received."""
    verdict: Verdict | None = None
    """None where nothing was scanned (OPTIONS, echo, errors)."""
    decision: str = ""
    """``allow``, ``block``, ``defer``, ``error``, or "" where there was none."""
    rule: str = ""
    """Name of the rule of the configuration that decided; empty where the defaults did."""
    monitored: tuple[str, ...] = ()
    """What rules that only watch would have done: ``name=action``."""
    reply: str = ""
    """What was answered, e.g. ``204``, ``200 copy``, ``200 block``, ``400``."""
    status: int = 0
    """ICAP status code; 0 when the peer vanished before an answer."""
    asked: int = 0
    """Reports of engines on the parts of the body."""
    cached: int = 0
    """Those among them that were known from other scans of the same bytes."""
    detail: str = ""
    """One plain sentence for errors, else empty."""
    receive_seconds: float = 0.0
    """First byte of the request to the end of its body."""
    scan_seconds: float = 0.0
    """End of the body to the verdict."""
    reply_seconds: float = 0.0
    """Verdict to the last byte handed to the socket."""
    bytes_in: int = 0
    """All ICAP bytes of the request."""
    bytes_out: int = 0
    istag: str = ""
    quarantine: str = ""
    """Id of the item that the virgin body is kept as; ``failed`` where it could not be kept."""
    reference: str = ""
    """The number on a block page or in a notice, so that an administrator finds the line; empty where there is none."""


Observer = Callable[[TransactionRecord], None]
"""Called once for each transaction, on the event loop; must be cheap and must not raise."""
