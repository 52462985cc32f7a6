"""The tree of parts while it is walked: nodes, their paths, and what the pipeline gets of a part that is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from icapscan.findings import PartPath
from icapscan.store import PartStore
from icapscan.unwrap.contract import Declared, Decoder, WholeDecoder
from icapscan.unwrap.events import AnomalyFound, Audience, PartEvent, PartFailed, Waiting

SEGMENT_MAX = 255
"""Characters of one path segment: an archive may give each of 10,000 members a name of 64 KiB."""
_NUMBER = re.compile(r"[0-9.]+(?:~[0-9]+)?")


class PartReady(Struct, frozen=True):
    """A part is as complete as it will be. Whoever gets this owns the store (but never that of the virgin body).

    A part that failed is told of by a `PartFailed` first; what there is of it is ready all the same.
    """

    path: PartPath
    store: PartStore
    declared: Declared
    reading: int = 0
    audience: Audience = Audience.ALL
    opened: tuple[str, ...] = ()
    """Names of the formats that found parts in it; empty for a leaf."""

    @property
    def leaf(self) -> bool:
        """Nothing was found in it."""
        return not self.opened


WalkEvent = PartReady | PartFailed | AnomalyFound
"""What the walker says, with absolute paths."""


class Opened:
    """A decoder at work on a part."""

    __slots__ = ("covers", "done", "events", "name", "open", "reading", "stream", "waiting", "whole")
    stream: Decoder
    """Set where it is fed."""
    whole: WholeDecoder
    """Set where it reads the complete part."""

    def __init__(self, name: str, reading: int, covers: bool = False) -> None:
        self.name = name
        self.reading = reading
        """Added to the readings of its children."""
        self.covers = covers
        """Its children together hold every byte of the part, as long as it has no anomaly."""
        self.open: dict[str, Node] = {}
        """Children that began and did not end, by the decoder's own key."""
        self.events: Iterator[PartEvent | Waiting] | None = None
        """Of a whole decoder that has begun to read."""
        self.waiting: Waiting | None = None
        """What a whole decoder waits for."""
        self.done = False
        """It failed and gets nothing more."""


class Node:
    """A part that has begun and is not ready yet."""

    __slots__ = (
        "audience", "base", "bids", "declared", "depth", "ended", "first", "path", "reading", "said", "store",
        "streams", "troubled", "wholes",
    )  # fmt: skip

    def __init__(
        self, path: PartPath, declared: Declared, store: PartStore, depth: int, reading: int, audience: Audience
    ) -> None:
        self.path = path
        self.base = child_base(path, declared.names[0] if declared.names else "")
        """Path that the keys of its children are joined to."""
        self.declared = declared
        self.store = store
        self.depth = depth
        self.reading = reading
        self.audience = audience
        self.first: bytearray | None = bytearray()
        """Its bytes until the bids are made; None afterwards."""
        self.streams: list[Opened] = []
        """Decoders that are fed."""
        self.wholes: list[Opened] = []
        """Decoders that read the part when it is complete; the first one is at work."""
        self.bids: list[str] = []
        """Formats that opened it, in the order of their bids."""
        self.said: dict[str, bool] = {}
        """Formats that found parts in it, and whether their parts cover it."""
        self.troubled = False
        """One of its decoders failed or met an anomaly."""
        self.ended = False

    def below(self) -> list[Node]:
        """The children that are not ready."""
        return [child for opened in (*self.streams, *self.wholes) for child in opened.open.values() if not child.ended]

    def ready(self) -> PartReady:
        """What the pipeline is told; the audience is what is known at the end."""
        # By their bids: which of them found something first depends on how the bytes arrived.
        opened = tuple(sorted(self.said, key=self.bids.index))
        return PartReady(self.path, self.store, self.declared, self.reading, self._audience(), opened)

    def _audience(self) -> Audience:
        """Nobody needs the whole of a part whose parts hold all of it and that can be read in one way only."""
        if self.audience is Audience.CLAMD:
            return Audience.CLAMD
        if len(self.said) == 1 and all(self.said.values()) and not self.troubled:
            return Audience.NOBODY
        # Declared to be nobody's, but then not opened, or with something odd in it.
        return Audience.ALL if self.audience is Audience.NOBODY else self.audience


def child_base(path: PartPath, name: str) -> PartPath:
    """What the children of a part are joined to: a part that only has a number brings its name along."""
    if name and _NUMBER.fullmatch(path.rpartition("/")[2]):
        segment = name_segment(name)
        if segment:
            return f"{path}/{segment}"
    return path


def name_segment(name: str) -> str:
    """A declared name as one harmless path segment; may be empty."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].strip()
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in last)
    return "" if not shown.strip(".") else shortened(shown)


def shortened(segment: str) -> str:
    """A segment within its bound, the end kept since it tells the type."""
    return segment if len(segment) <= SEGMENT_MAX else f"{segment[:200]}…{segment[-50:]}"
