"""The table ``[notify]`` beside the rules of the policy: each mistake with its place."""

from __future__ import annotations

from icapscan.config.lines import dotted
from icapscan.config.sources import Sources
from icapscan.errors import ConfigError
from icapscan.notify.check import Mistake, check
from icapscan.policy.rules import read_rules
from icapscan.servers.settings import Settings


def check_notify(settings: Settings, sources: Sources) -> None:
    """Raises `ConfigError` for the first key that cannot be used. The rules have been checked."""
    rules = read_rules(settings.policy.rules)
    try:
        check(settings.notify, {rule.name for rule in rules}, {rule.name for rule in rules if rule.notify})
    except Mistake as mistake:
        where = sources.origin(mistake.key)
        raise ConfigError(f"{dotted(mistake.key)} ({where}): {mistake.sentence}.") from mistake
