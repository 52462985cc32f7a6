"""Facts about parts: gathered while they pass by, completed when all of them are known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from icapscan.findings import Reason, Verdict
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
    macros = _above(one.part for one in verdict.anomalies if one.kind in MACROS)
    locked = _above(one.part for one in verdict.anomalies if one.kind in _ENCRYPTED)
    locked |= _above(one.part for one in verdict.unscanned if one.reason is Reason.ENCRYPTED)
    found = []
    for part in parts:
        base = part.base.lower()
        types = within(part.types, inside.get(base, ()), _Holds(base, inside)) if part.opened else part.types
        kinds = kinds_of(types)
        kinds += ("macro",) if part.path in macros else ()
        kinds += ("encrypted",) if part.path in locked else ()
        found.append(replace(part, types=types, kinds=kinds))
    return tuple(found)


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


def _above(paths: Iterable[str]) -> set[str]:
    """The paths and everything that they stand in."""
    found: set[str] = set()
    for path in paths:
        while path not in found:
            found.add(path)
            if not path:
                break
            path = path.rpartition("/")[0]
    return found
