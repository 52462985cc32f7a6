"""One process in a private folder: start it, wait for it, look at it, end it by its pid."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

START_SECONDS = 60.0
"""Guard against hanging; nothing here is expected to need it."""

LOG_SHOWN = 8000
"""Characters of a log that a failure shows."""

running: list[Process] = []
"""Every process that was started and not yet ended, oldest first. A failing test shows their logs."""


class PeerError(AssertionError):
    """A peer did not start, ended by itself or would not end. The text holds the end of its log."""


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A TCP port that nothing listens on, on the loopback address of ``family``."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], what: str, seconds: float = START_SECONDS, pause: float = 0.02) -> None:
    """Return as soon as ``true()`` is. Raises `PeerError` naming ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise PeerError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(pause)


def rss(pid: int) -> int:
    """Resident memory of process ``pid`` in bytes (``VmRSS`` of proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise PeerError(f"process {pid} has no resident memory: it has ended")
    return int(found[1]) * 1024


def fds(pid: int) -> int:
    """Number of open descriptors of process ``pid``."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def fd_targets(pid: int) -> list[str]:
    """What the open descriptors of process ``pid`` point at, sorted: a leak is named by it."""
    targets = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed between the listing and the look
            targets.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return sorted(targets)


def children(pid: int) -> list[int]:
    """The living direct children of process ``pid``, by number."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # the command in parentheses may hold blanks: the fields are counted from the last one (proc(5))
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[1]) == pid:
                found.append(int(entry.name))
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """Processor time in seconds that ``pid`` and all its living descendants have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) for child in children(pid))


class Process:
    """A program in the foreground with its output in ``folder/NAME.log``."""

    def __init__(
        self, name: str, command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=None if environment is None else {**os.environ, **environment},
            )
        running.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative = ended by that signal."""
        return self._popen.poll()

    def log_text(self) -> str:
        """All it has written so far."""
        return self.log.read_text(errors="replace")

    def failure(self, what: str) -> PeerError:
        return PeerError(f"{self.name} (pid {self.pid}): {what}\n{self.log_text()[-LOG_SHOWN:]}")

    def wait_until(self, true: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Return as soon as ``true()`` is. Raises `PeerError` when the process ends first or after ``seconds``."""
        end = time.monotonic() + seconds
        while not true():
            if self.exit_code is not None:
                raise self.failure(f"ended with {self.exit_code} while waiting for {what}")
            if time.monotonic() > end:
                raise self.failure(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.02)

    def wait_for_port(self, port: int, host: str = "127.0.0.1") -> None:
        """Return once a TCP connection to ``port`` is accepted."""
        self.wait_until(lambda: accepts((host, port)), f"port {port}")

    def wait_for_log(self, pattern: str, seconds: float = START_SECONDS) -> str:
        """Return the first match of the regular expression ``pattern`` in the log."""
        self.wait_until(lambda: re.search(pattern, self.log_text()) is not None, f"log line {pattern!r}", seconds)
        found = re.search(pattern, self.log_text())
        if found is None:
            raise self.failure(f"log line {pattern!r} was there and is gone")
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the process itself (not to its children)."""
        if self.exit_code is not None:
            raise self.failure(f"ended with {self.exit_code}: no process to send {number.name} to")
        os.kill(self.pid, number)

    def end(self, seconds: float = 20.0) -> int:
        """TERM, then KILL after ``seconds``; returns the exit code. Harmless on a process that has ended."""
        descendants = children(self.pid) if self.exit_code is None else []
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)
            try:
                self._popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
                for child in descendants:  # a killed parent cannot end its own
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
        if self in running:
            running.remove(self)
        return self._popen.returncode

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Wait for it to end by itself; returns the exit code. Raises `PeerError` when it does not."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {seconds:.0f} s") from None
        if self in running:
            running.remove(self)
        return self._popen.returncode


def accepts(address: tuple[str, int] | str) -> bool:
    """Whether a TCP (host, port) or a Unix socket path accepts a connection now."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


@atexit.register
def _end_all() -> None:
    """The last resort: a test run that dies leaves no process behind."""
    for process in list(reversed(running)):
        process.end(seconds=2.0)
