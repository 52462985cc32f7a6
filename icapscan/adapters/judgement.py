"""From what an ICAP service said about a message to what becomes of the message: the same for every mail adapter.

| the service's answer | what becomes of the message |
|---|---|
| clean, with the whole message seen | pass |
| another message in its place, with the whole message seen | replace |
| an HTTP response 5xx: not now | defer |
| any other HTTP response: it answered in the next hop's place | refuse |
| malware or a policy named, and no message in its place | refuse |
| anything else, and every error | defer |

Nothing passes by default: a message goes on only in the first two rows.
"""

from __future__ import annotations

import enum
import re

from msgspec import Struct

from icapscan.clients.result import Cause, Outcome, ScanResult
from icapscan.errors import IcapscanError
from icapscan.store import PartStore
from icapscan.wire.verdict_headers import http_status, read_lines, request_line

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_THREAT_MOST = 120
_DETAIL_MOST = 300
_REFERENCE = re.compile(r"[0-9A-Za-z._:-]{4,64}")
_PAGE_REFERENCE = re.compile(rb'<dd class="code">([0-9A-Za-z._-]{4,64})</dd>')
"""Where the block page of icapscan has its reference number."""
_PAGE_MOST = 64 * 1024
_REFERENCE_FIELDS = (b"x-icapscan-reference", b"x-request-id")
_MESSAGE_TYPES = frozenset({"", "message/rfc822", "message/global"})


class Action(enum.Enum):
    """What becomes of a message."""

    PASS = "pass"
    REPLACE = "replace"
    """Another message goes on in its place."""
    REFUSE = "refuse"
    """For good: SMTP 554, exit code 31."""
    DEFER = "defer"
    """For now: SMTP 451, exit code 71."""


class Judgement(Struct, frozen=True):
    """What becomes of one message, and why."""

    action: Action
    threat: str = ""
    """What was found, in one line of printable ASCII that is safe in an SMTP reply; empty where nothing was named."""
    reference: str = ""
    """The id under which the server's log has the transaction, where the server tells one."""
    detail: str = ""
    """One plain sentence for the log, printable ASCII."""
    adapted: PartStore | None = None
    """REPLACE only: the message to send on. Whoever asked for the judgement closes it."""


def judgement_of(result: ScanResult) -> Judgement:
    """What the answer to a REQMOD request for a whole message means.

    Of REPLACE, the adapted message belongs to the judgement from now on; else the caller's ``result.close()`` frees it.
    """
    threat = one_line(result.threat or "", _THREAT_MOST)
    reference = _reference(result)
    action, detail = _decide(result)
    adapted = result.adapted if action is Action.REPLACE else None
    return Judgement(action, threat, reference, one_line(detail, _DETAIL_MOST), adapted)


def judgement_of_error(error: Exception) -> Judgement:
    """What having no answer means: always try again later, whatever the error is."""
    sentence = str(error) if isinstance(error, IcapscanError | OSError) else ""
    if not sentence:
        sentence = f"The message could not be scanned ({type(error).__name__})."
    return Judgement(Action.DEFER, detail=one_line(sentence, _DETAIL_MOST))


def one_line(text: str, most: int) -> str:
    """``text`` as one line of printable ASCII, at most ``most`` characters: safe in a reply, a field and a log."""
    return _UNPRINTABLE.sub("?", text).strip()[:most]


def _decide(result: ScanResult) -> tuple[Action, str]:
    outcome = result.outcome
    if outcome is Outcome.CLEAN:
        if result.whole and result.http_status is None:
            return Action.PASS, "Clean."
        return Action.DEFER, "The server decided before it had seen the whole message."
    if result.http_status is not None:
        return _by_response(result, result.http_status)
    if _is_message(result):
        if result.whole:
            return Action.REPLACE, "The server gave another message in its place."
        if outcome is not Outcome.INFECTED:
            return Action.DEFER, "The server changed the message before it had seen the whole of it."
    if outcome is Outcome.INFECTED or (outcome is Outcome.BLOCKED and result.cause is Cause.POLICY):
        return Action.REFUSE, "The server named a threat and gave no message that may go on."
    return Action.DEFER, f"The server's answer ({outcome.value}) does not say what is to become of the message."


def _by_response(result: ScanResult, status: int) -> tuple[Action, str]:
    """An HTTP response: the message must not go on (RFC 3507 4.8.2)."""
    if 500 <= status <= 599:
        return Action.DEFER, f"The server holds the message back for now (HTTP {status})."
    if result.outcome is Outcome.MODIFIED:  # no answer to a REQMOD request means this
        return Action.DEFER, f"The server's answer (HTTP {status}) does not say what is to become of the message."
    return Action.REFUSE, f"The server refused the message (HTTP {status})."


def _is_message(result: ScanResult) -> bool:
    """Whether the body of the answer is a message: a request with a body of the right kind, in no coding."""
    head = result.http_head or b""
    if result.adapted is None or not result.adapted.size or http_status(head) is not None or request_line(head) is None:
        return False
    fields = {name: " ".join(values).strip().lower() for name, values in read_lines(head)}
    kind = fields.get("content-type", "").partition(";")[0].strip()
    return kind in _MESSAGE_TYPES and fields.get("content-encoding", "") in ("", "identity")


def _reference(result: ScanResult) -> str:
    """A field of the answer, or the reference number of a block page."""
    for name in _REFERENCE_FIELDS:
        value = result.fields.get(name)
        if value is not None and _REFERENCE.fullmatch(text := value.decode("latin-1").strip()):
            return text
    if result.adapted is None or result.http_status is None or result.adapted.size > _PAGE_MOST:
        return ""
    found = _PAGE_REFERENCE.findall(b"".join(bytes(piece) for piece in result.adapted.pieces()))
    return found[-1].decode() if found else ""
