"""Finds rules that can never match: what they ask contradicts itself, does not exist, or is decided before them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from icapscan.findings import Reason
from icapscan.policy.conditions import Conditions, key_of
from icapscan.policy.decision import Action
from icapscan.policy.facts import Direction
from icapscan.policy.kinds import KNOWN_TYPES
from icapscan.policy.patterns import Globs, Network, Range, fold
from icapscan.policy.rules import OURS, Rule

_ENGINES = ("yara", "clamd", "hash")
_LIST_MAX = 5


def never_matching(rules: Iterable[Rule], services: Collection[str]) -> Iterator[tuple[Rule, str]]:
    """Each rule that can never match, with the reason in one plain sentence. ``services``: names that scan."""
    before: list[Rule] = []
    for rule in rules:
        why = _contradiction(rule, services) or _shadow(rule, before)
        if why:
            yield rule, why
        else:
            before.append(rule)


# Alone


def _contradiction(rule: Rule, services: Collection[str]) -> str:
    when = rule.when
    for sentence in (_unknown(when, services), _empty(when), _apart(when)):
        if sentence:
            return sentence
    unless = rule.unless
    if unless is not None and not unless.on_parts and unless.direction is None and _implies(when, unless):
        return 'whatever "when" asks for is excepted by "unless"'
    return ""


def _unknown(when: Conditions, services: Collection[str]) -> str:
    if when.service is not None and not any(when.service.fits(fold(name)) for name in services):
        return f"there is no such service that scans; there {_are(sorted(services))}"
    if when.engine is not None and not any(when.engine.fits(name) for name in _ENGINES):
        return f"there is no such engine; there {_are(_ENGINES)}"
    if when.media_type is not None and not any(when.media_type.fits(name) for name in KNOWN_TYPES):
        return (
            f"nothing is found by content to be {' or '.join(when.media_type.texts)}; "
            "docs/configuration.md lists the types, and declared-type asks for what is only said"
        )
    return ""


def _empty(when: Conditions) -> str:
    for name in ("size", "parts", "part_size"):
        ranges: tuple[Range, ...] | None = getattr(when, name)
        if ranges is not None and all(one.empty for one in ranges):
            return f"no number is {key_of(name)} = {ranges[0].text}"
    return ""


def _apart(when: Conditions) -> str:
    """Conditions that each may hold, but not together."""
    verdict, reason, direction = when.verdict, when.reason, when.direction
    if verdict is not None:
        if verdict <= {"infected", "clean"} and reason is not None:
            return f"of a body that is {' or '.join(sorted(verdict))} no reason is asked"
        if verdict == {"clean"} and when.on_findings:
            return "nothing is found in a body that is clean"
    if direction is not None and when.icap_method is not None and Direction.MAIL not in direction:
        methods = {"REQMOD" if one is Direction.UPLOAD else "RESPMOD" for one in direction}
        if methods.isdisjoint(when.icap_method):
            return f"what travels that way does not come by {' or '.join(sorted(when.icap_method))}"
    return ""


def _are(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_LIST_MAX]) or "none"
    return f"{'is' if len(names) == 1 else 'are'} {shown}"


# Behind others


def _shadow(rule: Rule, before: Iterable[Rule]) -> str:
    for earlier in before:
        if earlier.decides and earlier.unless is None and _covers(earlier, rule):
            return f'rule {earlier.index + 1} ("{earlier.name}") decides about everything that it asks for'
    return ""


def _covers(earlier: Rule, later: Rule) -> bool:
    if not _implies(later.when, earlier.when):
        return False
    if earlier.action in (Action.ALLOW, Action.SANITIZE):
        # It lets go only what it may: whatever else the later one is for still gets there.
        return later.action is earlier.action and _excuses(earlier.when) >= _excuses(later.when)
    # What stops looks at any part, what allows at all that matter: a part that fits the one need not fit the other.
    return later.action is not Action.ALLOW or not earlier.when.on_parts


def _excuses(when: Conditions) -> set[str]:
    """What a rule that lets a body go may excuse; see `match.py`."""
    verdict = when.verdict or frozenset()
    general = {reason.value for reason in Reason if reason not in OURS}
    if not (verdict or when.reason or when.on_findings or when.anomaly):
        return {"suspicious", *general}
    excused = set(verdict & {"infected", "suspicious"})
    if when.on_findings or when.anomaly is not None:
        excused.add("suspicious")
    if when.reason is not None:
        return excused | {reason.value for reason in when.reason}
    return excused | general if "unscanned" in verdict else excused


def _implies(narrow: Conditions, wide: Conditions) -> bool:
    """Whether everything that ``narrow`` holds for, ``wide`` holds for too, as far as that is easy to say."""
    return all(_within(name, getattr(narrow, name), getattr(wide, name)) for name in wide.asked())


def _within(name: str, narrow: object, wide: object) -> bool:
    if narrow is None:
        return False
    if isinstance(narrow, Globs) and isinstance(wide, Globs):
        return wide.covers(narrow)
    if isinstance(narrow, frozenset) and isinstance(wide, frozenset):
        return narrow <= wide
    if not isinstance(narrow, tuple) or not isinstance(wide, tuple):
        return False
    return all(any(_holds(outer, inner) for outer in wide) for inner in narrow)


def _holds(outer: Range | Network, inner: Range | Network) -> bool:
    if isinstance(outer, Range) and isinstance(inner, Range):
        return outer.covers(inner)
    if isinstance(outer, Range) or isinstance(inner, Range):
        return False
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]
