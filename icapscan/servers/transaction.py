"""What a connection knows of the transaction in progress, from its first byte to its log line."""

from __future__ import annotations

import time

from icapscan.servers.exchange import EchoExchange, Exchange, ScanExchange, Told, user_of
from icapscan.servers.generation import Generation, Service
from icapscan.servers.record import TransactionRecord
from icapscan.servers.replies import Reply
from icapscan.wire.http_head import method_and_url
from icapscan.wire.icap_events import HttpHeads, RequestHead

_NO_HEADS = HttpHeads()


class Transaction:
    """One request and its answer. Begins with the first byte, so that half a head has times and a log line too."""

    __slots__ = (
        "began",
        "body_began",
        "bytes_in",
        "bytes_out",
        "exchange",
        "generation",
        "head",
        "heads",
        "received",
        "service",
        "started",
        "told",
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
        self.exchange: Exchange | None = None
        self.told = Told()

    def open_exchange(self, head: RequestHead, heads: HttpHeads) -> None:
        """The heads are complete: the service's own part begins."""
        service = self.service
        assert service is not None
        kind = EchoExchange if service.settings.kind == "echo" else ScanExchange
        self.exchange = kind(self.generation, service, head, heads, self.told)

    def abandon(self) -> None:
        """There was no request after all."""
        self.generation.leave()

    def end(self, reply: Reply | None, detail: str, client: str, ahead: int) -> TransactionRecord:
        """Free everything; what is to be said about it. ``ahead``: bytes received that belong to the next request."""
        if self.exchange is not None:
            self.exchange.close()
        now = time.perf_counter()
        head, told = self.head, self.told
        http_method, url = method_and_url(self.heads.req_hdr)
        received = self.received or now
        record = TransactionRecord(
            client=client,
            service=self.service.name if self.service is not None else "",
            method=head.method.decode() if head is not None else "",
            http_method=http_method,
            url=url,
            user=user_of(head) if head is not None else b"",
            client_ip=(head.fields.get(b"x-client-ip") or b"") if head is not None else b"",
            size=told.size,
            verdict=told.verdict,
            decision=told.decision.action.value if told.decision is not None else "",
            reply=reply.label if reply is not None else "",
            status=reply.status if reply is not None else 0,
            detail=detail,
            receive_seconds=received - self.began,
            scan_seconds=told.scan_seconds,
            reply_seconds=max(0.0, now - received - told.scan_seconds),
            bytes_in=self.bytes_in - ahead,
            bytes_out=self.bytes_out,
            istag=self.generation.stationery.istag,
            reference=told.reference,
        )
        self.generation.leave()
        return record
