"""What a session knows of its client and its next hop, and how it speaks to them."""

from __future__ import annotations

from typing import NoReturn

from icapscan.adapters import smtp_replies as say
from icapscan.adapters.relay_rules import Standing
from icapscan.adapters.smtp_gate import Gate
from icapscan.adapters.smtp_hop import ClientFacts, Hop, HopFailed
from icapscan.adapters.smtp_wire import SmtpLink, SmtpWire
from icapscan.wire.proxy_protocol import Proxied
from icapscan.wire.smtp import SmtpConnection
from icapscan.wire.smtp_command import Command, command
from icapscan.wire.smtp_reply import Reply
from icapscan.wire.smtp_states import Role


class Over(Exception):
    """The session is at its end."""


class ClientSide:
    """The lower half of a session: `icapscan.adapters.smtp_mail` and `smtp_session` are built on it."""

    def __init__(self, gate: Gate, link: SmtpLink, peer: Proxied) -> None:
        self._gate = gate
        self._settings = gate.settings
        self._wire = SmtpWire(link, SmtpConnection(Role.SERVER, normalize=gate.settings.bare_line_ends == "normalize"))
        self._peer = peer
        self._standing = Standing()
        self._hello: Command | None = None
        self._forwarded: dict[str, str] = {}
        """What a trusted server in front tells about its client (XFORWARD)."""
        self._user = ""
        self._authenticated = False
        self._keywords: dict[str, str] = {}
        self._errors = 0
        self._hop: Hop | None = None

    # The client

    def _facts(self) -> ClientFacts:
        peer, told = self._peer, self._forwarded
        if told.get("ADDR"):
            port = int(told.get("PORT") or 0)
            helo, proto = told.get("HELO", ""), told.get("PROTO", "ESMTP")
            return ClientFacts(told["ADDR"], port, peer.server, peer.server_port, helo, proto != "SMTP", self._user)
        esmtp = self._hello is not None and self._hello.verb == b"EHLO"
        return ClientFacts(
            peer.client, peer.client_port, peer.server, peer.server_port, self._helo(), esmtp, self._user
        )  # fmt: skip

    def _helo(self) -> str:
        return self._hello.argument.decode("utf-8", "replace") if self._hello is not None else ""

    def _size_most(self) -> int:
        sizes = [size for size in (self._settings.max_size, self._standing.databytes) if size]
        return min(sizes) if sizes else 0

    def _reply(self, reply: Reply) -> None:
        """Answer, and count what went wrong."""
        self._errors += reply.code >= 500
        self._write(reply)
        if reply.code == 421:
            raise Over

    def _write(self, reply: Reply) -> None:
        self._wire.write(self._wire.codec.send_reply(reply))

    def _final(self, reply: Reply) -> NoReturn:
        """The last reply. Raises `Over`."""
        self._write(reply)
        raise Over

    # The next hop

    def _hop_now(self) -> Hop:
        if self._hop is None or not self._hop.usable:
            self._hop = None
            self._final(say.HOP_LOST)
        return self._hop

    async def _switch(self, hop: Hop) -> None:
        old, self._hop = self._hop, hop
        if old is not None:
            await old.quit()

    async def _keep_hop(self) -> None:
        """Tell the next hop that we are still here."""
        if self._hop is None:
            return
        try:
            await self._hop.ask(command("NOOP"))
        except HopFailed as error:
            self._gate.complain(f"{self._peer.client}: {error}")
            self._hop.close()
            self._hop = None

    async def _forget(self) -> None:
        """The next hop is to forget the envelope."""
        if self._hop is None:
            return
        try:
            reply = await self._hop.ask(command("RSET"))
            usable = reply.positive
        except HopFailed as error:
            self._gate.complain(f"{self._peer.client}: {error}")
            usable = False
        if not usable:
            self._hop.close()
            self._hop = None
