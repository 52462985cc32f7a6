"""What is known of one transaction, from its first byte to its log line."""

from __future__ import annotations

import base64
import binascii
import time

from icapscan.findings import Verdict
from icapscan.policy.decide import Decision
from icapscan.servers.generation import Generation, Service
from icapscan.servers.record import TransactionRecord
from icapscan.servers.replies import Reply
from icapscan.wire.http_head import method_and_url
from icapscan.wire.icap_events import HttpHeads, RequestHead

_NO_HEADS = HttpHeads()


class Transaction:
    """One request and its answer. Begins with the first byte, so that half a head has times and a log line too.

    The connection fills in what it sees of the wire, the exchange what it finds out about the body.
    """

    __slots__ = (
        "began",
        "body_began",
        "bytes_in",
        "bytes_out",
        "decision",
        "generation",
        "head",
        "heads",
        "received",
        "reference",
        "scan_seconds",
        "service",
        "size",
        "started",
        "verdict",
    )

    def __init__(self, generation: Generation, started: float, bytes_in: int) -> None:
        self.generation = generation
        generation.enter()
        self.began = time.perf_counter()
        self.started = started
        """On the clock of the event loop, for time limits."""
        self.body_began = 0.0
        self.received = 0.0
        self.bytes_in = bytes_in
        self.bytes_out = 0
        self.head: RequestHead | None = None
        self.heads = _NO_HEADS
        self.service: Service | None = None
        self.size = 0
        """Bytes of the virgin body so far."""
        self.verdict: Verdict | None = None
        self.decision: Decision | None = None
        self.scan_seconds = 0.0
        self.reference = ""

    def record(self, reply: Reply | None, detail: str, client: str, ahead: int) -> TransactionRecord:
        """What is to be said about it. ``ahead``: bytes received that belong to the next request."""
        now = time.perf_counter()
        head, service, decision = self.head, self.service, self.decision
        http_method, url = method_and_url(self.heads.req_hdr)
        received = self.received or now
        return TransactionRecord(
            client=client,
            service=service.name if service is not None else "",
            method=head.method.decode() if head is not None else "",
            http_method=http_method,
            url=url,
            user=user_of(head) if head is not None else b"",
            client_ip=(head.fields.get(b"x-client-ip") or b"") if head is not None else b"",
            size=self.size,
            verdict=self.verdict,
            decision=decision.action.value if decision is not None else "",
            reply=reply.label if reply is not None else "",
            status=reply.status if reply is not None else 0,
            detail=detail,
            receive_seconds=received - self.began,
            scan_seconds=self.scan_seconds,
            reply_seconds=max(0.0, now - received - self.scan_seconds),
            bytes_in=self.bytes_in - ahead,
            bytes_out=self.bytes_out,
            istag=self.generation.stationery.istag,
            reference=self.reference,
        )


def user_of(head: RequestHead) -> bytes:
    """The user that the client names: X-Authenticated-User decoded, else X-Client-Username; log data only (S41)."""
    coded = head.fields.get(b"x-authenticated-user")
    if coded:
        try:
            return base64.b64decode(coded[:1024], validate=True)[:256]
        except (binascii.Error, ValueError):
            return coded[:256]
    return (head.fields.get(b"x-client-username") or b"")[:256]
