"""Facts and rules for tests of the policy, with everything that does not matter left out."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from icapscan.findings import Anomaly, Finding, Level, Reason, Unscanned, Verdict, summarize
from icapscan.policy.conditions import RuleMistake
from icapscan.policy.decide import Policy
from icapscan.policy.decision import Action
from icapscan.policy.facts import Direction, Facts, PartFacts
from icapscan.policy.kinds import kinds_of
from icapscan.policy.match import match
from icapscan.policy.patterns import Known
from icapscan.policy.rules import Rule, read_rules
from icapscan.policy.settings import PolicySettings

ALL = tuple(Action)
FACTS = Facts("avscan", "RESPMOD", "GET", (Direction.DOWNLOAD,))


def verdict(
    *reasons: Reason | tuple[Reason, str],
    infected: str | tuple[str, str] = "",
    suspicious: str | tuple[str, str] = "",
    anomalies: tuple[tuple[str, str], ...] = (),
    tags: tuple[str, ...] = (),
) -> Verdict:
    """A verdict; texts may be given with the part that they are about."""

    def pair(said: Any) -> tuple[Any, str]:
        return said if isinstance(said, tuple) else (said, "")

    findings = []
    for said, level in ((infected, Level.INFECTED), (suspicious, Level.SUSPICIOUS)):
        if said:
            name, part = pair(said)
            findings.append(Finding("yara", name, part, level, tags))
    unscanned = [Unscanned(*pair(reason)) for reason in reasons]
    return summarize(findings, unscanned, [Anomaly(*one) for one in anomalies])


def part(path: str, name: str = "", *types: str, **more: Any) -> PartFacts:
    """A part by its content; ``names`` for several."""
    names = more.pop("names", (name,) if name else ())
    base = f"{path}/{name}" if name and path.rpartition("/")[2].isdigit() else path
    return PartFacts(path, names, more.pop("declared", ""), types, kinds_of(types), base=base, **more)


def facts(**changes: Any) -> Facts:
    """A download by default."""
    return replace(FACTS, **changes)


def rule(when: dict[str, object], action: object = "block", **more: object) -> Rule:
    """One rule."""
    return read_rules([{"when": when, "action": action, **more}])[0]


def holds(when: dict[str, Any], about: Facts, action: object = "block", **more: Any) -> Known:
    """Whether a rule holds."""
    policy = Policy(PolicySettings())
    return match(rule(when, action, **more), about, policy.tables(about.directions)).holds


def policy(*rules: dict[str, object], **settings: Any) -> Policy:
    """A policy of these rules."""
    return Policy(PolicySettings(rules=rules, **settings))


def mistake(*tables: Any) -> RuleMistake:
    """What is wrong with rules that cannot be read."""
    try:
        read_rules(tables)
    except RuleMistake as found:
        return found
    raise AssertionError("these rules can be read")
