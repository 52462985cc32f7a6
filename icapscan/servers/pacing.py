"""Answers that begin before the verdict: a clock that looks once a second whether there is something to send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from msgspec.structs import replace

from icapscan.servers.delivery import EVERY_SECONDS, Delivery
from icapscan.servers.outbox import Outbox
from icapscan.servers.replies import Reply
from icapscan.servers.transaction import Transaction
from icapscan.wire.fields import Fields
from icapscan.wire.icap import IcapConnection
from icapscan.wire.icap_events import BodyChunk, Event, Trailer
from icapscan.wire.icap_states import State


class Pacer:
    """Runs from the heads of a request to its reply, and may begin the answer in between."""

    __slots__ = ("_codec", "_delivery", "_last", "_loop", "_now", "_outbox", "_timer", "_trailer")

    def __init__(
        self, delivery: Delivery, now: Transaction, codec: IcapConnection, outbox: Outbox, last: Callable[[], bool]
    ) -> None:
        """``last``: whether the connection ends with this answer, as far as that is known already."""
        self._delivery = delivery
        self._now = now
        self._codec = codec
        self._outbox = outbox
        self._last = last
        self._trailer = False
        """An ICAP trailer is announced for the answer that has begun."""
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(delivery.start, self._turn)

    def stop(self) -> None:
        """The reply is there, or the client is gone. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ends_of(self, reply: Reply) -> tuple[Event, ...]:
        """The end of the body, and of the answer, for a reply that goes on with what has begun."""
        return (reply.body_end, Trailer(Fields(reply.late or b""))) if self._trailer else (reply.body_end,)

    def _turn(self) -> None:
        self._timer = self._loop.call_later(EVERY_SECONDS, self._turn)
        if not self._may_send:
            return
        if self._delivery.opened:
            piece = self._delivery.more()
            if piece:
                self._send(BodyChunk(piece))
        else:
            opening = self._delivery.open()
            if opening is not None:
                self._begin(opening)

    @property
    def _may_send(self) -> bool:
        """No preview is under way, and the reader keeps up."""
        return self._codec.request_state in (State.BODY, State.DONE) and not self._outbox.blocked

    def _begin(self, opening: Reply) -> None:
        """A head, and a first piece of the body."""
        now = self._now
        head = now.stationery.head(opening.status, opening.fields, opening.heads, True, self._last())
        if opening.late is not None:
            head = replace(head, trailer=True)
        self._trailer = head.trailer
        self._send(head, opening.heads)
        if opening.body:
            self._send(BodyChunk(cast(bytes, opening.body)))

    def _send(self, *events: Event) -> None:
        self._now.bytes_out += self._outbox.write(self._codec.send(*events))
