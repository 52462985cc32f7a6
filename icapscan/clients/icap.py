"""The public ICAP client: give it a body, get a verdict, or an exception that never means clean (PROTOCOL B)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Self

from msgspec.structs import replace

from icapscan.clients.address import parse_url
from icapscan.clients.answer import Answer
from icapscan.clients.cache import VerdictCache
from icapscan.clients.compose import Composer, Question
from icapscan.clients.errors import ClientTimeout, ConnectionLost, NotOffered, ServerRefused, Stage, refusal
from icapscan.clients.exchange import Exchange, Request
from icapscan.clients.options import OptionsCache, ServerOptions, read_options
from icapscan.clients.pool import ConnectionPool
from icapscan.clients.result import Asked, Mode, ScanResult, istag_of, judge
from icapscan.clients.settings import ClientSettings
from icapscan.clients.source import Body, GrowingBody, Source, sha256_of, source_of
from icapscan.limits import MIB
from icapscan.wire.icap_compose import Described

_HASH_INLINE = 1 * MIB


class IcapClient:
    """Scans bodies with one ICAP service over a pool of connections. One event loop; any number of tasks.

    ``url``: ``icap://host[:1344]/service`` or ``icaps://host[:11344]/service``. Raises `InvalidArgument` for another.
    """

    def __init__(self, url: str, *, settings: ClientSettings | None = None) -> None:
        self._settings = settings or ClientSettings()
        self._address = parse_url(url)
        self._composer = Composer(self._address, self._settings)
        self._pool = ConnectionPool(self._address, self._settings)
        self._options = OptionsCache(self._fetch_options, self._settings.options_retry)
        self._cache = VerdictCache(self._settings.cache_entries, self._settings.cache_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the idle connections; a transaction that still runs closes its own when it ends."""
        self._options.close()
        self._pool.close()
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        """The service's URL as it is sent."""
        return self._address.uri

    @property
    def busy(self) -> int:
        """Connections in use now."""
        return self._pool.in_use

    @property
    def idle(self) -> int:
        """Connections that wait to be used again."""
        return self._pool.idle

    async def options(self) -> ServerOptions:
        """Ask the service for its OPTIONS now. Raises `ClientError`."""
        return await self._options.renew()

    async def scan(
        self,
        body: Body,
        *,
        name: str = "",
        media_type: str = "application/octet-stream",
        mode: Mode = Mode.RESPMOD,
        client_ip: str | None = None,
        user: str | None = None,
        mail_from: str | None = None,
        rcpt_to: tuple[str, ...] = (),
        adapt: bool = False,
    ) -> ScanResult:
        """The service's verdict on ``body``: bytes, a part store, or a seekable binary file (read from its start).

        A `GrowingBody` is sent while it arrives; the time for the whole transaction begins with its end, and how long
        it may take until then is the affair of whoever writes it.

        ``mail_from`` and ``rcpt_to`` are the envelope of a mail; ``adapt`` asks for the adapted body where it differs
        (then close the result). Raises `ClientError` (see `icapscan.clients.errors`), or `StoreFull` when the adapted
        body cannot be kept. Whatever is raised, the body was not found clean.
        """
        source = source_of(body)
        what = Described(name, media_type, None, mail_from=mail_from, rcpt_to=rcpt_to)
        question = Question(mode, what, client_ip, user)
        async with within(self._settings.timeouts.total, Stage.TOTAL, body):
            options = await self._known_options()
            if options.methods and mode.value.decode() not in options.methods:
                raise NotOffered(f"{self.url} does not offer {mode.value.decode()}.")
            key = await self._cache_key(source, question)
            if key is not None and not adapt and (kept := self._cache.get(key, time.monotonic())) is not None:
                return replace(kept, cached=True)
            result = await self._scan(source, question, options, adapt)
        if key is not None:
            self._cache.put(key, result, time.monotonic())
        return result

    # One scan

    async def _known_options(self) -> ServerOptions:
        if self._settings.options == "never":
            return ServerOptions()
        return await self._options.current(strict=self._settings.options == "strict")

    async def _scan(self, source: Source, question: Question, options: ServerOptions, adapt: bool) -> ScanResult:
        """Ask; once more after 408, and once more with all sections after 418 (PROTOCOL C37)."""
        request_head = self._settings.request_head
        again: set[int] = set()
        if isinstance(source, GrowingBody):
            await source.reach(self._composer.preview(_HASH_INLINE, question.what.name, options) or 0)
        while True:
            request = self._composer.scan(source, question, options, request_head=request_head)
            try:
                answer = await self._transact(request, source, adapt, fresh=bool(again))
                try:
                    return self._judged(answer, request, question.mode)
                finally:
                    answer.close()  # what the result keeps was taken out
            except ServerRefused as error:
                lacks_head = not request_head and question.mode is Mode.RESPMOD
                worth = error.status == 408 or (error.status == 418 and lacks_head)
                if not worth or error.status in again:
                    raise
                again.add(error.status)
                request_head = request_head or error.status == 418

    def _judged(self, answer: Answer, request: Request, mode: Mode) -> ScanResult:
        if answer.head is not None and (istag := istag_of(answer.head)) is not None:
            self._cache.seen(istag)
            self._options.seen(istag)
        head = request.head
        may_204 = head.allow_204 or head.preview is not None
        return judge(answer, Asked(mode, self.url, may_204, head.allow_206, request.heads.req_hdr))

    async def _transact(self, request: Request, source: Source | None, keep: bool, *, fresh: bool = False) -> Answer:
        """The complete answer; a reused connection that was already dead is replaced once (PROTOCOL C40)."""
        while True:
            link = await self._pool.acquire(fresh=fresh)
            answer = Answer(source, self._settings, keep=keep)
            exchange = Exchange(link, request, answer, self._settings.timeouts)
            reusable = False
            try:
                await exchange.run()
                reusable = exchange.reusable
                return answer
            except ConnectionLost:
                answer.close()
                if not link.reused or exchange.answer_began:
                    self._options.expire()
                    raise
                fresh = True
            except BaseException:
                answer.close()
                raise
            finally:
                self._pool.release(link, reusable=reusable)

    async def _cache_key(self, source: Source, question: Question) -> Hashable | None:
        """The bytes, and everything else that the server is told of them. None: no cache."""
        if not self._settings.cache_entries or not source.ended:
            return None
        if source.size <= _HASH_INLINE:
            return (sha256_of(source), question)
        return (await asyncio.to_thread(sha256_of, source), question)

    # OPTIONS

    async def _fetch_options(self) -> ServerOptions:
        request = self._composer.options()
        async with within(self._settings.timeouts.options, Stage.ANSWER):
            answer = await self._transact(request, None, keep=False)
        head = answer.head
        assert head is not None
        if head.status != 200:
            raise refusal(head.status, head.reason.decode("latin-1"), None)
        istag = istag_of(head)
        options = read_options(head.fields, istag)
        self._cache.seen(istag)
        self._pool.limit(options.max_connections)
        return options


@asynccontextmanager
async def within(seconds: float, stage: Stage, body: Body | None = None) -> AsyncIterator[None]:
    """Cancel what is inside after ``seconds`` (from the end of a growing body on), and raise `ClientTimeout` then."""
    growing = body if isinstance(body, GrowingBody) and not body.ended else None
    try:
        async with asyncio.timeout(None if growing else seconds) as limit:
            if growing is None:
                yield
                return

            def changed() -> None:
                if growing.ended and limit.when() is None:
                    limit.reschedule(asyncio.get_running_loop().time() + seconds)

            growing.watch(changed)
            try:
                yield
            finally:
                growing.unwatch(changed)
    except TimeoutError as error:
        raise ClientTimeout(stage, seconds) from error
