"""The page for what a rule stopped or holds back, and the words for it in the reply and in the log."""

from __future__ import annotations

from typing import Any

import pytest

from icapscan.findings import CLEAN, Reason
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.policy.page import BlockPage, PageFacts, facts_of
from icapscan.policy.page_texts import LANGUAGES, Kind
from icapscan.servers import replies
from icapscan.servers.record import TransactionRecord
from icapscan.telemetry.lines import format_json, format_plain
from icapscan.wire.fields import parse_fields
from tests.policy.made import verdict

EVIL = "x\"'><script>alert(1)</script>; Threat=no\u202e"


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("kind", [Kind.RULE, Kind.DEFERRED])
def test_the_page_says_in_both_languages_that_a_rule_of_the_organisation_is_the_reason(
    language: str, kind: Kind
) -> None:
    texts = LANGUAGES[language]
    said = texts.rule if kind is Kind.RULE else texts.deferred
    html = BlockPage().render(language.encode(), PageFacts(kind, "12ab", rule="no programs")).html.decode("utf-8")
    for sentence in (said.heading, said.what, said.todo, "no programs", "12ab", f'class="{kind.value}"'):
        assert sentence in html
    assert ("organisation" in html) if language == "en" else ("組織の規則" in html)
    assert texts.infected.heading not in html


def test_two_rules_have_two_pages() -> None:
    page = BlockPage()
    shown = {page.render(b"", PageFacts(Kind.RULE, "1", rule=name)).html for name in ("one", "two", "", EVIL)}
    assert len(shown) == 4
    assert not any(b"<script>" in html or b"\xe2\x80\xae" in html for html in shown)


@pytest.mark.parametrize(
    ("decision", "found", "expected"),
    [
        (Decision(Action.BLOCK, Cause.RULE, rule="r"), CLEAN, (Kind.RULE, None, "r")),
        (Decision(Action.BLOCK, Cause.MACRO), CLEAN, (Kind.RULE, None, "macro")),
        (Decision(Action.BLOCK, Cause.INFECTED, rule="r"), verdict(infected="Bad"), (Kind.INFECTED, None, "")),
        (Decision(Action.BLOCK, Cause.UNSCANNED, Reason.ENCRYPTED, "r"), verdict(Reason.ENCRYPTED),
         (Kind.UNSCANNED, Reason.ENCRYPTED, "")),
        (Decision(Action.DEFER, Cause.UNSCANNED, Reason.TIMEOUT, "r"), verdict(Reason.TIMEOUT),
         (Kind.DEFERRED, None, "r")),
        (Decision(Action.DEFER, Cause.INFECTED, rule="r"), verdict(infected="Bad"), (Kind.DEFERRED, None, "r")),
    ],
)  # fmt: skip
def test_facts_of_a_page(decision: Decision, found: Any, expected: tuple[Any, ...]) -> None:
    facts = facts_of(decision, found, b"http://x/", "9")
    assert (facts.kind, facts.reason, facts.rule) == expected


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("action", [Action.BLOCK, Action.DEFER, Action.SANITIZE])
@pytest.mark.parametrize("name", ["no programs", EVIL, "添付禁止", "r" * 100])
def test_s96_s97_every_cause_keeps_the_grammar(cause: Cause, action: Action, name: str) -> None:
    decision = Decision(action, cause, Reason.ENCRYPTED if cause is Cause.UNSCANNED else None, name)
    fields = parse_fields(replies.block_fields(decision, verdict(infected=EVIL)), 20)
    value = fields.get(b"x-infection-found")
    assert value is not None and value.count(b";") == 3 and value.endswith(b";") and value.isascii()
    assert value.startswith(b"Type=0") is (cause is Cause.INFECTED)
    assert (fields.get(b"x-virus-id") is not None) is (cause in (Cause.INFECTED, Cause.SUSPICIOUS))
    assert fields.get(b"x-response-info") == (b"Deferred" if action is Action.DEFER else b"Blocked")


def test_the_log_names_the_rule_and_what_others_would_have_done() -> None:
    record = TransactionRecord(
        client="192.0.2.1:1", decision="block", rule="no programs", monitored=("a=block", "b b=allow")
    )
    line = format_plain(record, 0.0)
    assert ' rule="no programs" monitored="a=block,b b=allow"' in line and "\u202e" not in line
    assert '"rule":"no programs","monitored":["a=block","b b=allow"]' in format_json(record, 0.0)
    assert "rule=" not in format_plain(TransactionRecord(client="192.0.2.1:1"), 0.0)
    hostile = TransactionRecord(client="c", rule=EVIL + "\r\n", monitored=("x\r\ny=block",) * 20)
    for text in (format_plain(hostile, 0.0), format_json(hostile, 0.0)):
        assert "\n" not in text and "\r" not in text and "\u202e" not in text
