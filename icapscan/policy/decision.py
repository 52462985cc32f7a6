"""What is done with a body, and why: the words that all of policy and the reply table share."""

from __future__ import annotations

import enum

from msgspec import Struct

from icapscan.findings import PartPath, Reason


class Action(enum.Enum):
    """What is done."""

    ALLOW = "allow"
    BLOCK = "block"
    SANITIZE = "sanitize"
    """What is bad is cleaned or taken out, and the rest is passed."""
    DEFER = "defer"
    """Not now: whoever sends it is to try again later."""
    ERROR = "error"
    """No decision is possible because something of ours failed: ICAP 500 or 503, and the client's own rule holds."""


GRAVITY = {Action.ALLOW: 0, Action.SANITIZE: 1, Action.DEFER: 2, Action.BLOCK: 3, Action.ERROR: 4}
"""Of several answers to one body the gravest holds."""

ACTING = {
    "allow": True,
    "block": True,
    "defer": True,
    "tag": True,
    "monitor": True,
    "sanitize": True,
    "quarantine": True,
    "notify": True,
}
"""Every word for an action, and whether this release can do it. A configuration with another one is refused."""


class Cause(enum.Enum):
    """Why it is done; chosen so that a reply can be picked without looking at the verdict again."""

    CLEAN = "clean"
    INFECTED = "infected"
    SUSPICIOUS = "suspicious"
    UNSCANNED = "unscanned"
    FAILED = "failed"
    TIMEOUT = "timeout"
    MACRO = "macro"
    """There are macros in it, and nothing else."""
    RULE = "rule"
    """A rule of the administrator's, whatever the scan says."""


class Decision(Struct, frozen=True):
    """What is done and why. ``reason`` is set with the causes UNSCANNED, FAILED and TIMEOUT."""

    action: Action
    cause: Cause
    reason: Reason | None = None
    rule: str = ""
    """Name of the rule that decided; empty: the defaults did."""
    tags: tuple[str, ...] = ()
    """Texts that a passed body is marked with."""
    quarantine: bool = False
    notify: tuple[str, ...] = ()
    """Names of the rules that want somebody told."""
    monitored: tuple[str, ...] = ()
    """What rules that only watch would have done: ``name=action``."""
    parts: tuple[PartPath, ...] = ()
    """The parts that made the rule match, where it looks at parts."""
