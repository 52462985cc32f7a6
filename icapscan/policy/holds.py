"""Single conditions: whether each holds for a body or for a part, and in words what it met."""

from __future__ import annotations

from collections.abc import Callable

from icapscan.findings import Finding, Level, Verdict
from icapscan.policy.conditions import Conditions
from icapscan.policy.facts import Facts, PartFacts
from icapscan.policy.kinds import MORE_ANOMALIES, kinds_of
from icapscan.policy.patterns import Globs, Known, Range, fold, in_networks, name_forms, some

_NOT_BY_TYPE = frozenset({"macro", "encrypted"})

# Conditions on the body


def holds(attribute: str, table: Conditions, facts: Facts, narrow: bool) -> Known:
    """Whether a condition on the body holds; ``narrow``: see `match.py`."""
    value = getattr(table, attribute)
    if isinstance(value, Globs) and attribute in _TEXT_OF:
        return any(value.fits(fold(text)) for text in _TEXT_OF[attribute](facts))
    if attribute in ("client", "icap_client"):
        return in_networks(getattr(facts, attribute), value)
    if attribute == "direction":
        fits = [one in value for one in facts.directions]
        return all(fits) and bool(fits) if narrow else any(fits)
    if attribute == "icap_method":
        return facts.icap_method in value
    if attribute == "size":
        return _in_ranges(value, facts.size, facts.final)
    if attribute == "parts":
        return _in_ranges(value, max(0, len(facts.parts) - 1), more_parts(facts) is False)
    return _of_verdict(attribute, table, facts, narrow)


def _of_verdict(attribute: str, table: Conditions, facts: Facts, narrow: bool) -> Known:
    verdict = facts.verdict
    infected = verdict.level is Level.INFECTED
    if attribute in ("verdict", "reason") and not (facts.final or infected):
        return None  # it may still turn out to be infected, and then neither of these holds
    if attribute == "verdict":
        return not words_of(verdict).isdisjoint(table.verdict or ())
    if attribute == "reason":  # of a body that is infected it does not matter what else could not be scanned
        return not infected and any(item.reason in (table.reason or ()) for item in verdict.unscanned)
    if attribute == "anomaly":
        kinds = {anomaly.kind for anomaly in verdict.anomalies}
        wanted = table.anomaly
        found = wanted is not None and any(wanted.fits(fold(kind)) for kind in kinds)
        return True if found or (not narrow and MORE_ANOMALIES in kinds) else _more(facts)
    # engine, threat and tag are asked of one finding together
    return True if any(finding_fits(table, one) for one in verdict.findings) else _more(facts)


def words_of(verdict: Verdict) -> set[str]:
    """What a verdict says: ``suspicious`` and ``unscanned`` may both be true; ``infected`` stands alone."""
    if verdict.level in (Level.INFECTED, Level.CLEAN):
        return {verdict.level.word}
    words = {"unscanned"} if verdict.unscanned else set()
    return words | {finding.level.word for finding in verdict.findings}


def _more(facts: Facts) -> Known:
    """No, or not yet."""
    return False if facts.final else None


def more_parts(facts: Facts) -> Known:
    """False where there is no part but those that are known; None where there may be more."""
    return False if facts.final and facts.parts_complete else None


def _in_ranges(ranges: tuple[Range, ...], value: int, final: bool) -> Known:
    return some(one.fits(value, final) for one in ranges)


def finding_fits(table: Conditions, finding: Finding) -> bool:
    """Whether engine, threat and tag, as far as they are asked for, hold for one finding."""
    engine, threat, tag = table.engine, table.threat, table.tag
    return (
        (engine is None or engine.fits(fold(finding.engine)))
        and (threat is None or threat.fits(fold(finding.name)))
        and (tag is None or any(tag.fits(fold(one)) for one in finding.tags))
    )


_TEXT_OF: dict[str, Callable[[Facts], tuple[str, ...]]] = {
    "service": lambda facts: (facts.service,),
    "method": lambda facts: (facts.method,),
    "user": lambda facts: facts.users,
    "group": lambda facts: facts.groups,
    "host": lambda facts: (facts.host,),
    "path": lambda facts: (facts.path,),
    "url": lambda facts: (facts.url,),
}


# Conditions on parts


def part_fits(table: Conditions, part: PartFacts, *, narrow: bool) -> bool:
    """Whether all conditions on parts hold for this one."""
    if not table.of_parts:
        return True
    declared, kind = table.declared_type, table.kind
    return (
        (table.file_name is None or _name_fits(table.file_name, part, narrow))
        and (table.part is None or table.part.fits(fold(part.path)))
        and (table.media_type is None or _type_fits(table.media_type, part, narrow))
        and (kind is None or _kind_fits(kind, part, narrow))
        and (declared is None or declared.fits(fold(part.declared)))
        and (table.part_size is None or any(one.fits(part.size, True) for one in table.part_size))
        and (table.format is None or any(table.format.fits(fold(one)) for one in part.opened))
    )


def _name_fits(globs: Globs, part: PartFacts, narrow: bool) -> bool:
    if narrow:
        return bool(part.names) and all(globs.fits(name_forms(name)[0]) for name in part.names)
    return any(globs.fits(form) for name in part.names for form in name_forms(name))


def _type_fits(globs: Globs, part: PartFacts, narrow: bool) -> bool:
    fits = [globs.fits(one) for one in part.types]
    return bool(fits) and all(fits) if narrow else any(fits)


def _kind_fits(kinds: frozenset[str], part: PartFacts, narrow: bool) -> bool:
    if not narrow:
        return not kinds.isdisjoint(part.kinds)
    special = kinds & _NOT_BY_TYPE & set(part.kinds)
    return bool(special) or (bool(part.types) and all(kinds & set(kinds_of((one,))) for one in part.types))


# Words


def met(attribute: str, facts: Facts) -> str:
    """What a condition met, in words."""
    if attribute in _TEXT_OF:
        texts = _TEXT_OF[attribute](facts)
        return f'it is "{texts[0]}"' if texts and texts[0] else "it is not known"
    if attribute in ("client", "icap_client"):
        found = getattr(facts, attribute)
        return f"it is {found}" if found is not None else "it is not known"
    if attribute == "direction":
        return f"it is {' or '.join(one.value for one in facts.directions) or 'not known'}"
    if attribute == "icap_method":
        return f"it is {facts.icap_method or 'not known'}"
    if attribute == "size":
        return f"it is {facts.size:,} bytes"
    if attribute == "parts":
        return f"there are {max(0, len(facts.parts) - 1)}"
    return _of_verdict_in_words(attribute, facts.verdict)


def _of_verdict_in_words(attribute: str, verdict: Verdict) -> str:
    if attribute == "verdict":
        return f"it is {' and '.join(sorted(words_of(verdict)))}"
    if attribute == "reason":
        texts = sorted({item.reason.value for item in verdict.unscanned})
    elif attribute == "anomaly":
        texts = sorted({anomaly.kind for anomaly in verdict.anomalies})
    else:
        texts = sorted({finding.name for finding in verdict.findings})
    return f"there is {', '.join(texts[:5])}{', …' if len(texts) > 5 else ''}" if texts else "there is none"
