"""Mail data: taken aside from the client, judged, and given to the next hop or not."""

from __future__ import annotations

import asyncio
import time

from icapscan.adapters import smtp_replies as say
from icapscan.adapters.judgement import Action, Judgement
from icapscan.adapters.smtp_gate import Gate
from icapscan.adapters.smtp_hop import HopFailed
from icapscan.adapters.smtp_message import ClientGone, Envelope, Message, received_field, scanned_field
from icapscan.adapters.smtp_record import MessageRecord
from icapscan.adapters.smtp_side import ClientSide, Over
from icapscan.adapters.smtp_wire import SmtpLink
from icapscan.wire.proxy_protocol import Proxied
from icapscan.wire.smtp_command import Chunk, Command
from icapscan.wire.smtp_events import DataEnded, DataReceived
from icapscan.wire.smtp_reply import Reply


class MailSide(ClientSide):
    """The envelope of one transaction and its message."""

    def __init__(self, gate: Gate, link: SmtpLink, peer: Proxied) -> None:
        super().__init__(gate, link, peer)
        self._mail_from = ""
        self._utf8 = False
        self._binary = False
        self._recipients: list[str] = []
        self._message: Message | None = None

    async def _data(self, made: Command) -> None:
        if made.argument or self._binary:
            self._reply(say.BAD_ARGUMENT if made.argument else say.OUT_OF_ORDER)
            return
        message = self._new_message()
        self._write(say.START_DATA)
        bare = await self._take(message, time.monotonic() + self._settings.timeouts.data_total)
        self._reply(await self._finished(message, bare and self._settings.bare_line_ends == "refuse"))
        await self._drop_message()

    async def _chunk(self, chunk: Chunk, legal: bool) -> None:
        taken = legal and self._settings.chunking == "take" and self._hop is not None and bool(self._recipients)
        if not taken:
            await self._take(None, time.monotonic() + self._settings.timeouts.data_total)
            self._reply(say.OUT_OF_ORDER if self._settings.chunking == "take" else say.UNKNOWN_COMMAND)
            if legal:  # else there was no transaction that it could end
                await self._abandon()
            return
        message = self._message or self._new_message()
        bare = await self._take(message, time.monotonic() + self._settings.timeouts.data_total)
        if not chunk.last:
            self._reply(say.chunk_taken(chunk.size))
            return
        self._reply(await self._finished(message, bare and not self._binary))
        await self._drop_message()

    def _new_message(self) -> Message:
        settings = self._settings
        kind = ("UTF8" if self._utf8 else "E") + "SMTP" if self._keywords or self._utf8 else "SMTP"
        kind += ("S" if self._wire.link.secured else "") + ("A" if self._authenticated else "")
        envelope = Envelope(
            self._mail_from,
            tuple(self._recipients),
            self._forwarded.get("ADDR") or self._peer.client,
            self._user,
            self._helo(),
            kind,
        )  # fmt: skip
        message = self._gate.new_message(envelope, self._size_most())
        if settings.received:
            message.head(received_field(envelope, self._peer.client, settings.hostname, message.id))
        if settings.scanned_field:
            message.head(scanned_field(settings.hostname))
        self._message = message
        return message

    async def _take(self, message: Message | None, deadline: float) -> bool:
        """The bytes of a message, or of one chunk, from the client; whether a CR or LF stood alone."""
        keep = self._settings.timeouts.keep
        kept = time.monotonic()
        while True:
            if time.monotonic() - kept > keep:
                await self._keep_hop()
                kept = time.monotonic()
            left = min(self._settings.timeouts.data_block, deadline - time.monotonic())
            event = await self._wire.event(max(left, 0.001))
            if isinstance(event, DataReceived):
                if message is not None:
                    await message.feed(event.data)
            elif isinstance(event, DataEnded):
                return event.bare
            else:  # the client left in the middle: nothing of it goes on
                if self._hop is not None:
                    self._hop.close()
                if message is not None:
                    self._gate.complain(f"{message.id}: {self._peer.client} left in the middle of a message.")
                raise Over

    async def _finished(self, message: Message, bare: bool) -> Reply:
        """Judge a complete message, do what that says, and give the reply for the client."""
        began = time.monotonic()
        gone = self._wire.link.gone
        if message.trouble is not None or bare:
            judgement = Judgement(Action.REFUSE, detail="The message was not taken, whatever is in it.")
            reply = say.trouble(message.trouble) if message.trouble is not None else say.BARE_LINE_ENDS
        else:
            judgement, reply = await self._judged(message), None
        scanned = time.monotonic() - began
        if gone.is_set():
            raise ClientGone("The client left before it had an answer.")
        if reply is None and judgement.action in (Action.PASS, Action.REPLACE):
            reply = await self._deliver(message, judgement)
        else:
            reply = reply or say.judged(judgement, message.id)
            await self._abandon()
        self._gate.record(self._record(message, judgement, reply, scanned, time.monotonic() - began))
        return reply

    async def _judged(self, message: Message) -> Judgement:
        """The judgement, however long it takes: the next hop is told meanwhile that we are still here."""
        judging = asyncio.ensure_future(message.judge(self._wire.link.gone))
        try:
            while not judging.done():
                await asyncio.wait({judging}, timeout=self._settings.timeouts.keep)
                if not judging.done():
                    await self._keep_hop()
        finally:
            judging.cancel()
        return judging.result()

    async def _deliver(self, message: Message, judgement: Judgement) -> Reply:
        store, hop = judgement.adapted or message.store, self._hop
        if hop is None:
            return say.HOP_LOST_MESSAGE
        try:
            reply = await hop.deliver(store.size, store.pieces(), binary=self._binary)
        except HopFailed as error:
            self._gate.complain(f"{message.id}: {error}")
            hop.close()
            self._hop = None
            return say.HOP_LOST_MESSAGE
        if not hop.at_rest:  # it did not want the message: for the client, the transaction is over all the same
            await self._forget()
        return reply

    async def _abandon(self) -> None:
        """Nothing of the transaction goes on."""
        await self._drop_message()
        await self._forget()

    async def _drop_message(self) -> None:
        message, self._message = self._message, None
        if message is not None:
            await message.close()

    def _record(
        self, message: Message, judgement: Judgement, reply: Reply, scanned: float, total: float
    ) -> MessageRecord:  # fmt: skip
        return MessageRecord(
            id=message.id,
            client=self._forwarded.get("ADDR") or self._peer.client,
            helo=self._forwarded.get("HELO") or self._helo(),
            user=self._user,
            mail_from=self._mail_from,
            rcpt_to=tuple(self._recipients),
            size=message.size,
            action=judgement.action,
            trouble=message.trouble.value if message.trouble is not None else "",
            threat=judgement.threat,
            reference=judgement.reference,
            detail=judgement.detail,
            hop=self._hop.address if self._hop is not None else "",
            reply=str(reply),
            scan_seconds=scanned,
            seconds=total,
        )
