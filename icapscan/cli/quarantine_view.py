"""Items of the quarantine as tables for people and JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from icapscan.cli.report import printable
from icapscan.findings import Level
from icapscan.quarantine.item import Act, Entry, State

STYLES = {
    State.KEPT: "bold", State.RELEASED: "green", State.DELETED: "dim", State.EXPIRED: "dim", State.LOST: "bold red",
}  # fmt: skip
_NAMES_SHOWN = 3
LINE_MAX = 4096
"""Characters of a line where the output goes to a file or to a program."""


def to_json(entry: Entry, acts: Sequence[Act] | None = None) -> str:
    """One item as a JSON object on one line, all ASCII; times in UTC."""
    fields: dict[str, Any] = msgspec.to_builtins(entry)
    fields["time"] = stamp(entry.time)
    fields["findings"] = [{"engine": one.engine, "name": one.name, "part": one.part} for one in entry.findings]
    for name in ("reason", "came_back"):
        fields[name] = fields[name] or None
    if acts is not None:
        fields["acts"] = [{**msgspec.to_builtins(act), "time": stamp(act.time)} for act in acts]
    return json.dumps(fields)


def print_entries(entries: Sequence[Entry], found: int) -> None:
    """A table of items, and how many of the ``found`` ones it does not show."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console.width = LINE_MAX
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Id", "Time", "State"):
        table.add_column(name, no_wrap=True)
    table.add_column("Size", justify="right", no_wrap=True)
    for name in ("Name", "From", "For", "Found"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        state = Text(_state(entry), style=STYLES[entry.state])
        texts = (entry.name, _origin(entry), _target(entry), _why(entry))
        table.add_row(
            entry.id, stamp(entry.time)[:16].replace("T", " "), state, f"{entry.size:,}",
            *(Text(printable(text)) for text in texts),
        )  # fmt: skip
    if entries:
        console.print(table)
    items = "1 item" if found == 1 else f"{found:,} items"
    more = f"; the newest {len(entries):,} are shown, more with --limit" if found > len(entries) else ""
    console.print(Text(f"{items}{more}. Times are UTC."))


def print_entry(entry: Entry, acts: Sequence[Act]) -> None:
    """All that is known of one item, a line each, and its history."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console.width = LINE_MAX
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for label, text in _lines(entry):
        if text:
            table.add_row(label, Text(printable(text)))
    console.print(table)
    history = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("When", "Who", "What"):
        history.add_column(name, no_wrap=True)
    history.add_column("Detail", overflow="fold")
    for act in acts:
        history.add_row(stamp(act.time), *(Text(printable(text)) for text in (act.who, act.what, act.detail)))
    console.print()
    console.print(history)


def stamp(seconds: float) -> str:
    """A time in UTC, e.g. ``2026-01-31T23:59:59Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _lines(entry: Entry) -> list[tuple[str, str]]:
    sender = "" if entry.sender is None else f"<{entry.sender}>"
    partly = "" if entry.verdict == Level.UNSCANNED.word else "partly unscanned: "
    verdict = f"{entry.verdict} ({partly}{entry.reason})" if entry.reason else entry.verdict
    found = [f"{one.name} ({one.engine}{' in ' + one.part if one.part else ''})" for one in entry.findings]
    return [
        ("Id", entry.id),
        ("Time", stamp(entry.time)),
        ("State", _state(entry)),
        ("Kind", entry.kind.value),
        ("Name", entry.name),
        ("From", sender),
        ("For", ", ".join(f"<{one}>" for one in entry.recipients)),
        ("URL", entry.url),
        ("Media type", entry.media_type),
        ("Client", entry.client),
        ("User", entry.user),
        ("Service", " ".join(filter(None, (entry.service, entry.direction)))),
        ("Verdict", verdict),
        ("Found", "; ".join(found)),
        ("Rule", entry.rule),
        ("Reference", entry.reference),
        ("Came back", f"it had been released as {entry.came_back}" if entry.came_back else ""),
        ("Size", f"{entry.size:,} bytes"),
        ("SHA-256", entry.sha256),
        ("Key", entry.key),
    ]


def _state(entry: Entry) -> str:
    times = f" ({entry.released} times)" if entry.released > 1 else ""
    return f"{entry.state.value}{times}{', came back' if entry.came_back else ''}"


def _origin(entry: Entry) -> str:
    return entry.url or entry.client if entry.sender is None else f"<{entry.sender}>"


def _target(entry: Entry) -> str:
    more = len(entry.recipients) - _NAMES_SHOWN
    shown = ", ".join(f"<{one}>" for one in entry.recipients[:_NAMES_SHOWN])
    return f"{shown}, and {more} more" if more > 0 else shown or entry.user


def _why(entry: Entry) -> str:
    more = len(entry.findings) - _NAMES_SHOWN
    shown = ", ".join(one.name for one in entry.findings[:_NAMES_SHOWN])
    return f"{shown}, and {more} more" if more > 0 else shown or entry.reason or entry.verdict
