"""What a service says about itself (RFC 3507 4.10.2), read tolerantly, and kept for as long as it says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from msgspec import Struct

from icapscan.clients.errors import ClientError, ConnectionLost
from icapscan.wire.fields import Fields

_ITEM = re.compile(r"[ \t,]+")


class ServerOptions(Struct, frozen=True):
    """The OPTIONS of one service. The defaults are what is assumed of a server that does not answer (PROTOCOL C5)."""

    known: bool = False
    """Whether the server said anything."""
    methods: frozenset[str] = frozenset()
    """Upper case, without OPTIONS; empty: it did not say."""
    allow: frozenset[str] = frozenset()
    """Lower case, e.g. ``204``, ``206``, ``trailers``."""
    preview: int | None = None
    """Bytes."""
    transfer_preview: frozenset[str] = frozenset()
    transfer_ignore: frozenset[str] = frozenset()
    transfer_complete: frozenset[str] = frozenset()
    """File name extensions in lower case without a dot; ``*`` is any other."""
    ttl: float | None = None
    """Seconds; None: until the ISTag changes or a connection fails."""
    max_connections: int | None = None
    istag: str | None = None
    include: frozenset[str] = frozenset()
    """X-Include: request headers that it likes to get, in lower case."""
    service: str = ""

    def preview_for(self, name: str) -> int | None:
        """Bytes of preview that it wants of a file of this name; None: the whole at once (PROTOCOL C8)."""
        extension = name.rpartition(".")[2].lower() if "." in name else ""
        if self.preview is None:
            return None
        for lists in (self.transfer_preview, self.transfer_ignore | self.transfer_complete):
            if extension and extension in lists:
                return self.preview if lists is self.transfer_preview else None
        return self.preview if "*" in self.transfer_preview else None


def read_options(fields: Fields, istag: str | None = None) -> ServerOptions:
    """The meaning of an OPTIONS answer's fields. What makes no sense counts as not said."""
    methods = frozenset(item.upper() for item in _items(fields, b"methods"))
    ttl = _number(fields, b"options-ttl")
    service = fields.get(b"service") or b""
    return ServerOptions(
        known=True,
        methods=methods & {"REQMOD", "RESPMOD"},
        allow=_lower(fields, b"allow"),
        preview=_number(fields, b"preview"),
        transfer_preview=_extensions(fields, b"transfer-preview"),
        transfer_ignore=_extensions(fields, b"transfer-ignore"),
        transfer_complete=_extensions(fields, b"transfer-complete"),
        ttl=float(ttl) if ttl else None,
        max_connections=_number(fields, b"max-connections"),
        istag=istag,
        include=_lower(fields, b"x-include"),
        service=service.decode("latin-1"),
    )


def _items(fields: Fields, name: bytes) -> list[str]:
    value = (fields.get(name) or b"").decode("latin-1")
    return [item for item in _ITEM.split(value) if item]


def _lower(fields: Fields, name: bytes) -> frozenset[str]:
    return frozenset(item.lower() for item in _items(fields, name))


def _extensions(fields: Fields, name: bytes) -> frozenset[str]:
    return frozenset(item.lower().lstrip(".") for item in _items(fields, name))


def _number(fields: Fields, name: bytes) -> int | None:
    value = (fields.get(name) or b"").strip()
    return int(value) if value.isdigit() and len(value) < 12 else None


class OptionsCache:
    """The options of one service; ``fetch`` asks for them. Asked once for all who wait, renewed in the background.

    ``retry``: seconds between two requests that no lifetime calls for.
    """

    def __init__(self, fetch: Callable[[], Awaitable[ServerOptions]], retry: float) -> None:
        self._fetch = fetch
        self._retry = retry
        self._options: ServerOptions | None = None
        self._expires: float | None = None
        self._asked_at = 0.0
        self._task: asyncio.Task[ServerOptions] | None = None

    async def current(self, *, strict: bool) -> ServerOptions:
        """What is known; asks only when nothing is. ``strict``: raises `ClientError` where a server fails to answer."""
        options = self._options
        if options is None or (strict and not options.known):
            return await self._ask(strict)
        if self._is_old():
            self._begin()
        return options

    async def renew(self) -> ServerOptions:
        """Ask now. Raises `ClientError`."""
        return await self._ask(strict=True)

    def expire(self) -> None:
        """A connection failed: what is known is still used, but asked for again, if not just now."""
        soon = self._asked_at + self._retry
        self._expires = soon if self._expires is None else min(self._expires, soon)

    def seen(self, istag: str | None) -> None:
        """An answer carried this ISTag: options without a lifetime of their own end with the ISTag they came with.

        QUIRK: pyicap sends another ISTag with each answer; that must not mean OPTIONS for each scan.
        """
        options = self._options
        if istag is not None and options is not None and options.ttl is None and options.istag not in (None, istag):
            self.expire()

    def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _is_old(self) -> bool:
        return self._expires is not None and asyncio.get_running_loop().time() >= self._expires

    def _begin(self) -> asyncio.Task[ServerOptions]:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(self._done)
        return self._task

    def _done(self, task: asyncio.Task[ServerOptions]) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled():
            task.exception()  # a failed renewal in the background is no news: the scans speak for themselves

    async def _run(self) -> ServerOptions:
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        try:
            options = await self._fetch()
        except ClientError:
            if self._options is None:
                self._options = ServerOptions()
            self._expires = loop.time() + self._retry
            raise
        self._options = options
        self._expires = None if options.ttl is None else loop.time() + options.ttl
        return options

    async def _ask(self, strict: bool) -> ServerOptions:
        task = self._begin()
        try:
            return await asyncio.shield(task)
        except ClientError:
            if strict:
                raise
            return self._options or ServerOptions()
        except asyncio.CancelledError:
            if task.cancelled():  # by `close`: not the caller was cancelled
                raise ConnectionLost("The client was closed.") from None
            raise
