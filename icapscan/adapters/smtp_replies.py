"""What the proxy says by itself, in one place: reply codes of RFC 5321, enhanced status codes of RFC 3463 and 5248."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from icapscan.adapters.judgement import Action, Judgement
from icapscan.adapters.smtp_message import Trouble
from icapscan.errors import ProtocolError
from icapscan.wire.smtp_command import sasl_user
from icapscan.wire.smtp_reply import Reply, reply

TOO_MANY = reply(421, "4.7.0 Too many connections, try again later")
NO_RULES = reply(421, "4.3.5 Cannot tell what you may do, try again later")
DENIED = reply(554, "5.7.1 You may not send mail here")
HOP_LOST = reply(421, "4.4.2 Connection to the next mail server lost, try again later")
HOP_LOST_MESSAGE = reply(451, "4.4.2 The next mail server did not take the message, try again later")
SHUTTING_DOWN = reply(421, "4.3.2 Shutting down, try again later")
TOO_SLOW = reply(421, "4.4.2 Timeout")
TOO_MANY_COMMANDS = reply(421, "4.7.0 Too many commands")
TOO_MANY_ERRORS = reply(421, "4.7.0 Too many errors")
UNKNOWN_COMMAND = reply(502, "5.5.1 Command not implemented")
OUT_OF_ORDER = reply(503, "5.5.1 Bad sequence of commands")
HELLO_WITHOUT_NAME = reply(501, "5.5.4 Say who you are")
BAD_ARGUMENT = reply(501, "5.5.4 Syntax error in the argument")
NO_BINARY = reply(555, "5.5.4 BODY=BINARYMIME was not offered")
TOO_LARGE = reply(552, "5.3.4 Message too large")
NO_ROOM = reply(452, "4.3.1 No room for the message, try again later")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3 Too many recipients")
TLS_FIRST = reply(530, "5.7.0 Must issue a STARTTLS command first")
NO_TLS_NOW = reply(503, "5.5.1 STARTTLS is not possible now")
FORWARD_TAKEN = reply(250, "2.0.0 Noted")
TLS_GO = reply(220, "2.0.0 Go ahead")
START_DATA = reply(354, "End data with <CR><LF>.<CR><LF>")
BARE_LINE_ENDS = reply(550, "5.6.11 Message holds a bare CR or LF")
BAD_AUTH = reply(501, "5.5.2 AUTH needs a mechanism")
AUTH_AFTER_TLS = reply(538, "5.7.11 Encryption required for authentication")
AUTH_CANCELLED = reply(501, "5.7.0 Authentication cancelled")
AUTH_NO_MECHANISM = reply(504, "5.5.4 Authentication mechanism not offered")
AUTH_NOT_BASE64 = reply(501, "5.5.2 Not base64")
AUTH_FAILED = reply(535, "5.7.8 Authentication failed")
AUTH_LATER = reply(454, "4.7.0 Authentication is not possible now")
AUTH_DONE = reply(235, "2.7.0 Authenticated")


def greeting(hostname: str) -> Reply:
    """The first line of a session."""
    return reply(220, f"{hostname} ESMTP icapscan")


def goodbye(hostname: str) -> Reply:
    """The last line of a session."""
    return reply(221, f"2.0.0 {hostname} closing connection")


def hello(hostname: str, keywords: Mapping[str, str]) -> Reply:
    """The reply to EHLO."""
    lines = [f"{name} {value}".rstrip().encode("latin-1", "replace") for name, value in keywords.items()]
    return Reply(250, (hostname.encode(), *lines))


def refused_by_hop(said: Reply | None) -> Reply:
    """The greeting for a client when there is no next hop: its own no where that was for good, else later."""
    if said is not None and said.code == 554:
        return said
    return reply(421, "4.4.1 The next mail server does not answer, try again later")


def bad_line(sentence: str) -> Reply:
    """To a line that is no command."""
    return reply(500, f"5.5.2 {sentence}")


def broken(error: ProtocolError) -> Reply:
    """To something after which nothing more can be read."""
    return reply(error.status if error.status in (500, 501, 554) else 500, f"5.5.2 {error}")


def bad_argument(error: ProtocolError) -> Reply:
    """To a command whose argument makes no sense."""
    return reply(501, f"5.5.4 {error}")


def chunk_taken(size: int) -> Reply:
    """To a BDAT chunk that is not the last."""
    return reply(250, f"2.0.0 {size} octets received")


def trouble(what: Trouble) -> Reply:
    """To a message that is not taken, whatever is in it."""
    return TOO_LARGE if what is Trouble.TOO_LARGE else NO_ROOM


def judged(judgement: Judgement, identity: str) -> Reply:
    """To a message that does not go on. ``identity``: ours, which is in the log."""
    shown = f"{judgement.reference or identity}"
    if judgement.action is Action.REFUSE:
        threat = f": {judgement.threat}" if judgement.threat else " by content policy"
        return reply(554, f"5.7.1 Message refused{threat} (id {shown})")
    return reply(451, f"4.7.1 Message could not be scanned, try again later (id {shown})")


def user_of(mechanism: bytes, lines: Sequence[bytes]) -> str:
    """Who has authenticated, or "unknown"."""
    return sasl_user(mechanism.decode("latin-1"), lines) or "unknown"
