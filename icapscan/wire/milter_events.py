"""The events of a milter connection. The same classes are received by one end and sent by the other."""

from __future__ import annotations

from msgspec import Struct

from icapscan.errors import ProtocolError
from icapscan.wire.milter_codes import Actions, Command, Protocol, Stage


class Negotiate(Struct, frozen=True):
    """The MTA's offer, and the filter's choice."""

    version: int
    actions: Actions = Actions.NONE
    protocol: Protocol = Protocol.NONE
    macros: tuple[tuple[Stage, bytes], ...] = ()
    """The choice only: names of macros for a stage, separated by spaces."""


# From the MTA


class Macros(Struct, frozen=True):
    """Values that belong to the command that follows; names as sent, such as ``i`` or ``{client_addr}``."""

    command: Command
    values: tuple[tuple[bytes, bytes], ...] = ()


class Connect(Struct, frozen=True):
    """An SMTP client."""

    host: bytes
    family: bytes = b"U"
    """``4``, ``6``, ``L`` (a local socket) or ``U`` (unknown: neither port nor address)."""
    port: int = 0
    address: bytes = b""


class Helo(Struct, frozen=True):
    """HELO or EHLO."""

    name: bytes


class MailFrom(Struct, frozen=True):
    """MAIL: the reverse-path in angle brackets, then ESMTP parameters."""

    arguments: tuple[bytes, ...]


class RcptTo(Struct, frozen=True):
    """RCPT: a forward-path in angle brackets, then ESMTP parameters."""

    arguments: tuple[bytes, ...]


class Data(Struct, frozen=True):
    """DATA."""


class UnknownCommand(Struct, frozen=True):
    """An SMTP command that the MTA does not know."""

    line: bytes


class Header(Struct, frozen=True):
    """One header field; its lines are joined by LF."""

    name: bytes
    value: bytes


class EndOfHeaders(Struct, frozen=True):
    """The empty line behind the header section."""


class BodyPiece(Struct, frozen=True):
    """Some bytes of the body, lines ended by CRLF."""

    data: bytes


class EndOfBody(Struct, frozen=True):
    """The message is complete, with these last bytes of the body."""

    data: bytes = b""


class Abort(Struct, frozen=True):
    """The current message is given up."""


class Quit(Struct, frozen=True):
    """The SMTP session is over. ``again``: another one follows on this connection."""

    again: bool = False


# From the filter


class Continue(Struct, frozen=True):
    """Go on; at the end of the body: accept it with the changes asked for."""


class Accept(Struct, frozen=True):
    """Take this message (or this session) without asking any further."""


class Reject(Struct, frozen=True):
    """Refuse for good, with a text of the MTA's own."""


class TempFail(Struct, frozen=True):
    """Refuse for now, with a text of the MTA's own."""


class Reply(Struct, frozen=True):
    """Refuse with this SMTP reply: ``554 5.7.1 text``, one line."""

    text: bytes


class Skip(Struct, frozen=True):
    """Send no more of these commands (body pieces)."""


class Progress(Struct, frozen=True):
    """Still at work: keep waiting."""


class AddHeader(Struct, frozen=True):
    """Add a field at the end of the header section."""

    name: bytes
    value: bytes


class InsertHeader(Struct, frozen=True):
    """Add a field before the one that has this index (0: at the top)."""

    index: int
    name: bytes
    value: bytes


class ChangeHeader(Struct, frozen=True):
    """Give the ``index``-th field of this name (1: the first) another value; an empty one deletes it."""

    index: int
    name: bytes
    value: bytes


class ReplaceBody(Struct, frozen=True):
    """Some bytes of the new body; several of them follow each other."""

    data: bytes


class Quarantine(Struct, frozen=True):
    """Put the message on hold, for this reason."""

    reason: bytes


# Of the connection


class PeerClosed(Struct, frozen=True):
    """The peer sends no more, and no packet is incomplete."""


class Failure(Struct, frozen=True):
    """The peer broke the protocol. Nothing more is read."""

    error: ProtocolError


FromMta = (
    Negotiate | Macros | Connect | Helo | MailFrom | RcptTo | Data | UnknownCommand | Header | EndOfHeaders | BodyPiece
    | EndOfBody | Abort | Quit
)  # fmt: skip
FromFilter = (
    Negotiate | Continue | Accept | Reject | TempFail | Reply | Skip | Progress | AddHeader | InsertHeader
    | ChangeHeader | ReplaceBody | Quarantine
)  # fmt: skip
Event = FromMta | FromFilter | PeerClosed | Failure
