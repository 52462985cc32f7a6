"""Which worker takes the next connection: the one with the fewest.

Workers share the listening sockets, and the kernel wakes all of them for a new connection. Clients such as Squid keep
few connections open for long, so whoever happens to be faster would otherwise get most of the load for hours.
"""

from __future__ import annotations

import mmap
import os
import struct

LOOK_AWAY_SECONDS = 0.002
"""How long a busier worker leaves a new connection to the others, once; then it takes it itself."""
_SLOT = struct.Struct("=i")


class Loads:
    """Connections of each worker, in memory that all of them share. One writer a slot, so that no lock is needed."""

    def __init__(self, descriptor: int, workers: int, mine: int) -> None:
        """``descriptor`` from `shared_loads`, which this closes; ``mine`` is this worker's slot."""
        self._map = mmap.mmap(descriptor, workers * _SLOT.size)
        os.close(descriptor)
        self._workers = workers
        self._mine = mine

    def set(self, connections: int) -> None:
        """Tell how many connections this worker has."""
        _SLOT.pack_into(self._map, self._mine * _SLOT.size, connections)

    def others_have_fewer(self, connections: int) -> bool:
        """Whether some other worker has fewer: by one where there are few, by an eighth where there are many."""
        bound = connections - connections // 8
        return any(
            _SLOT.unpack_from(self._map, slot * _SLOT.size)[0] < bound
            for slot in range(self._workers)
            if slot != self._mine
        )


def shared_loads(workers: int) -> int:
    """A descriptor of memory for `Loads`, all zero; a worker that is not there counts as infinitely busy."""
    descriptor = os.memfd_create("loads", os.MFD_CLOEXEC)
    os.truncate(descriptor, workers * _SLOT.size)
    for slot in range(workers):
        retire(descriptor, slot)
    return descriptor


def retire(descriptor: int, slot: int) -> None:
    """The worker of this slot is gone: nobody shall leave connections to it."""
    os.pwrite(descriptor, _SLOT.pack(2**31 - 1), slot * _SLOT.size)
