"""Hand-written ICAP servers: they read requests with their own small and strict parser, and answer from a script."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import Struct

from icapscan.clients.icap import IcapClient
from icapscan.clients.result import ScanResult
from icapscan.clients.settings import ClientSettings, Timeouts

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-" + b"TEST-FILE!$H+H*"
NO_CONTENT = b'ICAP/1.0 204 No modifications needed\r\nISTag: "t1"\r\nEncapsulated: null-body=0\r\n\r\n'
CONTINUE = b"ICAP/1.0 100 Continue\r\n\r\n"
OPTIONS = (
    b'ICAP/1.0 200 OK\r\nMethods: RESPMOD, REQMOD\r\nISTag: "t1"\r\nAllow: 204\r\n'
    b"Max-Connections: 100\r\nOptions-TTL: 3600\r\nEncapsulated: null-body=0\r\n\r\n"
)
PREVIEW_OPTIONS = OPTIONS.replace(b"Allow: 204\r\n", b"Allow: 204\r\nPreview: 100\r\nTransfer-Preview: *\r\n")
HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
HTTP_403 = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\n\r\n"

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """One test's coroutine, in a loop of its own."""
    return asyncio.run(main)


def chunked(body: bytes, size: int = 1 << 20, last: bytes = b"0\r\n\r\n") -> bytes:
    """``body`` in chunks, with its end."""
    cut = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in cut) + last


def answer(
    status: bytes = b"200 OK",
    fields: bytes = b"",
    *,
    res: bytes | None = None,
    req: bytes | None = None,
    body: bytes | None = None,
    kind: bytes = b"",
    last: bytes = b"0\r\n\r\n",
) -> bytes:
    """An ICAP answer with exact offsets. ``body`` None: null-body."""
    entries, heads = [], b""
    if req is not None:
        entries.append(b"req-hdr=0")
        heads += req
    if res is not None:
        entries.append(b"res-hdr=%d" % len(heads))
        heads += res
    kind = kind or (b"null-body" if body is None else b"req-body" if res is None and req is not None else b"res-body")
    entries.append(b"%s=%d" % (kind, len(heads)))
    head = b"ICAP/1.0 %s\r\n%sEncapsulated: %s\r\n\r\n" % (status, fields, b", ".join(entries))
    return head + heads + (b"" if body is None else chunked(body, last=last))


class Seen(Struct):
    """One request as it came over the wire."""

    line: str
    fields: list[tuple[str, str]]
    heads: bytes
    """The encapsulated HTTP heads."""
    raw: bytes
    body: bytes = b""
    preview: bytes | None = None
    ieof: bool = False
    sizes: list[int] = []
    connection: int = 0

    def __getitem__(self, name: str) -> str:
        return ", ".join(value for given, value in self.fields if given.lower() == name.lower())

    def __contains__(self, name: str) -> bool:
        return any(given.lower() == name.lower() for given, _ in self.fields)

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def has_body(self) -> bool:
        return "-body" in self["Encapsulated"] and "null-body" not in self["Encapsulated"]


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def head(self) -> Seen:
        """One ICAP head and the HTTP heads behind it. Raises ``IncompleteReadError`` at the end of the connection."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw[:-4].decode("latin-1").split("\r\n")
        fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        seen = Seen(lines[0], fields, b"", raw, connection=self.number)
        if "Encapsulated" in seen:
            seen.heads = await self.reader.readexactly(int(seen["Encapsulated"].rpartition("=")[2]))
            seen.raw += seen.heads
        return seen

    async def chunks(self, seen: Seen) -> None:
        """Chunks up to the last one, with nothing but one empty line behind it."""
        while True:
            line = await self.reader.readuntil(b"\r\n")
            seen.raw += line
            word, _, extension = line[:-2].partition(b";")
            size = int(word, 16)
            data = await self.reader.readexactly(size + 2)
            assert data[-2:] == b"\r\n", data[-2:]
            seen.raw += data
            if not size:
                assert extension in (b"", b" ieof"), extension
                seen.ieof = extension == b" ieof"
                return
            assert not extension, extension
            seen.sizes = [*seen.sizes, size]
            seen.body += data[:-2]

    async def request(self) -> Seen:
        """One whole request; more than the preview is asked for."""
        seen = await self.head()
        if not seen.has_body:
            return seen
        await self.chunks(seen)
        if "Preview" in seen:
            seen.preview = seen.body
            if not seen.ieof:
                await self.send(CONTINUE)
                await self.chunks(seen)
                assert not seen.ieof, "ieof outside the preview"
        return seen

    async def send(self, data: bytes) -> None:
        """Write, and wait until it is nearly all gone."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close with RST: what is unsent is lost, what was not read is refused."""
        self.writer.transport.abort()


Script = Callable[[Peer, Seen], Awaitable[object]]
Reply = bytes | Script
"""Bytes: the whole request is read first. A script: only its heads are."""


class Fake:
    """A server on a free port of the loopback address: answers scans with ``replies`` in turn, the last for ever."""

    def __init__(self, *replies: Reply, options: Reply | None = OPTIONS, tls: Any = None) -> None:
        self.replies = list(replies) or [NO_CONTENT]
        self.options = options
        self.seen: list[Seen] = []
        """All requests, OPTIONS too, as far as they were read."""
        self.connections = 0
        self.closed = 0
        """Connections that ended, at either end."""
        self.most_open = 0
        self.errors: list[BaseException] = []
        self._tls = tls
        self._peers: set[Peer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'icaps' if self._tls else 'icap'}://127.0.0.1:{self.port}/avscan"

    @property
    def scans(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.method != "OPTIONS"]

    @property
    def asked_options(self) -> int:
        return sum(seen.method == "OPTIONS" for seen in self.seen)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and drop all connections."""
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self.errors:
            raise self.errors[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(reader, writer, self.connections)
        self._peers.add(peer)
        self.most_open = max(self.most_open, len(self._peers))
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                await self._answer(peer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            self._tasks.discard(task)
            self._peers.discard(peer)
            self.closed += 1
            writer.close()

    async def _answer(self, peer: Peer) -> None:
        seen = await peer.head()
        self.seen.append(seen)
        if seen.method == "OPTIONS":
            reply = self.options
        else:
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is None:
            raise OSError("this server does not answer that")
        if not isinstance(reply, bytes):
            await reply(peer, seen)
            return
        await read_rest(peer, seen)
        await peer.send(reply)


async def read_rest(peer: Peer, seen: Seen) -> None:
    """The body of a request whose heads were read; more than the preview is asked for."""
    if not seen.has_body:
        return
    await peer.chunks(seen)
    if "Preview" in seen:
        seen.preview = seen.body
        if not seen.ieof:
            await peer.send(CONTINUE)
            await peer.chunks(seen)
            assert not seen.ieof, "ieof outside the preview"


def script(*steps: bytes | str) -> Script:
    """Steps in order: bytes are sent; ``body`` reads the body, ``preview`` reads up to the end of the preview,
    ``rest`` what follows it, ``close`` closes, ``reset`` closes with RST, ``hang`` waits until the client is gone."""

    async def play(peer: Peer, seen: Seen) -> None:
        for step in steps:
            if isinstance(step, bytes):
                await peer.send(step)
            elif step == "body":
                await read_rest(peer, seen)
            elif step == "preview":
                await peer.chunks(seen)
                seen.preview = seen.body
            elif step == "rest":
                await peer.chunks(seen)
            elif step == "close":
                peer.writer.close()
                raise OSError("closed")
            elif step == "reset":
                peer.reset()
                raise OSError("reset")
            else:
                assert step == "hang"
                while await peer.reader.read(1 << 16):
                    pass
                raise OSError("the client left")

    return play


def settings(**given: Any) -> ClientSettings:
    """Client settings with short patience where a test waits for it to end, long elsewhere."""
    return ClientSettings(**given)


QUICK = Timeouts(queue=0.2, connect=0.2, tls=0.2, options=0.2, proceed=0.2, answer=0.2, idle=0.2, total=30)


async def scan(fake: Fake, body: Any = b"hello", *, how: ClientSettings | None = None, **given: Any) -> ScanResult:
    """One scan with a client of its own."""
    async with IcapClient(fake.url, settings=how) as client:
        return await client.scan(body, **given)


async def until(true: Callable[[], bool]) -> None:
    """Until ``true()``; the time limit of the test is the guard against hanging."""
    while not true():
        await asyncio.sleep(0.005)
