"""The public ICAP client: give it a body, get a verdict, or an exception that never means clean (PROTOCOL B)."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Self

from msgspec import Struct
from msgspec.structs import replace

from icapscan.clients.address import parse_url
from icapscan.clients.answer import Answer
from icapscan.clients.cache import VerdictCache
from icapscan.clients.errors import (
    ClientTimeout,
    ConnectionLost,
    InvalidArgument,
    NotOffered,
    ServerRefused,
    Stage,
    refusal,
)
from icapscan.clients.exchange import Exchange, Request
from icapscan.clients.options import OptionsCache, ServerOptions, read_options
from icapscan.clients.pool import ConnectionPool
from icapscan.clients.result import Asked, Mode, ScanResult, istag_of, judge
from icapscan.clients.settings import ClientSettings
from icapscan.clients.source import Body, Source, sha256_of, source_of
from icapscan.errors import LocalProtocolError
from icapscan.limits import MIB
from icapscan.wire.encapsulated import BodyKind
from icapscan.wire.icap_compose import Described, compose_request, reqmod_heads, respmod_heads
from icapscan.wire.icap_events import HttpHeads

_HASH_INLINE = 1 * MIB
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Sender(Struct, frozen=True):
    """Who the body comes from, as far as the server is told."""

    client_ip: str | None = None
    user: str | None = None


class IcapClient:
    """Scans bodies with one ICAP service over a pool of connections. One event loop; any number of tasks.

    ``url``: ``icap://host[:1344]/service`` or ``icaps://host[:11344]/service``. Raises `InvalidArgument` for another.
    """

    def __init__(self, url: str, *, settings: ClientSettings | None = None) -> None:
        self._settings = settings or ClientSettings()
        self._address = parse_url(url)
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

        ``mail_from`` and ``rcpt_to`` are the envelope of a mail; ``adapt`` asks for the adapted body where it differs
        (then close the result). Raises `ClientError` (see `icapscan.clients.errors`), or `StoreFull` when the adapted
        body cannot be kept. Whatever is raised, the body was not found clean.
        """
        source = source_of(body)
        what = Described(name, media_type, source.size, self._settings.host, _http_date(), mail_from, rcpt_to)
        sender = Sender(client_ip, user)
        async with within(self._settings.timeouts.total, Stage.TOTAL):
            options = await self._known_options()
            if options.methods and mode.value.decode() not in options.methods:
                raise NotOffered(f"{self.url} does not offer {mode.value.decode()}.")
            key = await self._cache_key(source, what, sender, mode)
            if key is not None and not adapt and (kept := self._cache.get(key, time.monotonic())) is not None:
                return replace(kept, cached=True)
            result = await self._scan(source, what, sender, mode, options, adapt)
        if key is not None:
            self._cache.put(key, result, time.monotonic())
        return result

    # One scan

    async def _known_options(self) -> ServerOptions:
        if self._settings.options == "never":
            return ServerOptions()
        return await self._options.current(strict=self._settings.options == "strict")

    async def _scan(
        self, source: Source, what: Described, sender: Sender, mode: Mode, options: ServerOptions, adapt: bool
    ) -> ScanResult:
        """Ask; once more after 408, and once more with all sections after 418 (PROTOCOL C37)."""
        request_head = self._settings.request_head
        again: set[int] = set()
        while True:
            request = self._compose(source, what, sender, mode, options, request_head)
            asked = self._asked(request, mode)
            try:
                answer = await self._transact(request, source, adapt, fresh=bool(again))
                try:
                    return self._judged(answer, asked)
                finally:
                    answer.close()  # what the result keeps was taken out
            except ServerRefused as error:
                worth = error.status == 408 or (error.status == 418 and not request_head and mode is Mode.RESPMOD)
                if not worth or error.status in again:
                    raise
                again.add(error.status)
                request_head = request_head or error.status == 418

    def _judged(self, answer: Answer, asked: Asked) -> ScanResult:
        if answer.head is not None and (istag := istag_of(answer.head)) is not None:
            self._cache.seen(istag)
            self._options.seen(istag)
        return judge(answer, asked)

    def _asked(self, request: Request, mode: Mode) -> Asked:
        head = request.head
        may_204 = head.allow_204 or head.preview is not None
        return Asked(mode, self.url, may_204, head.allow_206, request.heads.req_hdr)

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

    def _compose(
        self, source: Source, what: Described, sender: Sender, mode: Mode, options: ServerOptions, request_head: bool
    ) -> Request:
        settings = self._settings
        kind = BodyKind.RESPONSE if mode is Mode.RESPMOD else BodyKind.REQUEST
        allow = [b"204"] if settings.allow_204 else []
        allow += [b"206"] if settings.offer_206 and "206" in options.allow else []
        allow += [b"trailers"] if settings.offer_trailers else []
        try:
            heads = respmod_heads(what, request_head=request_head) if mode is Mode.RESPMOD else reqmod_heads(what)
            head = compose_request(
                mode.value,
                self._address.uri.encode(),
                self._address.authority.encode(),
                heads,
                body=kind if source.size else BodyKind.NULL,
                preview=self._preview(source.size, what.name, options),
                allow=allow,
                extra=[*self._common(), *self._identity(sender, options)],
                close=not settings.keep_alive,
            )
        except (LocalProtocolError, UnicodeEncodeError) as error:
            raise InvalidArgument(str(error)) from error
        return Request(head, heads, source if source.size else None)

    def _preview(self, size: int, name: str, options: ServerOptions) -> int | None:
        wanted = self._settings.preview
        if wanted == "never" or not size:
            return None
        announced = options.preview_for(name) if wanted == "auto" else wanted
        return None if announced is None else min(announced, size, self._settings.preview_most)

    def _common(self) -> list[tuple[bytes, bytes]]:
        lines = [(b"Date", _http_date()), (b"User-Agent", self._settings.user_agent.encode())]
        return lines + [(name.encode(), value.encode()) for name, value in self._settings.headers]

    def _identity(self, sender: Sender, options: ServerOptions) -> list[tuple[bytes, bytes]]:
        """Who it comes from, for servers that like to know (PROTOCOL C53; draft-stecher-icap-subid-00 3)."""
        lines = []
        if sender.client_ip is not None and self._may_tell("x-client-ip", options):
            lines.append((b"X-Client-IP", sender.client_ip.encode()))
        if sender.user is not None and self._may_tell("x-authenticated-user", options):
            lines.append((b"X-Authenticated-User", base64.b64encode(b"Local://" + sender.user.encode())))
        return lines

    def _may_tell(self, header: str, options: ServerOptions) -> bool:
        wanted = self._settings.identity
        return wanted == "always" or (wanted == "auto" and header in options.include)

    async def _cache_key(self, source: Source, what: Described, sender: Sender, mode: Mode) -> Hashable | None:
        """The question: the bytes, and everything else that the server is told. None: no cache."""
        if not self._settings.cache_entries:
            return None
        inline = source.size <= _HASH_INLINE
        digest = sha256_of(source) if inline else await asyncio.to_thread(sha256_of, source)
        return (digest, mode, replace(what, date=b""), sender)

    # OPTIONS

    async def _fetch_options(self) -> ServerOptions:
        async with within(self._settings.timeouts.options, Stage.ANSWER):
            head = compose_request(
                b"OPTIONS",
                self._address.uri.encode(),
                self._address.authority.encode(),
                HttpHeads(),
                extra=self._common(),
                close=not self._settings.keep_alive,
            )
            answer = await self._transact(Request(head), None, keep=False)
        assert answer.head is not None
        if answer.head.status != 200:
            raise refusal(answer.head.status, answer.head.reason.decode("latin-1"), None)
        istag = istag_of(answer.head)
        options = read_options(answer.head.fields, istag)
        self._cache.seen(istag)
        self._pool.limit(options.max_connections)
        return options


@asynccontextmanager
async def within(seconds: float, stage: Stage) -> AsyncIterator[None]:
    """Cancel what is inside after ``seconds``, and raise `ClientTimeout` then."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise ClientTimeout(stage, seconds) from error


def _http_date() -> bytes:
    """Now, as HTTP-date (RFC 9110 5.6.7), whatever the locale is."""
    now = time.gmtime()
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    return f"{day}, {now.tm_mday:02d} {month} {now.tm_year:04d} {time.strftime('%H:%M:%S', now)} GMT".encode()
