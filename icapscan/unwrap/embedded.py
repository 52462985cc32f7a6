"""What hides in text: uuencoded, yEnc and BinHex files, ``data:`` URIs, long base64 strings in HTML, SVG and scripts.

The text itself stays a part of its own. Each thing that is found in it becomes another one.
"""

from __future__ import annotations

from collections.abc import Iterator

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap import yenc
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.embedded_search import LOOK_AHEAD, LOOK_BACK, SAVES, Kind, Search
from icapscan.unwrap.embedded_sinks import Base64Sink, Sink, YencSink, sink
from icapscan.unwrap.events import AnomalyFound, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.mime import MIME, is_text

_STEP = 64 * KIB
_BATCH = 4 * KIB
"""Text that is waited for before it is searched, so that a body in tiny pieces is not searched over and over."""
RUNS_MAX = 16
"""Times that a text is read again to bring the parts of a file in yEnc into order."""
_SHORTEST = 8
"""Bytes below which nothing can be embedded: ``data:,ab`` has none to spare."""


class TextDecoder:
    """Text in pieces; what is embedded in it as parts."""

    __slots__ = (
        "_again", "_before", "_context", "_count", "_dull", "_ended", "_key", "_line_start", "_offset", "_padded",
        "_pending", "_saves", "_sink", "_skip", "_spelled", "_to_padding", "_unstuff", "_volumes", "dotted",
    )  # fmt: skip

    def __init__(
        self,
        context: Context,
        unstuff: bool = False,
        skip: int = 0,
        to_padding: bool = False,
        spelled: bool = False,
    ) -> None:
        self._context = context
        self._spelled = spelled
        """Look for nothing but bytes that a script spells."""
        self._saves = False
        """A script in it offers something as a download."""
        self._unstuff = unstuff
        self._to_padding = to_padding
        self._padded = False
        """base64 went on behind padding."""
        self._skip = skip
        """Bytes of the text that are not looked at."""
        self._pending = b""
        self._before = b""
        """The last bytes before those."""
        self._offset = 0
        """Where in the text the pending bytes stand."""
        self._line_start = True
        """They begin a line."""
        self._dull = 0
        """So many of them go on with a run that is no base64 there."""
        self._sink: Sink | None = None
        self._key = ""
        self._count: dict[Kind, int] = {}
        self._ended = False
        self._again = -1
        """Where the data of a yEnc file begins that never ended: it may have been a pretext to hide what follows."""
        self.dotted: set[str] = set()
        """Keys of yEnc parts that a news reader would take differently."""
        self._volumes: dict[bytes, list[tuple[yenc.Piece, str]]] = {}
        """Parts of files in yEnc that have several, by the name of the file."""

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        """More text."""
        for at in range(0, len(data), _STEP):
            yield from self._guarded(bytes(data[at : at + _STEP]), False)

    def finish(self) -> Iterator[PartEvent]:
        """The text is complete."""
        return self._guarded(b"", True)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        """Other readings: yEnc with the dots of a news server; what stands behind a yEnc line without an end."""
        if self._ended:
            return
        if self.dotted and not self._unstuff:
            again = TextDecoder(self._context, unstuff=True)
            yield from _renamed(_all(again, store), self.dotted, "yenc-dots", 1)
        if self._saves:
            yield from _renamed(_all(TextDecoder(self._context, spelled=True), store), None, "bytes-in-script", 4)
        if self._padded and not self._to_padding:
            again = TextDecoder(self._context, to_padding=True)
            yield from _renamed(_all(again, store), None, "base64-padding", 3)
        if self._again >= 0:
            again = TextDecoder(self._context, skip=self._again)
            yield from _renamed(_all(again, store), None, "yenc-without-end", 2)

        files = [sorted(volumes, key=lambda volume: volume[0].start) for volumes in self._volumes.values()]
        for volumes in files:
            yield from self._joined(volumes, store)
        if not all(yenc.is_whole([piece for piece, _ in volumes]) for volumes in files):
            yield PartFailed("", Reason.UNSUPPORTED, "These are only some parts of a file in yEnc.")

    def _note_volume(self, piece: yenc.Piece | None, name: bytes) -> None:
        if piece is not None:
            self._volumes.setdefault(name.strip(), []).append((piece, self._key))

    def _joined(self, volumes: list[tuple[yenc.Piece, str]], store: PartStore) -> Iterator[PartEvent]:
        """The file that several parts in this text make up; read once for each time that they go back."""
        if len(volumes) < 2:
            return
        key = f"{volumes[0][1]}-joined"
        yield AnomalyFound(Anomaly("yenc-joined", key))
        yield PartBegin(key, reading=1)
        runs = list(_runs([path for _, path in volumes]))
        for wanted in runs[:RUNS_MAX]:
            for event in _all(TextDecoder(self._context), store):
                if isinstance(event, PartData) and event.path in wanted:
                    yield PartData(key, event.data)
        if len(runs) > RUNS_MAX:
            yield PartFailed(key, Reason.OVER_LIMIT, "The parts of this file are too many, and not in order.")
        else:
            yield PartEnd(key)

    def _guarded(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        if self._ended:
            return
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        try:
            self._context.gate.room()
            data = self._pending + data if self._pending else data
            self._pending = b""
            yield from self._pieces(data, final)
        except Stop as stop:
            self._ended = True
            yield PartFailed("", stop.reason, stop.detail)

    def _pieces(self, data: bytes, final: bool) -> Iterator[PartEvent]:
        """Use ``data`` up, and keep what cannot be judged yet."""
        at = least = 0
        search: Search | None = None
        if self._sink is not None and b"(" in data and not self._saves:  # it may be within what is taken unsearched
            self._saves = SAVES in (self._before + data).lower()
        limit = len(data) if final else max(0, len(data) - LOOK_AHEAD)
        while True:
            if self._sink is None:
                if search is None:
                    if limit < _BATCH and not final:
                        self._keep(data, 0)
                        return
                    search = Search(
                        data, self._line_start, limit, self._offset == 0, self._spelled, self._before, self._dull
                    )
                    self._dull = 0
                    self._saves |= search.saves
                found = search.first(at)
                if found is None:
                    at = max(at, limit)
                    self._dull = max(0, search.judged - at)
                    self._keep(data, at)
                    return
                number = self._count[found.kind] = self._count.get(found.kind, 0) + 1
                self._key = f"{found.kind.value}{number}"
                self._sink = sink(found, self._key, self._context.gate, self._unstuff, self._to_padding)
                at, least = found.start, found.at + 1
                if found.kind is Kind.YENC:
                    self._note_volume(yenc.piece(data[found.at : found.start]), found.name)
                    if self._again < 0:
                        self._again = self._offset + at
            stop, go_on, ended = self._sink.end(data, at, final)
            if stop > at:
                yield from self._sink.feed(data[at:stop])
            at = max(go_on, least if ended else 0)
            if not ended:
                self._keep(data, at)
                return
            yield from self._close(self._sink)
            if search is None:
                self._keep(data, at)
                data, self._pending = self._pending, b""
                limit = max(0, limit - at)
                at = 0

    def _close(self, ended: Sink) -> Iterator[PartEvent]:
        yield from ended.finish()
        self._sink = None
        if isinstance(ended, Base64Sink):
            self._padded |= ended.padded
        if isinstance(ended, YencSink):
            if ended.closed:
                self._again = -1
            if ended.stream.dotted:
                self.dotted.add(self._key)

    def _keep(self, data: bytes, at: int) -> None:
        self._pending = data[at:]
        if at:
            self._line_start = data[at - 1] == ord("\n")
        self._before = (self._before + data[max(0, at - LOOK_BACK) : at])[-LOOK_BACK:]
        self._offset += at


def _runs(keys: list[str]) -> Iterator[set[str]]:
    """Keys of yEnc parts that follow each other in the text."""
    run: set[str] = set()
    last = 0
    for key in keys:
        number = int(key.removeprefix(Kind.YENC.value))
        if number < last:
            yield run
            run = set()
        run.add(key)
        last = number
    yield run


def _all(decoder: TextDecoder, store: PartStore) -> Iterator[PartEvent]:
    for piece in store.pieces():
        yield from decoder.feed(piece)
    yield from decoder.finish()


def _renamed(events: Iterator[PartEvent], keys: set[str] | None, kind: str, number: int) -> Iterator[PartEvent]:
    """The parts of another reading, only those with ``keys`` where they are given."""
    for event in events:
        if isinstance(event, AnomalyFound):
            continue
        if not event.path:
            yield event
            return
        if keys is not None and event.path not in keys:
            continue
        path = f"{event.path}~{number}"
        if isinstance(event, PartBegin):
            yield AnomalyFound(Anomaly(kind, path))
            yield PartBegin(path, event.name, event.media_type, number, event.names)
        elif isinstance(event, PartData):
            yield PartData(path, event.data)
        elif isinstance(event, PartEnd):
            yield PartEnd(path)
        else:
            yield PartFailed(path, event.reason, event.detail)


class TextFormat:
    """Text of any kind that is not opened as a message or multipart."""

    name = "text"

    def bid(self, evidence: Evidence) -> Bid:
        """Any text may hold something; a short one is looked through at once."""
        first = evidence.first
        if len(first) < _SHORTEST or MIME.bid(evidence) is not Bid.NO:
            return Bid.NO
        if b"=ybegin " in first:
            return Bid.MAYBE  # what follows has every byte there is
        if not is_text(evidence):
            return Bid.NO
        if evidence.whole:
            search = Search(first, True, len(first))
            if not search.saves and search.first(0) is None:
                return Bid.NO
        return Bid.MAYBE

    def open(self, context: Context) -> TextDecoder:
        """A decoder that says nothing until it finds something."""
        return TextDecoder(context)


TEXT = TextFormat()
