"""What is known about a kept body: what the caller tells (`Item`), and what the index has (`Entry`, `Act`)."""

from __future__ import annotations

import enum
import secrets

from msgspec import Struct

from icapscan.findings import CLEAN, Finding, Verdict

ID_LENGTH = 16
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base32: no letters that are taken for digits, when an id is read out on the telephone."""
_TEXT_MAX = 500
_FINDINGS_MAX = 100


class Kind(enum.Enum):
    """What the bytes are."""

    MAIL = "mail"
    """A whole message (message/rfc822): it can be released."""
    FILE = "file"
    """Anything else: the body of an HTTP message, a part of a mail."""


class State(enum.Enum):
    """What became of an item."""

    KEPT = "kept"
    RELEASED = "released"
    """Sent on at least once; still kept."""
    DELETED = "deleted"
    EXPIRED = "expired"
    """Removed for its age, or to make room."""
    LOST = "lost"
    """Its file was gone, and nobody had told us to remove it."""


HELD = (State.KEPT, State.RELEASED)
"""States in which the bytes are there."""


class Item(Struct, frozen=True, kw_only=True):
    """What is to be kept besides the bytes. All texts may come from a peer; they are made printable and cut short."""

    kind: Kind
    service: str = ""
    direction: str = ""
    """As the policy calls it: ``download``, ``upload``, ``mail``."""
    client: str = ""
    user: str = ""
    url: str = ""
    sender: str | None = None
    """Reverse-path of a mail (RFC 5321), without angle brackets; ``""`` is the null one, None: not known."""
    recipients: tuple[str, ...] = ()
    """Forward-paths, without angle brackets."""
    name: str = ""
    """Subject of a mail, file name of anything else."""
    media_type: str = ""
    verdict: Verdict = CLEAN
    rule: str = ""
    """The rule of the policy that decided."""
    reference: str = ""
    """The number of the transaction in the log."""


class Entry(Struct, frozen=True, kw_only=True):
    """One row of the index."""

    id: str
    time: float
    """When it was kept, in seconds since the epoch."""
    kind: Kind
    service: str
    direction: str
    client: str
    user: str
    url: str
    sender: str | None
    recipients: tuple[str, ...]
    name: str
    media_type: str
    verdict: str
    """The word of its `icapscan.findings.Level`."""
    reason: str
    findings: tuple[Finding, ...]
    rule: str
    reference: str
    came_back: str
    """The item that this mail was released from before; empty: it was not."""
    key: str
    """The number of the key that it is encrypted with."""
    size: int = 0
    """Bytes of the body."""
    stored: int = 0
    """Bytes of its file."""
    sha256: str = ""
    state: State = State.KEPT
    released: int = 0
    """How often it was released."""


class Act(Struct, frozen=True):
    """Who did what with an item, and when (seconds since the epoch)."""

    time: float
    who: str
    what: str
    item: str
    detail: str = ""


def new_id() -> str:
    """A random id: 80 bits, safe as a file name and in a header field."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH))


def is_id(text: str) -> bool:
    """Whether ``text`` has the form of an id. Nothing else may become part of a path."""
    return len(text) == ID_LENGTH and all(char in _ALPHABET for char in text)


def entry_of(item: Item, name: str, time: float, key: str, came_back: str) -> Entry:
    """The entry of a new item, before anything is known of its bytes. ``name`` is its id."""
    verdict = item.verdict
    return Entry(
        id=name, time=time, kind=item.kind, service=printable(item.service), direction=printable(item.direction),
        client=printable(item.client), user=printable(item.user), url=printable(item.url, 4 * _TEXT_MAX),
        sender=item.sender, recipients=item.recipients, name=printable(item.name),
        media_type=printable(item.media_type), verdict=verdict.level.word,
        reason=verdict.reason.value if verdict.reason is not None else "",
        findings=tuple(_printable_finding(one) for one in verdict.findings[:_FINDINGS_MAX]),
        rule=printable(item.rule), reference=printable(item.reference), key=key, came_back=came_back,
    )  # fmt: skip


def printable(text: str, most: int = _TEXT_MAX) -> str:
    """``text`` cut to ``most`` characters, with everything escaped that a terminal might obey or hide."""
    if len(text) > most:
        text = text[:most] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _printable_finding(one: Finding) -> Finding:
    return Finding(
        one.engine, printable(one.name), printable(one.part), one.level, tuple(map(printable, one.tags[:20]))
    )
