"""The options of ``icapscan quarantine``. Each command imports what it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from icapscan.cli.app import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from icapscan.cli.quarantine import Desk

quarantine_app = typer.Typer(
    no_args_is_help=True,
    help="See what is in the quarantine, and let it out. Exit code: 0 done, 2 not done, 3 usage or configuration.",
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="As icapscan quarantine list shows it.")]
IdsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="As icapscan quarantine list shows them.")]


@quarantine_app.command("list")
def list_items(
    config: ConfigOption = None,
    sets: SetOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also what is deleted, expired or lost.")] = False,
    match: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Only items with this in subject, name, addresses, URL, user or finding."),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many, the newest.")] = 100,
    json: JsonOption = False,
) -> int:
    """Show the items, the newest first."""
    return _desk(config, sets).list(every=every, match=match, limit=limit, as_json=json)


@quarantine_app.command()
def show(item: IdArgument, config: ConfigOption = None, sets: SetOption = None, json: JsonOption = False) -> int:
    """Show all that is known of an item, and what was done with it."""
    return _desk(config, sets).show(item, as_json=json)


@quarantine_app.command()
def export(
    item: IdArgument,
    path: Annotated[str, typer.Argument(metavar="FILE|-", help="A new file, or - for standard output.")],
    config: ConfigOption = None,
    sets: SetOption = None,
) -> int:
    """Write the bytes of an item to a file that only you can read. They are as dangerous as on the day they came."""
    return _desk(config, sets).export(item, path)


@quarantine_app.command()
def release(
    items: IdsArgument,
    config: ConfigOption = None,
    sets: SetOption = None,
    sender: Annotated[
        str | None, typer.Option("--from", metavar="ADDRESS", help='Other sender of the envelope; "" is the null one.')
    ] = None,
    recipients: Annotated[
        list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Other recipients; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even what came back, or was released often.")] = False,
) -> int:
    """Send mails on to quarantine.next_hop. They stay in the quarantine until they are deleted or expire."""
    return _desk(config, sets).release(items, sender, recipients or (), force=force)


@quarantine_app.command()
def delete(items: IdsArgument, config: ConfigOption = None, sets: SetOption = None) -> int:
    """Remove the bytes of items for good."""
    return _desk(config, sets).delete(items)


@quarantine_app.command()
def sweep(
    config: ConfigOption = None,
    sets: SetOption = None,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove damaged files of which the index knows nothing.")
    ] = False,
) -> int:
    """Remove what is too old, and mend what a crash left behind. Exit code: 2 when something is lost or unreadable."""
    return _desk(config, sets).sweep(drop=drop)


@quarantine_app.command()
def key(path: Annotated[str, typer.Argument(metavar="FILE", help="A new file; nothing is overwritten.")]) -> int:
    """Make a key file for quarantine.key_file, with mode 0600."""
    from icapscan.cli.quarantine import make_key

    return make_key(path)


def _desk(config: str | None, sets: list[str] | None) -> Desk:
    from icapscan.cli.quarantine import Desk
    from icapscan.config import load

    settings = load(config, sets or (), os.environ)
    return Desk(settings.quarantine, settings.log.level)
