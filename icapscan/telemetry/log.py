"""Where the lines go: queued in the worker, written together now and then."""

from __future__ import annotations

import os
import stat
import sys
from typing import Literal

from icapscan.limits import MIB
from icapscan.servers.record import TransactionRecord
from icapscan.telemetry.lines import format_json, format_plain, stamp

WAITING_MAX = 8 * MIB
"""Characters that wait while the file cannot be written (full disk, slow pipe); then lines are lost, and counted."""
_PIPE_BUF = 4096
"""pipe(7): a write up to this size is never torn apart by another process's."""


class TransactionLog:
    """A log file or standard error. No method raises: a full disk must not stop the scanning.

    ``write`` queues a line, ``flush`` writes all of them; call it every tenth of a second or so, and at the end.
    Several processes may append to the same file.
    """

    def __init__(self, file: str | None = None, form: Literal["plain", "json"] = "plain") -> None:
        self._file = file
        self._format = format_json if form == "json" else format_plain
        self._lines: list[str] = []
        self._waiting = 0
        self._rest = b""
        """What a write has left of a line that was begun."""
        self._fd = -1
        self.lost = 0
        """Lines that were lost since the last one that was written."""

    def write(self, record: TransactionRecord) -> None:
        """Queue the line of one transaction."""
        try:
            line = self._format(record)
        except Exception as error:  # a fault of ours in formatting; the transaction is answered already
            line = (
                f'{stamp()} client={record.client!a} detail="This transaction cannot be shown: {type(error).__name__}."'
            )
        self.line(line)

    def line(self, line: str) -> None:
        """Queue one line that is ready to be written (no line end, nothing untrusted that is not escaped)."""
        if self._waiting > WAITING_MAX:
            self.lost += 1
            return
        self._waiting += len(line)
        self._lines.append(line)

    @property
    def may_block(self) -> bool:
        """Whether `flush` may wait for whoever reads the other end (a pipe, a terminal); a file never waits long."""
        try:
            if self._fd < 0:
                self._open()
            return not stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError:
            return False  # there is nothing that could be written to

    def flush(self) -> None:
        """Write everything that is queued. What cannot be written now is kept for the next time, within bounds."""
        if not self._lines and not self._rest:
            return
        try:
            if self._fd < 0:
                self._open()
            self._write_all()
        except OSError:
            pass  # e.g. a full disk: the lines stay queued, `line` counts what finds no room

    def reopen(self) -> None:
        """Open the file anew at the next write, because it was renamed (logrotate). Flushes first."""
        self.flush()
        self._close()

    def close(self) -> None:
        """Write what is queued and close the file. Idempotent."""
        self.flush()
        self._close()

    def _open(self) -> None:
        if self._file is None:
            self._fd = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
        else:
            self._fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o640)

    def _close(self) -> None:
        if self._fd >= 0 and self._file is not None:
            try:
                os.close(self._fd)
            except OSError:
                pass  # whatever it says, the descriptor is gone
        self._fd = -1

    def _write_all(self) -> None:
        lines, self._lines, self._waiting = self._lines, [], 0
        if self.lost:
            lines.append(f'{stamp()} detail="The log could not be written: {self.lost} lines are lost."')
            self.lost = 0
        lines.append("")  # the last line has an end too
        pending = self._rest + "\n".join(lines).encode("utf-8", "backslashreplace")
        self._rest = b""
        try:
            whole = stat.S_ISREG(os.fstat(self._fd).st_mode)
            while pending:
                piece = pending if whole else _whole_lines(pending)
                pending = pending[os.write(self._fd, piece) :]
        finally:
            self._keep(pending)

    def _keep(self, pending: bytes) -> None:
        """Keep what is left for the next time, from the line that was begun."""
        if len(pending) > WAITING_MAX:
            cut = pending.rfind(b"\n", 0, WAITING_MAX) + 1
            self.lost += pending.count(b"\n", cut)
            pending = pending[:cut]
        self._rest = pending
        self._waiting = len(pending)


def _whole_lines(data: bytes) -> bytes:
    """As many whole lines of ``data`` as a pipe takes at once, at least one."""
    end = data.rfind(b"\n", 0, _PIPE_BUF) + 1
    return data[: end or data.find(b"\n") + 1 or len(data)]
