"""Why the ICAP client has no verdict. None of these ever means "clean"; ``retry``: asking again makes sense.

A mail adapter answers all of them with a temporary failure (PROTOCOL C38).
"""

from __future__ import annotations

import enum

from icapscan.errors import IcapscanError


class Stage(enum.Enum):
    """What the client was waiting for when its patience ended."""

    QUEUE = "a free connection"
    CONNECT = "the connection"
    TLS = "the TLS handshake"
    CONTINUE = "the answer to the preview"
    ANSWER = "the answer"
    IDLE = "the next bytes"
    TOTAL = "the whole transaction"


class ClientError(IcapscanError):
    """Base of what the ICAP client raises about a server or the way to it."""


class InvalidArgument(ClientError):
    """The caller gave a URL or a value that cannot be sent, such as one with CR, LF or NUL in it."""


class BodyChanged(ClientError):
    """The body became shorter or unreadable while it was sent."""


class BodyAborted(BodyChanged):
    """Whoever wrote the body gave it up before its end; the ICAP connection was cut."""


class ConnectionLost(ClientError):
    """No connection, or one that ended before the answer was complete."""

    retry = True

    def __init__(self, sentence: str, *, answer_began: bool = False) -> None:
        super().__init__(sentence)
        self.answer_began = answer_began


class ConnectFailed(ConnectionLost):
    """Nobody listens there, or the name does not resolve."""


class TlsFailed(ClientError):
    """The TLS handshake failed: a certificate that is not trusted, a wrong name, or no TLS at all."""


class ClientTimeout(ClientError):
    """Patience ended; ``stage`` says what was waited for."""

    retry = True

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(f"Waited {seconds:g} s in vain for {stage.value}.")
        self.stage = stage


class NotIcap(ClientError):
    """The peer does not answer in ICAP."""


class Malformed(ClientError):
    """The answer breaks ICAP, contradicts itself, or exceeds a bound."""


class NotOffered(ClientError):
    """The service does not have the method that was asked for (its OPTIONS say so)."""


class ServerRefused(ClientError):
    """The server answered with a status that is no verdict (RFC 3507 4.3.3 and vendors' numbers)."""

    def __init__(self, status: int, reason: str = "") -> None:
        meaning = _MEANINGS.get(status, reason or "not a status known here")
        super().__init__(f"The ICAP server answered {status}: {meaning}.")
        self.status = status
        self.retry = status in _RETRY


class ServerBusy(ServerRefused):
    """The server is overloaded or out of order for now: back off, or ask another server."""

    def __init__(self, status: int, reason: str = "", retry_after: int | None = None) -> None:
        super().__init__(status, reason)
        self.retry = True
        self.retry_after = retry_after
        """Seconds, where the server gave a number of them."""


class NoServer(ClientError):
    """Every server of the pool is suspended after failures."""

    retry = True


_MEANINGS = {
    400: "it did not understand the request",
    403: "it forbids this request",
    404: "there is no such service",
    405: "the service does not have this method",
    408: "it waited too long for the request",
    413: "the body is too large for it",
    418: "it wants other encapsulated sections",
    500: "it failed",
    501: "it does not know this method",
    502: "something behind it failed",
    503: "it is overloaded",
    505: "it does not speak ICAP/1.0",
    506: "it is too busy",
    539: "it has no licence for scanning",
    551: "it lacks a resource",
    558: "it has no licence for scanning",
}
_RETRY = frozenset({408, 500, 502, 503, 506, 551})
BUSY = frozenset({503, 506, 551})
"""Statuses that become `ServerBusy`."""


def refusal(status: int, reason: str, retry_after: str | None) -> ServerRefused:
    """The error for an ICAP status that is no verdict."""
    if status in BUSY:
        seconds = int(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 7 else None
        return ServerBusy(status, reason, seconds)
    return ServerRefused(status, reason)
