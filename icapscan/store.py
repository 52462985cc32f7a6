"""Where the bytes of a part are kept: a bytes object, a memfd, or an unlinked file; and the purse that bounds them.

One owner frees a store (`PartStore.close`). The same descriptor is mapped for YARA, handed to clamd and read for
the virgin copy: nothing is copied. No event loop in here; the file writes go to the page cache.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator

from icapscan.errors import StoreFull
from icapscan.limits import KIB, Limits

READ_SIZE = 256 * KIB


class Purse:
    """Memory and disk that all stores of one process may hold together."""

    __slots__ = ("disk_left", "memory_left")

    def __init__(self, memory: int, disk: int) -> None:
        self.memory_left = memory
        self.disk_left = disk

    def is_open(self) -> bool:
        """Whether a new transaction may begin: there is memory, or at least disk, for a small part."""
        return self.memory_left > 0 or self.disk_left > 0


class PartStore:
    """The bytes of one part, appended as they arrive, then read as often as wanted.

    Moves up by itself: a list of chunks, past `Limits.part_in_bytes` a memfd, past `Limits.part_in_memory` (or when
    the purse has no memory left) an unlinked file in ``folder``.
    """

    __slots__ = ("_chunks", "_disk", "_fd", "_folder", "_limits", "_mapped", "_memory", "_purse", "_sha256", "size")

    def __init__(self, purse: Purse, limits: Limits, folder: str | None = None) -> None:
        self._purse = purse
        self._limits = limits
        self._folder = folder
        self._chunks: list[bytes | memoryview] = []
        self._fd = -1
        self._mapped: mmap.mmap | None = None
        self._memory = 0
        self._disk = 0
        self._sha256: str | None = None
        self.size = 0

    @classmethod
    def of(cls, data: bytes) -> PartStore:
        """A store that holds ``data`` outside any purse: for self-tests, the command line and tests."""
        limits = Limits()
        store = cls(Purse(len(data), len(data)), limits)
        store.append(data)
        return store

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes at the end. Raises `StoreFull` when neither memory nor disk is left; the store stays readable."""
        count = len(data)
        size = self.size + count
        if self._fd < 0:
            if size <= self._limits.part_in_bytes and self._purse.memory_left >= count:
                self._purse.memory_left -= count
                self._memory += count
                self._chunks.append(data)
                self.size = size
                return
            self._open(size)
        if not self._disk and self._memory and (size > self._limits.part_in_memory or self._purse.memory_left < count):
            self._move_to_disk()
        self._charge(count)
        _write_all(self._fd, data, self.size)
        self.size = size

    def close(self) -> None:
        """Free everything. Idempotent."""
        self._chunks.clear()
        if self._mapped is not None:
            mapped, self._mapped = self._mapped, None
            try:
                mapped.close()
            except BufferError:  # a scanner thread that outlived its deadline still reads it; it goes with that thread
                pass
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._purse.memory_left += self._memory
        self._purse.disk_left += self._disk
        self._memory = self._disk = self.size = 0

    def contents(self) -> bytes | None:
        """The whole part as bytes when it is small enough to be kept so, else None."""
        if self._fd >= 0:
            return None
        if len(self._chunks) != 1 or not isinstance(self._chunks[0], bytes):
            self._chunks = [b"".join(self._chunks)]
        chunk = self._chunks[0]
        assert isinstance(chunk, bytes)
        return chunk

    def fileno(self) -> int:
        """A descriptor of the whole part, owned by the store. A small part moves to a memfd for it."""
        if self._fd < 0:
            self._open(self.size)
        return self._fd

    def view(self) -> bytes | mmap.mmap:
        """The whole part as one buffer for matching in process: bytes, or a shared read-only map owned by the store."""
        small = self.contents()
        if small is not None:
            return small
        if self._mapped is None or len(self._mapped) != self.size:
            self._mapped = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
        return self._mapped

    def relax(self) -> None:
        """Give mapped pages back to the kernel while a scan goes on, so that a large part does not become resident.

        Safe beside a reader: the map is shared and file-backed, so a page that is needed again is just faulted in.
        """
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)

    def pieces(self, start: int = 0, size: int = READ_SIZE) -> Iterator[bytes | memoryview]:
        """The bytes from ``start`` on, in pieces of at most ``size``."""
        if self._fd < 0:
            whole = self.contents() or b""
            if start == 0 and len(whole) <= size:
                if whole:
                    yield whole
                return
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
            digest = hashlib.sha256()
            for piece in self.pieces():
                digest.update(piece)
            self._sha256 = digest.hexdigest()
        return self._sha256

    def _open(self, size: int) -> None:
        """Leave the list of chunks for a descriptor that will hold ``size`` bytes soon."""
        more = size - self.size
        if size <= self._limits.part_in_memory and self._purse.memory_left >= more:
            self._fd = os.memfd_create("part", os.MFD_CLOEXEC)
        else:
            self._fd = _unlinked_file(self._folder)
            self._disk, self._memory = self._exchange()
        at = 0
        for chunk in self._chunks:
            _write_all(self._fd, chunk, at)
            at += len(chunk)
        self._chunks = []

    def _exchange(self) -> tuple[int, int]:
        """Pay back memory and take as much disk; returns the new (disk, memory) charge."""
        if self._purse.disk_left < self._memory:
            os.close(self._fd)
            self._fd = -1
            raise StoreFull("There is no room left to keep this body.")
        self._purse.memory_left += self._memory
        self._purse.disk_left -= self._memory
        return self._memory, 0

    def _move_to_disk(self) -> None:
        memfd, self._fd = self._fd, _unlinked_file(self._folder)
        try:
            self._disk, self._memory = self._exchange()
        except StoreFull:
            self._fd = memfd
            raise
        at = 0
        while at < self.size:
            at += os.sendfile(self._fd, memfd, at, self.size - at)
        os.close(memfd)

    def _charge(self, count: int) -> None:
        on_disk = self._disk or not self._memory
        if on_disk and self.size + count <= self._limits.part_in_memory and not self._disk:
            on_disk = False
        left = self._purse.disk_left if on_disk else self._purse.memory_left
        if left < count:
            raise StoreFull("There is no room left to keep this body.")
        if on_disk:
            self._purse.disk_left -= count
            self._disk += count
        else:
            self._purse.memory_left -= count
            self._memory += count


def _unlinked_file(folder: str | None) -> int:
    descriptor, path = tempfile.mkstemp(prefix="icapscan-", dir=folder)
    os.unlink(path)
    return descriptor


def _write_all(descriptor: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        at += written
        view = view[written:]
