"""What a connection drives for one transaction, from the encapsulated heads to a reply; knows nothing of sockets.

The contract, and the exchanges that scan nothing. The one that does is in `scan_exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from icapscan.errors import StoreFull
from icapscan.findings import Verdict
from icapscan.servers import replies
from icapscan.servers.delivery import Delivery
from icapscan.servers.replies import Reply
from icapscan.servers.stationery import VIA
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore
from icapscan.wire import http_head
from icapscan.wire.icap_events import HttpHeads

Concluded = Reply | Coroutine[Any, Any, Reply]
"""An answer, or what there is to wait for until it is one."""


class Later:
    """An answer that is told when it is there, with no task that waits for it."""

    __slots__ = ("_conclude", "_told")

    def __init__(self, conclude: Callable[[Verdict], Concluded]) -> None:
        self._conclude = conclude
        self._told: Callable[[Callable[[], Concluded]], None] | None = None

    def tell(self, told: Callable[[Callable[[], Concluded]], None]) -> None:
        """Have ``told`` called, once, with what makes the answer; that may raise."""
        self._told = told

    def settle(self, verdict: Callable[[], Verdict]) -> None:
        """The verdict is there to be asked for."""
        told, self._told = self._told, None
        if told is not None:
            told(lambda: self._conclude(verdict()))

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self._told = None


Outcome = Concluded | Later


class Exchange(Protocol):
    """What a connection drives. Each method is called in the order of the bytes on the wire."""

    delivery: Delivery | None
    """What may be sent before the verdict."""

    def body(self, data: bytes | memoryview) -> Reply | None:
        """More of the body. A reply ends the transaction early; the rest of the body is then not read."""
        ...

    def preview_end(self) -> Reply | None:
        """The preview ended and there is more: None asks for it."""
        ...

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        """The request is complete. ``within_preview``: a preview was announced, and no more than that was needed."""
        ...

    def whole(self, body: bytes | None, within_preview: bool) -> Outcome:
        """The same as `body` and `end` for a request that came in one piece."""
        ...

    def close(self) -> None:
        """Free everything, whatever happened. Idempotent."""
        ...


class FixedExchange:
    """Reads the request to its end and then says what was clear from the start (OPTIONS, 404, 405)."""

    __slots__ = ("_left", "_reply", "delivery")

    def __init__(self, reply: Reply, most: int = 1024 * 1024) -> None:
        self._reply = reply
        self._left = most
        self.delivery: Delivery | None = None

    def body(self, data: bytes | memoryview) -> Reply | None:
        self._left -= len(data)
        return replies.error(400, "This body is too long for its request.") if self._left < 0 else None

    def preview_end(self) -> Reply | None:
        return self._reply

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        return self._reply

    def whole(self, body: bytes | None, within_preview: bool) -> Outcome:
        return (self.body(body) if body is not None else None) or self._reply

    def close(self) -> None:
        return None


class ReadyExchange:
    """Says what an earlier transaction has left to be said, as soon as it may; the body that came is not looked at."""

    __slots__ = ("_preview", "_reply", "delivery")

    def __init__(self, reply: Reply, *, preview: bool) -> None:
        """``preview``: it ends the wait, and the connection is as good as before (PROTOCOL S76)."""
        self._reply = reply
        self._preview = preview
        self.delivery: Delivery | None = None

    def body(self, data: bytes | memoryview) -> Reply | None:
        return None if self._preview else self._reply

    def preview_end(self) -> Reply | None:
        return self._reply

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        return self._reply

    def whole(self, body: bytes | None, within_preview: bool) -> Outcome:
        return self._reply

    def close(self) -> None:
        if isinstance(self._reply.body, PartStore):
            self._reply.body.close()


class CopyingExchange:
    """What echo and scan have in common: the virgin message is kept and can be sent back."""

    __slots__ = ("_now",)

    def __init__(self, now: Transaction) -> None:
        self._now = now

    def request_head(self) -> bytes | None:
        """The request head that is copied."""
        return self._now.heads.req_hdr

    def copy(self, body: PartStore | bytes | None, trailers: bytes, fields: bytes = b"") -> Reply:
        """The virgin message as it came (PROTOCOL S87-S92)."""
        heads = self.heads(None if body is None else self._now.size)
        return Reply(200, "200 copy", fields, heads, body, trailers=trailers)

    def heads(self, length: int | None) -> HttpHeads:
        """The virgin head with our Via; of a body of ``length`` bytes where it must be made up."""
        now = self._now
        assert now.head is not None
        if now.head.method == b"RESPMOD":
            return HttpHeads(None, http_head.adapted_response_head(now.heads.res_hdr, VIA, length))
        return HttpHeads(http_head.adapted_request_head(self.request_head(), VIA, length))


class EchoExchange(CopyingExchange):
    """Copies back, scans nothing."""

    __slots__ = ("_store", "delivery")

    def __init__(self, now: Transaction) -> None:
        self._now = now
        self._store: PartStore | None = None
        self.delivery: Delivery | None = None

    def body(self, data: bytes | memoryview) -> Reply | None:
        if self._store is None:
            self._store = self._now.generation.scanner.new_store()
        self._now.size += len(data)
        try:
            self._store.append(data)
        except StoreFull as error:
            return replies.error(503, str(error))
        return None

    def preview_end(self) -> Reply | None:
        return None

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        head = self._now.head
        empty = b"" if head is not None and head.encapsulated.has_body else None
        return self.copy(self._store or empty, trailers)

    def whole(self, body: bytes | None, within_preview: bool) -> Outcome:
        self._now.size = len(body) if body is not None else 0
        return self.copy(body, b"")

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
