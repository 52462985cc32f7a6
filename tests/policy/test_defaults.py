"""The answers to the classes of trouble, for web and for mail: InterScan's documented ones, and ours.

Each row is one of the table in docs/decisions/policy-defaults.md, which names the sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from icapscan.findings import Reason, Verdict
from icapscan.policy.decide import Policy
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.policy.facts import Direction
from icapscan.policy.kinds import MACROS, MORE_ANOMALIES
from icapscan.policy.settings import PolicySettings, TrafficSettings
from tests.policy.made import facts, policy, verdict

PAGE = Path(__file__).parents[2] / "docs" / "decisions" / "policy-defaults.md"
WEB, MAIL = (Direction.DOWNLOAD,), (Direction.MAIL,)
INTERSCAN: dict[str, Any] = {
    "web": {"infected": "sanitize", "encrypted": "allow", "macro": "allow", "over-limit": "block"},
    "mail": {"infected": "sanitize", "encrypted": "allow", "over-limit": "block", "malformed": "block"},
}
"""InterScan's documented defaults as settings of ours; what it quarantines is blocked, to which a rule may add that."""
CLASSES: dict[str, Verdict] = {
    "infected": verdict(infected=("Bad", "2")),
    "password-protected": verdict((Reason.ENCRYPTED, "2")),
    "over-limit": verdict((Reason.OVER_LIMIT, "2")),
    "macro": verdict(anomalies=(("vba-macro", "2"),)),
    "malformed": verdict((Reason.MALFORMED, "2")),
    "unsupported": verdict((Reason.UNSUPPORTED, "2")),
    "engine-failed": verdict((Reason.ENGINE_FAILED, "2")),
    "virus and password-protected": verdict((Reason.ENCRYPTED, "3"), infected=("Bad", "2")),
}
ROWS = [
    # traffic, class, what InterScan does (None: not documented), what we do by default
    ("web", "infected", Action.SANITIZE, Action.BLOCK),
    ("web", "password-protected", Action.ALLOW, Action.BLOCK),
    ("web", "over-limit", Action.BLOCK, Action.BLOCK),
    ("web", "macro", Action.ALLOW, Action.ALLOW),
    ("web", "malformed", None, Action.BLOCK),
    ("web", "unsupported", None, Action.BLOCK),
    ("web", "engine-failed", None, Action.ERROR),
    ("mail", "infected", Action.SANITIZE, Action.BLOCK),
    ("mail", "password-protected", Action.ALLOW, Action.BLOCK),
    ("mail", "over-limit", Action.BLOCK, Action.BLOCK),
    ("mail", "macro", None, Action.ALLOW),
    ("mail", "malformed", Action.BLOCK, Action.BLOCK),
    ("mail", "unsupported", None, Action.BLOCK),
    ("mail", "engine-failed", None, Action.ERROR),
    ("mail", "virus and password-protected", Action.SANITIZE, Action.BLOCK),
]


def settings(**tables: Any) -> PolicySettings:
    return msgspec.convert(tables, PolicySettings)


def decided(by: PolicySettings, traffic: str, found: Verdict) -> Decision:
    return Policy(by).by_default(found, MAIL if traffic == "mail" else WEB)


@pytest.mark.parametrize(("traffic", "kind", "interscan", "ours"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_a_row_of_the_table(traffic: str, kind: str, interscan: Action | None, ours: Action) -> None:
    assert decided(PolicySettings(), traffic, CLASSES[kind]).action is ours
    if interscan is not None:
        assert decided(settings(**INTERSCAN), traffic, CLASSES[kind]).action is interscan


@pytest.mark.parametrize("traffic", ["web", "mail"])
def test_what_cannot_be_cleaned_is_never_passed(traffic: str) -> None:
    for answer in (None, "block", "defer"):
        given = {"infected": "sanitize"} | ({"uncleanable": answer} if answer else {})
        (table,) = Policy(settings(**{traffic: given})).tables(MAIL if traffic == "mail" else WEB)[:1]
        assert table.infected is Action.SANITIZE and table.uncleanable is Action(answer or "block")
    with pytest.raises(msgspec.ValidationError):
        settings(**{traffic: {"uncleanable": "allow"}})
    with pytest.raises(msgspec.ValidationError):
        settings(**{traffic: {"infected": "allow"}})


def test_every_row_is_in_the_decision_page() -> None:
    text = PAGE.read_text("utf-8")
    uncleanable = [(traffic, "cannot-be-cleaned", Action.BLOCK, Action.BLOCK) for traffic in ("web", "mail")]
    for traffic, kind, _, ours in (*ROWS, *uncleanable):
        assert f"| {traffic} | {kind} |" in text
        line = next(line for line in text.splitlines() if line.startswith(f"| {traffic} | {kind} |"))
        assert line.count(f"`{ours.value}`") >= 1, line


# Each key of each table


@pytest.mark.parametrize("traffic", ["web", "mail"])
@pytest.mark.parametrize("answer", ["allow", "block", "sanitize", "defer"])
@pytest.mark.parametrize("reason", [Reason.OVER_LIMIT, Reason.ENCRYPTED, Reason.MALFORMED, Reason.UNSUPPORTED])
def test_an_answer_holds_for_its_traffic_and_its_class_alone(traffic: str, answer: str, reason: Reason) -> None:
    by = settings(**{traffic: {reason.value: answer}})
    for other in Reason:
        for kind in ("web", "mail"):
            decision = decided(by, kind, verdict(other))
            if (kind, other) == (traffic, reason):
                assert decision.action is Action(answer)
            else:
                assert decision == decided(PolicySettings(), kind, verdict(other))
    assert decided(by, traffic, verdict(reason, infected="Bad")).action is Action.BLOCK


@pytest.mark.parametrize("traffic", ["web", "mail"])
@pytest.mark.parametrize("reason", [Reason.ENGINE_FAILED, Reason.TIMEOUT])
def test_failures(traffic: str, reason: Reason) -> None:
    for answer in ("error", "defer", "allow"):
        decision = decided(settings(**{traffic: {"failures": answer}}), traffic, verdict(reason))
        assert (decision.action, decision.reason) == (Action(answer), reason)
    assert decided(settings(failures="allow", **{traffic: {"failures": "error"}}), traffic, verdict(reason)).action is (
        Action.ERROR
    )
    assert decided(settings(failures="allow"), traffic, verdict(reason)).action is Action.ALLOW


@pytest.mark.parametrize("kind", [*sorted(MACROS), MORE_ANOMALIES])
def test_macros_are_seen_by_what_decoders_tell(kind: str) -> None:
    found = verdict(anomalies=((kind, "2"),))
    assert decided(PolicySettings(), "web", found) == Decision(Action.ALLOW, Cause.CLEAN)
    strict = decided(settings(mail={"macro": "block"}), "mail", found)
    assert (strict.action, strict.cause) == (Action.BLOCK, Cause.MACRO)
    assert decided(settings(mail={"macro": "block"}), "web", found).action is Action.ALLOW
    assert decided(settings(macro="block"), "web", found).action is Action.BLOCK


def test_macros_are_seen_by_the_tag_of_a_rule_and_other_anomalies_are_none() -> None:
    tagged = verdict(suspicious="Macro_Starts_Program", tags=("macro",))
    assert decided(settings(macro="block"), "web", tagged).cause is Cause.MACRO
    assert decided(settings(macro="block", suspicious="block"), "web", tagged).cause is Cause.SUSPICIOUS
    other = verdict(anomalies=(("mime-boundary", "2"),))
    assert decided(settings(macro="block"), "web", other) == Decision(Action.ALLOW, Cause.CLEAN)


# Together


def test_the_gravest_answer_holds_and_what_is_made_good_is_all_of_it() -> None:
    by = settings(web={"infected": "sanitize", "encrypted": "sanitize", "malformed": "block", "failures": "defer"})
    both = verdict((Reason.ENCRYPTED, "3"), infected=("Bad", "2"))
    decision = decided(by, "web", both)
    assert (decision.action, decision.cause, decision.parts) == (Action.SANITIZE, Cause.INFECTED, ("2", "3"))
    assert decided(by, "web", verdict(Reason.ENCRYPTED, Reason.MALFORMED, infected="Bad")).action is Action.BLOCK
    assert decided(by, "web", verdict(Reason.TIMEOUT, infected="Bad")).action is Action.DEFER
    assert decided(by, "web", verdict(Reason.ENCRYPTED, Reason.TIMEOUT)).action is Action.DEFER


def test_existing_keys_mean_what_they_meant() -> None:
    by = settings(suspicious="block", unscanned={"encrypted": "allow"})
    for traffic in ("web", "mail"):
        assert decided(by, traffic, verdict(suspicious="Odd")).action is Action.BLOCK
        assert decided(by, traffic, verdict(Reason.ENCRYPTED)).action is Action.ALLOW
        assert decided(by, traffic, verdict(Reason.MALFORMED)).action is Action.BLOCK
    assert settings(unscanned={"encrypted": "allow"}, mail={"encrypted": "block"}).mail == TrafficSettings(
        encrypted="block"
    )


def test_rules_come_before_the_defaults_of_their_traffic() -> None:
    rules = policy(
        {"name": "pdf", "when": {"reason": "encrypted", "direction": "mail"}, "action": "allow"},
        mail=TrafficSettings(encrypted="defer"),
    )
    locked = verdict(Reason.ENCRYPTED)
    assert rules.decide(facts(verdict=locked, directions=MAIL)).rule == "pdf"
    assert rules.decide(facts(verdict=locked, directions=WEB)).action is Action.BLOCK
