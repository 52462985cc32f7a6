"""Facts about parts: gathered while they pass by, completed when all of them are known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile

from msgspec.structs import replace

from icapscan.findings import PartPath, Reason, Verdict
from icapscan.policy.content import types_of
from icapscan.policy.facts import PartFacts
from icapscan.policy.kinds import MACROS, kinds_of, within
from icapscan.policy.rules import Needs
from icapscan.unwrap.active_content import MEDIA_TYPE
from icapscan.unwrap.events import Audience
from icapscan.unwrap.tree import PartReady, child_base

_ENCRYPTED = frozenset({"encrypted", "encrypted-document"})


def part_facts(event: PartReady, needs: Needs) -> PartFacts | None:
    """What rules may ask of a part, while its store is still there; None for what we made ourselves."""
    declared = event.declared
    if event.audience is Audience.CLAMD or declared.media_type.startswith(MEDIA_TYPE):
        return None
    return PartFacts(
        event.path,
        declared.names,
        declared.media_type,
        types_of(event.store, event.opened) if needs.types else (),
        (),
        event.store.size,
        event.opened,
        child_base(event.path, declared.names[0] if declared.names else ""),
    )


def completed(parts: Sequence[PartFacts], verdict: Verdict, needs: Needs) -> tuple[PartFacts, ...]:
    """The parts with what only all of them together tell: a zip that is a document, macros, encryption."""
    if not needs.types:
        return tuple(parts)
    inside = _inside(part.path.lower() for part in parts)
    found = []
    for part in parts:
        base = part.base.lower()
        types = within(part.types, inside.get(base, ()), _Holds(base, inside)) if part.opened else part.types
        found.append(replace(part, types=types, kinds=kinds_of(types)))
    return _marked(found, verdict)


def _marked(parts: list[PartFacts], verdict: Verdict) -> tuple[PartFacts, ...]:
    """Parts with macros are of the kind ``macro``, and so are the documents around them, but not the mail or the
    archive that these came in. What is encrypted is of that kind, and what directly holds it."""
    places = {place: number for number, part in enumerate(parts) for place in (part.path, part.base)}
    macros: set[int] = set()
    locked: set[int] = set()
    for anomaly in verdict.anomalies:
        if anomaly.kind in MACROS:
            around = _numbers(anomaly.part, places)
            macros.update(around[:1], takewhile(lambda number: "office" in parts[number].kinds, around[1:]))
        elif anomaly.kind in _ENCRYPTED:
            locked.update(_numbers(anomaly.part, places)[:1])
    for item in verdict.unscanned:
        if item.reason is Reason.ENCRYPTED:
            locked.update(number for number in _numbers(item.part, places)[:2] if "mail" not in parts[number].kinds)
    if not macros and not locked:
        return tuple(parts)
    return tuple(
        replace(part, kinds=part.kinds + ("macro",) * (number in macros) + ("encrypted",) * (number in locked))
        for number, part in enumerate(parts)
    )


def _numbers(path: PartPath, places: Mapping[str, int]) -> list[int]:
    """The part at a path and those that it stands in, from the inside out."""
    found: dict[int, None] = {}
    while True:
        if path in places:
            found.setdefault(places[path])
        if not path:
            return list(found)
        path = path.rpartition("/")[0]


class _Holds:
    """Whether a container holds a path."""

    def __init__(self, base: str, inside: Mapping[str, Collection[str]]) -> None:
        self._base = base
        self._inside = inside

    def __call__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self._inside.get("/".join(filter(None, (self._base, folder))), ())


def _inside(paths: Iterable[str]) -> dict[str, set[str]]:
    """What stands directly in each path that something stands in."""
    found: dict[str, set[str]] = {}
    for path in paths:
        while path:
            path, _, name = path.rpartition("/")
            names = found.setdefault(path, set())
            if name in names:
                break
            names.add(name)
    return found
