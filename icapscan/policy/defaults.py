"""What holds where no rule decides: an answer for each class of trouble, for web and for mail.

See docs/decisions/policy-defaults.md for the classes, InterScan's answers to them, and where ours differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from icapscan.findings import Anomaly, Finding, Level, PartPath, Reason, Unscanned, Verdict
from icapscan.policy.decision import GRAVITY, Action, Cause, Decision
from icapscan.policy.kinds import MACROS, MORE_ANOMALIES
from icapscan.policy.settings import PolicySettings, TrafficSettings

MACRO_TAG = "macro"
"""Tag of the YARA rules that find macros."""
_CLEAN = Decision(Action.ALLOW, Cause.CLEAN)
_INFECTED = Decision(Action.BLOCK, Cause.INFECTED)
_OURS = {Reason.ENGINE_FAILED: Cause.FAILED, Reason.TIMEOUT: Cause.TIMEOUT}


class Defaults(Struct, frozen=True):
    """The answer to each class."""

    infected: Action
    uncleanable: Action
    suspicious: Action
    macro: Action
    failures: Action
    unscanned: dict[Reason, Action]


class Issue(Struct, frozen=True):
    """One thing in a body that is not plainly clean."""

    cause: Cause
    part: PartPath = ""
    reason: Reason | None = None
    finding: Finding | None = None


def effective(settings: PolicySettings, traffic: TrafficSettings) -> Defaults:
    """The answers for one kind of traffic: its own table, else ``[policy]``."""

    def answer(own: str | None, general: str) -> Action:
        return Action(own or general)

    unscanned = {
        Reason.OVER_LIMIT: answer(traffic.over_limit, settings.unscanned.over_limit),
        Reason.ENCRYPTED: answer(traffic.encrypted, settings.unscanned.encrypted),
        Reason.MALFORMED: answer(traffic.malformed, settings.unscanned.malformed),
        Reason.UNSUPPORTED: answer(traffic.unsupported, settings.unscanned.unsupported),
    }
    failures = answer(traffic.failures, settings.failures)
    unscanned |= dict.fromkeys(_OURS, failures)
    return Defaults(
        answer(traffic.infected, settings.infected),
        answer(traffic.uncleanable, "block"),
        answer(traffic.suspicious, settings.suspicious),
        answer(traffic.macro, settings.macro),
        failures,
        unscanned,
    )


def issues_of(verdict: Verdict) -> Iterator[Issue]:
    """Everything in a verdict that some default has an answer to; what is gravest to say comes first."""
    for finding in verdict.findings:
        if finding.level is Level.INFECTED:
            yield Issue(Cause.INFECTED, finding.part, finding=finding)
    for reason in _BY_WEIGHT:
        for item in verdict.unscanned:
            if item.reason is reason:
                yield _unscanned(item)
    for finding in verdict.findings:
        if finding.level is not Level.INFECTED:
            yield Issue(Cause.SUSPICIOUS, finding.part, finding=finding)
            if MACRO_TAG in finding.tags:
                yield Issue(Cause.MACRO, finding.part, finding=finding)
    for anomaly in verdict.anomalies:
        if shows_macros(anomaly):
            yield Issue(Cause.MACRO, anomaly.part)


_BY_WEIGHT = (*_OURS, *(reason for reason in Reason if reason not in _OURS))


def answer_to(issue: Issue, defaults: Defaults) -> Action:
    """What is done where this is all there is."""
    if issue.reason is not None:
        return defaults.unscanned[issue.reason]
    if issue.cause is Cause.INFECTED:
        return defaults.infected
    return defaults.macro if issue.cause is Cause.MACRO else defaults.suspicious


def decide_default(verdict: Verdict, defaults: Defaults) -> Decision:
    """The decision where no rule made one.

    Infected comes first, even beside a failure. A failure of ours comes next: what the failed engine would have
    found is unknown, so neither a block page nor a pass would be true. Then the gravest answer wins.
    """
    if verdict.level is Level.CLEAN and (not verdict.anomalies or defaults.macro is Action.ALLOW):
        return _CLEAN
    infected = verdict.level is Level.INFECTED
    if infected and defaults.infected is Action.BLOCK:
        return _INFECTED
    found = tuple(issues_of(verdict))
    if defaults.failures is not Action.ALLOW:
        for issue in found:
            if issue.reason in _OURS:
                return Decision(defaults.failures, issue.cause, issue.reason)
    gravest = _gravest(found, defaults)
    if gravest is None:
        return passed(verdict)
    cause = Cause.UNSCANNED if gravest.reason is not None else gravest.cause
    reason = gravest.reason or (verdict.reason if cause is Cause.SUSPICIOUS else None)
    action = answer_to(gravest, defaults)
    if action is not Action.SANITIZE:
        return Decision(action, cause, reason)
    bad = dict.fromkeys(issue.part for issue in found if answer_to(issue, defaults) is not Action.ALLOW)
    return Decision(action, Cause.INFECTED if infected else cause, reason, parts=tuple(bad))


def passed(verdict: Verdict) -> Decision:
    """The decision to let a body go, with what is known of it as the cause."""
    cause = {
        Level.CLEAN: Cause.CLEAN, Level.UNSCANNED: Cause.UNSCANNED, Level.SUSPICIOUS: Cause.SUSPICIOUS,
        Level.INFECTED: Cause.INFECTED,
    }[verdict.level]  # fmt: skip
    return Decision(Action.ALLOW, cause, verdict.reason)


def shows_macros(anomaly: Anomaly) -> bool:
    """Whether a decoder tells of macros, or can no longer tell because there are too many anomalies."""
    return anomaly.kind in MACROS or anomaly.kind == MORE_ANOMALIES


def graver(one: Decision, other: Decision) -> Decision:
    """Of two decisions on the same body the one that is more careful."""
    return other if GRAVITY[other.action] > GRAVITY[one.action] else one


def _gravest(found: Iterable[Issue], defaults: Defaults) -> Issue | None:
    """The first of those with the gravest answer; None where each may pass."""
    gravest, weight = None, 0
    for issue in found:
        gravity = GRAVITY[answer_to(issue, defaults)]
        if gravity > weight:
            gravest, weight = issue, gravity
    return gravest


def _unscanned(item: Unscanned) -> Issue:
    return Issue(_OURS.get(item.reason, Cause.UNSCANNED), item.part, item.reason)
