"""The MTA's end of a milter connection, by the same codec in its other role; it applies changes as Postfix does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from icapscan.wire import milter_events as ev
from icapscan.wire.milter import MilterConnection
from icapscan.wire.milter_codes import FLAGS_OF, Actions, Command, Protocol
from icapscan.wire.milter_states import Role

SECONDS = 60.0
"""Guard against hanging."""
EVERYTHING = Actions(0x1FF)


class Mail(Struct, frozen=True):
    """A message in the pieces that a milter gets: values with the white space behind the colon, lines joined by LF."""

    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, message: bytes) -> Mail:
        """From a message with CRLF line ends."""
        head, _, body = message.partition(b"\r\n\r\n")
        fields: list[tuple[bytes, bytes]] = []
        for line in head.split(b"\r\n"):
            if line[:1] in (b" ", b"\t"):
                fields[-1] = (fields[-1][0], fields[-1][1] + b"\n" + line)
            else:
                name, _, value = line.partition(b":")
                fields.append((name, value))
        return cls(tuple(fields), body)

    @property
    def message(self) -> bytes:
        lines = [name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in self.fields]
        return b"".join(lines) + b"\r\n" + self.body


class Mta:
    """One connection to a milter; ``version`` and what it offers may be those of an old MTA."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        version: int = 6,
        actions: Actions = EVERYTHING,
        protocol: Protocol | None = None,
    ) -> None:
        self.reader, self.writer = reader, writer
        self.codec = MilterConnection(Role.MTA)
        self._offer = ev.Negotiate(version, actions, FLAGS_OF[version] if protocol is None else protocol)
        self.progress = 0
        """How often the filter said that it is still at work."""

    async def __aenter__(self) -> Self:
        assert await self.say(self._offer) != []
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    @property
    def spaced(self) -> bool:
        return bool(self.codec.protocol & Protocol.LEADING_SPACE)

    async def say(self, *events: ev.FromMta) -> list[ev.Event]:
        """Send commands, and give the answers to the last one that has any."""
        answers: list[ev.Event] = []
        for event in events:
            self.writer.write(self.codec.send(event))
            if self.codec.pending is not None:
                answers = await self._answers()
        await self.writer.drain()
        return answers

    async def _answers(self) -> list[ev.Event]:
        answers: list[ev.Event] = []
        while self.codec.pending is not None:
            data = await asyncio.wait_for(self.reader.read(1 << 18), SECONDS)
            if not data:
                raise ConnectionResetError("the filter closed the connection")
            events = self.codec.receive(data)
            self.progress += sum(isinstance(event, ev.Progress) for event in events)
            answers += [event for event in events if not isinstance(event, ev.Progress)]
        return answers

    async def connect(self, address: bytes = b"192.0.2.7") -> None:
        """An SMTP client."""
        await self.say(ev.Connect(b"client.icapscan.test", b"4", 4711, address), ev.Helo(b"client"))

    async def start(
        self, sender: bytes, recipients: Sequence[bytes], user: bytes = b"", queue_id: bytes = b"4F1"
    ) -> None:
        """MAIL, RCPT and DATA."""
        macros = ((b"i", queue_id), *(((b"{auth_authen}", user),) if user else ()))
        await self.say(ev.Macros(Command.MAIL, macros), ev.MailFrom((b"<" + sender + b">",)))
        for recipient in recipients:
            await self.say(ev.RcptTo((b"<" + recipient + b">",)))
        if self._offer.version >= 4:
            await self.say(ev.Data())

    async def content(self, mail: Mail, piece: int = 65535) -> None:
        """Everything but the end of the body."""
        for name, value in mail.fields:
            shown = value if self.spaced else value[1:] if value[:1] == b" " else value
            await self.say(ev.Header(name, shown))
        await self.say(ev.EndOfHeaders())
        for at in range(0, len(mail.body), piece):
            await self.say(ev.BodyPiece(mail.body[at : at + piece]))

    async def send(
        self,
        mail: Mail,
        sender: bytes = b"a@icapscan.test",
        recipients: Sequence[bytes] = (b"b@icapscan.test",),
        user: bytes = b"",
    ) -> list[ev.Event]:
        """A whole message: the answers to its end."""
        await self.start(sender, recipients, user)
        await self.content(mail)
        return await self.say(ev.EndOfBody())


def applied(mail: Mail, answers: Sequence[ev.Event], *, spaced: bool) -> Mail:
    """The message after the changes that a filter asked for."""
    fields = list(mail.fields)
    body: bytes | None = None
    space = b"" if spaced else b" "
    for event in answers:
        match event:
            case ev.AddHeader():
                fields.append((event.name, space + event.value))
            case ev.InsertHeader():
                fields.insert(event.index, (event.name, space + event.value))
            case ev.ChangeHeader():
                found = [at for at, (name, _) in enumerate(fields) if name.lower() == event.name.lower()]
                at = found[event.index - 1]
                fields[at : at + 1] = [(event.name, space + event.value)] if event.value else []
            case ev.ReplaceBody():
                body = (body or b"") + event.data
            case _:
                pass
    return Mail(tuple(fields), mail.body if body is None else body)
