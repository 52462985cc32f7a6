"""The door to unwrapping: a body in as it arrives, parts out as they become complete.

The walker owns the tree. Each part has its store and the decoders that opened it; the events of a decoder are handled
here and go no further: the pipeline hears of parts that are ready, of failures and of anomalies. Decoders that are fed
run while the body arrives. Those that need the whole part wait on a stack and advance one event a `steps`, the latest
part first, so that the event loop can breathe between two of them and few parts are kept at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeGuard

from icapscan.errors import StoreFull
from icapscan.findings import Anomaly, Reason
from icapscan.limits import Budget
from icapscan.store import PartStore
from icapscan.unwrap.coded import CodedBody
from icapscan.unwrap.contract import FIRST, Bid, Context, Declared, Decoder, Evidence, WholeDecoder
from icapscan.unwrap.events import AnomalyFound, Audience, PartBegin, PartData, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.formats import Offer, Registry, registry
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.passwords import TEXT_MAX, Passwords
from icapscan.unwrap.streams import Buffer
from icapscan.unwrap.tree import Node, Opened, PartReady, WalkEvent, shortened

NOTES_MAX = 1000
"""Failures, and anomalies, that are told one by one. Hostile bytes could make millions of them."""
_NOTHING: tuple[WalkEvent, ...] = ()
_NO_NAME = Declared()
_CODING = "content-coding"
_STANDARD = Passwords()


class Walker:
    """Takes one body apart. Nothing in the body makes a method raise.

    ``virgin`` is the store of the body: the caller appends each piece to it *before* `feed`, and nobody stores it
    twice. ``new_store`` makes the stores of parts; whoever gets a `PartReady` owns its store, `close` frees the others.
    """

    __slots__ = (
        "_anomalies", "_budget", "_coding", "_complete", "_failures", "_gate", "_halted", "_new_store", "_out", "_over",
        "_passwords", "_paths", "_reasons", "_registry", "_root", "_stack", "idle",
    )  # fmt: skip

    def __init__(
        self,
        budget: Budget,
        new_store: Callable[[], PartStore],
        virgin: PartStore,
        *,
        content_encoding: bytes = b"",
        declared: Declared = _NO_NAME,
        formats: Registry | None = None,
        passwords: Passwords | None = None,
    ) -> None:
        self._budget = budget
        self._new_store = new_store
        self._coding = content_encoding
        self._registry = formats or registry()
        self._passwords = passwords or _STANDARD
        self._complete = False
        self._root = Node("", declared, virgin, 0, 0, Audience.ALL)
        self._gate: Gate | None = None
        self._stack: list[Node] = []
        """Complete parts with decoders that read them whole; the last is at work."""
        self._out: list[WalkEvent] = []
        self._paths: set[str] = set()
        self._failures: set[PartFailed] = set()
        self._reasons: set[Reason] = set()
        self._anomalies: set[Anomaly] = set()
        self._over = False
        """A spent budget has been told."""
        self._halted = False
        self.idle = False
        """No decoder wants to be fed: `feed` need not be called."""
        budget.take_part()
        budget.rest()

    # What the caller does

    def feed(self, data: Buffer) -> Iterable[WalkEvent]:
        """More of the virgin body."""
        if self.idle:
            return _NOTHING
        self._budget.work()
        self._feed(self._root, data)
        self._budget.rest()
        if self._budget.spent is not None:
            self._halt()
        elif self._root.first is None and not self._root.streams:
            self.idle = True
        return self._taken()

    @property
    def busy(self) -> bool:
        """Parts wait to be read whole: `steps` gets on with them, at the end only where a text may be the password."""
        return bool(self._stack) and (self._complete or not self._passwords.listening)

    @property
    def waiting(self) -> Waiting | None:
        """What the next step waits for: taken before that, it blocks."""
        return self._stack[-1].wholes[0].waiting if self._stack else None

    def steps(self) -> Iterator[Iterable[WalkEvent]]:
        """Read parts whole, a bounded step at a time. May be given up at any step and be begun again."""
        while self.busy:
            self._budget.work()
            self._step()
            self._budget.rest()
            yield self._taken()

    def finish(self) -> Iterator[Iterable[WalkEvent]]:
        """The body is complete: all that is left, a bounded step at a time. The virgin part is ready last."""
        root = self._root
        self._complete = True
        if self._budget.spent is not None:
            self._halt()
        else:
            self._budget.work()
            self._end(root)
            self._budget.rest()
        yield self._taken()
        yield from self.steps()
        if not root.ended:
            self._ready(root)
            yield self._taken()

    def close(self) -> None:
        """Free the stores that nobody was given. Idempotent."""
        waiting = [*self._stack, *self._root.below()]
        self._leave_readers()
        while waiting:
            node = waiting.pop()
            waiting += node.below()
            if node is not self._root:
                node.store.close()
        for one in self._out:
            if isinstance(one, PartReady) and one.store is not self._root.store:
                one.store.close()
        self._stack.clear()
        self._out.clear()
        self._root.streams = []
        self._halted = self.idle = True

    # Bytes

    def _feed(self, node: Node, data: Buffer) -> None:
        """More bytes of a part: into its store, then to its decoders."""
        if node is not self._root and not self._keep(node, data):
            return
        if node.first is not None:
            if len(node.first) + len(data) <= FIRST:
                node.first += data
                return
            if node.first:
                node.first += data
                data = bytes(node.first)
            self._open(node, data, whole=False)
        for opened in node.streams:
            self._run(node, opened, opened.stream.feed, data)
            if node.ended or self._halted:
                return

    def _keep(self, node: Node, data: Buffer) -> bool:
        if node.ended:
            return False
        try:
            # A view is only valid now, and would keep alive what it looks at.
            node.store.append(data if isinstance(data, bytes) else bytes(data))
        except StoreFull as error:
            self._tell_failure(node, node.path, Reason.ENGINE_FAILED, str(error))
            for opened in node.streams:
                self._close_children(node, opened)
            node.streams, node.first = [], None
            self._ready(node)
            return False
        return True

    def _end(self, node: Node) -> None:
        """No more bytes of a part will come."""
        if node.first is not None:
            data = bytes(node.first)
            self._open(node, data, whole=True)
            for opened in node.streams if data else ():
                self._run(node, opened, opened.stream.feed, data)
        for opened in node.streams:
            if not self._halted:
                self._run(node, opened, opened.stream.finish)
                self._close_children(node, opened)
        if self._halted:
            self._give_up(node)
            return
        node.streams = []
        if node is self._root:
            self._stack[:0] = [node] if node.wholes else []  # it comes last, and is ready in `finish`
        elif node.wholes:
            self._stack.append(node)
        else:
            self._ready(node)

    def _ready(self, node: Node) -> None:
        if not node.ended:
            node.ended = True
            if self._passwords.listening:
                self._listen(node)
            self._out.append(node.ready())

    def _listen(self, node: Node) -> None:
        declared = node.declared
        if declared.media_type.startswith("text/") or node.audience is Audience.CLAMD:  # the subject is in the skeleton
            text = bytes(next(iter(node.store.pieces(0, TEXT_MAX)), b""))
            self._passwords.hear(text, declared.media_type, declared.charset)

    # Decoders

    def _open(self, node: Node, data: bytes | memoryview, *, whole: bool) -> None:
        """The bids are made on the first bytes; everyone who wants to opens the part."""
        node.first = None
        without: frozenset[str] = frozenset()
        if node is self._root and self._coding:
            coded = CodedBody(self._coding, self._context(node.declared, Bid.YES))
            without = coded.codings
            opened = Opened(_CODING, 1)
            opened.stream = coded
            node.streams.append(opened)
            node.bids.append(_CODING)
        if not data or node.audience is Audience.CLAMD:
            return
        sure = 0
        for offer in self._registry.offers(Evidence(bytes(data[:FIRST]), whole, node.declared), without):
            self._join(node, offer, sure)
            sure += offer.bid is Bid.YES

    def _join(self, node: Node, offer: Offer, reading: int) -> None:
        entry = offer.entry
        opened = Opened(entry.format.name, reading, entry.covers)
        node.bids.append(opened.name)
        try:
            decoder = entry.format.open(self._context(node.declared, offer.bid))
        except Exception as error:
            self._broke(node, opened, error)
            return
        if _fed(decoder):
            opened.stream = decoder
            node.streams.append(opened)
        if _reads(decoder):  # some are fed first and read the whole afterwards
            opened.whole = decoder
            node.wholes.append(opened)

    def _context(self, declared: Declared, bid: Bid) -> Context:
        if self._gate is None:
            self._gate = Gate(self._budget)
        return Context(self._budget, self._gate, declared, bid, self._passwords)

    def _run(self, node: Node, opened: Opened, step: Callable[..., Iterable[PartEvent]], *data: Buffer) -> None:
        """Let a decoder that is fed take a step."""
        try:
            for event in step(*data):
                self._handle(node, opened, event)
                if opened.done or self._halted:
                    return
        except Exception as error:
            self._broke(node, opened, error)

    def _step(self) -> None:
        """One event of the decoder that reads the last part of the stack."""
        if self._budget.spent is not None:
            self._halt()
            return
        node = self._stack[-1]
        opened = node.wholes[0]
        opened.waiting = None
        try:
            if opened.events is None:  # one that failed when it was fed gets nothing more
                opened.events = iter(opened.whole.read(node.store) if not opened.done else ())
            event = next(opened.events, None)
            if isinstance(event, Waiting):
                opened.waiting = event
                return
            if event is not None:
                self._handle(node, opened, event)
        except Exception as error:
            self._broke(node, opened, error)
            event = None
        if self._halted or (event is not None and not opened.done):
            return
        opened.events = None  # the decoder's generator frees what it holds
        self._close_children(node, opened)
        node.wholes.pop(0)
        if not node.wholes:
            self._stack.remove(node)
            if node is not self._root:  # that is ready in `finish`, behind what its last decoder may have left
                self._ready(node)

    def _broke(self, node: Node, opened: Opened, error: Exception) -> None:
        """A decoder raised: it gets nothing more, the others go on."""
        if isinstance(error, Stop):
            reason, detail = error.reason, error.detail
        elif isinstance(error, (StoreFull, MemoryError)):
            reason, detail = Reason.ENGINE_FAILED, f"There is no room to open this ({opened.name})."
        elif isinstance(error, ImportError):
            reason, detail = Reason.UNSUPPORTED, f"What opens {opened.name} is not installed: {error}"
        else:
            reason, detail = Reason.MALFORMED, f"{opened.name}: {type(error).__name__}: {str(error)[:200]}"
        self._failed(node, opened, PartFailed("", reason, detail))

    # Events

    def _handle(self, node: Node, opened: Opened, event: PartEvent) -> None:
        if isinstance(event, PartData):
            self._feed(opened.open[event.path], event.data)
        elif isinstance(event, PartBegin):
            self._begin(node, opened, event)
        elif isinstance(event, PartEnd):
            child = opened.open.pop(event.path)
            if not child.ended:
                self._end(child)
        elif isinstance(event, PartFailed):
            self._failed(node, opened, event)
        else:
            self._odd(node, event)

    def _begin(self, node: Node, opened: Opened, event: PartBegin) -> None:
        if event.path in opened.open:
            raise ValueError("a part began twice")
        path = self._new_path(node, event.path)
        if not self._budget.take_part() or self._budget.spent is not None:
            self._tell_failure(node, path, Reason.OVER_LIMIT, f"The limit on {self._budget.spent} was reached.")
            self._halt()
            return
        names = tuple(dict.fromkeys(name for name in (event.name, *event.names) if name))
        within, content_type = opened.name, event.content_type
        if opened.name == _CODING:
            within, content_type = node.declared.within, node.declared.content_type
        declared = Declared(names, event.media_type or "", event.charset, within, content_type, event.in_skeleton)
        node.said[opened.name] = opened.covers
        child = Node(path, declared, self._new_store(), node.depth + 1, event.reading + opened.reading, event.audience)
        opened.open[event.path] = child
        if not self._budget.may_open(child.depth):  # the engines still see it as it is
            child.first = None
            self._tell_failure(child, path, Reason.OVER_LIMIT, "The limit on depth was reached: it was not opened.")

    def _failed(self, node: Node, opened: Opened, event: PartFailed) -> None:
        """The decoder gives up the part itself, or one child of it."""
        if not event.path:
            opened.done = True
            node.streams = [other for other in node.streams if other is not opened]
            self._tell_failure(node, node.path, event.reason, event.detail)
            for child in self._taken_children(opened):
                self._end(child)
            return
        failed = opened.open.pop(event.path, None)
        path = failed.path if failed is not None else _joined(node, event.path)
        self._tell_failure(node, path, event.reason, event.detail)
        if failed is not None and not failed.ended:
            self._end(failed)

    def _close_children(self, node: Node, opened: Opened) -> None:
        """A decoder that forgot an end must not make its part disappear."""
        for child in self._taken_children(opened):
            self._tell_failure(node, child.path, Reason.MALFORMED, "The part did not end.")
            self._end(child)

    def _taken_children(self, opened: Opened) -> list[Node]:
        children = [child for child in opened.open.values() if not child.ended]
        opened.open = {}
        return children

    def _odd(self, node: Node, event: AnomalyFound) -> None:
        node.troubled = True
        said = event.anomaly
        anomaly = Anomaly(said.kind, _joined(node, said.part) if said.part else node.path, said.detail)
        if anomaly in self._anomalies or len(self._anomalies) > NOTES_MAX:
            return
        if len(self._anomalies) == NOTES_MAX:
            anomaly = Anomaly("more-anomalies", "", f"There are more than {NOTES_MAX}; the others are not told.")
        self._anomalies.add(anomaly)
        self._out.append(AnomalyFound(anomaly))

    def _tell_failure(self, node: Node, path: str, reason: Reason, detail: str) -> None:
        node.troubled = True
        if reason is Reason.OVER_LIMIT and self._budget.spent is not None:
            self._over = True
        failure = PartFailed(path, reason, detail)
        if failure not in self._failures and (len(self._failures) < NOTES_MAX or reason not in self._reasons):
            self._failures.add(failure)
            self._reasons.add(reason)
            self._out.append(failure)

    def _new_path(self, node: Node, key: str) -> str:
        """An absolute path that no other part has."""
        path, count = _joined(node, key), 1
        while path in self._paths:
            count += 1
            path = f"{_joined(node, key)}~{count}"
        self._paths.add(path)
        return path

    # The end

    def _halt(self) -> None:
        """The budget is spent: nothing is decoded any more, and what there is of the open parts is ready."""
        if self._halted:
            return
        self._halted = self.idle = True
        if not self._over:
            self._tell_failure(self._root, "", Reason.OVER_LIMIT, f"The limit on {self._budget.spent} was reached.")
        self._leave_readers()
        for node in (*self._stack, *self._root.below()):
            if node is not self._root:  # it may still grow; `finish` tells of it
                self._give_up(node)
        self._stack.clear()
        self._root.troubled = True
        self._root.streams = []

    def _leave_readers(self) -> None:
        """Decoders that were reading whole parts free what they hold: files, child processes."""
        for node in self._stack:
            for opened in node.wholes:
                events, opened.events = opened.events, None
                opened.done = True
                if isinstance(events, Generator):
                    try:
                        events.close()
                    except Exception:  # nothing that it would still say matters
                        continue

    def _give_up(self, node: Node) -> None:
        """The part and all parts in it are ready as they are."""
        for child in node.below():
            self._give_up(child)
        node.troubled = True
        self._ready(node)

    def _taken(self) -> Iterable[WalkEvent]:
        if not self._out:
            return _NOTHING
        out, self._out = self._out, []
        return out


def _fed(decoder: object) -> TypeGuard[Decoder]:
    return hasattr(decoder, "feed")  # isinstance with a protocol takes 10 us


def _reads(decoder: object) -> TypeGuard[WholeDecoder]:
    return hasattr(decoder, "read")


def _joined(node: Node, key: str) -> str:
    key = shortened(key)
    return f"{node.base}/{key}" if node.base else key
