"""``icapscan milter``: listens for MTAs, runs their sessions, and ends without cutting a message off."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat

from icapscan.adapters.asking import mail_client_settings
from icapscan.adapters.milter_session import Context, MilterSession
from icapscan.adapters.milter_settings import MilterSettings
from icapscan.clients.balance import IcapPool
from icapscan.errors import ConfigError
from icapscan.store import Purse

_LOG = logging.getLogger("icapscan.milter")
_BACKLOG = 128


class MilterServer:
    """Use as a context manager: it listens inside."""

    def __init__(self, settings: MilterSettings) -> None:
        client = mail_client_settings(settings.timeouts.scan, settings.icap_connections, "icapscan-milter")
        self._settings = settings
        self._pool = IcapPool(settings.icap, settings=client)
        hostname = settings.hostname or socket.gethostname()
        self._context = Context(settings, self._pool, Purse(settings.memory, settings.disk), hostname)
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[asyncio.Task[None], MilterSession] = {}
        self.addresses: list[str] = []
        """Where it listens, as in the settings, with real port numbers."""

    async def __aenter__(self) -> MilterServer:
        try:
            for address in self._settings.listen:
                await self._listen(address)
        except BaseException:
            await self.close(0.0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(self._settings.timeouts.drain)

    async def _listen(self, address: str) -> None:
        """Raises `ConfigError` where that is not possible."""
        kind, _, rest = address.partition(":")
        try:
            if kind in ("unix", "local"):
                listener = _unix_listener(rest, int(self._settings.socket_mode, 8))
                server = await asyncio.start_unix_server(self._serve, sock=listener, backlog=_BACKLOG)
                self.addresses.append(address)
            else:
                port, _, host = rest.partition("@")
                family = socket.AF_INET6 if kind == "inet6" else socket.AF_INET
                host = host or ("::1" if kind == "inet6" else "127.0.0.1")
                server = await asyncio.start_server(self._serve, host, int(port), family=family, backlog=_BACKLOG)
                self.addresses.append(f"{kind}:{server.sockets[0].getsockname()[1]}@{host}")
        except (OSError, OverflowError) as error:
            raise ConfigError(f"milter.listen: {address} cannot be listened on: {error}.") from error
        self._servers.append(server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._sessions) >= self._settings.max_connections:
            _LOG.warning("more than %d connections: one is closed", self._settings.max_connections)
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        session = MilterSession(reader, writer, self._context)
        self._sessions[task] = session
        try:
            await session.run()
        except Exception:
            _LOG.exception("a session failed; the MTA has no answer and does as its default action says")
        finally:
            del self._sessions[task]
            writer.close()

    async def close(self, drain: float) -> None:
        """Listen no more; messages that are under way may take ``drain`` seconds."""
        for server in self._servers:
            server.close()
        for address in self._settings.listen:
            if address.startswith(("unix:", "local:")):
                _unlink_socket(address.partition(":")[2])
        end = asyncio.get_running_loop().time() + drain
        while any(session.busy for session in self._sessions.values()) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
        left = list(self._sessions)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._pool.aclose()


async def serve(settings: MilterSettings) -> None:
    """Until SIGTERM or SIGINT. Raises `ConfigError` where it cannot listen."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with MilterServer(settings) as server:
        _LOG.info("icapscan milter listens on %s and asks %s", ", ".join(server.addresses), ", ".join(settings.icap))
        await stop.wait()


def _unix_listener(path: str, mode: int) -> socket.socket:
    """A listening socket at ``path``; one that a dead process left there is taken away. Raises ``OSError``."""
    _unlink_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        os.chmod(path, mode)
    except BaseException:
        listener.close()
        raise
    return listener


def _unlink_socket(path: str) -> None:
    """Take a socket away that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return
