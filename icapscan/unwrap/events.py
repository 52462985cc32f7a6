"""The part events that every decoder emits, and the contract of a decoder."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from icapscan.findings import Anomaly, PartPath, Reason


class PartBegin(Struct, frozen=True):
    """A part begins. ``virgin`` says that its bytes are those of the body itself, so that nobody stores them twice."""

    path: PartPath
    name: str | None = None
    media_type: str | None = None
    reading: int = 0
    virgin: bool = False


class PartData(Struct, frozen=True):
    """More bytes of a part that began and has not ended (never for a ``virgin`` part)."""

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


PartEvent = PartBegin | PartData | PartEnd | PartFailed | AnomalyFound


class Decoder(Protocol):
    """One format, fed with bytes as they arrive. Output is bounded by the `Budget` before it is produced."""

    def feed(self, data: bytes | memoryview) -> list[PartEvent]:
        """More input; the list may be empty when more is needed."""
        ...

    def finish(self) -> list[PartEvent]:
        """The input ended; truncation becomes a `PartFailed` or an `AnomalyFound`, never an exception."""
        ...
