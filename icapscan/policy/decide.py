"""From what is known of a body to what is done with it. Pure; the only place that blocks or allows."""

from __future__ import annotations

import enum

from msgspec import Struct

from icapscan.findings import Level, Reason, Unscanned, Verdict
from icapscan.policy.settings import PolicySettings


class Action(enum.Enum):
    """What is done."""

    ALLOW = "allow"
    BLOCK = "block"
    ERROR = "error"
    """No decision is possible because something of ours failed: ICAP 500 or 503, and the client's own rule holds."""


class Cause(enum.Enum):
    """Why it is done; chosen so that a reply can be picked without looking at the verdict again."""

    CLEAN = "clean"
    INFECTED = "infected"
    SUSPICIOUS = "suspicious"
    UNSCANNED = "unscanned"
    FAILED = "failed"
    TIMEOUT = "timeout"


class Decision(Struct, frozen=True):
    """What is done and why. ``reason`` is set with the causes UNSCANNED, FAILED and TIMEOUT."""

    action: Action
    cause: Cause
    reason: Reason | None = None


_CLEAN = Decision(Action.ALLOW, Cause.CLEAN)
_INFECTED = Decision(Action.BLOCK, Cause.INFECTED)
_OURS = {Reason.ENGINE_FAILED: Cause.FAILED, Reason.TIMEOUT: Cause.TIMEOUT}


def decide(verdict: Verdict, settings: PolicySettings) -> Decision:
    """The decision for one verdict.

    Infected is always blocked, even beside a failure. A failure of ours comes next: what the failed engine would have
    found is unknown, so neither a block page nor a pass would be true. Then whatever blocks wins over what allows.
    """
    if verdict.level is Level.CLEAN:
        return _CLEAN
    if verdict.level is Level.INFECTED:
        return _INFECTED
    if settings.failures == "error":
        for reason, cause in _OURS.items():
            if any(item.reason is reason for item in verdict.unscanned):
                return Decision(Action.ERROR, cause, reason)
    for item in verdict.unscanned:
        if _answer(item, settings) is Action.BLOCK:
            return Decision(Action.BLOCK, Cause.UNSCANNED, item.reason)
    if verdict.level is Level.SUSPICIOUS:
        action = Action.BLOCK if settings.suspicious == "block" else Action.ALLOW
        return Decision(action, Cause.SUSPICIOUS, verdict.reason)
    return Decision(Action.ALLOW, Cause.UNSCANNED, verdict.reason)


def _answer(item: Unscanned, settings: PolicySettings) -> Action:
    """What the table says of one unscanned item."""
    if item.reason in _OURS:
        answer = "allow" if settings.failures == "allow" else "block"
    else:
        answer = {
            Reason.OVER_LIMIT: settings.unscanned.over_limit,
            Reason.ENCRYPTED: settings.unscanned.encrypted,
            Reason.MALFORMED: settings.unscanned.malformed,
            Reason.UNSUPPORTED: settings.unscanned.unsupported,
        }[item.reason]
    return Action.ALLOW if answer == "allow" else Action.BLOCK
