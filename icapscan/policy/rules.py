"""The ordered rules of ``[[policy.rules]]``: from the tables as written to frozen values, mistakes with their place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from icapscan.findings import Reason
from icapscan.policy.conditions import NOTHING, Conditions, RuleMistake, condition_names, read_conditions
from icapscan.policy.decision import ACTING, Action

OURS = frozenset({Reason.ENGINE_FAILED, Reason.TIMEOUT})
"""Reasons that say something of us and not of the body."""
_DECIDING = {one.value: one for one in (Action.ALLOW, Action.BLOCK, Action.SANITIZE, Action.DEFER)}
_KEYS = ("name", "when", "unless", "action", "tag", "monitor")
_NAME_MAX = 100
_TAG_MAX = 60
_CONDITIONS = frozenset(condition_names())


class Needs(Struct, frozen=True):
    """What rules want to know beyond the verdict; what nobody wants is not gathered."""

    parts: bool = False
    types: bool = False
    """What each part is by content."""


class Rule(Struct, frozen=True):
    """One rule."""

    index: int
    """Its place among the rules, from 0."""
    name: str
    when: Conditions
    unless: Conditions | None
    action: Action | None
    """What decides; None: the rule adds something, and the next ones are asked."""
    quarantine: bool = False
    notify: bool = False
    tag: str = ""
    monitor: bool = False
    """Nothing is done; the log says what would have been."""

    @property
    def words(self) -> str:
        """Its actions, as they are written."""
        action = [self.action.value] if self.action is not None else []
        more = [word for word in ("quarantine", "notify") if getattr(self, word)]
        return "+".join([*action, *more, *(["tag"] if self.tag else [])]) or "monitor"

    @property
    def decides(self) -> bool:
        """Whether no other rule is asked once it matched."""
        return self.action is not None and not self.monitor


def read_rules(tables: Iterable[Mapping[str, object]]) -> tuple[Rule, ...]:
    """The rules in their order. Raises `RuleMistake`."""
    rules: list[Rule] = []
    for index, table in enumerate(tables):
        rule = _read_rule(index, table)
        other = next((one for one in rules if one.name == rule.name), None)
        if other is not None:
            raise RuleMistake((str(index), "name"), f'expected another name: rule {other.index + 1} is "{rule.name}"')
        rules.append(rule)
    return tuple(rules)


def needs_of(rules: Iterable[Rule]) -> Needs:
    """What these rules want to know."""
    tables = [table for rule in rules for table in (rule.when, rule.unless) if table is not None]
    types = any(table.on_content for table in tables)
    return Needs(types or any(table.on_parts or table.parts is not None for table in tables), types)


def _read_rule(index: int, table: object) -> Rule:
    here = (str(index),)
    if not isinstance(table, Mapping):
        raise RuleMistake(here, "expected a table")
    for key in table:
        if key not in _KEYS:
            hint = f"; conditions stand in when = {{ {key} = … }}" if key.replace("_", "-") in _CONDITIONS else ""
            raise RuleMistake((*here, key), f"unknown key{hint or '; the keys of a rule are ' + ', '.join(_KEYS)}")
    when = read_conditions(table["when"], (*here, "when")) if "when" in table else NOTHING
    unless = read_conditions(table["unless"], (*here, "unless")) if "unless" in table else None
    if unless == NOTHING:
        unless = None
    name = _text(table.get("name", f"rule {index + 1}"), (*here, "name"), _NAME_MAX)
    monitor = table.get("monitor", False)
    if not isinstance(monitor, bool):
        raise RuleMistake((*here, "monitor"), "expected true or false")
    words = _words(table.get("action"), (*here, "action"))
    tag = _text(table["tag"], (*here, "tag"), _TAG_MAX) if "tag" in table else name[:_TAG_MAX]
    rule = Rule(
        index, name, when, unless, next((_DECIDING[word] for word in words if word in _DECIDING), None),
        "quarantine" in words, "notify" in words, tag if "tag" in words or "tag" in table else "",
        monitor or "monitor" in words,
    )  # fmt: skip
    _check(rule, here)
    return rule


def _words(value: object, path: tuple[str, ...]) -> tuple[str, ...]:
    expected = f"expected one or several of {', '.join(ACTING)}"
    words: list[str] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(one, str) or one not in ACTING:
            raise RuleMistake(path, expected if one is None else f"{expected}, got {one!r}")
        words.append(one)
    if not words or len([one for one in words if one in _DECIDING]) > 1:
        raise RuleMistake(path, f"{expected}, but only one of {', '.join(_DECIDING)}")
    return tuple(words)


def _check(rule: Rule, here: tuple[str, ...]) -> None:
    """What does not go together."""
    if rule.quarantine and rule.action is None:
        raise RuleMistake(
            (*here, "action"),
            'expected what is to become of the body beside "quarantine", e.g. ["block", "quarantine"]',
        )
    if rule.unless is not None and rule.unless.on_parts and not rule.when.on_parts and rule.action is not Action.ALLOW:
        raise RuleMistake(
            (*here, "unless"),
            'expected a condition on parts in "when" too, e.g. file-name = "*": what excepts one part of a body must '
            "not except the others",
        )


def _text(value: object, path: tuple[str, ...], most: int) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > most:
        raise RuleMistake(path, f"expected a text of at most {most} characters")
    return value.strip()
