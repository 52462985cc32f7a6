"""One connection to clamd: a raw non-blocking socket on the event loop, one command at a time.

Streams of asyncio cannot carry a descriptor, so the socket is ours: a reader callback stays registered while the
connection lives, which also tells at once when clamd closes an idle connection.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import Callable, Iterable

from icapscan.wire.clamd import (
    FILDES,
    IDSESSION,
    INSTREAM,
    INSTREAM_END,
    Outcome,
    Reply,
    ReplyReader,
    chunk_head,
)

READ_SIZE = 4096
GATHER = 64 * 1024
"""Smaller pieces are sent together."""
TURN = 1024 * 1024
"""Bytes sent in one go before other tasks get their turn."""

LOST = Reply(None, Outcome.FAILED, "the connection was closed", last=True)
TIMED_OUT = Reply(None, Outcome.TIME_LIMIT, "clamd did not answer in time", last=True)

Piece = bytes | memoryview


class Called:
    """Stands where else a future waits for the reply: calls back at once, not in the next turn of the event loop."""

    __slots__ = ("_reply", "_then", "begun")

    def __init__(self, then: Callable[[Reply], None]) -> None:
        self._then = then
        self._reply: Reply | None = None
        self.begun = False
        """The asking is over. A reply before that calls nobody."""

    def done(self) -> bool:
        return self._reply is not None

    def cancelled(self) -> bool:
        return False

    def result(self) -> Reply:
        assert self._reply is not None
        return self._reply

    def set_result(self, reply: Reply) -> None:
        self._reply = reply
        if self.begun:
            self._then(reply)


class Channel:
    """A connection in IDSESSION (or, with ``session`` off, for one single command)."""

    __slots__ = (
        "_gate", "_id", "_loop", "_opened", "_reader", "_sock", "_timer", "_writing",
        "closed", "reused", "session", "silent", "waiter",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, session: bool) -> None:
        self._loop = loop
        self._sock = sock
        self._reader = ReplyReader()
        self._id = 0
        self._opened = False
        self._gate: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self.session = session
        self.waiter: asyncio.Future[Reply] | Called | None = None
        self.closed = False
        self.reused = False
        """Whether the connection waited in the pool before: then its loss may only mean that clamd closed it."""
        self.silent = False
        """Whether it was lost before any byte of the reply came."""
        loop.add_reader(sock.fileno(), self._readable)

    def ask_descriptor(self, descriptor: int, deadline: float) -> asyncio.Future[Reply]:
        """FILDES: have the file behind ``descriptor`` scanned by ``deadline``, a time of the event loop.

        The reply comes in the future, which gets no exception. Call `end` when it is no longer waited for.
        """
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._ask_descriptor(descriptor, deadline, waiter)
        return waiter

    def ask_descriptor_and_call(self, descriptor: int, deadline: float, then: Callable[[Reply], None]) -> bool:
        """The same with ``then`` called with the reply, from the event loop. False: the connection was lost at once.

        `end` is called by ``then``, and by whoever does not want to be called any more.
        """
        called = Called(then)
        self._ask_descriptor(descriptor, deadline, called)
        called.begun = True
        return not called.done()

    def _ask_descriptor(self, descriptor: int, deadline: float, waiter: asyncio.Future[Reply] | Called) -> None:
        self._begin(deadline, waiter)
        if not self.closed:
            try:
                # A few bytes into an empty socket buffer: they go at once or the connection is broken.
                rights = array.array("i", (descriptor,))
                self._sock.sendmsg((self._opening() + FILDES,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),))
            except OSError as error:
                self._break(error)

    async def ask_stream(self, pieces: Iterable[Piece], deadline: float) -> Reply:
        """INSTREAM: send the pieces and have them scanned; an early reply ends the sending. `end` comes after it.

        Raises `OSError` when the pieces cannot be read.
        """
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._begin(deadline, waiter)
        await self._send_stream(pieces, waiter)
        return await waiter

    def end(self) -> None:
        """After a command, whatever became of it: only a connection in a known state lives on."""
        waiter, self.waiter = self.waiter, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiter is None or not self.session or not waiter.done() or waiter.cancelled() or waiter.result().last:
            self.close()

    def close(self) -> None:
        """Close at once; a command that waits gets a FAILED reply. Idempotent."""
        self._lose("the connection was closed")

    def _begin(self, deadline: float, waiter: asyncio.Future[Reply] | Called) -> None:
        self._id += 1
        self.silent = False
        self.waiter = waiter
        if self.closed:
            self.silent = True
            waiter.set_result(LOST)
        else:
            self._timer = self._loop.call_at(deadline, self._expire, waiter)

    def _opening(self) -> bytes:
        if self._opened or not self.session:
            return b""
        self._opened = True
        return IDSESSION

    def _expire(self, waiter: asyncio.Future[Reply] | Called) -> None:
        if not waiter.done():
            waiter.set_result(TIMED_OUT)
            self._open_gate()

    async def _send_stream(self, pieces: Iterable[Piece], waiter: asyncio.Future[Reply]) -> None:
        held: list[Piece] = [self._opening() + INSTREAM]
        size = turn = 0
        for piece in pieces:
            held += (chunk_head(len(piece)), piece)
            size += len(piece)
            if size < GATHER:
                continue
            if not await self._send(held, waiter):
                return
            turn += size
            size = 0
            if turn >= TURN:
                turn = 0
                await asyncio.sleep(0)
        held.append(INSTREAM_END)
        await self._send(held, waiter)

    async def _send(self, buffers: list[Piece], waiter: asyncio.Future[Reply]) -> bool:
        """Send all; False when the reply (or the end) came first, and then the connection is never used again."""
        while not waiter.done():
            try:
                sent = self._sock.sendmsg(buffers)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                self._break(error)
                return False
            while buffers and sent >= len(buffers[0]):
                sent -= len(buffers.pop(0))
            if not buffers:
                return True
            if sent:
                buffers[0] = memoryview(buffers[0])[sent:]
        self.close()
        return False

    async def _writable(self) -> None:
        """Wait until the socket takes more, or the waiter got its result."""
        self._gate = gate = self._loop.create_future()
        self._loop.add_writer(self._sock.fileno(), self._open_gate)
        self._writing = True
        try:
            await gate
        finally:
            self._gate = None
            if self._writing and not self.closed:
                self._loop.remove_writer(self._sock.fileno())
            self._writing = False

    def _open_gate(self) -> None:
        if self._gate is not None and not self._gate.done():
            self._gate.set_result(None)

    def _break(self, error: OSError) -> None:
        """Sending failed. clamd may have said why before it hung up (size limit): read that first."""
        while not self.closed and self.waiter is not None and not self.waiter.done():
            if not self._read():
                self._lose(f"the connection was lost: {error.strerror}")

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; False when nothing was there."""
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lose(f"the connection was lost: {error.strerror}")
            return True
        if not data:
            self._lose("clamd closed the connection")
            return True
        waiter = self.waiter
        if waiter is None or waiter.done():  # nobody asked: out of step
            self.close()
            return True
        replies = self._reader.feed(data)
        if replies:
            self._settle(self._checked(replies))
        return True

    def _checked(self, replies: list[Reply]) -> Reply:
        reply = replies[0]
        if len(replies) > 1 or self._reader.midway:
            return Reply(None, Outcome.FAILED, "clamd sent more than one reply", last=True)
        if self.session and reply.id != self._id:
            if reply.id is None:
                said = f"clamd answered out of step: {reply.text}"
                self.silent = reply.text.startswith("COMMAND READ TIMED OUT")  # the farewell to an idle connection
            else:
                said = "clamd answered for another command"
            return Reply(reply.id, Outcome.FAILED, said, last=True)
        return reply

    def _settle(self, reply: Reply) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(reply)
            self._open_gate()

    def _lose(self, why: str) -> None:
        if self.closed:
            return
        self.closed = True
        number = self._sock.fileno()
        self._loop.remove_reader(number)
        if self._writing:
            self._loop.remove_writer(number)
            self._writing = False
        self._sock.close()
        if self.waiter is not None and not self.waiter.done() and not self._reader.midway:
            self.silent = True
        self._settle(Reply(None, Outcome.FAILED, why, last=True))
