"""The commands and their options. Each command imports what it runs."""

from __future__ import annotations

import enum
import os
from typing import Annotated

import typer

EXIT_CLEAN, EXIT_FOUND, EXIT_UNSCANNED, EXIT_USAGE = range(4)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="icapscan: an ICAP (RFC 3507) virus-scanning server.",
)  # fmt: skip
config_app = typer.Typer(no_args_is_help=True, help="Check or show the configuration.")
app.add_typer(config_app, name="config")

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


@config_app.command()
def check(config: ConfigOption = None, sets: SetOption = None) -> int:
    """Say whether the configuration can be used, rules included. Exit code: 0 it can, 3 it cannot."""
    from icapscan.config import load
    from icapscan.engines.rules import compile_rules

    settings = load(config, sets or (), os.environ)
    yara = settings.engines.yara
    rules = f" {compile_rules(yara.rules).count} YARA rules." if yara.enabled else ""
    print(f"The configuration is good.{rules}")
    return EXIT_CLEAN


@config_app.command()
def show(config: ConfigOption = None, sets: SetOption = None) -> int:
    """Show every key with the value that holds, as TOML."""
    from icapscan.config import load, show

    print(show(load(config, sets or (), os.environ)), end="")
    return EXIT_CLEAN
