"""What may happen when on a milter connection: one table for both ends (libmilter's engine.c; Postfix milter8.c).

A command that is not in the table is illegal in that state. HELO and MAIL within a message give it up without an ABORT:
libmilter takes it so, and Postfix sends HELO before its ABORT.
"""

from __future__ import annotations

import enum

from icapscan.wire.milter_codes import Command, Response


class Role(enum.Enum):
    """Which end of the connection a codec is."""

    MTA = "mta"
    FILTER = "filter"


class State(enum.Enum):
    """How far the session of one SMTP client is."""

    OPENED = "opened"
    READY = "ready"
    """Negotiated; no client yet."""
    CONNECTED = "connected"
    """A client, and no message."""
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    HEADERS = "headers"
    BODY = "body"
    ENDED = "ended"
    """The body is complete; the answer to that ends the message."""
    CLOSED = "closed"
    FAILED = "failed"


_C, _S = Command, State
_AWAY = {_C.ABORT: _S.CONNECTED, _C.QUIT: _S.CLOSED, _C.QUIT_NEW: _S.READY}
_ANEW = {_C.HELO: _S.CONNECTED, _C.MAIL: _S.MAIL}

COMMANDS: dict[State, dict[Command, State]] = {
    _S.OPENED: {_C.NEGOTIATE: _S.READY, _C.QUIT: _S.CLOSED},
    _S.READY: {
        _C.MACROS: _S.READY,
        _C.CONNECT: _S.CONNECTED,
        _C.UNKNOWN: _S.READY,
        _C.ABORT: _S.READY,
        _C.QUIT: _S.CLOSED,
        _C.QUIT_NEW: _S.READY,
    },
    _S.CONNECTED: {_C.MACROS: _S.CONNECTED, _C.UNKNOWN: _S.CONNECTED, **_ANEW, **_AWAY},
    _S.MAIL: {_C.MACROS: _S.MAIL, _C.RCPT: _S.RCPT, _C.UNKNOWN: _S.MAIL, **_ANEW, **_AWAY},
    _S.RCPT: {
        _C.MACROS: _S.RCPT,
        _C.RCPT: _S.RCPT,
        _C.UNKNOWN: _S.RCPT,
        _C.DATA: _S.DATA,
        _C.HEADER: _S.HEADERS,
        _C.END_OF_HEADERS: _S.BODY,
        **_ANEW,
        **_AWAY,
    },
    _S.DATA: {_C.MACROS: _S.DATA, _C.HEADER: _S.HEADERS, _C.END_OF_HEADERS: _S.BODY, **_ANEW, **_AWAY},
    _S.HEADERS: {_C.MACROS: _S.HEADERS, _C.HEADER: _S.HEADERS, _C.END_OF_HEADERS: _S.BODY, **_ANEW, **_AWAY},
    _S.BODY: {_C.MACROS: _S.BODY, _C.BODY: _S.BODY, _C.END_OF_BODY: _S.ENDED, **_ANEW, **_AWAY},
    _S.ENDED: {_C.ABORT: _S.CONNECTED, _C.QUIT: _S.CLOSED},
    _S.CLOSED: {},
    _S.FAILED: {},
}
"""The state after each command."""

MODIFICATIONS = frozenset(
    {
        Response.ADD_HEADER, Response.INSERT_HEADER, Response.CHANGE_HEADER, Response.REPLACE_BODY, Response.QUARANTINE,
        Response.PROGRESS,
    }
)  # fmt: skip
"""Answers behind which another one follows, all to the end of the body (`PROGRESS` to any command)."""

_FINAL = frozenset({Response.ACCEPT, Response.REJECT, Response.TEMPFAIL, Response.REPLY})
_IN_MESSAGE = frozenset({_S.MAIL, _S.RCPT, _S.DATA, _S.HEADERS, _S.BODY})


def after_answer(state: State, command: Command, response: Response) -> State | None:
    """The state after the last answer to ``command``, which led to ``state``; None for an answer that is illegal."""
    if response in MODIFICATIONS or (response is Response.SKIP and command is not Command.BODY):
        return None
    if state is _S.ENDED:
        return _S.CONNECTED
    if response is Response.ACCEPT or (response in _FINAL and command is not Command.RCPT):
        return _S.CONNECTED if state in _IN_MESSAGE else state
    return state
