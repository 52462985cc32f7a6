"""From a decision to what is said: the only place that knows which reply a decision becomes (PROTOCOL A.6).

| decision | REQMOD | RESPMOD |
|---|---|---|
| allow, 204 permitted | 204 | 204 |
| allow | 200 + virgin request | 200 + virgin response |
| sanitize, 206 permitted | 206 + adapted request, as far as it changed | 206 + adapted response |
| sanitize | 200 (or as the profile has it) + adapted request | the same + adapted response |
| block | 200 + HTTP 403 page | 200 + HTTP 403 page |
| defer | 200 + HTTP 503 page with Retry-After | the same |
| block, defer, after a part was trickled | - | the connection is cut; the next try gets the page |
| error | 500 (failed) or 503 (too slow) | the same |

A body that is held back for now is still not an ICAP error: a client counts those against the whole service (PROTOCOL
S95). See docs/decisions/policy-defaults.md.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from icapscan.findings import Level, Verdict
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.servers.profiles import GENERIC, Outcome, Profile, hit_lines, printable
from icapscan.store import PartStore
from icapscan.wire.icap import PLAIN_END
from icapscan.wire.icap_events import BodyEnd, HttpHeads

REASONS = {
    200: b"OK",
    201: b"Created",
    206: b"Partial Content",
    204: b"No modifications needed",
    400: b"Bad request",
    404: b"ICAP Service not found",
    405: b"Method not allowed for service",
    408: b"Request timeout",
    414: b"Request-URI too long",
    500: b"Server error",
    501: b"Method not implemented",
    503: b"Service overloaded",
    505: b"ICAP version not supported by server",
}
"""Never empty (PROTOCOL S78); 204 as RFC 3507 has it (S79)."""


class Reply(Struct, frozen=True):
    """One final answer, before it meets the connection it goes out on."""

    status: int
    label: str
    """For the log: ``204``, ``200 copy``, ``200 block``, ``options`` or the status."""
    fields: bytes = b""
    """Verdict field lines, each with its CRLF; they go before Encapsulated (PROTOCOL S85)."""
    heads: HttpHeads = HttpHeads()
    body: bytes | PartStore | None = None
    """None: no body follows."""
    original_from: int | None = None
    """Of a 206: the offset in the virgin body from which on the client takes its own copy (PROTOCOL S108)."""
    trailers: bytes = b""
    """Trailer field lines to return with a copy (PROTOCOL S61)."""
    close: bool = False
    detail: str = ""
    begun: bool = False
    """It goes on with an answer of which the head is out already (`icapscan.servers.delivery`). Where one is out, any
    other reply can only cut the connection."""
    skip: int = 0
    """So many bytes of ``body`` are out already."""
    late: bytes | None = None
    """Field lines of an ICAP trailer. In an opening: the trailer is announced."""

    @property
    def body_end(self) -> BodyEnd:
        """What ends its body on the wire."""
        if self.original_from is not None:
            return BodyEnd(trailers=self.trailers, use_original_body=self.original_from)
        return BodyEnd(trailers=self.trailers) if self.trailers else PLAIN_END


NO_CONTENT = Reply(204, "204")


def error(status: int, detail: str, *, close: bool = True) -> Reply:
    """An ICAP error. ``detail`` goes to the log; the peer reads the status and the same plain sentence."""
    said = printable(detail)
    fields = b"X-Response-Desc: %s\r\n" % said if said else b""
    if status == 503:
        fields += b"Retry-After: 1\r\n"
    return Reply(status, str(status), fields, close=close, detail=detail)


def failure(decision: Decision, verdict: Verdict) -> Reply:
    """What is answered when something of ours failed: never a verdict (PROTOCOL S104)."""
    status = 503 if decision.cause is Cause.TIMEOUT else 500
    engines = sorted({item.engine for item in verdict.unscanned if item.engine})
    sentence = "The body could not be scanned in time." if status == 503 else "The body could not be scanned."
    if engines:
        sentence = f"{sentence[:-1]} by {', '.join(engines)}."
    return error(status, sentence, close=False)


DEFER_SECONDS = 300
"""Retry-After of a deferred body. Mail relays by themselves wait some minutes to half an hour (RFC 5321 4.5.4.1)."""


def verdict_fields(
    decision: Decision, verdict: Verdict, *, file: bytes = b"", violations: bool = False, profile: Profile = GENERIC
) -> bytes:
    """Field lines for a body that was not plainly clean (PROTOCOL S96-S103).

    A passed body gets only fields of our own: some clients take the mere presence of a standard one as a hit.
    """
    if decision.action is Action.ALLOW:
        tags = _tags(decision) if decision.tags else b""
        if verdict.level is Level.CLEAN:
            return tags
        reason = f"; reason={verdict.reason.value}" if verdict.reason else ""
        name = f"; name={verdict.name}" if verdict.name else ""
        return b"X-Icapscan-Verdict: %s\r\n%s" % (printable(f"{verdict.level.word}{reason}{name}"), tags)
    return hit_lines(
        profile, _outcome(decision), decision, verdict, file=file, violations=violations, about_reply=False
    )


def sanitized_fields(decision: Decision, verdict: Verdict, *, file: bytes = b"", profile: Profile = GENERIC) -> bytes:
    """Field lines for a body from which what was bad was taken out: Resolution 1, repaired (PROTOCOL S97)."""
    return hit_lines(profile, Outcome.SANITIZED, decision, verdict, file=file) + _tags(decision)


def block_fields(
    decision: Decision, verdict: Verdict, *, file: bytes = b"", violations: bool = False, profile: Profile = GENERIC
) -> bytes:
    """`verdict_fields` and what is said once about the whole reply (PROTOCOL S101)."""
    return hit_lines(profile, _outcome(decision), decision, verdict, file=file, violations=violations)


def _outcome(decision: Decision) -> Outcome:
    return Outcome.DEFERRED if decision.action is Action.DEFER else Outcome.BLOCKED


def _tags(decision: Decision) -> bytes:
    return b"X-Icapscan-Tag: %s\r\n" % printable(", ".join(decision.tags)) if decision.tags else b""


def block_head(
    page: bytes,
    language: bytes,
    date: bytes,
    via: bytes,
    fields: bytes,
    *,
    defer: bool = False,
    reason: bytes = b"Forbidden",
) -> bytes:
    """The HTTP head of a block page (PROTOCOL S93, S94, S102), or of one that says: try again later."""
    status = b"503 Service Unavailable\r\nRetry-After: %d" % DEFER_SECONDS if defer else b"403 %s" % reason
    return (
        b"HTTP/1.1 %s\r\nDate: %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Language: %s\r\n"
        b"Content-Length: %d\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%sVia: %s\r\n\r\n"
        % (status, date, language, len(page), _UNFOLDED.sub(b"", fields), via)
    )


Method = Literal["REQMOD", "RESPMOD"]
_UNFOLDED = re.compile(rb"X-Violations-Found:[^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*")
"""The folded field stays in the ICAP head only."""
