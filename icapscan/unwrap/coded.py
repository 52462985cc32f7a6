"""A body with a declared Content-Encoding as a decoder: its one child is what a client gets that undoes the codings.

It is another *reading* of the body, beside the body as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB
from icapscan.unwrap.codings import Chain, parse
from icapscan.unwrap.contract import Context
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.streams import Buffer

JOINED_MAX = 256 * KIB
"""Decoded bytes that are kept to be scanned once more together with what stands behind the end of a coding."""
_KEY = "content-coding"


class CodedBody:
    """Undoes the codings of one body; a `icapscan.unwrap.contract.Decoder`."""

    __slots__ = (
        "_begin", "_chain", "_context", "_kept", "_kept_size", "_part", "_trailing",
    )  # fmt: skip

    def __init__(self, content_encoding: bytes, context: Context) -> None:
        self._context = context
        self._begin: list[PartEvent] = []
        self._chain: Chain | None = None
        self._part: str | None = None
        """Key of the decoded reading that is open."""
        self._kept: list[bytes] | None = []
        self._kept_size = 0
        self._trailing = False
        """What comes now stood behind the end of the coding."""
        try:
            codings = parse(content_encoding)
        except Stop as stop:
            if stop.reason is Reason.OVER_LIMIT:
                context.budget.exhaust("content codings")
            self._begin = [self._part_begin(_KEY), PartFailed(_KEY, stop.reason, stop.detail)]
            return
        if codings:
            self._chain = Chain(codings, context.gate)

    @property
    def codings(self) -> frozenset[str]:
        """Names of the codings that are being undone."""
        return frozenset(self._chain.name.split("+")) if self._chain is not None else frozenset()

    def feed(self, data: Buffer) -> Iterator[PartEvent]:
        """More of the body as it was sent."""
        yield from self._take_begin()
        if self._chain is not None:
            yield from self._decoded(self._chain.decode(data))

    def finish(self) -> Iterator[PartEvent]:
        """The body is complete."""
        yield from self._take_begin()
        if self._chain is not None:
            yield from self._decoded(self._chain.finish())
        if self._chain is not None:
            yield from self._close(self._chain)

    def _take_begin(self) -> list[PartEvent]:
        events, self._begin = self._begin, []
        return events

    def _decoded(self, pieces: Iterator[bytes]) -> Iterator[PartEvent]:
        """Part events for decoded pieces; a `Stop` ends the part and all further decoding."""
        chain = self._chain
        assert chain is not None
        try:
            for piece in pieces:
                if chain.applied:
                    yield from self._piece(chain, piece)
                elif chain.applied is False:
                    break  # nothing is coded: the body as it was sent is all there is
        except Stop as stop:
            yield from self._stopped(chain, stop)
            return
        if chain.applied is False:
            yield _anomaly("coding-not-applied", f"declared: {chain.name}")
            self._drop()

    def _piece(self, chain: Chain, piece: bytes) -> Iterator[PartEvent]:
        if chain.ended and not self._trailing:
            self._trailing = True
            if self._part is not None:
                yield from self._join(self._part)
        if self._part is None:
            yield from self._open(chain.name, 0)
        assert self._part is not None
        self._keep(piece)
        yield PartData(self._part, piece)

    def _keep(self, piece: bytes) -> None:
        if self._kept is not None and not self._trailing:
            self._kept.append(piece)
            self._kept_size += len(piece)
            if self._kept_size > JOINED_MAX:
                self._kept = None

    def _join(self, part: str) -> Iterator[PartEvent]:
        """Something stands behind the end of the coding: scan both the decoded part alone and all of it together."""
        kept, self._kept = self._kept, None
        if kept is None:
            raise Stop(Reason.MALFORMED, "There is something behind the end of the coded content.")
        yield PartEnd(part)
        self._part = None
        yield from self._open(f"{part}/joined", 1)
        for piece in kept:
            yield PartData(f"{part}/joined", piece)

    def _open(self, key: str, reading: int) -> Iterator[PartEvent]:
        self._part = key
        yield self._part_begin(key, reading)

    def _part_begin(self, key: str, reading: int = 0) -> PartBegin:
        declared = self._context.declared
        name = declared.names[0] if declared.names else None
        return PartBegin(key, name, declared.media_type or None, reading, names=declared.names[1:])

    def _stopped(self, chain: Chain, stop: Stop) -> Iterator[PartEvent]:
        if self._part is None:
            yield from self._open(chain.name, 0)
        assert self._part is not None
        yield PartFailed(self._part, stop.reason, stop.detail)
        self._drop()

    def _close(self, chain: Chain) -> Iterator[PartEvent]:
        """The end of a body that was decoded without an error."""
        wrong = chain.not_applied()
        for name in chain.trailing():
            yield _anomaly("junk-after-coding", name)
        doubts = chain.doubts() + [f"The content coding {name} is declared but was not applied." for name in wrong]
        if self._part is not None and doubts:
            yield PartFailed(self._part, Reason.MALFORMED, doubts[0])
        elif doubts and chain.applied:
            yield from self._stopped(chain, Stop(Reason.MALFORMED, doubts[0]))
        elif self._part is not None:
            yield PartEnd(self._part)
        self._drop()

    def _drop(self) -> None:
        """Decode no further."""
        self._chain = self._part = self._kept = None


def _anomaly(kind: str, detail: str) -> AnomalyFound:
    return AnomalyFound(Anomaly(kind, "", detail))
