"""What a service's answer makes of a message: a pass needs two things said, everything else stops it."""

from __future__ import annotations

import itertools

import pytest

from icapscan.adapters.judgement import Action, Judgement, judgement_of, judgement_of_error, one_line
from icapscan.clients.errors import ClientTimeout, ConnectFailed, Malformed, NoServer, ServerBusy, ServerRefused, Stage
from icapscan.clients.result import Cause, Outcome, ScanResult
from icapscan.errors import StoreFull
from icapscan.store import PartStore
from icapscan.wire.fields import Fields
from icapscan.wire.verdict_headers import Threat, ThreatKind

PUT = b"PUT / HTTP/1.1\r\nContent-Type: message/rfc822\r\n\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\n\r\n"


def said(outcome: Outcome, **given: object) -> ScanResult:
    return ScanResult(outcome, 200, "icap://127.0.0.1/avscan", **given)  # type: ignore[arg-type]


def judged(outcome: Outcome, **given: object) -> Judgement:
    return judgement_of(said(outcome, **given))


def test_clean_and_whole_passes() -> None:
    assert judged(Outcome.CLEAN).action is Action.PASS


def test_clean_by_a_part_only_is_deferred() -> None:
    assert judged(Outcome.CLEAN, whole=False).action is Action.DEFER


@pytest.mark.parametrize("outcome", [Outcome.MODIFIED, Outcome.INFECTED, Outcome.BLOCKED])
def test_an_adapted_message_replaces_the_original(outcome: Outcome) -> None:
    adapted = PartStore.of(b"Subject: x\r\n\r\n")
    judgement = judged(outcome, http_head=PUT, adapted=adapted, threats=(Threat("Eicar"),))
    assert judgement.action is Action.REPLACE and judgement.adapted is adapted and judgement.threat == "Eicar"


@pytest.mark.parametrize(
    "head",
    [
        PUT.replace(b"message/rfc822", b"text/html"),
        PUT.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"),
        b"",
        b"hello\r\n\r\n",
    ],
)
def test_what_is_no_message_replaces_nothing(head: bytes) -> None:
    given = {"http_head": head, "adapted": PartStore.of(b"x")}
    assert judged(Outcome.MODIFIED, **given).action is Action.DEFER
    assert judged(Outcome.INFECTED, **given).action is Action.REFUSE


def test_an_empty_message_replaces_nothing() -> None:
    assert judged(Outcome.MODIFIED, http_head=PUT, adapted=PartStore.of(b"")).action is Action.DEFER


def test_a_message_that_was_changed_too_early_replaces_nothing() -> None:
    given = {"http_head": PUT, "adapted": PartStore.of(b"x"), "whole": False}
    assert judged(Outcome.MODIFIED, **given).action is Action.DEFER
    assert judged(Outcome.INFECTED, **given).action is Action.REFUSE


@pytest.mark.parametrize("status", [301, 403, 404])
def test_a_response_refuses(status: int) -> None:
    cause = Cause.UNSTATED
    assert judged(Outcome.BLOCKED, cause=cause, http_status=status, http_head=FORBIDDEN).action is Action.REFUSE


def test_what_the_server_could_not_look_into_and_blocks_is_refused() -> None:
    threats = (Threat("Unscanned.encrypted", ThreatKind.UNSCANNABLE),)
    judgement = judged(Outcome.BLOCKED, cause=Cause.UNSCANNABLE, http_status=403, threats=threats)
    assert judgement.action is Action.REFUSE and judgement.threat == "Unscanned.encrypted"


@pytest.mark.parametrize("outcome", [Outcome.BLOCKED, Outcome.INFECTED])
def test_a_response_5xx_defers(outcome: Outcome) -> None:
    assert judged(outcome, cause=Cause.UNSCANNABLE, http_status=503).action is Action.DEFER


def test_a_named_threat_without_a_message_is_refused() -> None:
    assert judged(Outcome.INFECTED).action is Action.REFUSE
    assert judged(Outcome.BLOCKED, cause=Cause.POLICY).action is Action.REFUSE
    assert judged(Outcome.BLOCKED, cause=Cause.UNSCANNABLE).action is Action.DEFER
    assert judged(Outcome.MODIFIED).action is Action.DEFER


def test_only_one_combination_of_everything_passes() -> None:
    passing = []
    for outcome, cause, whole, status, head, adapted in itertools.product(
        Outcome, (None, *Cause), (True, False), (None, 200, 403, 503), (None, PUT, FORBIDDEN), (False, True)
    ):
        body = PartStore.of(b"x") if adapted else None
        action = judged(
            outcome, cause=cause, whole=whole, http_status=status, http_head=head, adapted=body
        ).action  # fmt: skip
        if action is Action.PASS:
            passing.append((outcome, whole, status))
    assert set(passing) == {(Outcome.CLEAN, True, None)}


@pytest.mark.parametrize(
    "error",
    [
        ConnectFailed("No."), ClientTimeout(Stage.TOTAL, 5), ServerBusy(503), ServerRefused(404), Malformed("No."),
        NoServer("No."), StoreFull("No."), TimeoutError(), OSError(28, "full"), ValueError("secret"), RuntimeError(),
    ],
)  # fmt: skip
def test_every_error_defers_and_says_why(error: Exception) -> None:
    judgement = judgement_of_error(error)
    assert judgement.action is Action.DEFER and judgement.detail and "secret" not in judgement.detail


def test_a_threat_cannot_break_a_reply() -> None:
    judgement = judged(Outcome.INFECTED, http_status=403, threats=(Threat("a\r\n250 ok\x00\x1b[31mé" + "x" * 500),))
    assert judgement.threat.startswith("a?250 ok?[31m?x")
    assert judgement.threat.isprintable() and judgement.threat.isascii() and len(judgement.threat) == 120


def test_the_reference_is_that_of_the_answer_or_of_the_page() -> None:
    fields = Fields.compose([(b"X-Icapscan-Reference", b"4f2a99c0")])
    assert judged(Outcome.INFECTED, http_status=403, fields=fields).reference == "4f2a99c0"
    page = b'<dl><dt>x</dt><dd class="code">urn:x</dd><dt>Reference number</dt><dd class="code">4f2a99c1</dd></dl>'
    given = {"http_status": 403, "http_head": FORBIDDEN, "adapted": PartStore.of(page)}
    judgement = judged(Outcome.INFECTED, **given)
    assert judgement.reference == "4f2a99c1" and judgement.adapted is None
    evil = Fields.compose([(b"X-Icapscan-Reference", b"a b c d; 250 ok")])
    assert judged(Outcome.INFECTED, http_status=403, fields=evil).reference == ""


def test_one_line() -> None:
    assert one_line("  a\nb\tc  ", 4) == "a?b?"
