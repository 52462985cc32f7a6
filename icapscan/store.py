"""Where the bytes of a part are kept: a bytes object, a memfd, or an unlinked file; and the purse that bounds them.

One owner frees a store (`PartStore.close`). The same descriptor is mapped for YARA, handed to clamd and read for
the virgin copy: nothing is copied. No event loop in here; the file writes go to the page cache.
"""

from __future__ import annotations

import enum
import errno
import mmap
import os
from collections.abc import Iterator

from icapscan.errors import StoreFull
from icapscan.limits import KIB, MIB, Limits

READ_SIZE = 256 * KIB
_SPARE_MOST = 16
_spare: list[tuple[int, int]] = []
"""Memfds of small parts, to be used again, each with its size."""
_SPARE_BYTES = 8 * MIB
_SPARE_LONGEST = 2 * MIB
_spare_long: list[tuple[int, int]] = []
"""The same of parts that stand in a memfd, up to so many bytes together, which no purse counts."""
_SEARCH_WINDOW = 1024 * KIB


class Purse:
    """Memory and disk that all stores of one process may hold together."""

    __slots__ = ("disk_left", "memory_left")

    def __init__(self, memory: int, disk: int) -> None:
        self.memory_left = memory
        self.disk_left = disk

    def is_open(self) -> bool:
        """Whether a new transaction may begin: there is memory, or at least disk, for a small part."""
        return self.memory_left > 0 or self.disk_left > 0


class _Tier(enum.Enum):
    CHUNKS = "chunks"
    MEMFD = "memfd"
    FILE = "file"


_CHUNKS = _Tier.CHUNKS


class PartStore:
    """The bytes of one part, appended as they arrive, then read as often as wanted.

    Moves up by itself: a list of chunks, past `Limits.part_in_bytes` a memfd, past `Limits.part_in_memory` (or when
    the purse has no memory left) an unlinked file in ``folder``.
    """

    __slots__ = (
        "_allocated", "_charged", "_chunks", "_fd", "_folder", "_lent", "_limits", "_mapped", "_purse", "_recycled",
        "_sha256", "_tier", "glimpse", "size",
    )  # fmt: skip

    def __init__(self, purse: Purse, limits: Limits, folder: str | None = None) -> None:
        self._purse = purse
        self._limits = limits
        self._folder = folder
        self._tier = _Tier.CHUNKS
        self._chunks: list[bytes | memoryview] = []
        self._fd = -1
        self._allocated = 0
        """Length of a memfd that was used before; the rest behind the part is cut off before anybody sees it."""
        self._lent = False
        self._recycled = False
        self._mapped: mmap.mmap | None = None
        self._charged = 0
        self._sha256: str | None = None
        self.glimpse: tuple[int, int] | None = None
        """What the verdict cache knows it by at a glance: its size then, and a checksum of places in it."""
        self.size = 0

    @classmethod
    def of(cls, data: bytes) -> PartStore:
        """A store that holds ``data`` outside any purse: for self-tests, the command line and tests."""
        store = cls(Purse(len(data), len(data)), Limits())
        store.append(data)
        return store

    @classmethod
    def of_file(cls, descriptor: int) -> PartStore:
        """A store of what is in an open file, outside any purse. It owns the descriptor from now on."""
        store = cls(Purse(0, 0), Limits())
        store._tier, store._fd, store.size = _Tier.FILE, descriptor, os.fstat(descriptor).st_size
        return store

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes at the end. Raises `StoreFull` when neither memory nor disk is left; the store stays readable."""
        count = len(data)
        purse = self._purse
        if self._tier is _CHUNKS and self.size + count <= self._limits.part_in_bytes and count <= purse.memory_left:
            purse.memory_left -= count
            self._charged += count
            self._chunks.append(data)
            self.size += count
            if self._fd >= 0:
                self._drop_descriptor()
            return
        tier = self._fitting_tier(self.size + count, count)
        if tier is not self._tier:
            self._move(tier)
        self._charge(count)
        _write_all(self._fd, data, self.size)
        self.size += count

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._chunks.clear()
        if self._mapped is not None:
            mapped, self._mapped = self._mapped, None
            try:
                mapped.close()
            except BufferError:  # a scanner thread that outlived its deadline still reads it; it goes with that thread
                self._recycled = False
        if self._fd >= 0:
            if self._recycled and self._tier is _Tier.MEMFD:
                self._spare_memfd()
            else:
                self._drop_descriptor()
        self._refund()
        self._tier = _Tier.CHUNKS
        self.size = 0

    def contents(self) -> bytes | None:
        """The whole part as bytes when it is small enough to be kept so, else None."""
        if self._tier is not _Tier.CHUNKS:
            return None
        chunks = self._chunks
        if len(chunks) == 1 and isinstance(chunks[0], bytes):
            return chunks[0]
        whole = b"".join(chunks)
        self._chunks = [whole]
        return whole

    def fileno(self) -> int:
        """A descriptor of the whole part, owned by the store. A small part is copied to a memfd for it."""
        if self._fd < 0:
            try:
                # not asked for first: a thread that cleans a document may take the last one
                self._fd, size = _spare.pop()
            except IndexError:
                self._fd = os.memfd_create("part", os.MFD_CLOEXEC)
            else:
                if size != self.size:
                    os.ftruncate(self._fd, self.size)
            _write_all(self._fd, self.contents() or b"", 0)
        elif self._allocated > self.size:
            os.ftruncate(self._fd, self.size)
            self._allocated = self.size
        return self._fd

    def recycle(self) -> None:
        """Nobody but the owner reads the descriptor any more: the memfd is kept for another part.

        Making and freeing one costs several times as much as writing to its pages. Only for whoever knows that every
        reader of the descriptor has finished, another process that it was passed to included. A small part gives it
        away at once, a larger one stays readable and does so in `close`.
        """
        if self._lent:
            return
        self._recycled = True
        if self._tier is _CHUNKS and self._fd >= 0 and len(_spare) < _SPARE_MOST:
            _spare.append((self._fd, self.size))
            self._fd = -1

    def _spare_memfd(self) -> None:
        size = max(self._allocated, self.size)
        full = len(_spare_long) >= _SPARE_MOST or sum(spare for _, spare in _spare_long) + size > _SPARE_BYTES
        if full or size > _SPARE_LONGEST:
            self._drop_descriptor()
            return
        _spare_long.append((self._fd, size))
        self._fd = -1

    def lend(self) -> None:
        """A reader of the descriptor may not have finished when the scan has: nothing is written over it."""
        self._lent = True
        self._recycled = False

    def view(self) -> bytes | mmap.mmap:
        """The whole part as one buffer for matching in process: bytes, or a shared read-only map owned by the store."""
        small = self.contents()
        if small is not None:
            return small
        if self.size == 0:
            return b""
        if self._mapped is None or len(self._mapped) != self.size:
            self._mapped = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
        return self._mapped

    def reader(self) -> bytes | PartReader:
        """The whole part to slice and to search, for decoders: bytes, or a reader that maps and keeps nothing."""
        small = self.contents()
        return small if small is not None else PartReader(self._fd, self.size)

    def relax(self) -> None:
        """Give mapped pages back to the kernel while a scan goes on, so that a large part does not become resident.

        Safe beside a reader: the map is shared and file-backed, so a page that is needed again is just faulted in.
        """
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def pieces(self, start: int = 0, size: int = READ_SIZE) -> Iterator[bytes | memoryview]:
        """The bytes from ``start`` on, in pieces of at most ``size``."""
        whole = self.contents()
        if whole is not None:
            view = memoryview(whole)
            for at in range(start, len(whole), size):
                yield view[at : at + size]
            return
        at = start
        while at < self.size:
            piece = os.pread(self._fd, min(size, self.size - at), at)
            if not piece:
                raise OSError("a stored part became shorter")
            yield piece
            at += len(piece)

    def sha256(self) -> str:
        """The SHA-256 of the whole part in hex; computed once."""
        if self._sha256 is None:
            import hashlib  # not above: a program that starts for each message has no use for it

            digest = hashlib.sha256()
            for piece in self.pieces():
                digest.update(piece)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def _fitting_tier(self, size: int, more: int) -> _Tier:
        """Where a part of ``size`` bytes, ``more`` of them new, belongs. A part never moves back down."""
        memory = self._purse.memory_left >= more
        if self._tier is _Tier.FILE or size > self._limits.part_in_memory or not memory:
            return _Tier.FILE
        if self._tier is _Tier.CHUNKS and size <= self._limits.part_in_bytes:
            return _Tier.CHUNKS
        return _Tier.MEMFD

    def _move(self, tier: _Tier) -> None:
        """Change the tier and take the bytes along. Raises `StoreFull` and stays where it was when there is no room."""
        allocated = 0
        if tier is _Tier.FILE:
            if self._purse.disk_left < self.size:
                raise StoreFull("There is no room left to keep this body.")
            descriptor = _unlinked_file(self._folder)
        else:
            try:
                descriptor, allocated = _spare_long.pop()
            except IndexError:
                descriptor = os.memfd_create("part", os.MFD_CLOEXEC)
        try:
            at = 0
            for piece in self.pieces():
                _write_all(descriptor, piece, at)
                at += len(piece)
        except BaseException:
            os.close(descriptor)
            raise
        self._drop_descriptor()
        size = self.size
        self._refund()
        self._tier, self._fd, self._chunks, self._allocated = tier, descriptor, [], allocated
        self._charge(size)

    def _drop_descriptor(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _charge(self, count: int) -> None:
        purse = self._purse
        if self._tier is _Tier.FILE:
            if purse.disk_left < count:
                raise StoreFull("There is no room left to keep this body.")
            purse.disk_left -= count
        else:
            purse.memory_left -= count
        self._charged += count

    def _refund(self) -> None:
        if self._tier is _Tier.FILE:
            self._purse.disk_left += self._charged
        else:
            self._purse.memory_left += self._charged
        self._charged = 0


def _unlinked_file(folder: str | None) -> int:
    import tempfile  # not above, as hashlib

    descriptor, path = tempfile.mkstemp(prefix="icapscan-", dir=folder)
    os.unlink(path)
    return descriptor


def _write_all(descriptor: int, data: bytes | memoryview, at: int) -> None:
    """Raises `StoreFull` when the disk is full."""
    view = memoryview(data)
    while view:
        try:
            written = os.pwrite(descriptor, view, at)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise StoreFull("There is no room left on the disk to keep this body.") from error
            raise
        at += written
        view = view[written:]


class PartReader:
    """A large part as decoders read it: like bytes to slice and to search, and nothing of it becomes resident.

    Slices are read when they are asked for. Only whole-number slices without a step are supported.
    """

    __slots__ = ("_fd", "_size")

    def __init__(self, descriptor: int, size: int) -> None:
        self._fd = descriptor
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, piece: slice) -> bytes:
        start, stop, _ = piece.indices(self._size)
        return os.pread(self._fd, stop - start, start) if stop > start else b""

    def find(self, needle: bytes, start: int = 0, end: int | None = None) -> int:
        """As `bytes.find`."""
        start, end, _ = slice(start, end).indices(self._size)
        lap = len(needle) - 1
        while start + lap < end:
            window = self[start : min(end, start + _SEARCH_WINDOW + lap)]
            at = window.find(needle)
            if at >= 0:
                return start + at
            start += _SEARCH_WINDOW
        return -1

    def rfind(self, needle: bytes, start: int = 0, end: int | None = None) -> int:
        """As `bytes.rfind`."""
        start, end, _ = slice(start, end).indices(self._size)
        lap = len(needle) - 1
        while start + lap < end:
            begin = max(start, end - _SEARCH_WINDOW - lap)
            at = self[begin:end].rfind(needle)
            if at >= 0:
                return begin + at
            end = begin + lap
            if begin == start:
                break
        return -1
