"""What comes back for one request, gathered while it arrives and compared with what was sent."""

from __future__ import annotations

from icapscan.clients.errors import Malformed, NotIcap
from icapscan.clients.settings import ClientSettings
from icapscan.clients.source import Source, pieces
from icapscan.limits import MIB, Limits
from icapscan.store import PartStore, Purse
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import BodyChunk, BodyEnd, Event, Failure, HttpHeads, ResponseHead, Trailer

_WITH_BODY = frozenset({200, 201, 206})
_IN_MEMORY = 8 * MIB
_ICAP = b"ICAP/"


class FirstBytes:
    """Notices at the first bytes that the peer speaks something else (PROTOCOL C46, D121)."""

    def __init__(self) -> None:
        self._seen = b""

    def __bool__(self) -> bool:
        return bool(self._seen)

    def take(self, data: bytes) -> bool:
        """Whether anything but line ends has come by now. Raises `NotIcap`."""
        if len(self._seen) < len(_ICAP):
            self._seen = (self._seen + data[:64]).lstrip(b"\r\n")[: len(_ICAP)]
            if not _ICAP.startswith(self._seen):
                raise NotIcap(f"The peer answers {self._seen.decode('latin-1')!r}: it is not an ICAP server.")
        return bool(self._seen)


class Answer:
    """The final answer to one request. ``keep``: an adapted body that differs is stored; the owner calls `close`."""

    def __init__(self, source: Source | None, settings: ClientSettings, *, keep: bool) -> None:
        self._source = source
        self._most = settings.answer_most
        self._keep = keep
        self._received = 0
        self.head: ResponseHead | None = None
        self.heads = HttpHeads()
        self.trailer: Fields | None = None
        self.sent = 0
        """Body bytes that had been sent when the answer was complete."""
        self.whole = source is None or not source.size
        """Whether the end of the body had been sent by then."""
        self.same = True
        """So far the body is a copy of the beginning of ours."""
        self.original_from: int | None = None
        """206: where the original body goes on."""
        self.adapted: PartStore | None = None

    @property
    def size(self) -> int:
        """Bytes of the body that we sent, or were to send."""
        return self._source.size if self._source is not None else 0

    def take(self, event: Event) -> None:
        """What the codec says of the answer. Raises `Malformed`, and `StoreFull` when a body cannot be kept."""
        if isinstance(event, BodyChunk):
            self.take_body(event.data)
        elif isinstance(event, ResponseHead):
            self.head = event
        elif isinstance(event, HttpHeads):
            self.heads = event
            if self.head is not None and not self.head.encapsulated.has_body:
                self.take_no_body()
        elif isinstance(event, BodyEnd):
            self.take_end(event)
        elif isinstance(event, Trailer):
            self.trailer = event.fields
        elif isinstance(event, Failure):
            raise Malformed(f"The answer is malformed: {event.error}")

    def take_body(self, data: bytes | memoryview) -> None:
        """Some bytes of the body. Raises `Malformed` past the bound, `StoreFull` when it cannot be kept."""
        at = self._received
        count = len(data)
        self._received += count
        if self._received > self._most:
            raise Malformed(f"The body of the answer is longer than {self._most} bytes.")
        if self.head is None or self.head.status not in _WITH_BODY:
            return
        if self.same and not self._is_copy(at, data):
            self._diverge(at)
        if self.adapted is not None:
            self.adapted.append(data)

    def take_end(self, end: BodyEnd) -> None:
        """The body is complete. Raises `Malformed` for a 206 that goes on where nothing was sent (PROTOCOL C36)."""
        self.original_from = end.use_original_body
        if end.use_original_body is not None:
            self._take_original(end.use_original_body)
        elif self.same and self._received != self.size:
            self._diverge(self._received)

    def take_no_body(self) -> None:
        """The answer has no body: with a head around it, it is a copy of ours only if ours has no bytes either."""
        if self.head is not None and self.head.status in _WITH_BODY and self.heads != HttpHeads() and self.size:
            self._diverge(0)

    def close(self) -> None:
        """Free the stored body. Idempotent."""
        if self.adapted is not None:
            self.adapted.close()
            self.adapted = None

    def _is_copy(self, at: int, data: bytes | memoryview) -> bool:
        source = self._source
        if isinstance(data, memoryview):
            data = data.tobytes()  # views compare element by element, bytes at the speed of memory
        return source is not None and at + len(data) <= source.size and bytes(source.read(at, len(data))) == data

    def _diverge(self, at: int) -> None:
        """The body differs from ours after the first ``at`` bytes."""
        self.same = False
        if not self._keep:
            return
        purse = Purse(_IN_MEMORY, self._most)
        self.adapted = PartStore(purse, Limits())
        if self._source is not None:
            for piece in pieces(self._source, 0, at):
                self.adapted.append(bytes(piece))

    def _take_original(self, offset: int) -> None:
        if offset > self.sent:
            raise Malformed("The answer goes on with a part of the body that was never sent.")
        if self.same and offset == self._received:
            return
        if self.same:
            self._diverge(self._received)
        if self.adapted is not None and self._source is not None:
            for piece in pieces(self._source, offset, self._source.size):
                self.adapted.append(bytes(piece))
