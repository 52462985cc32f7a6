"""The door to unwrapping: a body as it arrives in, part events out.

The virgin body is always a part, whatever is declared. A declared content coding gives a second reading of it. Full
unwrapping of mail and archives comes in here later: it feeds on the parts that are made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB, Budget
from icapscan.unwrap.codings import Chain, parse
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.streams import Buffer

JOINED_MAX = 256 * KIB
"""Decoded bytes that are kept to be scanned once more together with what stands behind the end of a coding."""
_NOTHING: tuple[PartEvent, ...] = ()
_CODING_PATH = "content-coding"


class Walker:
    """Takes one body apart.

    `feed` and `finish` return events that are made while they are iterated over, so that the output of one piece of
    input never has to be kept as a whole: iterate over all of it before the next call. Neither raises.
    """

    __slots__ = (
        "_begin",
        "_budget",
        "_chain",
        "_flow",
        "_kept",
        "_kept_size",
        "_media_type",
        "_name",
        "_part",
        "_plain",
        "_trailing",
        "_waiting",
    )

    def __init__(
        self, budget: Budget, *, content_encoding: bytes = b"", name: str | None = None, media_type: str | None = None
    ) -> None:
        self._budget = budget
        self._name = name
        self._media_type = media_type
        self._begin: list[PartEvent] = [PartBegin("", name, media_type, virgin=True)]
        budget.take_part(0)
        self._chain: Chain | None = None
        self._flow: Iterator[bytes] | None = None
        self._waiting: list[Buffer] = []
        self._part: PartBegin | None = None
        """The decoded reading that is open."""
        self._kept: list[bytes] | None = []
        self._kept_size = 0
        self._trailing = False
        """What comes now stood behind the end of the coding."""
        if content_encoding:
            self._declare(content_encoding)
        self._plain = self._chain is None

    def feed(self, data: Buffer) -> Iterable[PartEvent]:
        """More of the virgin body."""
        if self._plain:
            return self._take_begin() if self._begin else _NOTHING
        self._waiting.append(data)
        return self._events()

    def finish(self) -> Iterable[PartEvent]:
        """The body is complete; the virgin part ends last."""
        if not self._plain:
            yield from self._events()
        if self._chain is not None:
            yield from self._decoded(self._chain.finish())
        if self._chain is not None:
            yield from self._close(self._chain)
        yield from self._take_begin()
        yield PartEnd("")

    def _declare(self, content_encoding: bytes) -> None:
        try:
            codings = parse(content_encoding)
        except Stop as stop:
            if stop.reason is Reason.OVER_LIMIT:
                self._budget.exhaust("content codings")
            self._begin += [
                PartBegin(_CODING_PATH, self._name, self._media_type, reading=1),
                PartFailed(_CODING_PATH, stop.reason, stop.detail),
            ]
            return
        if codings:
            self._chain = Chain(codings, Gate(self._budget))

    def _take_begin(self) -> list[PartEvent]:
        events, self._begin = self._begin, []
        return events

    def _events(self) -> Iterator[PartEvent]:
        yield from self._take_begin()
        while self._chain is not None:
            if self._flow is None:
                if not self._waiting:
                    return
                self._flow = self._chain.decode(self._waiting.pop(0))
            yield from self._decoded(self._flow)
            self._flow = None
        self._waiting.clear()

    def _decoded(self, pieces: Iterator[bytes]) -> Iterator[PartEvent]:
        """Part events for decoded pieces; a `Stop` ends the part and all further decoding."""
        chain = self._chain
        assert chain is not None
        try:
            for piece in pieces:
                if chain.applied:
                    yield from self._piece(chain, piece)
                elif chain.applied is False:
                    break  # nothing is coded: the virgin part is all there is
        except Stop as stop:
            yield from self._stopped(chain, stop)
            return
        if chain.applied is False:
            yield self._anomaly("coding-not-applied", f"declared: {chain.name}")
            self._drop()

    def _piece(self, chain: Chain, piece: bytes) -> Iterator[PartEvent]:
        if chain.ended and not self._trailing:
            self._trailing = True
            if self._part is not None:
                yield from self._join(self._part)
        if self._part is None:
            yield from self._open(PartBegin(chain.name, self._name, self._media_type, reading=1))
            if self._chain is None:
                return
        if self._part is not None:
            self._keep(piece)
            yield PartData(self._part.path, piece)

    def _keep(self, piece: bytes) -> None:
        if self._kept is not None and not self._trailing:
            self._kept.append(piece)
            self._kept_size += len(piece)
            if self._kept_size > JOINED_MAX:
                self._kept = None

    def _join(self, part: PartBegin) -> Iterator[PartEvent]:
        """Something stands behind the end of the coding: scan both the decoded part alone and all of it together."""
        kept, self._kept = self._kept, None
        if kept is None:
            raise Stop(Reason.MALFORMED, "There is something behind the end of the coded content.")
        yield PartEnd(part.path)
        self._part = None
        yield from self._open(PartBegin(f"{part.path}/joined", part.name, part.media_type, reading=2))
        for piece in kept:
            yield PartData(f"{part.path}/joined", piece)

    def _open(self, part: PartBegin) -> Iterator[PartEvent]:
        self._part = part
        yield part
        if not self._budget.take_part(1):
            yield PartFailed(part.path, Reason.OVER_LIMIT, f"The limit on {self._budget.spent} was reached.")
            self._drop()

    def _stopped(self, chain: Chain, stop: Stop) -> Iterator[PartEvent]:
        if self._part is None:
            yield from self._open(PartBegin(chain.name, self._name, self._media_type, reading=1))
        if self._part is not None:
            yield PartFailed(self._part.path, stop.reason, stop.detail)
        self._drop()

    def _close(self, chain: Chain) -> Iterator[PartEvent]:
        """The end of a body that was decoded without an error."""
        wrong = chain.not_applied()
        for name in chain.trailing():
            yield self._anomaly("junk-after-coding", name)
        doubts = chain.doubts() + [f"The content coding {name} is declared but was not applied." for name in wrong]
        if self._part is not None and doubts:
            yield PartFailed(self._part.path, Reason.MALFORMED, doubts[0])
        elif doubts and chain.applied:
            yield from self._stopped(chain, Stop(Reason.MALFORMED, doubts[0]))
        elif self._part is not None:
            yield PartEnd(self._part.path)
        self._drop()

    def _anomaly(self, kind: str, detail: str) -> AnomalyFound:
        return AnomalyFound(Anomaly(kind, "", detail))

    def _drop(self) -> None:
        """Decode no further."""
        self._chain = self._flow = self._part = self._kept = None
        self._waiting.clear()
        self._plain = True
