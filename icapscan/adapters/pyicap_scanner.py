"""Our scanner for a program that works in threads: an event loop in a thread of its own, driven from any other.

A `ScannerThread` holds what one worker of ``icapscan serve`` holds: engines, purse, policy, ISTag. A `Conversation` is
one ICAP transaction on it, with the very exchange that our own server uses, so that each answer is the same.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, Self, TypeVar, overload

import uvloop
from msgspec import Struct
from msgspec.structs import replace

from icapscan.engines.build import build_engines
from icapscan.engines.cache import ReportCache
from icapscan.engines.clamd_control import available
from icapscan.engines.rules import compile_rules
from icapscan.errors import IcapscanError
from icapscan.findings import Verdict
from icapscan.pipeline import Scanner, Subject
from icapscan.servers import replies
from icapscan.servers.exchange import Exchange, FixedExchange
from icapscan.servers.generation import Generation
from icapscan.servers.istag import istag
from icapscan.servers.notifying import Notifiers
from icapscan.servers.pages import page_maker
from icapscan.servers.record import Observer
from icapscan.servers.replies import Reply
from icapscan.servers.scan_exchange import open_exchange
from icapscan.servers.settings import Settings
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore, Purse
from icapscan.wire.icap_events import HttpHeads, RequestHead

BATCH = 64 * 1024
"""Bytes of a body that are gathered before the event loop is woken for them: waking it costs more than a small scan."""
AHEAD = 4
"""Batches that may wait for the event loop; a faster sender waits with the thread that reads it."""
SELF_TEST_SECONDS = 4.0
"""So long an engine may take for the EICAR test file until it counts as hung."""
_OPTIONS = Reply(200, "options")
_log = logging.getLogger("icapscan")
T = TypeVar("T")


class ScannerClosed(IcapscanError):
    """The scanner ended before there was a verdict."""

    retry = True

    def __init__(self) -> None:
        super().__init__("The scanner is closed.")


class Answer(Struct, frozen=True):
    """One final answer, ready to be sent."""

    status: int
    opening: bytes
    """ICAP head and encapsulated HTTP head, as they travel."""
    body: bytes | PartStore | None
    """To be sent in chunks; None: no body follows."""
    trailers: bytes = b""
    close: bool = False
    unread: bool = False
    """The client may still be sending its body."""


class ScannerThread:
    """The engines of one configuration, and the event loop that they live on. Its methods may be called in any thread.

    As a context manager it is closed at the end. Settings come from `icapscan.config.load`, or are made by hand.
    """

    def __init__(self, settings: Settings, observer: Observer = lambda record: None) -> None:
        """Compile the rules, connect the engines as ``icapscan serve`` does, and test them once.

        ``observer`` is told of each transaction, as a rule on the event loop. Raises `ConfigError` and `RuleError`. An
        engine that does not answer is no error (`failed` names it): what it should have scanned is answered 500.
        """
        self.settings = settings
        self.observer = observer
        self.failed: dict[str, str] = {}
        """Engines that did not find the EICAR test file when last asked, each with a sentence."""
        self._lock = threading.Lock()
        self._closed = False
        self._pending: set[Future[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.open: set[Conversation] = set()
        """Conversations that hold a part of the purse. Touched on the event loop only."""
        self._build()
        self._stop = asyncio.Event()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="icapscan-scanner", daemon=True)
        self._thread.start()
        try:
            self.submit(self._check_engines).result()
            self.submit(self._start_polling).result()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        settings, engines = self.settings, self.settings.engines
        rules = compile_rules(engines.yara.rules) if engines.yara.enabled else None
        clamd = available(engines.clamd)
        cache = ReportCache(settings.cache) if settings.cache.enabled else None
        most = engines.clamd.connections
        self._engines = build_engines(engines, rules, clamd_addresses=clamd, connections=most, cache=cache)
        # as the supervisor has them: a self-test does not wait behind the scans of a busy hour
        self._tested = build_engines(engines, rules, clamd_addresses=clamd, connections=1)
        self._versions: dict[str, str] = {}
        self._notifiers = Notifiers(1)
        limits = settings.limits
        purse = Purse(limits.memory, limits.disk)
        scanner = Scanner(self._engines, limits, purse, settings.server.spool, settings.unwrap)
        self.generation = Generation(
            settings, scanner, "", page_maker(settings.page), notifier=self._notifiers.get(settings)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def istag(self) -> str:
        """The ISTag as of now."""
        return self.generation.stationery.istag

    def scan(self, chunks: Iterable[bytes], subject: Subject | None = None) -> Verdict:
        """The verdict on a body that comes in pieces of any size; what is done about it is up to the caller.

        Never CLEAN unless all of it was scanned by every engine. Raises `ScannerClosed`, and `StoreFull` where there is
        no room to keep the body. A body over ``limits.body`` is not read to its end.
        """
        scan = self.submit(lambda: self.generation.scanner.begin(subject or Subject())).result()
        try:
            for batch in _batches(chunks):
                self.submit(partial(scan.feed, batch)).result()
                if scan.over_body_limit:
                    return self.submit(scan.verdict_so_far).result()
            return self.submit(scan.finish).result()
        finally:
            self.submit_last(scan.close)

    def begin(self, head: RequestHead, heads: HttpHeads, client: str) -> Conversation:
        """One ICAP transaction, whose ``client`` is ``host:port``. Whoever calls this closes it."""
        return Conversation(self, head, heads, client)

    @overload
    def submit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]: ...

    @overload
    def submit(self, work: Callable[[], T | Coroutine[Any, Any, T]]) -> Future[T]: ...

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Have ``work``, or the coroutine that it makes, run on the event loop, in the order of the calls.

        Raises `ScannerClosed`, and so does the future when the scanner is closed meanwhile.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise ScannerClosed
            self._pending.add(future)
            self._loop.call_soon_threadsafe(self._do, work, future)
        return future

    def submit_last(self, free: Callable[[], None]) -> None:
        """Have something freed on the event loop; after its end here and now, when nobody else can touch it."""
        try:
            self.submit(free)
        except ScannerClosed:
            self._thread.join()
            free()

    def close(self) -> None:
        """End: who still waits for a verdict gets `ScannerClosed`. Idempotent; returns when all is over."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # On the event loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            with self._lock:
                self._closed = True
                pending, self._pending = self._pending, set()
            for future in pending:
                future.set_exception(ScannerClosed())
            self._loop.close()

    async def _live(self) -> None:
        await self._stop.wait()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for conversation in tuple(self.open):
            conversation.end_of_scanner()
        await asyncio.gather(self._engines.close(), self._tested.close())
        await asyncio.to_thread(self._notifiers.close)

    def _do(self, work: Callable[[], Any], future: Future[Any]) -> None:
        try:
            result = work()
        except Exception as error:
            self._settle(future, None, error)
            return
        if not isinstance(result, Coroutine):
            self._settle(future, result)
            return
        task = self._loop.create_task(result)
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, future))

    def _done(self, future: Future[Any], task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = ScannerClosed() if task.cancelled() else task.exception()
        self._settle(future, None if error else task.result(), error)

    def _settle(self, future: Future[Any], result: Any, error: BaseException | None = None) -> None:
        with self._lock:
            if future not in self._pending:
                return  # it was told of the end already
            self._pending.discard(future)
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _start_polling(self) -> None:
        self._tasks.add(self._loop.create_task(self._poll()))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.settings.engines.clamd.poll)
            try:
                await self._check_engines()
            except Exception as error:  # no verdict depends on it
                _log.error("The engines could not be looked after.", exc_info=error)

    async def _check_engines(self) -> None:
        """Self-test and versions; a new ISTag, and nothing remembered, where the engines changed by themselves."""
        tested, versions = await asyncio.gather(self._tested.self_test(SELF_TEST_SECONDS), self._tested.versions())
        failed = {name: why for name, why in tested.items() if why is not None}
        for name in failed.keys() - self.failed.keys():
            _log.error("Engine %s is not ready: %s", name, failed[name])
        self.failed = failed
        self._versions.update({name: version for name, version in versions.items() if version is not None})
        tag = istag(self._versions, self.settings)
        if tag != self.istag:
            self.generation.set_istag(tag)
            self._engines.forget()


class Conversation:
    """One ICAP transaction, led by the thread that reads its client.

    Call `feed` for each piece of the body, `preview_end` where a preview ended and there is more, `end`; the first
    answer that one of them gives is final. `close` at the end, whatever happened. Each raises `ScannerClosed`, or
    whatever went wrong on the event loop: no answer then, and least of all 204.
    """

    def __init__(self, scanner: ScannerThread, head: RequestHead, heads: HttpHeads, client: str) -> None:
        self._scanner = scanner
        # 206 would need offsets that nobody here knows how to write
        self._head = replace(head, allow_206=False) if head.allow_206 else head
        self._heads = heads
        self._client = client
        self._pieces: list[bytes] = []
        self._size = 0
        self._handed: deque[Future[None]] = deque()
        self._now: Transaction | None = None
        self._exchange: Exchange | None = None
        self._answer: Answer | None = None
        """Set on the event loop."""
        self._reply: Reply | None = None

    # In the thread of the connection

    def feed(self, data: bytes) -> Answer | None:
        """More of the body. An answer: the rest of it need not be read."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= BATCH:
            batch = self._take()
            self._handed.append(self._scanner.submit(lambda: self._feed(batch)))
            while len(self._handed) > AHEAD:
                self._handed.popleft().result()
        return self._answer

    def preview_end(self) -> Answer | None:
        """The preview ended and there is more; None asks for it."""
        return self._scanner.submit(partial(self._end_preview, self._take())).result()

    def end(self, trailers: bytes, within_preview: bool) -> Answer:
        """The request is complete. ``within_preview``: a preview was announced, and no more than that was needed."""
        return self._scanner.submit(partial(self._end, self._take(), trailers, within_preview)).result()

    def close(self) -> None:
        """Free everything. Idempotent."""
        answer = self._answer
        if answer is not None and not isinstance(answer.body, PartStore):
            return  # that was done with the answer
        if self._now is not None or self._handed:
            self._scanner.submit_last(self._free)

    def _take(self) -> bytes:
        batch = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return batch

    # On the event loop

    def _begin(self) -> Exchange:
        if self._exchange is not None:
            return self._exchange
        generation = self._scanner.generation
        now = self._now = Transaction(generation, asyncio.get_running_loop().time(), 0)
        self._scanner.open.add(self)
        now.client, now.head, now.heads = self._client, self._head, self._heads
        route = now.route = generation.routes.get(self._head.path)
        method = self._head.method
        if route is None:
            self._exchange = FixedExchange(replies.error(404, "There is no service at this path."))
        elif method in route.methods:
            self._exchange = open_exchange(now)
            if self._head.encapsulated.has_body and not generation.scanner.purse.is_open():
                self._say(replies.error(503, "There is no room to keep another body."), unread=True)
        elif method == b"OPTIONS":
            self._exchange = FixedExchange(_OPTIONS)
        else:
            self._exchange = FixedExchange(replies.error(405, f"This service does not do {method.decode()}."))
        return self._exchange

    def _feed(self, batch: bytes) -> None:
        exchange = self._begin()
        if self._answer is None and batch:
            reply = exchange.body(batch)
            if reply is not None:
                self._say(reply, unread=True)

    def _end_preview(self, batch: bytes) -> Answer | None:
        self._feed(batch)
        if self._answer is None:
            reply = self._begin().preview_end()
            if reply is not None:
                self._say(reply)
        return self._answer

    def _end(self, batch: bytes, trailers: bytes, within_preview: bool) -> Answer | Coroutine[Any, Any, Answer]:
        self._feed(batch)
        if self._answer is not None:
            return self._answer
        exchange, now = self._begin(), self._now
        assert now is not None
        now.received = time.perf_counter()
        outcome: Any = exchange.end(trailers, within_preview)
        return self._say(outcome) if isinstance(outcome, Reply) else self._say_later(outcome)

    async def _say_later(self, outcome: Coroutine[Any, Any, Reply]) -> Answer:
        return self._say(await outcome)

    def _say(self, reply: Reply, *, unread: bool = False) -> Answer:
        """The answer to send. Everything is freed at once, unless a large body is still to be read from its store."""
        now = self._now
        assert now is not None
        close, body = unread or reply.close or self._head.close, reply.body
        if reply.label == "options":
            assert now.route is not None
            most = now.generation.settings.server.max_connections
            opening = now.stationery.options(now.route.name, now.route.settings, most, close=close)
        else:
            opening = now.stationery.head(reply.status, reply.fields, reply.heads, body is not None, close)
        wire = b"".join((opening.encode(), reply.heads.req_hdr or b"", reply.heads.res_hdr or b""))
        if isinstance(body, PartStore):
            small = body.contents()
            body = small if small is not None else body
        self._reply = reply
        if not isinstance(body, PartStore):
            self._free()
        self._answer = answer = Answer(reply.status, wire, body, reply.trailers, close, unread)
        return answer

    def end_of_scanner(self) -> None:
        """No more verdict comes. A store that is being copied to a client is left to the thread that does it."""
        if self._answer is None:
            self._free()

    def _free(self) -> None:
        now, exchange = self._now, self._exchange
        if now is None or self not in self._scanner.open:
            return
        self._scanner.open.discard(self)
        if exchange is not None:
            exchange.close()
        now.conclude(self._reply, self._reply.detail if self._reply else "There was no answer.", self._client, 0)
        now.generation.leave()
        self._scanner.observer(now)


def _batches(chunks: Iterable[bytes]) -> Iterable[bytes]:
    pieces: list[bytes] = []
    size = 0
    for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size >= BATCH:
            yield b"".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield b"".join(pieces)
