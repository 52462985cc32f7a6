"""What is known of one transaction, from its first byte to its log line."""

from __future__ import annotations

from time import perf_counter

from icapscan.servers.generation import Generation, Service
from icapscan.servers.record import TransactionRecord
from icapscan.servers.replies import Reply
from icapscan.wire.http_head import method_and_url
from icapscan.wire.icap_events import HttpHeads, RequestHead

METHOD_NAMES = {b"REQMOD": "REQMOD", b"RESPMOD": "RESPMOD", b"OPTIONS": "OPTIONS"}
NO_HEADS = HttpHeads()


class Transaction(TransactionRecord):
    """One request and its answer. Begins with the first byte, so that half a head has times and a log line too.

    The connection fills in what it sees of the wire, the exchange what it finds out about the body, and `conclude`
    the rest; then it is its own record.
    """

    body_began: float = 0.0
    received: float = 0.0
    head: RequestHead | None = None
    heads: HttpHeads = NO_HEADS
    route: Service | None = None

    def __init__(self, generation: Generation, started: float, bytes_in: int) -> None:
        """Its first ``bytes_in`` bytes are there; ``started`` is on the clock of the event loop."""
        generation.users += 1
        self.generation = generation
        self.stationery = generation.stationery
        """With the ISTag at the first byte: a change while the scan runs must not label it as the newer engine's."""
        self.began = perf_counter()
        self.started = started
        self.bytes_in = bytes_in

    def conclude(self, reply: Reply | None, detail: str, client: str, ahead: int) -> None:
        """Fill in what the log says. ``ahead``: bytes received that belong to the next request."""
        now = perf_counter()
        head, route = self.head, self.route
        received = self.received or now
        self.client = client
        if detail:
            self.detail = detail
        self.istag = self.stationery.istag
        if ahead:
            self.bytes_in -= ahead
        self.receive_seconds = received - self.began
        self.reply_seconds = now - received - self.scan_seconds
        if head is not None:
            self.method = METHOD_NAMES[head.method]
            if head.user:
                self.user = head.user
            if head.client_ip:
                self.client_ip = head.client_ip
            if not self.url:
                self.http_method, self.url = method_and_url(self.heads.req_hdr)
        if route is not None:
            self.service = route.name
        if reply is not None:
            self.reply = reply.label
            self.status = reply.status
