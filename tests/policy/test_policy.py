"""Rules in their order, then the defaults: what is done at the end, and what is sure before it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from icapscan.findings import CLEAN, Reason, Verdict
from icapscan.policy.decide import Policy
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.policy.facts import Direction
from icapscan.policy.settings import PolicySettings, TrafficSettings
from tests.policy.made import facts, part, policy, verdict

EXE = "application/x-dosexec"
EVERY = [
    CLEAN, verdict(infected="Bad"), verdict(suspicious="Odd"), *(verdict(reason) for reason in Reason),
    *(verdict(reason, suspicious="Odd") for reason in Reason), *(verdict(reason, infected="Bad") for reason in Reason),
    verdict(*Reason), verdict(Reason.ENCRYPTED, Reason.TIMEOUT),
]  # fmt: skip


def outcome(decision: Decision) -> tuple[Action, Cause, str]:
    return decision.action, decision.cause, decision.rule


# Order


def test_the_first_rule_that_decides_wins() -> None:
    rules = policy(
        {"name": "other", "when": {"method": "POST"}, "action": "block"},
        {"name": "first", "when": {"method": "GET"}, "action": "allow"},
        {"name": "second", "action": "block"},
    )
    assert outcome(rules.decide(facts())) == (Action.ALLOW, Cause.CLEAN, "first")
    assert outcome(rules.decide(facts(method="HEAD"))) == (Action.BLOCK, Cause.RULE, "second")


def test_rules_that_only_add_something_let_the_next_ones_be_asked() -> None:
    rules = policy(
        {"name": "a", "action": "tag", "tag": "seen"},
        {"name": "b", "action": ["notify", "tag"]},
        {"name": "c", "action": ["block", "tag", "quarantine"], "when": {"method": "GET"}},
        {"name": "d", "action": "tag"},
    )
    decision = rules.decide(facts())
    assert outcome(decision) == (Action.BLOCK, Cause.RULE, "c")
    assert (decision.tags, decision.notify, decision.quarantine) == (("seen", "b", "c"), ("b",), True)
    passed = rules.decide(facts(method="POST"))
    assert outcome(passed) == (Action.ALLOW, Cause.CLEAN, "")
    assert (passed.tags, passed.quarantine) == (("seen", "b", "d"), False)


def test_a_rule_that_watches_changes_nothing_and_says_what_it_would_have_done() -> None:
    rules = policy(
        {"name": "watch", "action": "block", "monitor": True, "tag": "never"},
        {"name": "more", "action": ["allow", "monitor"], "when": {"verdict": "infected"}},
        {"name": "only", "action": "monitor"},
    )
    for found in EVERY:
        plain = Policy(PolicySettings()).decide(facts(verdict=found))
        watched = rules.decide(facts(verdict=found))
        assert outcome(watched) == outcome(plain) and not watched.tags
        assert watched.monitored[0] == "watch=block+tag" and watched.monitored[-1] == "only=monitor"
    assert "more=allow" in rules.decide(facts(verdict=verdict(infected="Bad"))).monitored


# Never clean by accident


@pytest.mark.parametrize("found", EVERY, ids=lambda one: f"{one.level.word}-{one.reason and one.reason.value}")
@pytest.mark.parametrize(
    "when",
    [
        {}, {"client": "192.0.2.0/24"}, {"host": "*"}, {"size": ">= 0"}, {"threat": "*"}, {"engine": "*"}, {"tag": "*"},
        {"anomaly": "*"}, {"kind": "program"}, {"file-name": "*"}, {"verdict": "suspicious"}, {"verdict": "unscanned"},
        {"verdict": ["clean", "suspicious", "unscanned"]}, {"reason": "encrypted"},
    ],
)  # fmt: skip
def test_no_allowance_lets_through_an_infected_body_or_a_failure_that_it_does_not_name(
    when: dict[str, Any], found: Verdict
) -> None:
    about = facts(verdict=found, client=ip_address("192.0.2.7"), host="x", parts=(part("", "a.exe", EXE),))
    decision = policy({"when": when, "action": "allow"}).decide(about)
    if found.level.word == "infected":
        assert outcome(decision) == (Action.BLOCK, Cause.INFECTED, "")
    elif found.reason in (Reason.ENGINE_FAILED, Reason.TIMEOUT):
        assert decision.action is Action.ERROR


def test_infected_passes_where_a_rule_says_so_in_so_many_words() -> None:
    rules = policy({"name": "lab", "when": {"verdict": "infected", "client": "192.0.2.0/24"}, "action": "allow"})
    infected = verdict(infected="Bad")
    assert outcome(rules.decide(facts(verdict=infected, client=ip_address("192.0.2.7")))) == (
        Action.ALLOW, Cause.INFECTED, "lab",
    )  # fmt: skip
    assert rules.decide(facts(verdict=infected)).action is Action.BLOCK


def test_a_body_that_a_rule_blocks_is_blocked_beside_a_failure() -> None:
    rules = policy({"name": "no", "when": {"host": "bad.example"}, "action": "block"})
    failed = facts(verdict=verdict(Reason.ENGINE_FAILED), host="bad.example")
    assert outcome(rules.decide(failed)) == (Action.BLOCK, Cause.RULE, "no")
    assert rules.decide(facts(verdict=verdict(Reason.ENGINE_FAILED))).action is Action.ERROR


def test_a_failure_can_be_deferred_or_blocked_by_name() -> None:
    rules = policy({"name": "later", "when": {"reason": ["engine-failed", "timeout"]}, "action": "defer"})
    decision = rules.decide(facts(verdict=verdict(Reason.TIMEOUT)))
    assert outcome(decision) == (Action.DEFER, Cause.UNSCANNED, "later") and decision.reason is Reason.TIMEOUT
    assert rules.decide(facts(verdict=verdict(Reason.TIMEOUT, infected="Bad"))).action is Action.BLOCK


def test_sanitizing_by_a_rule_takes_out_whatever_else_would_stop_the_body() -> None:
    rules = policy({"name": "strip", "when": {"kind": "program"}, "action": "sanitize"})
    parts = (part("", opened=("mime",)), part("1", "a.exe", EXE), part("2", "b.zip"))
    bad = rules.decide(facts(parts=parts, verdict=verdict((Reason.ENCRYPTED, "2"))))
    assert (bad.action, bad.parts) == (Action.SANITIZE, ("1", "2"))
    failed = rules.decide(facts(parts=parts, verdict=verdict((Reason.ENGINE_FAILED, "2"))))
    assert failed.action is Action.ERROR, "what was not scanned cannot be made good"


@pytest.mark.parametrize(
    ("when", "found", "cause", "reason"),
    [
        ({"method": "GET"}, CLEAN, Cause.RULE, None),
        ({"method": "GET"}, verdict(infected="Bad"), Cause.INFECTED, None),
        ({"method": "GET"}, verdict(suspicious="Odd"), Cause.RULE, None),
        ({"verdict": "suspicious"}, verdict(suspicious="Odd"), Cause.SUSPICIOUS, None),
        ({"threat": "Odd"}, verdict(suspicious="Odd"), Cause.SUSPICIOUS, None),
        ({"reason": "malformed"}, verdict(Reason.MALFORMED, Reason.ENCRYPTED), Cause.UNSCANNED, Reason.MALFORMED),
        ({"verdict": "unscanned"}, verdict(Reason.MALFORMED), Cause.UNSCANNED, Reason.MALFORMED),
    ],
)
def test_a_person_is_told_the_cause_that_says_most(
    when: dict[str, Any], found: Verdict, cause: Cause, reason: Reason | None
) -> None:
    decision = policy({"name": "r", "when": when, "action": "block"}).decide(facts(verdict=found))
    assert (decision.action, decision.cause, decision.reason, decision.rule) == (Action.BLOCK, cause, reason, "r")


def test_a_decision_names_the_parts_it_was_made_for() -> None:
    parts = (part("", opened=("mime",)), part("1", "a.txt", "text/plain"), part("2", "b.exe", EXE))
    assert policy({"when": {"kind": "program"}, "action": "block"}).decide(facts(parts=parts)).parts == ("2",)


# Before the end


def early(rules: Policy, found: Verdict = CLEAN, **changes: Any) -> Action | None:
    decision = rules.early(facts(final=False, parts_complete=False, verdict=found, **changes))
    return None if decision is None else decision.action


@pytest.mark.parametrize("action", ["block", "defer"])
def test_what_a_rule_stops_whatever_may_come_is_stopped_early(action: str) -> None:
    rules = policy({"when": {"host": "bad.example"}, "action": action})
    assert early(rules, host="bad.example") is Action(action)
    assert early(rules, host="good.example") is None


def test_a_hit_in_the_first_bytes_is_answered_early_unless_a_rule_might_say_otherwise() -> None:
    hit = verdict(infected="Bad")
    assert early(policy({"when": {"host": "x"}, "action": "allow"}), hit) is Action.BLOCK
    assert early(policy({"when": {"file-name": "*.exe"}, "action": "block"}), hit) is None
    assert early(policy({"when": {"verdict": "infected", "host": "x"}, "action": "allow"}), hit) is Action.BLOCK
    assert early(policy({"when": {"verdict": "infected", "host": "x"}, "action": "allow"}), hit, host="x") is None
    assert early(policy({"when": {"verdict": "infected", "size": "< 1 KB"}, "action": "allow"}), hit) is None
    assert early(policy({"when": {"verdict": "infected"}, "action": "sanitize"}), hit) is None


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "allow"},
        {"action": "sanitize"},
        {"action": ["block", "quarantine"]},
        {"action": ["block", "notify"]},
        {"action": "block", "monitor": True},
        {"action": "block", "when": {"size": "> 1 MB"}},
        {"action": "block", "when": {"kind": "program"}},
        {"action": "block", "unless": {"verdict": "clean"}},
    ],
)
def test_rules_that_need_the_whole_body_wait_for_it(rule: dict[str, Any]) -> None:
    assert early(policy(rule, {"action": "block"})) is None


def test_an_early_answer_is_the_one_that_would_have_been_given_at_the_end() -> None:
    wheres = [{}, {"method": "GET"}, {"method": "POST"}, {"verdict": "infected"}, {"size": "> 1 KB"}, {"kind": "pdf"}]
    rules = [{"when": when, "action": action} for when in wheres for action in ("allow", "block", "defer")]
    ends = [
        facts(verdict=end, size=size, parts=parts)
        for end in EVERY for size in (10, 5000) for parts in ((), (part("", "a.pdf", "application/pdf"),))
    ]  # fmt: skip
    for one in rules:
        for two in rules:
            both = policy({**one, "name": "one"}, {**two, "name": "two"})
            sure = early(both, verdict(infected="Bad"), size=10)
            if sure is not None:
                assert {both.decide(end).action for end in ends if end.verdict.level.word == "infected"} == {sure}
            sure = early(both, size=10)
            if sure is not None:
                decided = {both.decide(end).action for end in ends}
                assert decided <= {sure, Action.BLOCK, Action.ERROR}, "never something more lenient"


def test_by_default_nothing_is_held_back_or_made_good_before_the_end() -> None:
    for answer in ("defer", "sanitize", "allow"):
        lenient = Policy(PolicySettings(web=TrafficSettings(suspicious=answer)))
        assert lenient.early_by_default(verdict(suspicious="Odd")) is None
        assert lenient.by_default(verdict(suspicious="Odd")).action is Action(answer)
    strict = Policy(PolicySettings(suspicious="block"))
    assert strict.early_by_default(verdict(suspicious="Odd")) == strict.by_default(verdict(suspicious="Odd"))
    held = Policy(PolicySettings(web=TrafficSettings(over_limit="defer")))
    assert held.early_by_default(verdict(Reason.OVER_LIMIT), read_on=False) == Decision(
        Action.DEFER, Cause.UNSCANNED, Reason.OVER_LIMIT
    )


# Web and mail


def test_where_it_is_not_sure_that_this_is_mail_the_more_careful_answer_holds() -> None:
    lenient = Policy(PolicySettings(mail=TrafficSettings(encrypted="allow")))
    locked = verdict(Reason.ENCRYPTED)
    unsure = (Direction.MAIL, Direction.UPLOAD)
    assert lenient.by_default(locked, (Direction.MAIL,)).action is Action.ALLOW
    assert lenient.by_default(locked, (Direction.UPLOAD,)).action is Action.BLOCK
    assert lenient.by_default(locked, unsure).action is Action.BLOCK
    assert lenient.by_default(locked, unsure[::-1]).action is Action.BLOCK
    rules = policy({"when": {"reason": "malformed"}, "action": "allow"}, mail=TrafficSettings(encrypted="allow"))
    both = verdict(Reason.ENCRYPTED, Reason.MALFORMED)
    assert rules.decide(facts(verdict=both, directions=(Direction.MAIL,))).action is Action.ALLOW
    assert rules.decide(facts(verdict=both, directions=unsure)).action is Action.BLOCK


def test_without_rules_nothing_is_gathered() -> None:
    plain = Policy(PolicySettings())
    assert plain.plain and not plain.by_traffic and not plain.needs.parts and not plain.needs.types
