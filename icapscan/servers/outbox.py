"""What connections have yet to send: together at the end of a turn of the loop, and as fast as their readers read."""

from __future__ import annotations

import asyncio

from icapscan.wire.icap import Bytes

WRITE_BUFFER_HIGH = 256 * 1024
"""Unsent bytes above which a client counts as a slow reader."""
WRITE_JOINED = 64 * 1024
"""Up to this size pieces are joined into one buffer; above, a vectored write is cheaper than the copy."""


class Turn:
    """The connections with something to send at the end of this turn of the loop."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[Outbox] = []

    def flush(self) -> None:
        """Send the answers of this turn.

        Together and not one by one: a client process, or a proxy with many connections, is then woken once for all of
        them, and waking it costs more than the sending.
        """
        waiting, self.waiting = self.waiting, []
        for outbox in waiting:
            outbox.flush()


class Outbox:
    """The sending side of one connection."""

    __slots__ = ("_free", "_loop", "_transport", "_turn", "_unsent", "blocked", "blocked_since")

    def __init__(self, loop: asyncio.AbstractEventLoop, turn: Turn, transport: asyncio.Transport) -> None:
        transport.set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        self._loop = loop
        self._turn = turn
        self._transport = transport
        self._unsent = b""
        self._free: asyncio.Future[None] | None = None
        self.blocked = False
        """The reader is slow: nothing more should be written before `unblock`."""
        self.blocked_since = 0.0

    def write(self, pieces: list[Bytes]) -> int:
        """Send this, in one write (PROTOCOL S18); how many bytes that is."""
        size = sum(map(len, pieces))
        if size > WRITE_JOINED:
            self.flush()
            self._transport.writelines(pieces)
        elif self._unsent:
            self._unsent += b"".join(pieces)
            if len(self._unsent) > WRITE_JOINED:
                self.flush()
        else:
            self._unsent = b"".join(pieces)
            waiting = self._turn.waiting
            if not waiting:
                self._loop.call_soon(self._turn.flush)
            waiting.append(self)
        return size

    def flush(self) -> None:
        """Send now what was written in this turn."""
        unsent = self._unsent
        if unsent:
            self._unsent = b""
            self._transport.write(unsent)

    def drop(self) -> None:
        """Forget what was not sent."""
        self._unsent = b""

    def block(self) -> None:
        """The transport has too much that the reader did not take."""
        self.blocked = True
        self.blocked_since = self._loop.time()

    def unblock(self) -> None:
        """The reader took it."""
        self.blocked = False
        if self._free is not None and not self._free.done():
            self._free.set_result(None)

    async def room(self) -> None:
        """Wait until more may be written; other connections get their turn."""
        if self.blocked:
            self._free = self._loop.create_future()
            await self._free
        else:
            await asyncio.sleep(0)
