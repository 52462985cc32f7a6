"""The commands and their options. Each command imports what it runs."""

from __future__ import annotations

import enum
import os
import sys
from typing import Annotated

import typer

EXIT_CLEAN, EXIT_FOUND, EXIT_UNSCANNED, EXIT_USAGE = range(4)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="icapscan: an ICAP (RFC 3507) virus-scanning server.",
)  # fmt: skip
config_app = typer.Typer(no_args_is_help=True, help="Check or show the configuration.")
app.add_typer(config_app, name="config")
policy_app = typer.Typer(no_args_is_help=True, help="Try the rules of the configuration.")
app.add_typer(policy_app, name="policy")

ConfigOption = Annotated[str | None, typer.Option("--config", metavar="FILE", help="Configuration file (TOML).")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. server.workers=2; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


class Form(enum.StrEnum):
    """What the files given to ``scan`` and ``explain`` are."""

    AUTO = "auto"
    MAIL = "mail"
    HTTP = "http"
    FILE = "file"


def _version(wanted: bool) -> None:
    if wanted:
        from icapscan import __version__

        print(f"icapscan {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """icapscan: an ICAP (RFC 3507) virus-scanning server."""


@app.command()
def serve(
    config: ConfigOption = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="ICAP address.")] = None,
    admin: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Address of health and metrics.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; 0 = one for each processor.")] = None,
    sets: SetOption = None,
) -> int:
    """Run the scanner."""
    from icapscan.daemon import serve as run

    given = list(sets or ())
    for key, value in (("server.listen", listen), ("admin.listen", admin), ("server.workers", workers)):
        if value is not None:
            given.append(f"{key}={value}")
    return run(config, given)


@app.command()
def scan(
    paths: Annotated[list[str], typer.Argument(metavar="PATH|-...", help="Files, folders, or - for standard input.")],
    config: ConfigOption = None,
    sets: SetOption = None,
    form: Annotated[Form, typer.Option("--as", help="What the files are; http = raw HTTP responses.")] = Form.AUTO,
    json: JsonOption = False,
) -> int:
    """Scan files without a server. Exit code: 0 clean, 1 infected or suspicious, 2 not (fully) scanned, 3 usage."""
    from icapscan.cli.scan import run
    from icapscan.config import load

    return run(paths, load(config, sets or (), os.environ), form, as_json=json)


@app.command()
def explain(
    paths: Annotated[list[str], typer.Argument(metavar="PATH|-...", help="Files, folders, or - for standard input.")],
    config: ConfigOption = None,
    sets: SetOption = None,
    form: Annotated[Form, typer.Option("--as", help="What the files are; http = raw HTTP responses.")] = Form.AUTO,
    json: JsonOption = False,
) -> int:
    """Show the parts that files are made of, and what is odd about them; scans nothing. Exit code: 2 if unreadable."""
    from icapscan.cli.explain import run
    from icapscan.config import load

    return run(paths, load(config, sets or (), os.environ), form, as_json=json)


@app.command()
def icap(
    url: Annotated[str, typer.Argument(metavar="URL", help="icap://host[:port]/service, or icaps://.")],
    path: Annotated[str, typer.Argument(metavar="FILE|-", help="The body; - for standard input.")],
    reqmod: Annotated[bool, typer.Option("--reqmod/--respmod", help="How it is sent.")] = False,
    json: JsonOption = False,
) -> int:
    """Send a file to an ICAP server. Exit code: 0 clean, 1 infected or suspicious, 2 not (fully) scanned, 3 usage."""
    from icapscan.cli.icap import run
    from icapscan.clients.result import Mode

    return run(url, path, Mode.REQMOD if reqmod else Mode.RESPMOD, as_json=json)


@app.command()
def smtp(
    config: ConfigOption = None,
    listen: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="Where clients connect; repeatable.")
    ] = None,
    next_hop: Annotated[
        str | None, typer.Option("--next-hop", metavar="HOST:PORT", help="The mail server that mail goes to.")
    ] = None,
    icap: Annotated[list[str] | None, typer.Option(metavar="URL", help="ICAP service; repeatable.")] = None,
    sets: SetOption = None,
) -> int:
    """Run the before-queue SMTP proxy: mail is scanned between its client and the next mail server."""
    from icapscan.cli.smtp import overrides, run
    from icapscan.config import load_every

    given = overrides(listen or (), next_hop, icap or ())
    return run(load_every(config, [*(sets or ()), *given], os.environ).smtp)


@app.command()
def milter(
    listen: Annotated[
        list[str] | None, typer.Option(metavar="inet:PORT@HOST|unix:PATH", help="Where MTAs connect; repeatable.")
    ] = None,
    icap: Annotated[list[str] | None, typer.Option(metavar="URL", help="ICAP service; repeatable.")] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> int:
    """Run the filter for Postfix and Sendmail: every message is scanned by an ICAP service."""
    from icapscan.cli.milter import overrides, run
    from icapscan.config import load_every

    settings = load_every(config, [*(sets or ()), *overrides(listen or (), icap or ())], os.environ)
    return run(settings.milter, settings.log.level)


@config_app.command()
def check(config: ConfigOption = None, sets: SetOption = None) -> int:
    """Say whether the configuration can be used, rules included.

    Exit code: 0 it is good, 1 it can be used but has policy rules that never match, 3 it cannot be used.
    """
    from icapscan.cli.policy import dead_rules
    from icapscan.config import load
    from icapscan.engines.rules import compile_rules

    settings = load(config, sets or (), os.environ)
    yara = settings.engines.yara
    rules = f" {compile_rules(yara.rules).count} YARA rules." if yara.enabled else ""
    dead = dead_rules(settings)
    for sentence in dead:
        print(sentence, file=sys.stderr)
    print(f"The configuration {'can be used' if dead else 'is good'}.{rules}")
    return EXIT_FOUND if dead else EXIT_CLEAN


@config_app.command()
def show(config: ConfigOption = None, sets: SetOption = None) -> int:
    """Show every key with the value that holds, as TOML."""
    from icapscan.config import load_every, show

    print(show(load_every(config, sets or (), os.environ)), end="")
    return EXIT_CLEAN


@policy_app.callback()
def _policy() -> None:
    """Try the rules of the configuration."""


@policy_app.command()
def test(
    paths: Annotated[list[str], typer.Argument(metavar="FILE|-...", help="Files, folders, or - for standard input.")],
    config: ConfigOption = None,
    sets: SetOption = None,
    form: Annotated[Form, typer.Option("--as", help="What the files are; http = raw HTTP responses.")] = Form.AUTO,
    service: Annotated[str, typer.Option(metavar="NAME", help="ICAP service that they are sent to.")] = "avscan",
    method: Annotated[
        str | None, typer.Option(metavar="GET|POST|…", help="HTTP method; GET and HEAD are downloads.")
    ] = None,
    url: Annotated[str, typer.Option(metavar="URL", help="What is asked for.")] = "",
    client: Annotated[str, typer.Option(metavar="ADDRESS", help="Whom the proxy serves (X-Client-IP).")] = "",
    user: Annotated[str, typer.Option(metavar="NAME", help="Who that is (X-Authenticated-User).")] = "",
    group: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Group of the user (X-Authenticated-Groups); repeatable.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Scan files and show which rule decides about each, and why the others do not.

    Exit code: 0 all would pass, 1 one would be stopped or changed, 2 one could not be scanned, 3 usage.
    """
    from icapscan.cli.policy import Asked, run
    from icapscan.config import load

    asked = Asked(service, method, url, client, user, tuple(group or ()))
    return run(paths, load(config, sets or (), os.environ), form, asked, as_json=json)
