"""Whether a rule holds for a body. Answers are three-valued: what is not known yet is not taken for a no.

A rule that stops something looks *widely*: one part, one name, one reading that fits is enough. A rule that allows
looks *narrowly*: what it is to excuse must all fit, in every name and reading. So neither a second file in a mail nor a
second name of a file gets past a block, or into an exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from icapscan.findings import Level, PartPath, Verdict
from icapscan.policy.conditions import Conditions, key_of
from icapscan.policy.decision import Action, Cause
from icapscan.policy.defaults import Defaults, Issue, answer_to, issues_of
from icapscan.policy.facts import Facts
from icapscan.policy.holds import finding_fits, holds, met, more_parts, part_fits
from icapscan.policy.patterns import Known, both, no, some
from icapscan.policy.rules import OURS, Rule


class Match(Struct, frozen=True):
    """What became of a rule."""

    holds: Known
    why: str = ""
    """Where it does not: the condition that failed, in words."""
    parts: tuple[PartPath, ...] = ()
    """The parts that it holds for, where it looks at parts."""


def match(rule: Rule, facts: Facts, defaults: Sequence[Defaults]) -> Match:
    """Whether a rule holds.

    ``defaults``: those that may hold for this body; a rule that lets it go has to excuse only what these would stop.
    """
    narrow = rule.action is Action.ALLOW
    unknown: Match | None = None
    for attribute in rule.when.of_body:
        fits = holds(attribute, rule.when, facts, narrow)
        if fits is not True:
            found = Match(fits, f"{key_of(attribute)}: {met(attribute, facts)}")
            if fits is False:
                return found
            unknown = unknown or found
    found = _allowing(rule, facts, defaults) if narrow else _stopping(rule, facts, defaults)
    return unknown if unknown is not None and found.holds is not False else found


# Rules that stop, defer, sanitize or only add something


def _stopping(rule: Rule, facts: Facts, defaults: Sequence[Defaults]) -> Match:
    excepted = _excepted(rule, facts, narrow=True)
    if rule.action is Action.SANITIZE:
        for issue in _stopped(facts.verdict, defaults):
            if issue.reason in OURS and (why := _not_named(rule.when, issue)):
                return Match(False, why)
    if not rule.when.on_parts:
        return _unless(excepted)
    found = []
    for part in facts.parts:
        if part_fits(rule.when, part, narrow=False):
            except_this: Known = excepted
            if rule.unless is not None and excepted is not False:
                except_this = both((excepted, part_fits(rule.unless, part, narrow=True)))
            if except_this is False:
                found.append(part.path)
            elif except_this is None:
                return Match(None)
    if found:
        return Match(True, parts=tuple(found))
    return Match(more_parts(facts), f"{_keys(rule.when)}: no part fits")


def _unless(excepted: Known) -> Match:
    return Match(no(excepted), "" if excepted is False else "unless: an exception holds")


def _excepted(rule: Rule, facts: Facts, *, narrow: bool) -> Known:
    """Whether the conditions of ``unless`` that do not look at parts hold."""
    if rule.unless is None:
        return False
    return both(holds(name, rule.unless, facts, narrow) for name in rule.unless.of_body)


# Rules that allow


def _allowing(rule: Rule, facts: Facts, defaults: Sequence[Defaults]) -> Match:
    excepted = _excepted(rule, facts, narrow=False)
    if rule.unless is not None and rule.unless.on_parts and excepted is not False:
        unless = rule.unless
        inside = some([part_fits(unless, part, narrow=False) for part in facts.parts] + [more_parts(facts)])
        excepted = both((excepted, inside))
    if excepted is not False:
        return _unless(excepted)
    if not facts.final:
        return Match(None, "what is to be allowed is not known yet")
    stopped = _stopped(facts.verdict, defaults)
    for issue in stopped:
        if why := _not_named(rule.when, issue):
            return Match(False, why)
    if not rule.when.on_parts:
        return Match(True)
    return _allowing_parts(rule.when, facts, stopped)


def _allowing_parts(when: Conditions, facts: Facts, stopped: list[Issue]) -> Match:
    """All that would be stopped must stand in parts that fit; where nothing would be, every part must."""
    fitting = [part for part in facts.parts if part_fits(when, part, narrow=True)]
    if stopped:
        places: Iterable[PartPath] = {issue.part for issue in stopped}
    elif more_parts(facts) is None:
        return Match(False, f"{_keys(when)}: not all parts are known")
    else:
        places = (part.path for part in facts.parts if not part.opened)
    bases = {part.path for part in fitting} | {part.base for part in fitting if part.base}
    for place in places:
        if not any(above in bases for above in _above(place)):
            return Match(False, f'{_keys(when)}: does not fit "{place}"' if place else f"{_keys(when)}: does not fit")
    return Match(bool(fitting), f"{_keys(when)}: no part fits", tuple(part.path for part in fitting))


def _stopped(verdict: Verdict, defaults: Sequence[Defaults]) -> list[Issue]:
    """What some default would not let pass."""
    return [issue for issue in issues_of(verdict) if any(answer_to(issue, one) is not Action.ALLOW for one in defaults)]


def stopped_parts(verdict: Verdict, defaults: Sequence[Defaults]) -> tuple[PartPath, ...]:
    """Where that is; ``""`` is the body as a whole."""
    return tuple(dict.fromkeys(issue.part for issue in _stopped(verdict, defaults)))


def _not_named(when: Conditions, issue: Issue) -> str:
    """Why a rule does not excuse this; empty where it does."""
    word = _LEVELS[issue.cause].word
    if issue.cause is Cause.INFECTED:
        if when.verdict is None or "infected" not in when.verdict:
            return 'it does not say verdict = "infected"'
    elif issue.reason in OURS:
        if when.reason is None or issue.reason not in when.reason:
            return f'it does not say reason = "{issue.reason.value}"' if issue.reason else ""
        return ""
    elif issue.reason is not None and when.reason is not None:
        return "" if issue.reason in when.reason else f'there is also reason = "{issue.reason.value}"'
    elif _names_trouble(when) and word not in _named(when):
        return f"there is also something {'with macros' if issue.cause is Cause.MACRO else word}"
    if issue.finding is not None and when.on_findings and not finding_fits(when, issue.finding):
        return f'there is also "{issue.finding.name}"'
    return ""


def _names_trouble(when: Conditions) -> bool:
    return bool(when.verdict or when.reason or when.on_findings or when.anomaly)


def _named(when: Conditions) -> set[str]:
    """The levels of trouble that an allowing rule speaks of."""
    named = set(when.verdict or ())
    if when.reason is not None:
        named.add("unscanned")
    if when.on_findings or when.anomaly is not None:
        named.add("suspicious")
    return named


_LEVELS = {
    Cause.INFECTED: Level.INFECTED, Cause.SUSPICIOUS: Level.SUSPICIOUS, Cause.MACRO: Level.SUSPICIOUS,
    Cause.UNSCANNED: Level.UNSCANNED, Cause.FAILED: Level.UNSCANNED, Cause.TIMEOUT: Level.UNSCANNED,
}  # fmt: skip


def _above(path: PartPath) -> Iterator[PartPath]:
    """The path itself and everything that it may stand in; the body last."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield ""


def _keys(when: Conditions) -> str:
    return ", ".join(map(key_of, when.of_parts))
