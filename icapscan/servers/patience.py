"""How long a connection waits for what: one function over the state of the codec (PROTOCOL S14-S16, S62, S77)."""

from __future__ import annotations

import enum

from icapscan.servers.settings import ServerSettings
from icapscan.servers.transaction import Transaction
from icapscan.wire.icap import IcapConnection
from icapscan.wire.icap_states import State

_RATE_AFTER_SECONDS = 30.0
"""A body must keep its minimum rate only once it had this long."""


class Overdue(enum.Enum):
    """What a deadline was for, and so what happens when it passes."""

    NEXT_REQUEST = "next request"
    """Close silently."""
    HEAD = "head"
    """408."""
    BODY = "body"
    """408."""
    FINAL_CRLF = "final CRLF"
    """Go on without it."""


def deadline(
    codec: IcapConnection, settings: ServerSettings, now: Transaction | None, last_byte: float
) -> tuple[float, Overdue] | None:
    """When the wait for the next bytes ends, on the event loop's clock; None while the client owes us nothing."""
    state = codec.request_state
    if now is None:
        return last_byte + settings.idle_timeout, Overdue.NEXT_REQUEST
    if state in (State.IDLE, State.HEADS):
        return now.started + settings.head_timeout, Overdue.HEAD
    if state in (State.PREVIEW, State.BODY):
        if codec.awaits_final_crlf:
            return last_byte + settings.final_crlf_grace, Overdue.FINAL_CRLF
        return min(last_byte + settings.body_timeout, _body_limit(settings, now)), Overdue.BODY
    return None


def _body_limit(settings: ServerSettings, now: Transaction) -> float:
    limit = now.body_began + settings.body_total
    if settings.min_rate:
        limit = min(limit, now.body_began + _RATE_AFTER_SECONDS + now.size / settings.min_rate)
    return limit
