"""Several servers as one: the least busy is asked, a failing one is suspended and probed (PROTOCOL C57)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self, TypedDict, Unpack

from icapscan.clients.errors import (
    BodyChanged,
    ClientError,
    ClientTimeout,
    InvalidArgument,
    NoServer,
    ServerRefused,
    Stage,
)
from icapscan.clients.icap import IcapClient, within
from icapscan.clients.result import Mode, ScanResult
from icapscan.clients.settings import ClientSettings
from icapscan.clients.source import Body

_ABOUT_THE_BODY = frozenset({400, 413, 414, 418})
"""Statuses that may be due to this one body: another server is asked, but this one is not held to be broken."""


class ScanOptions(TypedDict, total=False):
    """The keywords of `IcapClient.scan`."""

    name: str
    media_type: str
    mode: Mode
    client_ip: str | None
    user: str | None
    mail_from: str | None
    rcpt_to: tuple[str, ...]
    adapt: bool


class _Server:
    def __init__(self, client: IcapClient) -> None:
        self.client = client
        self.asked = 0
        """When it was asked last, in scans: among equally busy ones the one that rested longest is next."""
        self.running = 0
        self.failures = 0
        self.suspended_until: float | None = None
        self.probe: asyncio.Task[None] | None = None


class IcapPool:
    """The same service on several servers. Raises as `IcapClient`, and `NoServer` when all are suspended."""

    def __init__(self, urls: Sequence[str], *, settings: ClientSettings | None = None) -> None:
        self._settings = settings or ClientSettings()
        self._servers = [_Server(IcapClient(url, settings=self._settings)) for url in urls]
        self._scans = 0
        if not self._servers:
            raise InvalidArgument("A pool needs at least one ICAP URL.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all clients."""
        for server in self._servers:
            if server.probe is not None:
                server.probe.cancel()
            await server.client.aclose()

    @property
    def suspended(self) -> list[str]:
        """URLs of the servers that are not asked now."""
        return [server.client.url for server in self._servers if server.suspended_until is not None]

    async def scan(self, body: Body, **options: Unpack[ScanOptions]) -> ScanResult:
        """As `IcapClient.scan`; each usable server is asked at most once. Raises the last server's error."""
        tried: list[_Server] = []
        last: ClientError | None = None
        async with within(self._settings.timeouts.total, Stage.TOTAL, body):
            while (server := await self._choose(tried)) is not None:
                tried.append(server)
                server.running += 1
                try:
                    result = await server.client.scan(body, **options)
                except (InvalidArgument, BodyChanged):
                    raise
                except ClientError as error:
                    last = error
                    self._failed(server, error)
                    if isinstance(error, ClientTimeout) and error.stage is Stage.TOTAL:
                        raise
                else:
                    server.failures = 0
                    return result
                finally:
                    server.running -= 1
        raise last or NoServer("All ICAP servers are suspended after failures.")

    def _failed(self, server: _Server, error: ClientError) -> None:
        if isinstance(error, ServerRefused) and error.status in _ABOUT_THE_BODY:
            return
        if isinstance(error, ClientTimeout) and error.stage is Stage.QUEUE:
            return  # busy with our own scans
        server.failures += 1
        if server.failures >= self._settings.failures:
            server.suspended_until = asyncio.get_running_loop().time() + self._settings.suspend

    async def _choose(self, tried: list[_Server]) -> _Server | None:
        """The next server to ask, or None. Waits for a probe only when there is no other."""
        left = [server for server in self._servers if server not in tried]
        probes = [self._probe(server) for server in left if self._may_be_back(server)]
        usable = [server for server in left if server.suspended_until is None]
        if not usable and probes:
            await asyncio.wait(probes)
            usable = [server for server in left if server.suspended_until is None]
        if not usable:
            return None
        chosen = min(usable, key=lambda server: (server.running, server.asked))
        self._scans += 1
        chosen.asked = self._scans
        return chosen

    def _may_be_back(self, server: _Server) -> bool:
        until = server.suspended_until
        return until is not None and asyncio.get_running_loop().time() >= until

    def _probe(self, server: _Server) -> asyncio.Task[None]:
        """Half-open: one OPTIONS request at a time decides whether scans go there again."""
        if server.probe is None or server.probe.done():
            server.probe = asyncio.get_running_loop().create_task(self._ask(server))
        return server.probe

    async def _ask(self, server: _Server) -> None:
        try:
            await server.client.options()
        except ClientError:
            server.suspended_until = asyncio.get_running_loop().time() + self._settings.suspend
        else:
            server.suspended_until = None
            server.failures = self._settings.failures - 1  # the next failure suspends it again at once
