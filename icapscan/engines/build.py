"""The engines that a configuration asks for."""

from __future__ import annotations

import msgspec

from icapscan.engines.cache import CachedEngine, ReportCache
from icapscan.engines.contract import Engine
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import CompiledRules
from icapscan.engines.settings import EnginesSettings
from icapscan.errors import ConfigError


def build_engines(
    settings: EnginesSettings,
    rules: CompiledRules | None,
    *,
    clamd_addresses: tuple[str, ...],
    connections: int,
    cache: ReportCache | None = None,
) -> Fanout:
    """The fan-out of one worker: hash lists, YARA, clamd, in this order, the quickest first.

    ``rules``: compiled by `icapscan.engines.rules.compile_rules` (None only when YARA is disabled).
    ``clamd_addresses``: from `icapscan.engines.clamd_control.available`; empty = no clamd.
    ``connections``: most connections of this worker to each clamd.
    ``cache``: keeps answers of the engines; None: every part is scanned.
    Raises `ConfigError` when no scanner is left: nothing may pass because nothing looked. Raises `RuleError`.
    """
    engines: list[Engine] = []
    if settings.hash.deny or settings.hash.allow:
        from icapscan.engines.hashes import HashEngine

        engines.append(HashEngine(settings.hash))
    if settings.yara.enabled:
        if rules is None:
            raise ConfigError("engines.yara is enabled and there are no compiled rules.")
        from icapscan.engines.yara import YaraEngine

        engines.append(YaraEngine(settings.yara, rules))
    if clamd_addresses:
        from icapscan.engines.clamd import ClamdEngine

        engines.append(ClamdEngine(msgspec.structs.replace(settings.clamd, address=clamd_addresses), connections))
    if not (settings.yara.enabled or clamd_addresses or settings.hash.deny):
        raise ConfigError("No engine is enabled; expected engines.yara.enabled = true, or a clamd that answers.")
    if cache is not None:
        engines = [CachedEngine(one, cache) if one.name != "hash" else one for one in engines]
    return Fanout(engines, settings.report)
