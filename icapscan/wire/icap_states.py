"""What may happen when on an ICAP connection: one transition table for both ends (RFC 3507 4.4-4.9).

Each end of a connection follows both halves of a transaction: how far the *request* is, and how far the *response*.
A step that is not in the table is illegal in that state. ``docs/architecture.md`` draws its pictures from here.
"""

from __future__ import annotations

import enum


class Role(enum.Enum):
    """Which end of the connection a codec is."""

    CLIENT = "client"
    SERVER = "server"


class State(enum.IntEnum):
    """How far one half of a transaction is."""

    IDLE = 0
    HEADS = 1
    """The ICAP head is there, the encapsulated HTTP heads are not."""
    PREVIEW = 2
    WAITING = 3
    """The preview ended and more body exists: only `Step.CONTINUE` or a final response goes on."""
    BODY = 4
    TRAILER = 5
    """The body ended, the ICAP trailer (draft-rousskov-icap-trailers) did not."""
    DONE = 6
    FAILED = 7


class Step(enum.IntEnum):
    """What moves a half on."""

    HEAD = 0
    NO_BODY = 1
    """The HTTP heads are complete and no body follows."""
    PREVIEW_FOLLOWS = 2
    BODY_FOLLOWS = 3
    CHUNK = 4
    PREVIEW_END = 5
    BODY_END = 6
    BODY_END_TRAILER_FOLLOWS = 7
    TRAILER = 8
    CONTINUE = 9
    ANSWERED = 10
    """The other half's final head: whatever preview was waiting, no more of it will be asked for."""
    NEXT = 11
    FAIL = 12
    WHOLE = 13
    """All of a half in one piece: the same as its head, its heads, its body and its end, one after the other."""


REQUEST: dict[State, dict[Step, State]] = {
    State.IDLE: {Step.HEAD: State.HEADS, Step.WHOLE: State.DONE, Step.FAIL: State.FAILED},
    State.HEADS: {
        Step.NO_BODY: State.DONE,
        Step.PREVIEW_FOLLOWS: State.PREVIEW,
        Step.BODY_FOLLOWS: State.BODY,
        Step.ANSWERED: State.HEADS,
        Step.FAIL: State.FAILED,
    },
    State.PREVIEW: {
        Step.CHUNK: State.PREVIEW,
        Step.PREVIEW_END: State.WAITING,
        Step.BODY_END: State.DONE,
        Step.ANSWERED: State.PREVIEW,
        Step.FAIL: State.FAILED,
    },
    State.WAITING: {Step.CONTINUE: State.BODY, Step.ANSWERED: State.DONE, Step.FAIL: State.FAILED},
    State.BODY: {
        Step.CHUNK: State.BODY,
        Step.BODY_END: State.DONE,
        Step.ANSWERED: State.BODY,
        Step.FAIL: State.FAILED,
    },
    State.DONE: {Step.NEXT: State.IDLE, Step.ANSWERED: State.DONE, Step.FAIL: State.FAILED},
    State.FAILED: {Step.ANSWERED: State.FAILED, Step.FAIL: State.FAILED},
}
"""The request half. A server reads it, a client writes it."""

RESPONSE: dict[State, dict[Step, State]] = {
    State.IDLE: {
        Step.CONTINUE: State.IDLE,
        Step.HEAD: State.HEADS,
        Step.WHOLE: State.DONE,
        Step.FAIL: State.FAILED,
    },
    State.HEADS: {Step.NO_BODY: State.DONE, Step.BODY_FOLLOWS: State.BODY, Step.FAIL: State.FAILED},
    State.BODY: {
        Step.CHUNK: State.BODY,
        Step.BODY_END: State.DONE,
        Step.BODY_END_TRAILER_FOLLOWS: State.TRAILER,
        Step.FAIL: State.FAILED,
    },
    State.TRAILER: {Step.TRAILER: State.DONE, Step.FAIL: State.FAILED},
    State.DONE: {Step.NEXT: State.IDLE, Step.FAIL: State.FAILED},
    State.FAILED: {Step.FAIL: State.FAILED},
}
"""The response half. A server writes it, a client reads it."""
