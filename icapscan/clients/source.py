"""Bodies that can be sent, sent again, and compared with what comes back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from icapscan.clients.errors import BodyChanged, InvalidArgument
from icapscan.limits import KIB
from icapscan.store import PartStore

PIECE = 64 * KIB
"""Bytes of one chunk at most (PROTOCOL C22)."""

_NO_BODY = "A body must be bytes, a part store or a binary file that can be read twice."
Body = bytes | bytearray | memoryview | PartStore | BinaryIO


class Source(Protocol):
    """A body of known size that can be read at any place, as often as wanted."""

    size: int

    def read(self, at: int, count: int) -> bytes | memoryview:
        """Exactly ``count`` bytes from ``at`` on. Raises `BodyChanged`."""
        ...


class BytesSource:
    """A body in memory."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data)
        self.size = len(data)

    def read(self, at: int, count: int) -> bytes | memoryview:
        return self._view[at : at + count]


class DescriptorSource:
    """A body behind a descriptor that stays open and is owned by somebody else."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def read(self, at: int, count: int) -> bytes | memoryview:
        return _exactly(count, lambda wanted, done: os.pread(self._descriptor, wanted, at + done))


class FileSource:
    """A seekable binary file object, from its start to its end."""

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
    digest = hashlib.sha256()
    for piece in pieces(source, 0, source.size):
        digest.update(piece)
    return digest.hexdigest()
