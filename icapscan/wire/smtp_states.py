"""What may happen when in an SMTP session: one table for both ends (RFC 5321 4.1.4, 3030, 3207, 4954; XCLIENT).

A step is made when the answer to a command is known: a server makes it when it sends the reply, a client when it
reads it. A step that is not in the table is illegal in that state, and a server answers it with 503.
"""

from __future__ import annotations

import enum


class Role(enum.Enum):
    """Which end of the connection a codec is."""

    CLIENT = "client"
    SERVER = "server"


class State(enum.Enum):
    """How far a session is."""

    GREETING = "greeting"
    """The server has not said who it is."""
    START = "start"
    """No EHLO yet, or none since the connection became another one (TLS, XCLIENT)."""
    READY = "ready"
    MAIL = "mail"
    """There is a reverse-path and no recipient yet."""
    RCPT = "rcpt"
    DATA = "data"
    """Mail data follow, up to the line with a single dot."""
    CHUNKS = "chunks"
    """Some BDAT chunks were accepted, the last one is not there yet."""
    AUTH = "auth"
    """Lines of an authentication exchange."""
    TLS = "tls"
    """Both have agreed on TLS; nothing in clear is read any more."""
    CLOSED = "closed"


class Step(enum.Enum):
    """What moves a session on."""

    GREETED = "greeted"
    HELLO = "hello"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA_GO = "data-go"
    DATA_DONE = "data-done"
    """The message was answered, whatever the answer was."""
    CHUNK = "chunk"
    CHUNK_DONE = "chunk-done"
    """The last chunk was answered, or one was refused: the transaction is over."""
    AUTH_GO = "auth-go"
    AUTH_DONE = "auth-done"
    TLS_GO = "tls-go"
    TLS_UP = "tls-up"
    RESET = "reset"
    ANY = "any"
    """NOOP, VRFY, HELP and the like: nothing changes."""
    QUIT = "quit"


_ALWAYS = {Step.QUIT: State.CLOSED}
_SESSION = {Step.HELLO: State.READY, Step.RESET: State.READY, **_ALWAYS}

TABLE: dict[State, dict[Step, State]] = {
    State.GREETING: {Step.GREETED: State.START, **_ALWAYS},
    State.START: {
        Step.HELLO: State.READY,
        Step.RESET: State.START,
        Step.ANY: State.START,
        Step.GREETED: State.START,
        **_ALWAYS,
    },
    State.READY: {
        Step.MAIL: State.MAIL,
        Step.AUTH_GO: State.AUTH,
        Step.AUTH_DONE: State.READY,
        Step.TLS_GO: State.TLS,
        Step.GREETED: State.START,
        Step.ANY: State.READY,
        **_SESSION,
    },
    State.MAIL: {Step.RCPT: State.RCPT, Step.ANY: State.MAIL, **_SESSION},
    State.RCPT: {
        Step.RCPT: State.RCPT,
        Step.DATA_GO: State.DATA,
        Step.CHUNK: State.CHUNKS,
        Step.CHUNK_DONE: State.READY,
        Step.ANY: State.RCPT,
        **_SESSION,
    },
    State.DATA: {Step.DATA_DONE: State.READY, **_ALWAYS},
    State.CHUNKS: {Step.CHUNK: State.CHUNKS, Step.CHUNK_DONE: State.READY, Step.ANY: State.CHUNKS, **_SESSION},
    State.AUTH: {Step.AUTH_DONE: State.READY, Step.AUTH_GO: State.AUTH, **_ALWAYS},
    State.TLS: {Step.TLS_UP: State.START, **_ALWAYS},
    State.CLOSED: {Step.QUIT: State.CLOSED},
}
"""GREETED again: XCLIENT gives the session a new beginning (Postfix XCLIENT_README)."""
