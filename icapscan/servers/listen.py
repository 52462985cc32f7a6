"""Listening sockets: bound once by the supervisor, accepted from by every worker."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from icapscan.errors import ConfigError
from icapscan.servers.balance import LOOK_AWAY_SECONDS, Loads
from icapscan.servers.settings import ServerSettings

_BACKLOG = 1024
_PAUSE_SECONDS = 0.1
"""After a failed accept (no descriptors left), so that the loop does not spin."""
_LATER = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def split_address(address: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` into host and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def bind(address: str, key: str) -> socket.socket:
    """A listening TCP socket. Raises `ConfigError` naming ``key`` when the address cannot be used."""
    host, port = split_address(address)
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, proto, _, where = infos[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{key}: cannot listen on {address}: {error}; expected a free local address.") from error
    listening.setblocking(False)
    return listening


def name_of(listening: socket.socket) -> str:
    """``host:port`` as bound, with the real port."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """For the ICAPS ports; None when there are none. Raises `ConfigError`."""
    if not settings.tls_listen:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(settings.tls_certificate or "", settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"server.tls_certificate: {error}; expected a readable PEM certificate chain and key."
        ) from error
    return context


class Acceptor:
    """Takes one connection at a time off a shared socket, so that workers that are less busy take more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        handshake_seconds: float,
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._make_protocol = make_protocol
        self._tls = tls
        self._handshake_seconds = handshake_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._loads: Loads | None = None
        self._count: Callable[[], int] = int
        self._looked_away = False
        self._open = False

    def share(self, loads: Loads, count: Callable[[], int]) -> None:
        """Share the connections fairly with other workers; ``count`` tells how many this one has."""
        self._loads = loads
        self._count = count

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more and close our copy of the socket. Idempotent."""
        if self._listening.fileno() >= 0:
            self._open = False
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()

    def _accept(self) -> None:
        if self._loads is not None:
            count = self._count() + len(self._tasks)
            if not self._looked_away and self._loads.others_have_fewer(count):
                self._looked_away = True  # only once: the others may be hung
                self._pause(LOOK_AWAY_SECONDS)
                return
            self._looked_away = False
            self._loads.set(count + 1)
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client is gone again
        except OSError as error:
            if error.errno not in _LATER:
                raise
            self._pause(_PAUSE_SECONDS)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        if self._open:
            self.start()

    async def _connect(self, connection: socket.socket) -> None:
        seconds = self._handshake_seconds if self._tls is not None else None
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except (OSError, ssl.SSLError, TimeoutError):
            connection.close()  # no connection came of it: a failed handshake, or a peer that left
