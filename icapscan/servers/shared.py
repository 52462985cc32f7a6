"""What all ICAP connections of a worker have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from icapscan.servers.generation import Generation
from icapscan.servers.outbox import Turn
from icapscan.servers.record import Observer

if TYPE_CHECKING:
    from icapscan.servers.icap import IcapProtocol


class Shared:
    """The configuration that new transactions get, the limit on connections, and whom to tell what."""

    __slots__ = (
        "connections",
        "count_changed",
        "draining",
        "generation",
        "limit",
        "observer",
        "on_error",
        "surplus",
        "turn",
    )

    def __init__(
        self, generation: Generation, observer: Observer, limit: int, on_error: Callable[[str, BaseException], None]
    ) -> None:
        self.generation = generation
        self.observer = observer
        self.limit = limit
        """Connections that this worker serves at a time."""
        self.on_error = on_error
        """Told about a mistake of ours: a sentence and the exception."""
        self.connections: set[IcapProtocol] = set()
        self.surplus: set[IcapProtocol] = set()
        """Connections over the limit that are being told so."""
        self.turn = Turn()
        self.count_changed: Callable[[int], None] = lambda count: None
        """Told how many connections there are whenever that changes."""
        self.draining = False
