"""Bodies that can be sent, sent again, and compared with what comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol

from icapscan.clients.errors import BodyAborted, BodyChanged, InvalidArgument
from icapscan.limits import KIB, MIB
from icapscan.store import PartStore

if TYPE_CHECKING:
    import asyncio

PIECE = 64 * KIB
"""Bytes of one chunk at most (PROTOCOL C22)."""

_NO_BODY = "A body must be bytes, a part store or a binary file that can be read twice."
_AHEAD = 4 * MIB
"""Bytes of a growing body that may be there and not yet sent before `GrowingBody.room` waits."""


class Source(Protocol):
    """A body that can be read at any place, as often as wanted."""

    @property
    def size(self) -> int:
        """Bytes that are there."""
        ...

    @property
    def ended(self) -> bool:
        """Whether no more will come: ``size`` is that of the whole body."""
        ...

    def read(self, at: int, count: int) -> bytes | memoryview:
        """Exactly ``count`` bytes from ``at`` on. Raises `BodyChanged`."""
        ...


class BytesSource:
    """A body in memory."""

    ended = True

    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data)
        self.size = len(data)

    def read(self, at: int, count: int) -> bytes | memoryview:
        return self._view[at : at + count]


class DescriptorSource:
    """A body behind a descriptor that stays open and is owned by somebody else."""

    ended = True

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def read(self, at: int, count: int) -> bytes | memoryview:
        return _exactly(count, lambda wanted, done: os.pread(self._descriptor, wanted, at + done))


class FileSource:
    """A seekable binary file object, from its start to its end."""

    ended = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        try:
            self.size = file.seek(0, os.SEEK_END)
            is_binary = isinstance(file.read(0), bytes)
        except (OSError, ValueError) as error:
            raise InvalidArgument(_NO_BODY) from error
        if not is_binary:
            raise InvalidArgument(_NO_BODY)

    def read(self, at: int, count: int) -> bytes | memoryview:
        def more(wanted: int, done: int) -> bytes:
            self._file.seek(at + done)
            return self._file.read(wanted)

        return _exactly(count, more)


class GrowingBody:
    """A body that is sent while it arrives. Everything is kept in ``store``, so it can be sent again at any time.

    One task appends, and calls `end` or `abort`; one scan at a time reads. Whoever made the store closes it, after the
    scan.
    """

    def __init__(self, store: PartStore) -> None:
        self.store = store
        self.ended = False
        self.aborted = False
        self._watchers: list[Callable[[], None]] = []
        self._sent: int | None = None
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.store.size

    # For the task that writes it

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes at the end, and send them on. Raises `StoreFull`; the body is as it was then."""
        self.store.append(data)
        self._tell()

    def end(self) -> None:
        """The body is complete."""
        self.ended = True
        self._tell()

    def abort(self) -> None:
        """Give it up: the ICAP connection is cut, and the scan raises `BodyAborted`. Idempotent."""
        self.aborted = True
        self._tell()

    async def room(self) -> None:
        """Wait while the ICAP server is far behind, so that a slow server slows the sender. No scan: no wait."""
        while self._sent is not None and self.size - self._sent > _AHEAD and not self.aborted:
            await self._change()

    # For the scan

    def check(self) -> None:
        """Raises `BodyAborted` after `abort`."""
        if self.aborted:
            raise BodyAborted("The body was given up before its end.")

    def read(self, at: int, count: int) -> bytes | memoryview:
        """Exactly ``count`` bytes from ``at`` on. Raises `BodyChanged`."""
        whole = self.store.contents()
        if whole is not None:
            return memoryview(whole)[at : at + count]
        descriptor = self.store.fileno()
        return _exactly(count, lambda wanted, done: os.pread(descriptor, wanted, at + done))

    async def reach(self, count: int) -> None:
        """Wait until ``count`` bytes are there, or the body has ended. Raises `BodyAborted`."""
        while self.size < count and not self.ended and not self.aborted:
            await self._change()
        self.check()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever there is more, or the end, or the body is given up."""
        self._watchers.append(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.remove(changed)

    def sent(self, count: int | None) -> None:
        """So many bytes have been sent; None: nobody sends it now."""
        self._sent = count
        self._wake()

    def _tell(self) -> None:
        for changed in tuple(self._watchers):
            changed()
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self) -> None:
        import asyncio  # not above: icapscan-qmail-queue starts for each message, and has no event loop

        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter


Body = bytes | bytearray | memoryview | PartStore | GrowingBody | BinaryIO


def _exactly(count: int, more: Callable[[int, int], bytes]) -> bytes:
    """Ask ``more(wanted, done)`` until ``count`` bytes are there."""
    data = b""
    while len(data) < count:
        try:
            piece = more(count - len(data), len(data))
        except (OSError, ValueError) as error:
            raise BodyChanged(f"The body cannot be read any more: {error}.") from error
        if not piece:
            raise BodyChanged("The body became shorter while it was sent.")
        data = data + piece if data else piece
    return data


def source_of(body: Body) -> Source:
    """The source for what a caller gives. Raises `InvalidArgument` for what cannot be read twice."""
    if isinstance(body, GrowingBody):
        return body
    if isinstance(body, (bytes, bytearray, memoryview)):
        return BytesSource(memoryview(body).cast("B") if isinstance(body, memoryview) else bytes(body))
    if isinstance(body, PartStore):
        small = body.contents()
        return DescriptorSource(body.fileno(), body.size) if small is None else BytesSource(small)
    if not hasattr(body, "seek") or not hasattr(body, "read"):
        raise InvalidArgument(_NO_BODY)
    return FileSource(body)


def pieces(source: Source, start: int, stop: int) -> Iterator[bytes | memoryview]:
    """The bytes from ``start`` to ``stop`` in pieces of at most `PIECE`, never an empty one."""
    for at in range(start, stop, PIECE):
        yield source.read(at, min(PIECE, stop - at))


def sha256_of(source: Source) -> str:
    """The SHA-256 of the whole body in hex."""
    import hashlib  # as asyncio

    digest = hashlib.sha256()
    for piece in pieces(source, 0, source.size):
        digest.update(piece)
    return digest.hexdigest()
