"""The outcome of ``scan``: JSON lines for programs, a table and a progress bar for people."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from icapscan.findings import Level, Verdict

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

STYLES = {Level.CLEAN: "green", Level.UNSCANNED: "yellow", Level.SUSPICIOUS: "magenta", Level.INFECTED: "bold red"}
_ROWS_MAX = 200
"""Clean files in a table; of many files only those are shown that are not clean."""
_BAR_FROM = 2
"""Files from which on a progress bar is shown."""


class Reporter:
    """Takes one outcome after the other; used as a context, at whose end the table is printed."""

    def __init__(self, files: int, *, as_json: bool) -> None:
        self.engines: list[str] = []
        self._files = files
        self._json = as_json
        self._rows: list[tuple[str, Verdict, int]] = []
        self._counts = dict.fromkeys(Level, 0)
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Reporter:
        if self._files >= _BAR_FROM and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            # lines for a program must not be drawn around the bar, which goes to standard error
            both = sys.stdout.isatty()
            self._progress = Progress(
                *columns, console=Console(stderr=True), transient=True, redirect_stdout=both, redirect_stderr=both
            )
            self._task = self._progress.add_task("Scanning", total=self._files)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if not self._json and error is None:
            self._table()

    def expect(self, more: int) -> None:
        """There are more outcomes to come than files: a mailbox has many messages."""
        self._files += more
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=self._files)

    def warn(self, sentence: str) -> None:
        """Say something on standard error."""
        print(f"icapscan: {printable(sentence)}", file=sys.stderr)

    def show(self, path: str, verdict: Verdict, size: int, sha256: str) -> None:
        """Report one file."""
        self._counts[verdict.level] += 1
        if self._json:
            print(json_line(path, verdict, size, sha256), flush=True)
        elif verdict.level is not Level.CLEAN or len(self._rows) < _ROWS_MAX:
            self._rows.append((path, verdict, size))
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task)

    def _table(self) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(soft_wrap=False)
        rows = self._rows
        if self._files > _ROWS_MAX:
            rows = [row for row in rows if row[1].level is not Level.CLEAN]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("Verdict", no_wrap=True)
        table.add_column("Size", justify="right", no_wrap=True)
        table.add_column("File", overflow="fold")
        table.add_column("Why", overflow="fold")
        for path, verdict, size in rows:
            word = Text(verdict.level.word, style=STYLES[verdict.level])
            table.add_row(word, f"{size:,}", Text(printable(path)), Text(printable(why(verdict))))
        if rows:
            console.print(table)
        console.print(Text(self._summary()))

    def _summary(self) -> str:
        seconds = time.monotonic() - self._started
        parts = [f"{count} {level.word}" for level, count in self._counts.items() if count] or ["nothing to scan"]
        files = "1 file" if self._files == 1 else f"{self._files} files"
        return f"{files}: {', '.join(parts)}; {seconds:.1f} s with {', '.join(self.engines) or 'no engine'}."


def json_line(path: str, verdict: Verdict, size: int, sha256: str) -> str:
    """One outcome as a JSON object on one line, all ASCII."""
    anomalies = [{"kind": one.kind, "part": one.part, "detail": one.detail} for one in verdict.anomalies]
    return json.dumps(
        {
            "path": path,
            "verdict": verdict.level.word,
            "reason": verdict.reason.value if verdict.reason is not None else None,
            "findings": [{"engine": one.engine, "name": one.name, "part": one.part} for one in verdict.findings],
            "anomalies": anomalies,
            "size": size,
            "sha256": sha256,
        }
    )


def why(verdict: Verdict) -> str:
    """What was found, or why something was not scanned, in a few words."""
    found = [f"{one.name} ({one.engine}{' in ' + one.part if one.part else ''})" for one in verdict.findings]
    failed = [f"{one.reason.value}: {one.detail}" if one.detail else one.reason.value for one in verdict.unscanned]
    odd = [one.kind for one in verdict.anomalies]
    return "; ".join(dict.fromkeys([*found, *failed, *odd]))


def printable(text: str) -> str:
    """``text`` with everything escaped that a terminal might obey or hide."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
