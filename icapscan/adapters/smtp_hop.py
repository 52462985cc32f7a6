"""The next hop of one session: connected, told who the client is, and given commands and messages one at a time.

It may lie, hang or close at any step: that is always `HopFailed`, and never taken for a yes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable

from msgspec import Struct

from icapscan.adapters.settings import SmtpSettings
from icapscan.adapters.smtp_wire import SmtpLink, SmtpWire
from icapscan.errors import IcapscanError
from icapscan.wire.proxy_protocol import Proxied, encode_v1, encode_v2
from icapscan.wire.smtp import SmtpConnection
from icapscan.wire.smtp_command import Command, command, keywords_of
from icapscan.wire.smtp_events import ReplyReceived
from icapscan.wire.smtp_reply import Reply
from icapscan.wire.smtp_states import Role, State
from icapscan.wire.xforward import address_text, attributes


class HopFailed(IcapscanError):
    """The next hop cannot be reached, broke off or made no sense. Nothing was taken by it."""

    retry = True

    def __init__(self, sentence: str, reply: Reply | None = None) -> None:
        super().__init__(sentence)
        self.reply = reply
        """What it said, where it said no to the connection as a whole."""


class ClientFacts(Struct, frozen=True):
    """What the next hop may be told about the client."""

    address: str
    port: int
    server: str
    server_port: int
    helo: str = ""
    esmtp: bool = False
    user: str = ""


class Hop:
    """A connection to one next hop. Open it by `open_hop`; always `close` it."""

    def __init__(self, address: str, wire: SmtpWire, settings: SmtpSettings) -> None:
        self.address = address
        self._wire = wire
        self._settings = settings
        self._xclient: frozenset[str] | None = None
        self.keywords: dict[str, str] = {}

    @property
    def usable(self) -> bool:
        """Whether a command can be sent."""
        link = self._wire.link
        return not (link.lost or link.eof) and self._wire.codec.state is not State.CLOSED

    @property
    def at_rest(self) -> bool:
        """No transaction is under way there."""
        return self.usable and self._wire.codec.state is State.READY

    async def ask(self, made: Command, seconds: float | None = None) -> Reply:
        """The reply to a command. Raises `HopFailed`."""
        if not self.usable:
            raise HopFailed(f"The next hop {self.address} closed the connection.")
        self._wire.write(self._wire.codec.send_command(made))
        reply = await self._reply(seconds or self._settings.timeouts.reply)
        go_on = {b"DATA": 354, b"AUTH": 334}.get(made.verb)
        if reply.intermediate and reply.code != go_on:
            raise self._lie(reply)
        if made.verb == b"DATA" and reply.positive:
            raise self._lie(reply)
        return reply

    async def answer(self, line: bytes) -> Reply:
        """The reply to a line of an AUTH exchange. Raises `HopFailed`."""
        self._wire.write(self._wire.codec.send_auth_line(line))
        reply = await self._reply(self._settings.timeouts.reply)
        if reply.intermediate and reply.code != 334:
            raise self._lie(reply)
        return reply

    async def hello(self, made: Command, facts: ClientFacts) -> Reply:
        """EHLO or HELO of the client, after telling who that is. Raises `HopFailed`."""
        if self._settings.hop.tell == "xclient":
            await self._tell_xclient(facts)
        reply = await self.ask(made)
        if reply.positive:
            self.keywords = keywords_of(reply.lines) if made.verb == b"EHLO" else {}
        return reply

    async def forward_facts(self, facts: ClientFacts) -> None:
        """XFORWARD before a message, where it is configured and offered. Raises `HopFailed`."""
        if self._settings.hop.tell != "xforward" or "XFORWARD" not in self.keywords:
            return
        values = {**_values(facts), "SOURCE": "REMOTE", "IDENT": ""}
        for made in attributes("XFORWARD", frozenset(self.keywords["XFORWARD"].upper().split()), values):
            if not (reply := await self.ask(made)).positive:
                raise HopFailed(f"The next hop {self.address} does not take XFORWARD: {reply}.")

    async def deliver(self, size: int, pieces: Iterable[bytes | memoryview], *, binary: bool) -> Reply:
        """A whole message; its reply: 2xx taken, 4xx or 5xx not. Raises `HopFailed`: then it was not taken.

        ``binary``: by BDAT, byte for byte; else by DATA.
        """
        timeouts = self._settings.timeouts
        wire, codec = self._wire, self._wire.codec
        if binary:
            if not self.usable:
                raise HopFailed(f"The next hop {self.address} closed the connection.")
            wire.write(codec.send_command(command("BDAT", b"%d LAST" % size)))
        else:
            reply = await self.ask(command("DATA"), timeouts.data_start)
            if reply.code != 354:
                return reply
        for piece in pieces:
            wire.write(bytes(piece) if binary else codec.send_data(piece))
            await asyncio.sleep(0)  # let the loop read what it has to say meanwhile
            try:
                await wire.room(timeouts.write)
            except TimeoutError as error:
                raise HopFailed(f"The next hop {self.address} does not read the message.") from error
            if wire.link.has_data:
                return await self._early()
            if wire.link.lost:
                raise HopFailed(f"The next hop {self.address} broke off while it got the message.")
        if not binary:
            if wire.link.has_data:
                return await self._early()
            wire.write(codec.end_data())
        reply = await self._reply(timeouts.data_end)
        if reply.intermediate:
            raise self._lie(reply)
        return reply

    async def quit(self) -> None:
        """Say goodbye, without waiting for an answer, and close."""
        if self.usable and not self._wire.codec.awaits_reply and self._wire.codec.state is not State.DATA:
            if not self._wire.codec.backlog:
                self._wire.write(self._wire.codec.send_command(command("QUIT")))
            self._wire.link.finish()
        else:
            self.close()

    def close(self) -> None:
        """Cut the connection. Idempotent."""
        self._wire.link.abort()

    # Inside

    async def start(self, facts: ClientFacts) -> None:
        """From the connection to the greeting, TLS included. Raises `HopFailed`."""
        tell = self._settings.hop.tell
        if tell in ("proxy-v1", "proxy-v2"):
            proxied = Proxied(facts.address, facts.port, facts.server, facts.server_port)
            self._wire.write(encode_v1(proxied) if tell == "proxy-v1" else encode_v2(proxied))
        reply = await self._reply(self._settings.timeouts.greeting)
        if reply.code != 220:
            raise HopFailed(f"The next hop {self.address} does not want to talk: {reply}.", reply)
        if self._settings.hop.tls != "off":
            await self._start_tls()

    async def _start_tls(self) -> None:
        hop, how = self._settings.hop, self._settings.hop.tls
        reply = await self.ask(command("EHLO", self._settings.hostname.encode()))
        if "STARTTLS" not in (keywords_of(reply.lines) if reply.positive else {}):
            if how == "may":
                return
            raise HopFailed(f"The next hop {self.address} does not offer STARTTLS.")
        if (reply := await self.ask(command("STARTTLS"))).code != 220:
            raise HopFailed(f"The next hop {self.address} does not start TLS: {reply}.")
        host = self.address.rpartition(":")[0].strip("[]")
        try:
            context = ssl.create_default_context(cafile=hop.ca)
            if how != "verify":
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            await self._wire.start_tls(context, self._settings.timeouts.tls, server=False, name=host)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            raise HopFailed(f"There is no TLS connection to the next hop {self.address}: {error}.") from error

    async def _tell_xclient(self, facts: ClientFacts) -> None:
        reply = await self.ask(command("EHLO", self._settings.hostname.encode()))
        offered = keywords_of(reply.lines).get("XCLIENT") if reply.positive else None
        if offered is not None:
            self._xclient = frozenset(offered.upper().split())
        if not self._xclient:
            raise HopFailed(f"The next hop {self.address} does not offer XCLIENT to us.")
        values = {**_values(facts), "LOGIN": facts.user}
        for made in attributes("XCLIENT", self._xclient, values):
            if not (reply := await self.ask(made)).positive:
                raise HopFailed(f"The next hop {self.address} does not take XCLIENT: {reply}.")

    async def _early(self) -> Reply:
        """It answers before the end of the message: only a no can be believed, and nothing can follow."""
        reply = await self._reply(self._settings.timeouts.reply)
        self.close()
        if reply.positive or reply.intermediate:
            raise self._lie(reply)
        return reply

    async def _reply(self, seconds: float) -> Reply:
        try:
            event = await self._wire.event(seconds)
        except TimeoutError as error:
            self.close()
            raise HopFailed(f"The next hop {self.address} did not answer within {seconds:g} s.") from error
        if isinstance(event, ReplyReceived):
            if self._wire.codec.backlog:
                raise self._lie(event.reply)  # there is more than one answer
            return event.reply
        self.close()
        raise HopFailed(f"The next hop {self.address} broke off, or does not speak SMTP.")

    def _lie(self, reply: Reply) -> HopFailed:
        self.close()
        return HopFailed(f"The next hop {self.address} answers what cannot be: {reply}.")


def _values(facts: ClientFacts) -> dict[str, str]:
    return {
        "NAME": "",
        "ADDR": address_text(facts.address),
        "PORT": str(facts.port) if facts.port else "",
        "PROTO": "ESMTP" if facts.esmtp else "SMTP",
        "HELO": facts.helo,
    }


async def open_hop(address: str, settings: SmtpSettings, facts: ClientFacts) -> Hop:
    """Connect to a next hop and hear its greeting. Raises `HopFailed`."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    link = SmtpLink()
    try:
        async with asyncio.timeout(settings.timeouts.connect):
            await loop.create_connection(lambda: link, host.strip("[]"), int(port))
    except (OSError, TimeoutError, OverflowError) as error:
        raise HopFailed(f"There is no connection to the next hop {address}: {error or 'time-out'}.") from error
    hop = Hop(address, SmtpWire(link, SmtpConnection(Role.CLIENT)), settings)
    try:
        await hop.start(facts)
    except BaseException:
        hop.close()
        raise
    return hop
