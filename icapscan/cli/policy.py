"""``icapscan policy test``: which rule decides about a file, and why the others do not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from msgspec import Struct

from icapscan.cli.app import EXIT_CLEAN, EXIT_FOUND, EXIT_UNSCANNED, EXIT_USAGE, Form
from icapscan.cli.drawing import LINE_MAX
from icapscan.cli.inputs import Inputs, missing_path
from icapscan.cli.report import printable, why
from icapscan.cli.scan import Scanned, scan_input
from icapscan.engines.build import build_engines
from icapscan.engines.clamd_control import available
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import compile_rules
from icapscan.errors import ConfigError
from icapscan.findings import CLEAN
from icapscan.pipeline import Scanner
from icapscan.policy.decide import Policy
from icapscan.policy.decision import Action, Decision
from icapscan.policy.facts import Direction, Facts, address, group_names, host_and_path, user_names
from icapscan.policy.lint import never_matching
from icapscan.policy.match import Match
from icapscan.policy.parts import completed
from icapscan.policy.rules import Rule, read_rules
from icapscan.servers.generation import Service, routes
from icapscan.servers.settings import Settings
from icapscan.store import Purse

_DOWNLOADS = ("GET", "HEAD")
STYLES = {
    Action.ALLOW: "bold green", Action.BLOCK: "bold red", Action.SANITIZE: "bold magenta", Action.DEFER: "bold yellow",
    Action.ERROR: "bold yellow",
}  # fmt: skip


class Asked(Struct, frozen=True):
    """What is said about the request that the files come with."""

    service: str = "avscan"
    method: str | None = None
    url: str = ""
    client: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()


class Tried(Struct, frozen=True):
    """What became of one file."""

    path: str
    facts: Facts
    decision: Decision
    rules: tuple[tuple[Rule, Match], ...]


def dead_rules(settings: Settings) -> list[str]:
    """A sentence for each rule that can never match."""
    services = [name for name, service in settings.services.items() if service.kind == "scan"]
    return [
        f'Rule {rule.index + 1} ("{printable(rule.name)}") never matches: {printable(sentence)}.'
        for rule, sentence in never_matching(read_rules(settings.policy.rules), services)
    ]


def run(paths: Sequence[str], settings: Settings, form: Form, asked: Asked, *, as_json: bool) -> int:
    """Scan files and show what the rules say; returns the exit code."""
    missing = missing_path(paths)
    if missing is not None:
        print(f"icapscan: {missing!r} does not exist.", file=sys.stderr)
        return EXIT_USAGE
    service = _service(asked.service, settings)
    if asked.client and address(asked.client) is None:
        raise ConfigError(f"--client {asked.client}: expected an IP address.")
    engines = settings.engines
    compiled = compile_rules(engines.yara.rules) if engines.yara.enabled else None
    clamd = available(engines.clamd)
    with Inputs(paths, form, settings.server.spool) as inputs:
        fanout = build_engines(engines, compiled, clamd_addresses=clamd, connections=engines.clamd.connections)
        return asyncio.run(_try_all(inputs, settings, fanout, service, asked, as_json=as_json))


def _service(name: str, settings: Settings) -> Service:
    service = routes(settings).get(b"/" + name.strip("/").encode() if name.strip("/") else b"")
    if service is None or service.echo:
        names = [one for one, given in settings.services.items() if given.kind == "scan"]
        raise ConfigError(f"--service {name}: expected a service that scans: {', '.join(names)}.")
    return service


async def _try_all(
    inputs: Inputs, settings: Settings, engines: Fanout, service: Service, asked: Asked, *, as_json: bool
) -> int:
    limits = settings.limits
    policy = Policy(settings.policy)
    scanner = Scanner(engines, limits, Purse(limits.memory, limits.disk), settings.server.spool)
    codes = {EXIT_CLEAN}
    try:
        for path in inputs.files:
            for item in inputs.of(path):
                scanned = await scan_input(item, inputs, scanner, policy.needs)
                tried = _try(scanned, policy, service, asked)
                print(_json(tried)) if as_json else _show(tried)
                codes.add(_code(tried.decision))
    finally:
        await engines.close()
    return EXIT_FOUND if EXIT_FOUND in codes else max(codes)


def _try(scanned: Scanned, policy: Policy, service: Service, asked: Asked) -> Tried:
    facts = _facts(scanned, policy, service, asked)
    return Tried(scanned.path, facts, policy.decide(facts), tuple(policy.matches(facts)))


def _facts(scanned: Scanned, policy: Policy, service: Service, asked: Asked) -> Facts:
    mail = service.settings.traffic == "mail" or (scanned.mail and service.settings.traffic == "auto")
    method = (asked.method or ("PUT" if mail else "GET")).upper()
    down = method in _DOWNLOADS
    host, path = host_and_path(asked.url.encode("utf-8", "surrogateescape")) if asked.url else ("", "")
    return Facts(
        service.name,
        "RESPMOD" if down else "REQMOD",
        method,
        (Direction.MAIL if mail else Direction.DOWNLOAD if down else Direction.UPLOAD,),
        address(asked.client),
        None,
        user_names(asked.user.encode("utf-8", "surrogateescape")) if asked.user else (),
        tuple(name for group in asked.groups for name in group_names(group.encode("utf-8", "surrogateescape"))),
        host,
        path,
        asked.url,
        scanned.size,
        scanned.verdict,
        completed(scanned.parts, scanned.verdict, policy.needs),
        scanned.parts_complete,
    )


def _code(decision: Decision) -> int:
    if decision.action is Action.ALLOW:
        return EXIT_CLEAN
    return EXIT_UNSCANNED if decision.action is Action.ERROR else EXIT_FOUND


# Output


def _json(tried: Tried) -> str:
    decision, facts = tried.decision, tried.facts
    rules = [
        {
            "index": rule.index + 1,
            "name": rule.name,
            "action": rule.words,
            "monitor": rule.monitor,
            "matched": found.holds is True,
            "why": found.why,
            "parts": list(found.parts),
        }
        for rule, found in tried.rules
    ]
    return json.dumps(
        {
            "path": tried.path,
            "decision": decision.action.value,
            "cause": decision.cause.value,
            "reason": decision.reason.value if decision.reason is not None else None,
            "rule": decision.rule or None,
            "tags": list(decision.tags),
            "monitored": list(decision.monitored),
            "verdict": facts.verdict.level.word,
            "direction": [one.value for one in facts.directions],
            "rules": rules,
        }
    )


def _show(tried: Tried) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console.width = LINE_MAX
    decision = tried.decision
    console.print(
        Text.assemble(
            (f"{decision.action.value.upper()}", STYLES[decision.action]), "  ", (printable(tried.path), "bold"), "  ",
            printable(_in_words(tried)),
        )
    )  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("Rule", overflow="fold")
    table.add_column("Action", no_wrap=True)
    table.add_column("Result", no_wrap=True)
    table.add_column("Why", overflow="fold")
    decided = False
    for rule, found in tried.rules:
        result, style, reason = _result(rule, found, decided)
        words = f"{rule.words} (monitor)" if rule.monitor and rule.words != "monitor" else rule.words
        table.add_row(
            str(rule.index + 1), Text(printable(rule.name)), words, Text(result, style=style), Text(printable(reason))
        )
        decided = decided or (found.holds is True and rule.decides)
    by_default = "not asked" if decided else "decides"
    table.add_row("", "the defaults", "", Text(by_default, style="dim" if decided else "bold"), "")
    console.print(table)


def _result(rule: Rule, found: Match, decided: bool) -> tuple[str, str, str]:
    if decided:
        return "not asked", "dim", ""
    if found.holds is not True:
        return "no", "", found.why
    parts = ", ".join(part or "the body itself" for part in found.parts[:5])
    more = f", and {len(found.parts) - 5} more" if len(found.parts) > 5 else ""
    if rule.monitor:
        return "watches", "cyan", parts + more
    return ("decides", "bold", parts + more) if rule.action is not None else ("adds", "cyan", parts + more)


def _in_words(tried: Tried) -> str:
    decision, verdict = tried.decision, tried.facts.verdict
    by = f'by rule "{decision.rule}"' if decision.rule else "by the defaults"
    said = verdict.level.word if verdict is not CLEAN else "clean"
    details = why(verdict)
    tags = f"; tagged {', '.join(decision.tags)}" if decision.tags else ""
    return f"{by}; {said}{': ' + details if details else ''}{tags}"
