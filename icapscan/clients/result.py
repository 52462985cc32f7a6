"""What an answer means: the verdict of a foreign server, read from headers, status and body (PROTOCOL C24-C38)."""

from __future__ import annotations

import enum

from msgspec import Struct

from icapscan.clients.answer import Answer
from icapscan.clients.errors import Malformed, refusal
from icapscan.store import PartStore
from icapscan.wire.encapsulated import BodyKind
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import ResponseHead
from icapscan.wire.verdict_headers import (
    Threat,
    ThreatKind,
    gravest,
    http_status,
    read_lines,
    read_threats,
    request_line,
)


class Mode(enum.Enum):
    """How a body is shown to the server."""

    RESPMOD = b"RESPMOD"
    """As something on its way to a reader."""
    REQMOD = b"REQMOD"
    """As something on its way to a server, as mail in transit is."""


class Outcome(enum.Enum):
    """What the server says about a body."""

    CLEAN = "clean"
    MODIFIED = "modified"
    """It gave back something else than it got, and named no threat."""
    INFECTED = "infected"
    BLOCKED = "blocked"
    """Refused without naming malware; `ScanResult.cause` says more."""


class Cause(enum.Enum):
    """Why a body is BLOCKED."""

    POLICY = "policy"
    UNSCANNABLE = "unscannable"
    """The server could not look into it: encrypted, too large, broken, or it failed."""
    UNSTATED = "unstated"
    """A block page, and nothing that says why."""


class ScanResult(Struct, frozen=True):
    """One verdict. Whoever asked for the adapted body owns it: `close` frees it."""

    outcome: Outcome
    status: int
    """ICAP status."""
    server: str
    """URL of the service that said so."""
    cause: Cause | None = None
    threats: tuple[Threat, ...] = ()
    istag: str | None = None
    whole: bool = True
    """The server had been sent the whole body when it answered. False: it decided by a part, such as the preview."""
    http_status: int | None = None
    """Of the HTTP response in the answer, where there is one."""
    http_head: bytes | None = None
    """The HTTP head in the answer, byte for byte."""
    fields: Fields = Fields()
    """The ICAP header fields of the answer."""
    adapted: PartStore | None = None
    """The body in the answer where it differs from ours, if it was asked for."""
    cached: bool = False
    """An earlier answer of the same ISTag for the same bytes."""

    @property
    def is_clean(self) -> bool:
        """Whether the body may be delivered as it is."""
        return self.outcome is Outcome.CLEAN

    @property
    def threat(self) -> str | None:
        """The name of the gravest threat, or None."""
        return max(self.threats, key=lambda threat: threat.kind).name if self.threats else None

    def close(self) -> None:
        """Free the adapted body. Idempotent."""
        if self.adapted is not None:
            self.adapted.close()


class Asked(Struct, frozen=True):
    """What the request offered, as far as the meaning of the answer depends on it."""

    mode: Mode
    server: str
    may_204: bool
    may_206: bool
    request_head: bytes | None
    """The HTTP request head that was sent."""


Verdict = tuple[Outcome, Cause | None]
_CLEAN: Verdict = (Outcome.CLEAN, None)
_MODIFIED: Verdict = (Outcome.MODIFIED, None)
_BY_KIND: dict[ThreatKind, Verdict] = {
    ThreatKind.VIRUS: (Outcome.INFECTED, None),
    ThreatKind.POLICY: (Outcome.BLOCKED, Cause.POLICY),
    ThreatKind.UNSCANNABLE: (Outcome.BLOCKED, Cause.UNSCANNABLE),
}


def judge(answer: Answer, asked: Asked) -> ScanResult:
    """The verdict in a complete answer. Raises `ServerRefused`, `ServerBusy` or `Malformed`; never clean by default.

    Order: verdict headers of ICAP, its trailer and the HTTP head; then the HTTP status; then the body (PROTOCOL C27).
    """
    head = answer.head
    if head is None:
        raise Malformed("The answer has no head.")
    threats = _threats(answer, head)
    kind = gravest(threats)
    success = head.status in (200, 201, 204, 206)
    if kind is not None and (success or kind is not ThreatKind.UNSCANNABLE):
        outcome, cause = _BY_KIND[kind]
    elif not success:
        raise refusal(head.status, head.reason.decode("latin-1"), _field(head, b"retry-after"))
    elif head.status == 204:
        outcome, cause = _by_204(head, asked)
    else:
        outcome, cause = _by_message(answer, head, asked)
    response = answer.heads.res_hdr
    adapted, answer.adapted = answer.adapted, None
    if outcome is Outcome.CLEAN and adapted is not None:
        adapted.close()
        adapted = None
    return ScanResult(
        outcome,
        head.status,
        asked.server,
        cause,
        threats,
        istag_of(head),
        answer.whole,
        http_status(response) if response else None,
        response or answer.heads.req_hdr,
        head.fields,
        adapted,
    )


def istag_of(head: ResponseHead) -> str | None:
    """The ISTag, quoted or not, of any length (PROTOCOL C47); None without one."""
    value = _field(head, b"istag")
    return value.strip('"') or None if value else None


def _field(head: ResponseHead, name: bytes) -> str | None:
    value = head.fields.get(name)
    return None if value is None else value.decode("latin-1")


def _threats(answer: Answer, head: ResponseHead) -> tuple[Threat, ...]:
    blocks = [head.fields.raw, answer.trailer.raw if answer.trailer else b"", answer.heads.res_hdr or b""]
    blocks.append(answer.heads.req_hdr or b"")
    return read_threats([line for block in blocks for line in read_lines(block)])


def _by_204(head: ResponseHead, asked: Asked) -> Verdict:
    if not asked.may_204:
        raise Malformed("The server answers 204 although that was not allowed.")
    if head.encapsulated.has_body:
        raise Malformed("The server answers 204 and sends a body.")
    return _CLEAN


def _by_message(answer: Answer, head: ResponseHead, asked: Asked) -> Verdict:
    sections = head.encapsulated
    if head.status == 206:
        if not asked.may_206:
            raise Malformed("The server answers 206 although that was not offered.")
        if answer.original_from is None:
            raise Malformed("The server answers 206 and does not say where the original body goes on.")
    if sections.body is BodyKind.OPTIONS:
        raise Malformed("The answer has an OPTIONS body.")
    if sections.head_length == 0 and not sections.has_body:
        return _CLEAN if head.status == 200 else _MODIFIED  # QUIRK: c-icap's Allow204As200okZeroEncaps
    verdict = _by_response(answer) if asked.mode is Mode.RESPMOD else _by_request(answer, asked)
    if verdict is _CLEAN and not (answer.same and head.status != 201):
        return _MODIFIED  # QUIRK: Symantec answers 201 when it changed something
    return verdict


def _by_response(answer: Answer) -> Verdict:
    """RESPMOD: an HTTP response must be in the answer, or just a body."""
    assert answer.head is not None
    if answer.head.encapsulated.body is BodyKind.REQUEST:
        raise Malformed("The server answers a RESPMOD request with an HTTP request.")
    head = answer.heads.res_hdr
    if head is None:
        if answer.heads.req_hdr is not None or not answer.head.encapsulated.has_body:
            raise Malformed("The server answers a RESPMOD request without an HTTP response.")
        return _CLEAN
    status = http_status(head)
    if status is None or status < 200:
        raise Malformed("The answer does not hold a final HTTP response.")
    if status >= 300:
        return _blocked(status)
    return _CLEAN if status == 200 and _coding(head) == "" else _MODIFIED


def _by_request(answer: Answer, asked: Asked) -> Verdict:
    """REQMOD: an HTTP response means that the request was answered in our place, so it is not to go on."""
    assert answer.head is not None
    response = answer.heads.res_hdr
    if response is not None or answer.head.encapsulated.body is BodyKind.RESPONSE:
        status = http_status(response) if response else 403
        if status is None or status < 200:
            raise Malformed("The answer does not hold a final HTTP response.")
        return _blocked(status)
    head = answer.heads.req_hdr
    if head is None:
        return _CLEAN
    line = request_line(head)
    if line is None:
        raise Malformed("The answer does not hold an HTTP request.")
    mine = request_line(asked.request_head or b"")
    return _CLEAN if line == mine and _coding(head) == "" else _MODIFIED


def _blocked(status: int) -> Verdict:
    return Outcome.BLOCKED, Cause.UNSCANNABLE if status >= 500 else Cause.UNSTATED


def _coding(head: bytes) -> str:
    """The content coding that the head claims: we never send one, so an unchanged body would now mean another."""
    for name, values in read_lines(head):
        if name == "content-encoding" and " ".join(values).strip().lower() not in ("", "identity"):
            return values[0]
    return ""
