"""The clock of a delivery: looks once a second whether something is to be sent before the verdict."""

from __future__ import annotations

import asyncio
from typing import Protocol

from icapscan.servers.delivery import EVERY_SECONDS, Delivery
from icapscan.servers.replies import Reply


class Sender(Protocol):
    """The connection."""

    def may_send(self) -> bool:
        """Whether an early answer is possible now: no preview is under way, and the reader keeps up."""
        ...

    def begin_answer(self, opening: Reply) -> None:
        """Send a head, and a first piece of the body."""
        ...

    def go_on(self, piece: bytes) -> None:
        """Send more of the body."""
        ...


class Pacer:
    """Runs from the heads of a request to its reply."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delivery: Delivery, sender: Sender) -> None:
        self._loop = loop
        self._delivery = delivery
        self._sender = sender
        self._timer: asyncio.TimerHandle | None = loop.call_later(delivery.start, self._turn)

    def stop(self) -> None:
        """The reply is there, or the client is gone. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._timer = self._loop.call_later(EVERY_SECONDS, self._turn)
        if not self._sender.may_send():
            return
        if self._delivery.opened:
            piece = self._delivery.more()
            if piece:
                self._sender.go_on(piece)
        else:
            opening = self._delivery.open()
            if opening is not None:
                self._sender.begin_answer(opening)
