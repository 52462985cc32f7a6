"""What comes out of an SMTP connection."""

from __future__ import annotations

from msgspec import Struct

from icapscan.errors import ProtocolError
from icapscan.wire.smtp_command import Chunk, Command
from icapscan.wire.smtp_reply import Reply


class CommandReceived(Struct, frozen=True):
    """Server: answer it by `send_reply`; until then nothing more is read. Of BDAT, its bytes come first."""

    command: Command
    legal: bool
    """The table of states allows it now."""
    chunk: Chunk | None = None
    """BDAT only."""


class LineRefused(Struct, frozen=True):
    """Server: a line that is too long or is no command line. Answer it with 500."""

    sentence: str


class DataReceived(Struct, frozen=True):
    """Server: bytes of the message."""

    data: bytes


class DataEnded(Struct, frozen=True):
    """Server: the mail data, or the bytes of one BDAT chunk, are complete. Answer them by `send_reply`."""

    bare: bool
    """A CR or LF stood alone in the message."""


class AuthLine(Struct, frozen=True):
    """Server: the client's line of an AUTH exchange. Answer it by `send_reply`."""

    line: bytes


class ReplyReceived(Struct, frozen=True):
    """Client: the answer to what was sent, or the greeting."""

    reply: Reply


class PeerClosed(Struct, frozen=True):
    """The peer sends nothing more."""

    orderly: bool
    """Not in the middle of something."""


class Failure(Struct, frozen=True):
    """The peer broke the protocol in a way that ends the connection."""

    error: ProtocolError


Event = (
    CommandReceived | LineRefused | DataReceived | DataEnded | AuthLine | ReplyReceived | PeerClosed | Failure
)  # fmt: skip
