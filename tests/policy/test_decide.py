"""Every verdict gets the decision that the settings say; nothing passes because a row was forgotten."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from icapscan.findings import CLEAN, Finding, Level, Reason, Unscanned, Verdict, summarize
from icapscan.policy.decide import Action, Cause, decide
from icapscan.policy.settings import PolicySettings, UnscannedSettings

DEFAULT = PolicySettings()
ALL_ALLOWED = PolicySettings(
    suspicious="allow",
    unscanned=UnscannedSettings(over_limit="allow", encrypted="allow", malformed="allow", unsupported="allow"),
    failures="allow",
)
OURS = (Reason.ENGINE_FAILED, Reason.TIMEOUT)


def verdict(*reasons: Reason, level: Level | None = None) -> Verdict:
    findings = () if level is None else (Finding("e", "Name", level=level),)
    return summarize(findings, [Unscanned(reason) for reason in reasons])


def test_clean_is_allowed() -> None:
    assert decide(CLEAN, DEFAULT).action is Action.ALLOW
    assert decide(CLEAN, DEFAULT).cause is Cause.CLEAN


@pytest.mark.parametrize("settings", [DEFAULT, ALL_ALLOWED])
@pytest.mark.parametrize("reasons", [(), *itertools.combinations(Reason, 1), *itertools.combinations(Reason, 2)])
def test_infected_is_blocked_whatever_else_happened(settings: PolicySettings, reasons: tuple[Reason, ...]) -> None:
    decision = decide(verdict(*reasons, level=Level.INFECTED), settings)
    assert (decision.action, decision.cause) == (Action.BLOCK, Cause.INFECTED)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("level", [None, Level.SUSPICIOUS])
def test_by_default_nothing_unscanned_passes(reason: Reason, level: Level | None) -> None:
    decision = decide(verdict(reason, level=level), DEFAULT)
    assert decision.action is (Action.ERROR if reason in OURS else Action.BLOCK)
    assert decision.reason is reason


def test_s104_failures_are_errors_and_time_outs_are_told_apart() -> None:
    assert decide(verdict(Reason.ENGINE_FAILED), DEFAULT).cause is Cause.FAILED
    assert decide(verdict(Reason.TIMEOUT), DEFAULT).cause is Cause.TIMEOUT
    assert decide(verdict(Reason.TIMEOUT, Reason.ENGINE_FAILED), DEFAULT).cause is Cause.FAILED


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in OURS])
def test_one_reason_allowed_allows_that_one_alone(reason: Reason) -> None:
    one = PolicySettings(unscanned=msgspec.convert({reason.value: "allow"}, UnscannedSettings))
    for other in Reason:
        expected = Action.ALLOW if other is reason else Action.ERROR if other in OURS else Action.BLOCK
        assert decide(verdict(other), one).action is expected
        both = decide(verdict(reason, other), one)
        assert both.action is expected, "what blocks wins over what allows"


@pytest.mark.parametrize("reason", Reason)
def test_failing_open_only_where_it_was_asked_for(reason: Reason) -> None:
    assert decide(verdict(reason), ALL_ALLOWED).action is Action.ALLOW
    assert decide(verdict(reason), ALL_ALLOWED).cause is Cause.UNSCANNED


def test_suspicious_as_configured() -> None:
    assert decide(verdict(level=Level.SUSPICIOUS), DEFAULT).action is Action.ALLOW
    blocked = decide(verdict(level=Level.SUSPICIOUS), PolicySettings(suspicious="block"))
    assert (blocked.action, blocked.cause) == (Action.BLOCK, Cause.SUSPICIOUS)
