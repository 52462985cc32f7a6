"""The rules and answers of ``[policy]``: each mistake with its place, and what this release cannot do is refused."""

from __future__ import annotations

from msgspec import Struct

from icapscan.config.lines import Path
from icapscan.config.sources import Given, Sources
from icapscan.errors import ConfigError
from icapscan.notify.check import tells_somebody
from icapscan.policy.conditions import RuleMistake
from icapscan.policy.decision import ACTING
from icapscan.policy.rules import Rule, read_rules
from icapscan.servers.settings import Settings

_RULES: Path = ("policy", "rules")


def check_policy(settings: Settings, sources: Sources) -> None:
    """Raises `ConfigError` for the first rule or answer that cannot be used."""
    try:
        rules = read_rules(settings.policy.rules)
    except RuleMistake as mistake:
        raise _error(mistake.path, str(mistake), sources) from mistake
    for rule in rules:
        for word in _words(rule):
            if not ACTING[word]:
                raise _error((str(rule.index), "action"), f'"{word}" is not in this release', sources)
            if word == "quarantine" and not settings.quarantine.enabled and not rule.monitor:
                raise _error((str(rule.index), "action"), '"quarantine" needs quarantine.enabled = true', sources)
            if word == "notify" and not rule.monitor and not tells_somebody(settings.notify, rule.name):
                raise _error(
                    (str(rule.index), "action"),
                    '"notify" needs somebody to tell: notify.administrators, notify.webhook, or others in notify.to',
                    sources,
                )
    for name in ("web", "mail"):
        _check_answers(getattr(settings.policy, name), name, sources)


def _words(rule: Rule) -> list[str]:
    words = [rule.action.value] if rule.action is not None else []
    return words + [word for word in ("quarantine", "notify") if getattr(rule, word)]


def _check_answers(table: Struct, name: str, sources: Sources) -> None:
    for attribute in table.__struct_fields__:
        word = getattr(table, attribute)
        if word is not None and not ACTING.get(word, True):
            path = ("policy", name, attribute.replace("_", "-"))
            raise ConfigError(f'{".".join(path)} ({sources.origin(path)}): "{word}" is not in this release.')


def _error(path: Path, sentence: str, sources: Sources) -> ConfigError:
    """The rules are numbered as people count them."""
    index, *keys = path
    key = ".".join([f"policy.rules[{int(index) + 1}]", *keys])
    return ConfigError(f"{key} ({_place((*_RULES, *path), sources)}): {sentence.rstrip('.')}.")


def _place(path: Path, sources: Sources) -> str:
    """Where a key of a rule stands: tables of an array have lines of their own, which one value has not."""
    policy = sources.tree.get("policy")
    given = policy.get("rules") if isinstance(policy, dict) else None
    if isinstance(given, Given) and given.text is None:
        for length in range(len(path), len(_RULES), -1):
            if path[:length] in sources.lines:
                return f"{sources.file}, line {sources.lines[path[:length]]}"
    return sources.origin(_RULES)
