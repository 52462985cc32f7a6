"""``icapscan icap``: one body to an ICAP server, its answer in the words of ``scan``."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from typing import BinaryIO

import msgspec

from icapscan.cli.report import STYLES, printable
from icapscan.clients.errors import InvalidArgument
from icapscan.clients.icap import IcapClient
from icapscan.clients.report import Report, report_scan
from icapscan.clients.result import Mode
from icapscan.findings import Level


def run(url: str, path: str, mode: Mode, *, as_json: bool) -> int:
    """Send the file (``-``: standard input) and show the answer; returns the exit code."""

    async def ask(body: BinaryIO) -> Report:
        async with IcapClient(url) as client:
            return await report_scan(client, path, body, mode=mode)

    with ExitStack() as stack:
        try:
            report = asyncio.run(ask(_open(path, stack)))
        except (InvalidArgument, OSError) as error:
            print(f"icapscan: {error}", file=sys.stderr)
            return 3
    if as_json:
        print(msgspec.json.encode(report).decode())
    else:
        _show(report)
    return report.exit_code


def _open(path: str, stack: ExitStack) -> BinaryIO:
    if path != "-":
        return stack.enter_context(open(path, "rb"))
    copy = stack.enter_context(tempfile.TemporaryFile())
    shutil.copyfileobj(sys.stdin.buffer, copy)
    copy.seek(0, os.SEEK_SET)
    return copy


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    level = Level[report.verdict.upper()]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("verdict", Text(level.word, style=STYLES[level]))
    rows = {
        "reason": report.reason,
        "findings": ", ".join(one.name for one in report.findings),
        "outcome": report.outcome,
        "ICAP status": report.status,
        "ISTag": report.istag,
        "server": report.server,
        "size": f"{report.size:,}",
        "SHA-256": report.sha256,
        "error": report.error,
        "note": None if report.whole or report.error else "The server answered before it had the whole body.",
    }
    for name, value in rows.items():
        if value not in (None, ""):
            table.add_row(name, Text(printable(str(value)), overflow="fold"))
    Console().print(table)
