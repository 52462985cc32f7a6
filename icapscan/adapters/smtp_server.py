"""The before-queue SMTP proxy: listens, runs a session for each connection, and ends without losing a message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from msgspec.structs import replace

from icapscan.adapters.settings import SmtpSettings
from icapscan.adapters.smtp_gate import Gate
from icapscan.adapters.smtp_replies import TOO_MANY
from icapscan.adapters.smtp_session import Session
from icapscan.adapters.smtp_wire import SmtpLink
from icapscan.errors import ConfigError
from icapscan.servers.listen import bind, name_of
from icapscan.wire.proxy_protocol import Proxied


class SmtpProxy:
    """One proxy in one event loop. Raises `ConfigError` and `InvalidArgument` for settings that cannot be used."""

    def __init__(self, settings: SmtpSettings, write: Callable[[str], None]) -> None:
        self._settings = replace(settings, hostname=settings.hostname or socket.getfqdn())
        self._write = write
        self._gate = Gate(self._settings, write)
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[Session, asyncio.Task[None]] = {}
        self.addresses: list[str] = []
        """As bound, once it is started."""

    async def start(self) -> None:
        """Begin to listen. Raises `ConfigError`."""
        if not self._settings.listen:
            raise ConfigError("smtp.listen: expected at least one address.")
        loop = asyncio.get_running_loop()
        for address in self._settings.listen:
            listening = bind(address, "smtp.listen")
            self.addresses.append(name_of(listening))
            self._servers.append(await loop.create_server(lambda: SmtpLink(self._accept), sock=listening))

    async def stop(self) -> None:
        """Listen no more; let messages that are under way end; close everything."""
        for server in self._servers:
            server.close()
        for session in list(self._sessions):
            session.stop()
        tasks = list(self._sessions.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._settings.timeouts.drain)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._gate.pool.aclose()

    def _accept(self, link: SmtpLink) -> None:
        transport = link.transport
        assert transport is not None
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not own:  # it is gone again
            link.abort()
            return
        if len(self._sessions) >= self._settings.max_connections:
            link.write([TOO_MANY.encode()])
            link.finish()
            return
        session = Session(self._gate, link, Proxied(peer[0], peer[1], own[0], own[1]))
        task = asyncio.get_running_loop().create_task(self._run(session, link))
        self._sessions[session] = task
        task.add_done_callback(lambda _: self._sessions.pop(session, None))

    async def _run(self, session: Session, link: SmtpLink) -> None:
        try:
            await session.run()
        except Exception as error:  # a fault of ours: this client has no 250, and the others go on
            self._write(f"smtp session failed: {type(error).__name__}: {error!s:.200}")
            link.abort()
