"""One client's session: its commands go on to the next hop and the replies come back; only mail data are taken aside.

The client gets 250 for a message only after the next hop said so. What the proxy answers by itself is in
`icapscan.adapters.smtp_replies`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from icapscan.adapters import smtp_replies as say
from icapscan.adapters.relay_rules import RulesUnreadable
from icapscan.adapters.smtp_auth import Authenticator
from icapscan.adapters.smtp_gate import Gate
from icapscan.adapters.smtp_hop import Hop, HopFailed, open_hop
from icapscan.adapters.smtp_mail import MailSide
from icapscan.adapters.smtp_message import ClientGone
from icapscan.adapters.smtp_side import Over
from icapscan.adapters.smtp_wire import SmtpLink, Stopped
from icapscan.errors import ProtocolError
from icapscan.wire.proxy_protocol import Proxied, parse_header
from icapscan.wire.smtp_command import Chunk, Command, parse_path, with_suffix
from icapscan.wire.smtp_ehlo import Offer, offered
from icapscan.wire.smtp_events import AuthLine, CommandReceived, Failure, LineRefused, PeerClosed
from icapscan.wire.smtp_reply import Reply
from icapscan.wire.smtp_states import State
from icapscan.wire.xforward import FORWARDED, parse_attributes


class Session(MailSide):
    """One connection of a client. `run` it once."""

    def __init__(self, gate: Gate, link: SmtpLink, peer: Proxied) -> None:
        super().__init__(gate, link, peer)
        self._wire.may_stop = self._may_stop
        self._stopping = False
        self._users_hop: Hop | None = None
        """The hop that authenticates, where it is another one and was not switched to yet."""
        self._mechanisms: tuple[str, ...] = ()
        self._commands = 0
        self._admitted = ""

    def stop(self) -> None:
        """End when that does no harm: not within a transaction."""
        self._stopping = True
        self._wire.link.nudge()

    async def run(self) -> None:
        """From the greeting to the end. Never raises but for cancellation."""
        try:
            await self._run()
        except (Over, ClientGone):
            pass
        except Stopped:
            self._write(say.SHUTTING_DOWN)
        except TimeoutError:
            self._write(say.TOO_SLOW)
        except HopFailed as error:
            self._gate.complain(f"{self._peer.client}: {error}")
            self._write(say.HOP_LOST)
        finally:
            await self._drop_message()
            for hop in (self._hop, self._users_hop):
                if hop is not None:
                    await hop.quit()
            self._wire.link.finish()
            self._gate.leave(self._admitted)

    # The beginning

    async def _run(self) -> None:
        await self._read_proxy_header()
        if not self._gate.admit(self._peer.client):
            self._final(say.TOO_MANY)
        self._admitted = self._peer.client
        try:
            self._standing = self._gate.standing(self._peer.client)
        except RulesUnreadable as error:
            self._gate.complain(str(error))
            self._final(say.NO_RULES)
        if self._standing.deny:
            self._final(say.DENIED)
        self._hop = await self._greeted_hop()
        self._write(say.greeting(self._settings.hostname))
        while True:
            await self._serve()

    async def _read_proxy_header(self) -> None:
        if not self._gate.speaks_for_others(self._peer.client):
            return
        link, data = self._wire.link, b""
        deadline = asyncio.get_running_loop().time() + self._settings.timeouts.greeting
        while True:
            data += b"".join(link.take())
            try:
                header = parse_header(data)
            except ProtocolError as error:
                self._gate.complain(f"{self._peer.client}: {error}")
                raise Over from error
            if header is not None:
                break
            if link.eof or not await link.wait(deadline - asyncio.get_running_loop().time()):
                raise Over
        self._peer = header.proxied or self._peer
        self._wire.codec.receive(data[header.size :])

    async def _greeted_hop(self) -> Hop:
        relay = self._settings.hop.relay
        address = relay if relay and self._standing.relay_client is not None else self._settings.hop.inbound
        try:
            return await open_hop(address, self._settings, self._facts())
        except HopFailed as error:
            self._gate.complain(f"{self._peer.client}: {error}")
            self._final(say.refused_by_hop(error.reply))

    # Commands

    async def _serve(self) -> None:
        event = await self._wire.event(self._settings.timeouts.command)
        match event:
            case CommandReceived(made, legal, chunk):
                await self._command(made, legal, chunk)
            case LineRefused(sentence):
                self._reply(say.bad_line(sentence))
            case Failure(error):
                self._final(say.broken(error))
            case PeerClosed():
                raise Over
            case _:
                raise Over  # data without DATA: the codec never gives that
        await self._wire.room(self._settings.timeouts.write)

    async def _command(self, made: Command, legal: bool, chunk: Chunk | None) -> None:
        self._commands += 1
        if self._commands > self._settings.max_commands:
            self._final(say.TOO_MANY_COMMANDS)
        if self._errors >= self._settings.max_errors:
            self._final(say.TOO_MANY_ERRORS)
        if chunk is not None:
            await self._chunk(chunk, legal)
            return
        handler = _HANDLERS.get(made.verb)
        if handler is None:
            self._reply(say.UNKNOWN_COMMAND)
        elif not legal:
            self._reply(say.OUT_OF_ORDER)
        elif self._settings.tls == "must" and not self._wire.link.secured and made.verb not in _BEFORE_TLS:
            self._reply(say.TLS_FIRST)
        else:
            try:
                await handler(self, made)
            except ProtocolError as error:
                self._reply(say.bad_argument(error))

    async def _pass(self, made: Command) -> Reply:
        """Pass a command on and its reply back."""
        reply = await self._hop_now().ask(made)
        self._reply(reply)
        return reply

    async def _hello_command(self, made: Command) -> None:
        if not made.argument:
            self._reply(say.HELLO_WITHOUT_NAME)
            return
        self._hello = made
        await self._drop_message()
        hop = self._hop_now()
        reply = await hop.hello(made, self._facts())
        if not reply.positive or made.verb == b"HELO":
            self._keywords = {}
            self._reply(reply)
            return
        await self._learn_mechanisms()
        self._keywords = offered(hop.keywords, self._offer())
        if self._gate.may_forward(self._peer.client):
            self._keywords["XFORWARD"] = FORWARDED
        self._reply(say.hello(self._settings.hostname, self._keywords))

    def _offer(self) -> Offer:
        settings, secured = self._settings, self._wire.link.secured
        auth: str | None = None
        if settings.auth == "off" or self._authenticated or not self._auth_allowed():
            auth = ""
        elif settings.auth == "dovecot" or self._users_hop is not None:
            auth = " ".join(self._mechanisms)
        size = self._size_most()
        return Offer(size, settings.tls != "off" and not secured, settings.chunking == "take", auth)

    async def _learn_mechanisms(self) -> None:
        """How to authenticate, where that is not the affair of the hop that is spoken to."""
        settings = self._settings
        if self._authenticated or settings.auth == "off" or not self._auth_allowed():
            return
        if settings.auth == "dovecot":
            self._mechanisms = await self._authenticator().mechanisms()
            return
        users = settings.hop.authenticated
        if not users or users == self._hop_now().address:
            return
        try:
            if self._users_hop is None:
                self._users_hop = await open_hop(users, settings, self._facts())
            assert self._hello is not None
            await self._users_hop.hello(self._hello, self._facts())
            self._mechanisms = tuple(self._users_hop.keywords.get("AUTH", "").split())
        except HopFailed as error:
            self._gate.complain(f"{self._peer.client}: {error}")
            if self._users_hop is not None:
                self._users_hop.close()
            self._users_hop, self._mechanisms = None, ()

    async def _xforward(self, made: Command) -> None:
        """Believed from configured networks only; told on as `HopSettings.tell` says, never passed through."""
        if not self._gate.may_forward(self._peer.client):
            self._reply(say.UNKNOWN_COMMAND)
        elif self._wire.codec.state is not State.READY:
            self._reply(say.OUT_OF_ORDER)
        else:
            self._forwarded.update(parse_attributes(made.argument))
            self._reply(say.FORWARD_TAKEN)

    async def _mail(self, made: Command) -> None:
        path = parse_path(made)
        body = path.parameters.get("BODY", "").upper()
        if body == "BINARYMIME" and "BINARYMIME" not in self._keywords:
            self._reply(say.NO_BINARY)
            return
        size, most = path.parameters.get("SIZE", ""), self._size_most()
        if most and size.isdecimal() and len(size) < 20 and int(size) > most:
            self._reply(say.TOO_LARGE)
            return
        hop = self._hop_now()
        await hop.forward_facts(self._facts())
        if (await self._pass(made)).positive:
            self._mail_from, self._recipients = path.address, []
            self._utf8, self._binary = "SMTPUTF8" in path.parameters, body == "BINARYMIME"

    async def _rcpt(self, made: Command) -> None:
        path = parse_path(made)
        if len(self._recipients) >= self._settings.max_recipients:
            self._reply(say.TOO_MANY_RECIPIENTS)
            return
        suffix = self._standing.relay_client
        if suffix:  # qmail-smtpd appends the value of RELAYCLIENT to every recipient
            made = with_suffix(made, suffix.encode("latin-1"))
            path = parse_path(made)
        if (await self._pass(made)).positive:
            self._recipients.append(path.address)

    async def _reset(self, made: Command) -> None:
        await self._drop_message()
        await self._pass(made)

    async def _any(self, made: Command) -> None:
        await self._pass(made)

    async def _quit(self, made: Command) -> None:
        self._final(say.goodbye(self._settings.hostname))

    async def _start_tls(self, made: Command) -> None:
        context = self._gate.tls
        if context is None or self._wire.link.secured or self._authenticated or made.argument:
            self._reply(say.NO_TLS_NOW if context is not None else say.UNKNOWN_COMMAND)
            return
        self._wire.link.take()  # what was sent in clear behind the command is no command (RFC 3207 4.2)
        self._wire.codec.discard()
        self._write(say.TLS_GO)
        try:
            await self._wire.start_tls(context, self._settings.timeouts.tls, server=True)
        except (OSError, TimeoutError) as error:
            self._gate.complain(f"{self._peer.client}: no TLS: {error}")
            raise Over from error
        self._hello, self._keywords = None, {}

    # AUTH

    def _auth_allowed(self) -> bool:
        return self._wire.link.secured or not (self._settings.auth_needs_tls or self._settings.tls == "must")

    def _authenticator(self) -> Authenticator:
        return Authenticator(self._settings, self._facts(), secured=self._wire.link.secured)

    async def _auth(self, made: Command) -> None:
        if self._settings.auth == "off":
            self._reply(say.UNKNOWN_COMMAND)
        elif self._authenticated or not made.argument:
            self._reply(say.OUT_OF_ORDER if self._authenticated else say.BAD_AUTH)
        elif not self._auth_allowed():
            self._reply(say.AUTH_AFTER_TLS)
        elif self._settings.auth == "dovecot":
            await self._auth_here(made)
        else:
            await self._auth_there(made)

    async def _auth_here(self, made: Command) -> None:
        user, reply = await self._authenticator().run(made, self._auth_line)
        if user is None:
            self._reply(reply)
            return
        self._user, self._authenticated = user, True
        hop = self._settings.hop
        try:
            if hop.authenticated and hop.authenticated != self._hop_now().address:
                await self._switch(await open_hop(hop.authenticated, self._settings, self._facts()))
            if self._hello is not None:
                await self._hop_now().hello(self._hello, self._facts())
        except HopFailed as error:
            self._gate.complain(f"{self._peer.client}: {error}")
            self._final(say.HOP_LOST)
        self._reply(reply)

    async def _auth_there(self, made: Command) -> None:
        """The exchange passes through; it is only looked at to learn who it is about."""
        hop = self._users_hop or self._hop_now()
        mechanism, _, initial = made.argument.partition(b" ")
        lines = [initial.strip()] if initial.strip() else []
        reply = await hop.ask(made)
        while reply.code == 334:
            line = await self._auth_line(reply)
            lines.append(line)
            reply = await hop.answer(line)
        if reply.positive:
            self._user = say.user_of(mechanism, lines)
            self._authenticated = True
            if hop is self._users_hop:
                self._users_hop = None
                await self._switch(hop)
        self._reply(reply)

    async def _auth_line(self, challenge: Reply) -> bytes:
        """Give the client a challenge; its line."""
        self._write(challenge)
        event = await self._wire.event(self._settings.timeouts.command)
        if isinstance(event, AuthLine):
            return event.line
        if isinstance(event, LineRefused):
            self._final(say.bad_line(event.sentence))
        if isinstance(event, Failure):
            self._final(say.broken(event.error))
        raise Over

    def _may_stop(self) -> bool:
        return self._stopping and self._wire.codec.state in (State.GREETING, State.START, State.READY)


_BEFORE_TLS = frozenset({b"EHLO", b"HELO", b"STARTTLS", b"NOOP", b"QUIT", b"RSET"})
_HANDLERS: dict[bytes, Callable[[Session, Command], Awaitable[None]]] = {
    b"EHLO": Session._hello_command,
    b"HELO": Session._hello_command,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"RSET": Session._reset,
    b"NOOP": Session._any,
    b"VRFY": Session._any,
    b"EXPN": Session._any,
    b"HELP": Session._any,
    b"QUIT": Session._quit,
    b"STARTTLS": Session._start_tls,
    b"AUTH": Session._auth,
    b"XFORWARD": Session._xforward,
}
"""What is not here is not passed on: XCLIENT of a client, for one, would be believed by the next hop."""
