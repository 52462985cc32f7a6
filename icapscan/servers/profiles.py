"""Vendor header profiles: what a service says of a hit, so that a client set up for another product reads it unchanged.

A table and the few functions that make field lines of it; ``docs/profiles.md`` has the source of each row. Three rules
hold in all of them, and are the only places where a row says more than its product does:

- A clean answer is the same in every profile and names nothing (PROTOCOL S103): clients take mere presence for a hit.
- The fields that a client of the product looks for are in *every* answer to a body that is not passed as it came:
  blocked, deferred, cleaned. Many clients read one field, do not look into the page, and keep their own copy of the
  file; where that field is missing, they take the file for clean.
- Nothing claims to be the other product: Server, Service and Via stay ours.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import Struct

from icapscan.findings import Reason, Verdict
from icapscan.policy.decision import Cause, Decision


class Field(enum.Enum):
    """A field of an answer."""

    INFECTION = "X-Infection-Found"
    VIOLATIONS = "X-Violations-Found"
    """Folded lines: on the ICAP level only."""
    VIRUS_ID = "X-Virus-ID"
    VIRUS_NAME = "X-Virus-Name"
    BLOCK_REASON = "X-Block-Reason"
    BLOCK_RESULT = "X-Block-Result"
    WW_BLOCK_RESULT = "X-WWBlockResult"
    INFO = "X-Response-Info"
    DESC = "X-Response-Desc"


class Outcome(enum.Enum):
    """What becomes of the body."""

    BLOCKED = "blocked"
    DEFERRED = "deferred"
    SANITIZED = "sanitized"


_ABOUT_REPLY = frozenset({Field.INFO, Field.DESC})
"""Said once, on the ICAP level, and not repeated in the head of the page."""
_DRAFT_TYPES = MappingProxyType({Cause.INFECTED: 0, Cause.SUSPICIOUS: 1, Cause.MACRO: 1, Cause.RULE: 1})
"""X-Infection-Found Type: 0 virus, 1 mail policy, 2 container that could not be looked into (draft-stecher 4.5)."""
_NAMED = frozenset({Cause.INFECTED, Cause.SUSPICIOUS})
"""Causes with the name of a finding."""
_INFO = MappingProxyType({Outcome.BLOCKED: b"Blocked", Outcome.DEFERRED: b"Deferred", Outcome.SANITIZED: b"Modified"})


class Profile(Struct, frozen=True):
    """One row of the table. The defaults are what ``generic`` does."""

    blocked: tuple[Field, ...]
    """Fields of a blocked or deferred body, in their order."""
    sanitized: tuple[Field, ...]
    """Fields of a body from which what was bad was taken out."""
    findings_only: bool = False
    """X-Virus-ID only for the name of a finding (PROTOCOL S100), not where nothing was found."""
    types: Mapping[Cause, int] = _DRAFT_TYPES
    other_type: int = 2
    """Type of causes that are not in ``types``."""
    resolution: int = 2
    """Resolution of a blocked body in X-Infection-Found: 0 not repaired, 2 blocked. Of a sanitized one it is 1."""
    violation: int = 2
    """The same in X-Violations-Found."""
    words: Mapping[Reason, bytes] = {}
    """The product's own names for what could not be scanned; without one it is ``Unscanned.REASON``."""
    policy: bytes = b"Policy."
    """What stands before the name of a rule."""
    info: Mapping[Outcome, bytes] = _INFO
    adapted: int = 200
    """ICAP status of a sanitized message that is sent whole."""
    found: bytes = b"Forbidden"
    """Reason phrase of the 403 page where something was found."""
    allow_out: bytes = b""
    """X-Allow-Out of the answer to OPTIONS: the fields that may come."""

    def page_reason(self, cause: Cause) -> bytes:
        """The reason phrase of the 403 page."""
        return self.found if cause in _NAMED else b"Forbidden"


GENERIC = Profile(
    blocked=(Field.INFECTION, Field.VIRUS_ID, Field.INFO, Field.DESC),
    sanitized=(Field.INFECTION, Field.VIRUS_ID, Field.INFO),
    findings_only=True,
)
"""X-Virus-ID of a sanitized body, too: a client that looks for it alone keeps its own copy, which is not clean."""

PROFILES: Mapping[str, Profile] = {
    "generic": GENERIC,
    "trend": Profile(
        blocked=(Field.VIRUS_ID, Field.INFECTION, Field.DESC),
        sanitized=(Field.VIRUS_ID, Field.INFECTION),
    ),
    "symantec": Profile(
        blocked=(Field.INFECTION, Field.VIOLATIONS),
        sanitized=(Field.INFECTION, Field.VIOLATIONS),
        words={
            Reason.ENCRYPTED: b"Encrypted container violation",
            Reason.MALFORMED: b"Malformed container violation",
            Reason.OVER_LIMIT: b"Container size violation",
            Reason.TIMEOUT: b"Container extract time violation",
        },
        policy=b"File policy violation ",
        adapted=201,
        allow_out=b"X-Infection-Found, X-Violations-Found",
    ),
    "mcafee": Profile(
        blocked=(Field.VIRUS_ID, Field.VIRUS_NAME, Field.BLOCK_REASON, Field.BLOCK_RESULT, Field.WW_BLOCK_RESULT),
        sanitized=(Field.VIRUS_ID, Field.VIRUS_NAME),
        found=b"VirusFound",
    ),
    "kaspersky": Profile(
        blocked=(Field.VIRUS_ID, Field.INFECTION, Field.INFO, Field.DESC),
        sanitized=(Field.VIRUS_ID, Field.INFECTION, Field.INFO),
        types={Cause.INFECTED: 0, Cause.SUSPICIOUS: 0},
        other_type=1,
        resolution=0,
        info={Outcome.BLOCKED: b"blocked", Outcome.DEFERRED: b"blocked", Outcome.SANITIZED: b"modified"},
    ),
    "clearswift": Profile(
        blocked=(Field.VIRUS_ID, Field.INFECTION, Field.VIOLATIONS),
        sanitized=(Field.VIRUS_ID, Field.INFECTION, Field.VIOLATIONS),
        types={Cause.INFECTED: 0},
        other_type=1,
        violation=0,
        words={Reason.ENCRYPTED: b"Encrypted Archive"},
    ),
}
"""By the words of ``services.NAME.profile``."""


_MALWARE = (80, b"Malware found")
_BODY_FILTER = 23
_WEBWASHER: Mapping[Reason, tuple[int, bytes]] = {
    Reason.ENCRYPTED: (34, b"Encrypted archive unwanted"),
    Reason.MALFORMED: (31, b"Corrupted archive unwanted"),
    Reason.OVER_LIMIT: (33, b"Archive recursion level exceeded"),
    Reason.UNSUPPORTED: (_BODY_FILTER, b"Archive not supported"),
}
"""Number and words of a block, as clients of Webwasher and Web Gateway know them."""


class _Hit(Struct, frozen=True):
    """What the makers of field lines look at."""

    profile: Profile
    outcome: Outcome
    cause: Cause
    reason: Reason | None
    name: bytes
    file: bytes


def hit_lines(
    profile: Profile,
    outcome: Outcome,
    decision: Decision,
    verdict: Verdict,
    *,
    file: bytes = b"",
    violations: bool = False,
    about_reply: bool = True,
) -> bytes:
    """Field lines for a body that is not passed as it came, each with its CRLF.

    ``file`` is the name of the body; ``violations`` adds X-Violations-Found where the profile has it not;
    ``about_reply`` False leaves out what is said once about the whole reply.
    """
    hit = _Hit(profile, outcome, decision.cause, decision.reason, threat_name(decision, verdict, profile), file)
    lines = []
    for field in profile.sanitized if outcome is Outcome.SANITIZED else profile.blocked:
        if field is Field.VIRUS_ID and profile.findings_only and decision.cause not in _NAMED:
            continue
        if field in _ABOUT_REPLY and not about_reply:
            continue
        lines.append(_MAKERS[field](hit))
        if violations and field is Field.INFECTION and Field.VIOLATIONS not in profile.blocked:
            lines.append(_violations_found(hit))
    return b"".join(lines)


def threat_name(decision: Decision, verdict: Verdict, profile: Profile = GENERIC) -> bytes:
    """The name in a header: ASCII without separators, at most 128 bytes (PROTOCOL S96, D106)."""
    if decision.cause is Cause.RULE:
        return profile.policy + (_UNSAFE_NAME.sub("_", decision.rule).encode("ascii")[:100] or b"rule")
    if decision.cause is Cause.MACRO:
        return profile.policy + b"macro"
    if decision.cause not in _NAMED:
        if decision.reason is None:
            return b"Unscanned.unknown"
        return profile.words.get(decision.reason) or b"Unscanned.%s" % decision.reason.value.encode()
    return _UNSAFE_NAME.sub("_", verdict.name or "unknown").encode("ascii")[:128] or b"unknown"


def printable(text: str) -> bytes:
    """What of a text may stand in a field line."""
    return _UNPRINTABLE.sub(b"?", text.encode("utf-8", "replace"))[:512]


def _infection_found(hit: _Hit) -> bytes:
    kind = hit.profile.types.get(hit.cause, hit.profile.other_type)
    resolution = 1 if hit.outcome is Outcome.SANITIZED else hit.profile.resolution
    return b"X-Infection-Found: Type=%d; Resolution=%d; Threat=%s;\r\n" % (kind, resolution, hit.name)


def _violations_found(hit: _Hit) -> bytes:
    """One violation: file, threat, number of the problem (we have none) and resolution (PROTOCOL S98)."""
    file = printable(hit.file.decode("latin-1")).replace(b":", b"_") or b"-"
    resolution = 1 if hit.outcome is Outcome.SANITIZED else hit.profile.violation
    return b"X-Violations-Found: 1\r\n\t%s\r\n\t%s\r\n\t0\r\n\t%d\r\n" % (file, hit.name, resolution)


def _block(hit: _Hit) -> tuple[int, bytes]:
    """Number and words of a block, for the fields of McAfee."""
    if hit.cause in _NAMED:
        return _MALWARE
    if hit.cause is Cause.MACRO:
        return 45, b"Macros unwanted"
    other = (_BODY_FILTER, hit.name)
    return other if hit.reason is None or hit.cause is Cause.RULE else _WEBWASHER.get(hit.reason, other)


def _block_result(name: bytes) -> Callable[[_Hit], bytes]:
    return lambda hit: b"%s: %d\r\n" % (name, _block(hit)[0])


_MAKERS: Mapping[Field, Callable[[_Hit], bytes]] = {
    Field.INFECTION: _infection_found,
    Field.VIOLATIONS: _violations_found,
    Field.VIRUS_ID: lambda hit: b"X-Virus-ID: %s\r\n" % hit.name,
    Field.VIRUS_NAME: lambda hit: b"X-Virus-Name: %s\r\n" % hit.name,
    Field.BLOCK_REASON: lambda hit: b"X-Block-Reason: %s\r\n" % _block(hit)[1],
    Field.BLOCK_RESULT: _block_result(b"X-Block-Result"),
    Field.WW_BLOCK_RESULT: _block_result(b"X-WWBlockResult"),
    Field.INFO: lambda hit: b"X-Response-Info: %s\r\n" % hit.profile.info[hit.outcome],
    Field.DESC: lambda hit: b"X-Response-Desc: %s\r\n" % hit.name,
}
_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9._:/()\[\]+@!-]")
_UNPRINTABLE = re.compile(rb"[^\x20-\x7e]")
