"""What the tests of the SMTP proxy share: a next hop that follows a script, an ICAP service, a blunt client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from icapscan.adapters.settings import HopSettings, SmtpSettings, SmtpTimeouts
from icapscan.adapters.smtp_server import SmtpProxy
from tests.clients.fakes import HTTP_403, NO_CONTENT, Fake, Peer, Seen, answer, read_rest

HTTP_503 = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: scan.invalid\r\nContent-Type: message/rfc822\r\n\r\n"
FOUND = b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\nX-Icapscan-Reference: 4f2a99c0\r\n"
REFUSING = answer(fields=FOUND, res=HTTP_403, body=b"no")
DEFERRING = answer(res=HTTP_503, body=b"later")
REPLACED = b"Subject: cleaned\r\n\r\n.dot\r\nnothing bad\r\n"
REPLACING = answer(fields=FOUND.replace(b"Resolution=2", b"Resolution=1"), req=PUT, body=REPLACED)
QUICK = SmtpTimeouts(
    command=30, data_block=30, data_total=60, write=30, connect=5, greeting=30, reply=30, data_start=30, data_end=30,
    scan=30, auth=5, tls=5, drain=0.2,
)  # fmt: skip
HANG = object()
CLOSE = object()
EHLO = (
    b"250-hop\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n"
    b"250 ENHANCEDSTATUSCODES\r\n"
)


class Mail(Struct):
    """One message that the next hop took."""

    mail_from: str
    rcpt_to: list[str]
    data: bytes
    """As on the wire, dots and all, without the end."""


class ScriptedHop:
    """A next hop in a few lines, strict about line ends. ``says`` replaces its answer to a step.

    An answer is bytes, `HANG` or `CLOSE`. Steps: ``greeting``, verbs in upper case, ``354`` (the answer to DATA), ``.``
    (to the message), ``middle`` (while data come).
    """

    def __init__(self, says: Mapping[str, Any] | None = None, ehlo: bytes = EHLO) -> None:
        self.says = dict(says or {})
        self.ehlo = ehlo
        self.mails: list[Mail] = []
        self.lines: list[bytes] = []
        """Every command line."""
        self.preamble = 0
        """Bytes that are read before the greeting, into ``raw``."""
        self.raw = b""
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._session(reader, writer)
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError, EOFError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter, step: str, usual: bytes) -> None:
        said = self.says.get(step, usual)
        if said is HANG:
            await asyncio.Event().wait()
        if said is CLOSE:
            raise EOFError
        writer.write(said)
        await writer.drain()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail = Mail("", [], b"")
        self.raw = await reader.readexactly(self.preamble)
        await self._say(writer, "greeting", b"220 hop ESMTP\r\n")
        while True:
            line = (await reader.readuntil(b"\r\n"))[:-2]
            self.lines.append(line)
            verb = line.partition(b" ")[0].upper().decode("latin-1")
            if verb == "EHLO":
                await self._say(writer, verb, self.ehlo)
            elif verb == "DATA":
                await self._say(writer, "354", b"354 go\r\n")
                if self.says.get("354", b"354").startswith(b"55"):
                    continue
                if "middle" in self.says:
                    await reader.readexactly(10)
                    await self._say(writer, "middle", b"")
                data = await reader.readuntil(b"\r\n.\r\n")
                mail.data = data[:-3]
                if self.says.get(".", b"2") not in (HANG, CLOSE) and self.says.get(".", b"2").startswith(b"2"):
                    self.mails.append(mail)
                mail = Mail("", [], b"")
                await self._say(writer, ".", b"250 2.0.0 queued as hop-1\r\n")
            elif verb == "BDAT":
                mail.data += await reader.readexactly(int(line.split()[1]))
                if line.endswith(b"LAST"):
                    self.mails.append(mail)
                    mail = Mail("", [], b"")
                await self._say(writer, verb, b"250 2.0.0 chunk\r\n")
            else:
                if verb == "MAIL":
                    mail = Mail(line.decode("utf-8", "replace"), [], b"")
                elif verb == "RCPT":
                    mail.rcpt_to.append(line.decode("utf-8", "replace"))
                usual = {"QUIT": b"221 bye\r\n", "XCLIENT": b"220 again\r\n"}.get(verb, b"250 2.0.0 ok\r\n")
                await self._say(writer, verb, usual)
                if verb == "QUIT":
                    return


class Client:
    """Sends bytes, reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """The next reply, its lines joined by line feeds; "" at the end of the connection."""
        lines: list[str] = []
        async with asyncio.timeout(30):
            while True:
                line = await self.reader.readline()
                if not line:
                    return "\n".join(lines)
                lines.append(line.decode("latin-1").rstrip("\r\n"))
                if line[3:4] != b"-":
                    return "\n".join(lines)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, line: bytes) -> str:
        """The reply to one line."""
        self.send(line + b"\r\n")
        return await self.reply()

    async def hello(self) -> str:
        """Greeting and EHLO; the reply to EHLO."""
        await self.reply()
        return await self.ask(b"EHLO client.example")

    async def mail(self, data: bytes, end: bytes = b"\r\n.\r\n", rcpt: bytes = b"b@hop.example") -> str:
        """A whole transaction; the reply to the message, or the first that is no yes."""
        for line, wanted in (
            (b"MAIL FROM:<a@client.example>", "250"),
            (b"RCPT TO:<%s>" % rcpt, "250"),
            (b"DATA", "354"),
        ):
            said = await self.ask(line)
            if not said.startswith(wanted):
                return said
        self.send(data + end)
        return await self.reply()

    async def at_end(self) -> bool:
        """Whether nothing more comes."""
        async with asyncio.timeout(30):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


class Setting(Struct):
    """A proxy with all that is around it."""

    proxy: SmtpProxy
    hop: ScriptedHop
    icap: Fake
    log: list[str]

    async def connect(self) -> Client:
        host, _, port = self.proxy.addresses[0].rpartition(":")
        return Client(*await asyncio.open_connection(host, int(port), limit=1 << 22))


@asynccontextmanager
async def proxying(
    *replies: Any,
    says: Mapping[str, Any] | None = None,
    ehlo: bytes = EHLO,
    hop: Mapping[str, Any] | None = None,
    icap_up: bool = True,
    timeouts: SmtpTimeouts = QUICK,
    **given: Any,
) -> AsyncIterator[Setting]:
    """A running proxy between a scripted hop and a fake ICAP service that gives ``replies``."""
    next_hop, icap = ScriptedHop(says, ehlo), Fake(*replies)
    await next_hop.start()
    async with icap:
        if not icap_up:
            await icap.stop()
        log: list[str] = []
        settings = SmtpSettings(
            listen=("127.0.0.1:0",),
            icap=(icap.url,),
            hostname="proxy.example",
            hop=HopSettings(**{"inbound": next_hop.address, **(hop or {})}),
            timeouts=timeouts,
            **given,
        )
        proxy = SmtpProxy(settings, log.append)
        await proxy.start()
        try:
            yield Setting(proxy, next_hop, icap, log)
        finally:
            await proxy.stop()
            await next_hop.stop()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """One test's coroutine, in a loop of its own."""

    async def guarded() -> None:
        async with asyncio.timeout(100):
            await main()

    asyncio.run(guarded())


def infected_if(mark: bytes) -> Callable[[Peer, Seen], Awaitable[None]]:
    """A service that refuses bodies that hold ``mark`` and passes others."""

    async def script(peer: Peer, seen: Seen) -> None:
        await read_rest(peer, seen)
        await peer.send(REFUSING if mark in seen.body else NO_CONTENT)

    return script
