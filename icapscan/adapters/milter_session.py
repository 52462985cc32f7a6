"""One connection of an MTA: the messages of its SMTP clients, one after the other, each with its answer."""

from __future__ import annotations

import asyncio
import logging
from typing import assert_never

from msgspec import Struct

from icapscan.adapters.judgement import Action, Judgement, judgement_of_error
from icapscan.adapters.milter_changes import body_changes, header_changes, read_message
from icapscan.adapters.milter_message import Facts, Message, MessageTooLarge, path_of
from icapscan.adapters.milter_settings import MilterSettings
from icapscan.adapters.told import told_ip, told_user
from icapscan.clients.balance import IcapPool
from icapscan.limits import KIB
from icapscan.store import Purse
from icapscan.wire import milter_events as ev
from icapscan.wire.milter import MilterConnection, choose
from icapscan.wire.milter_codes import Actions, Command, Protocol, Stage
from icapscan.wire.milter_states import Role

_LOG = logging.getLogger("icapscan.milter")
_READ = 256 * KIB
_KEPT_MOST = 2 * 1024 * KIB
"""Bytes that an MTA may send ahead while an answer is worked on."""

ACTIONS = Actions.ADD_HEADERS | Actions.CHANGE_HEADERS | Actions.CHANGE_BODY | Actions.QUARANTINE | Actions.SET_MACROS
PROTOCOL = (
    Protocol.SILENT_CONNECT | Protocol.SILENT_HELO | Protocol.SILENT_MAIL | Protocol.SILENT_RCPT | Protocol.SILENT_DATA
    | Protocol.SILENT_UNKNOWN | Protocol.SILENT_HEADER | Protocol.SILENT_END_OF_HEADERS | Protocol.SILENT_BODY
    | Protocol.LEADING_SPACE | Protocol.NO_UNKNOWN
)  # fmt: skip
"""Everything is decided at the end of the body, so nothing before it needs an answer."""
MACROS = (
    (Stage.CONNECT, b"j {client_addr}"),
    (Stage.MAIL, b"i {auth_authen}"),
    (Stage.END_OF_BODY, b"i"),
)


class Context(Struct, frozen=True):
    """What all sessions share."""

    settings: MilterSettings
    pool: IcapPool
    purse: Purse
    hostname: str


class MilterSession:
    """Reads commands and answers them until the MTA goes. No exception of a message leaves it unanswered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: Context) -> None:
        self._reader = reader
        self._writer = writer
        self._context = context
        self._codec = MilterConnection(Role.FILTER)
        self._message: Message | None = None
        self._macros: dict[bytes, bytes] = {}
        self._message_macros: dict[bytes, bytes] = {}
        self._client = b""
        self._reading: asyncio.Task[bytes] | None = None
        self._gone = False

    @property
    def busy(self) -> bool:
        """Whether a message is under way."""
        return self._message is not None

    async def run(self) -> None:
        """Until the connection ends."""
        try:
            while not self._gone:
                data = await self._read(self._context.settings.timeouts.command)
                events = self._codec.receive(data) if data else self._codec.receive_eof()
                while events:
                    for event in events:
                        await self._on(event)
                    await self._go_on()
                    events = [] if self._gone else self._codec.receive(b"")
        except (TimeoutError, OSError):
            pass  # the MTA is gone or stuck: it has no answer, so it keeps the message or its client does
        finally:
            await self._drop_message()
            if self._reading is not None:
                self._reading.cancel()
                await asyncio.gather(self._reading, return_exceptions=True)

    # Reading and writing

    async def _read(self, seconds: float) -> bytes:
        """What comes next; empty at the end. Raises ``TimeoutError`` or ``OSError``."""
        reading = self._begin_reading()
        done, _ = await asyncio.wait({reading}, timeout=seconds)
        if not done:
            raise TimeoutError
        self._reading = None
        return reading.result()

    def _begin_reading(self) -> asyncio.Task[bytes]:
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._reader.read(_READ))
        return self._reading

    async def _send(self, *events: ev.FromFilter) -> None:
        self._writer.write(self._codec.send(*events))
        async with asyncio.timeout(self._context.settings.timeouts.write):
            await self._writer.drain()

    # Commands

    async def _on(self, event: ev.Event) -> None:
        match event:
            case ev.Negotiate():
                await self._send(choose(event, ACTIONS, PROTOCOL, MACROS))
            case ev.Macros():
                self._take_macros(event)
            case ev.Connect():
                self._client = event.address.removeprefix(b"IPv6:") if event.family in (b"4", b"6") else b""
            case ev.Helo():
                await self._drop_message()
            case ev.MailFrom():
                await self._begin_message(path_of(event.arguments))
            case ev.RcptTo() | ev.Data() | ev.UnknownCommand():
                if self._message is not None and isinstance(event, ev.RcptTo):
                    self._message.add_recipient(path_of(event.arguments))
            case ev.Header() | ev.EndOfHeaders() | ev.BodyPiece():
                await self._take_content(event)
            case ev.EndOfBody():
                await self._end_message(event.data)
            case ev.Abort():
                await self._drop_message()
            case ev.Quit():
                await self._drop_message()
                self._client, self._gone = b"", not event.again
                self._macros.clear()
            case ev.PeerClosed():
                self._gone = True
            case ev.Failure():
                self._gone = True
                _LOG.warning("an MTA breaks the milter protocol: %s", event.error)
            case _:  # the codec gives a filter only what an MTA sends
                raise AssertionError(type(event).__name__)

    async def _go_on(self) -> None:
        """All events were acted on: the last one may be waited for. The end of a body never gets its answer here."""
        pending = self._codec.pending
        if pending is not None and not self._gone:
            assert pending is not Command.END_OF_BODY, "a message without an answer"
            await self._send(ev.Continue())

    def _take_macros(self, event: ev.Macros) -> None:
        session = event.command in (Command.CONNECT, Command.HELO)
        kept = self._macros if session else self._message_macros
        kept.update((name.strip(b"{}"), value) for name, value in event.values)

    async def _begin_message(self, sender: bytes) -> None:
        macros = self._message_macros  # those of MAIL came before it
        await self._drop_message()
        self._message_macros = macros
        settings = self._context.settings
        self._message = Message(self._context.pool, self._context.purse, settings.spool, settings.max_size, sender)

    async def _take_content(self, event: ev.Header | ev.EndOfHeaders | ev.BodyPiece) -> None:
        message = self._message
        assert message is not None  # the codec has no content without MAIL
        message.begin(self._facts())
        match event:
            case ev.Header():
                spaced = bool(self._codec.protocol & Protocol.LEADING_SPACE)
                message.add_field(event.name, event.value if spaced else b" " + event.value)
            case ev.EndOfHeaders():
                message.add(b"\r\n")
            case ev.BodyPiece():
                message.add(event.data)
            case _:
                assert_never(event)
        await message.room()

    def _facts(self) -> Facts:
        macros = {**self._macros, **self._message_macros}
        address = self._client or macros.get(b"client_addr", b"")
        return Facts(told_ip(address.decode("latin-1")), told_user(macros.get(b"auth_authen", b"")))

    async def _drop_message(self) -> None:
        message, self._message = self._message, None
        self._message_macros = {}
        if message is not None:
            await message.close()

    # The end of a message

    async def _end_message(self, data: bytes) -> None:
        message = self._message
        assert message is not None
        message.add(data)
        try:
            judgement = await self._judge(message)
            if judgement is not None:
                try:
                    await self._answer(message, judgement)
                finally:
                    if judgement.adapted is not None:
                        judgement.adapted.close()
        finally:
            await self._drop_message()

    async def _judge(self, message: Message) -> Judgement | None:
        """The judgement, while the MTA is told that it takes time; None when the MTA went away meanwhile."""
        timeouts = self._context.settings.timeouts
        loop = asyncio.get_running_loop()
        scan = message.end(self._facts())
        deadline = loop.time() + timeouts.scan
        while not scan.done():
            reading = self._begin_reading() if self._codec.backlog < _KEPT_MOST else None
            waited = {scan} if reading is None else {scan, reading}
            await asyncio.wait(
                waited, timeout=min(timeouts.progress, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if reading is not None and reading.done():
                self._reading = None
                if not (data := reading.result()):
                    self._gone = True
                    return None
                self._codec.receive(data)  # kept until this message is answered
            if scan.done():
                break
            if loop.time() >= deadline:
                return judgement_of_error(TimeoutError(f"No verdict within {timeouts.scan:g} s."))
            await self._send(ev.Progress())
        return scan.result()

    async def _answer(self, message: Message, judgement: Judgement) -> None:
        action = judgement.action
        if action is Action.PASS and message.failure is None:
            self._log(message, judgement)
            await self._send(*self._scanned_field(), ev.Continue())
        elif action is Action.REPLACE and message.failure is None:
            await self._replace(message, judgement)
        elif action is Action.REFUSE:
            self._log(message, judgement)
            await self._send(*self._refusal(judgement))
        elif isinstance(message.failure, MessageTooLarge):
            self._log(message, judgement)
            await self._send(ev.Reply(b"552 5.3.4 The message is too large to be scanned"))
        else:
            await self._defer(message, judgement, judgement.detail)

    async def _defer(self, message: Message, judgement: Judgement, detail: str) -> None:
        self._log(message, Judgement(Action.DEFER, judgement.threat, judgement.reference, detail))
        await self._send(ev.Reply(b"451 4.7.1 The message cannot be scanned now, try again later"))

    def _refusal(self, judgement: Judgement) -> list[ev.FromFilter]:
        said = judgement.threat or "policy"
        if judgement.reference:
            said += f" (reference {judgement.reference})"
        if self._context.settings.refused == "quarantine" and Actions.QUARANTINE & self._codec.may:
            return [ev.Quarantine(f"icapscan: {said}".encode("ascii", "replace")), ev.Continue()]
        text = f"554 5.7.1 This message was refused: {said}"
        return [ev.Reply(text.replace("%", "%%").encode("ascii", "replace"))]  # QUIRK: Sendmail formats it once more

    async def _replace(self, message: Message, judgement: Judgement) -> None:
        """Header changes first, then the body: Postfix takes a body only in one piece of the answer."""
        adapted = judgement.adapted
        assert adapted is not None
        needed = Actions.ADD_HEADERS | Actions.CHANGE_HEADERS | Actions.CHANGE_BODY
        read = read_message(adapted)
        if needed & self._codec.may != needed or read is None:
            await self._defer(message, judgement, "The message in its place cannot be handed to this MTA.")
            return
        fields, start = read
        spaced = bool(self._codec.protocol & Protocol.LEADING_SPACE)
        self._log(message, judgement)
        await self._send(*self._scanned_field(), *header_changes(message.fields, fields, leading_space=spaced))
        for piece in body_changes(adapted, start):
            await self._send(piece)
        await self._send(ev.Continue())

    def _scanned_field(self) -> list[ev.FromFilter]:
        if not self._context.settings.scanned_field or not Actions.ADD_HEADERS & self._codec.may:
            return []
        space = b" " if self._codec.protocol & Protocol.LEADING_SPACE else b""
        return [ev.AddHeader(b"X-Virus-Scanned", space + f"icapscan at {self._context.hostname}".encode())]

    def _log(self, message: Message, judgement: Judgement) -> None:
        queue_id = self._message_macros.get(b"i", b"").decode("latin-1")
        _LOG.log(
            logging.INFO if judgement.action is Action.PASS else logging.WARNING,
            "%s id=%s from=<%s> recipients=%d client=%s size=%d threat=%s reference=%s: %s",
            judgement.action.value, _plain(queue_id), _plain(message.sender.decode("latin-1")), len(message.recipients),
            self._facts().client_ip or "-", message.size, judgement.threat or "-", judgement.reference or "-",
            judgement.detail,
        )  # fmt: skip


def _plain(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:320]
