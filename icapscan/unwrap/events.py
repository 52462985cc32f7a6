"""The part events that every decoder emits. Their paths are relative to the part that it opened: see `contract.py`."""

from __future__ import annotations

import enum

from msgspec import Struct

from icapscan.findings import Anomaly, PartPath, Reason


class Audience(enum.Enum):
    """Which engines are to see a part, so that no byte is scanned twice for nothing."""

    ALL = "all"
    NOT_CLAMD = "not-clamd"
    """clamd is given the container whole and unpacks it itself, e.g. members of an archive."""
    CLAMD = "clamd"
    """Made for clamd alone, e.g. the skeleton of a mail."""
    NOBODY = "nobody"
    """Its content is scanned as the parts in it, e.g. a multipart that was read in one way only."""


class PartBegin(Struct, frozen=True):
    """A part begins."""

    path: PartPath
    name: str | None = None
    media_type: str | None = None
    reading: int = 0
    names: tuple[str, ...] = ()
    """Further names that some reader might show."""
    charset: str = ""
    audience: Audience = Audience.ALL
    content_type: bytes = b""
    """Of a MIME entity, the values of its Content-Type fields with their parameters, joined by LF."""
    in_skeleton: bool = False
    """The skeleton that the decoder makes for clamd holds this part, so nothing in it needs another one."""


class PartData(Struct, frozen=True):
    """More bytes of a part that began and has not ended."""

    path: PartPath
    data: bytes | memoryview


class PartEnd(Struct, frozen=True):
    """The part is complete and may go to the engines."""

    path: PartPath


class PartFailed(Struct, frozen=True):
    """The part ends here although its input did not: what was decoded so far is scanned, the rest is UNSCANNED."""

    path: PartPath
    reason: Reason
    detail: str


class AnomalyFound(Struct, frozen=True):
    """Something is not as the standard has it; decoding went on."""

    anomaly: Anomaly


class Waiting(Struct, frozen=True):
    """A decoder that reads a whole part has nothing to give for a while, because a child process works.

    With a descriptor: until that is readable. With None: before it starts a child, so that the children of one process
    take turns. Whoever goes on at once only waits in the decoder instead.
    """

    descriptor: int | None = None


PartEvent = PartBegin | PartData | PartEnd | PartFailed | AnomalyFound
