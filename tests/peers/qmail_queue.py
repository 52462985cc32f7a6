"""Both sides of qmail-queue's protocol as documented: the caller (qmail.c), and a stand-in for the real qmail-queue.

qmail is not packaged by Debian. The stand-in reads what qmail-queue.c reads, in its order, and has its exit codes.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from msgspec import Struct

from tests.peers.icapscan_server import CHECKOUT

PROGRAM = [sys.executable, "-m", "icapscan.adapters.qmail_queue_program"]
SECONDS = 60.0
"""Guard against hanging."""

STAND_IN = """#!{python} -IS
import os, signal, sys, time
folder = {folder!r}
mode = open(folder + "/mode").read().split()
ADDR = 1003

def read(descriptor):
    data = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:
            os._exit(54)
        if not piece:
            return data
        data += piece

def address(data, at):
    for length in range(ADDR):
        if at + length >= len(data):
            os._exit(54)
        if data[at + length] == 0:
            return at + length + 1
    os._exit(11)

open(folder + "/started", "a").write("x")
if mode[0] == "exit":
    if len(mode) > 2:
        os.write(6, " ".join(mode[2:]).encode())
    os._exit(int(mode[1]))
if mode[0] == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
message = read(0)
if mode[0] == "hang":
    time.sleep(3600)
data = read(1)
if not data:
    os._exit(54)
if data[0:1] != b"F":
    os._exit(91)
at = address(data, 1)
while True:
    if at >= len(data):
        os._exit(54)
    if data[at] == 0:
        break
    if data[at:at + 1] != b"T":
        os._exit(91)
    at = address(data, at + 1)
name = "%s/todo-%d" % (folder, os.getpid())
with open(name + ".new", "wb") as file:
    file.write(message)
with open(name + ".env", "wb") as file:
    file.write(data)
os.rename(name + ".new", name)
os._exit(0)
"""


class Queued(Struct, frozen=True):
    """One queued message."""

    message: bytes
    envelope: bytes


class StandIn:
    """A queue in a folder. ``mode``: ``queue``, ``exit CODE [TEXT]``, ``crash`` or ``hang`` (after the message)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "qmail-queue"
        self.path.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
        self.path.chmod(0o755)
        self.mode("queue")

    def mode(self, words: str) -> None:
        (self.folder / "mode").write_text(words)

    @property
    def starts(self) -> int:
        """How often it was started."""
        path = self.folder / "started"
        return len(path.read_text()) if path.exists() else 0

    def queued(self) -> list[Queued]:
        """Everything that it took with exit code 0."""
        names = [path for path in self.folder.glob("todo-*") if not path.suffix]
        return [Queued(path.read_bytes(), path.with_suffix(".env").read_bytes()) for path in names]


class Called(Struct, frozen=True):
    """What the caller sees."""

    code: int
    """Exit code; negative: ended by that signal."""
    text: bytes
    """From descriptor 6."""
    log: str
    """From descriptor 2."""


class Caller:
    """The program with a message and an envelope on its way to it, as ``qmail_open`` in qmail.c starts it."""

    def __init__(
        self,
        environment: Mapping[str, str],
        message: bytes | None,
        envelope: bytes | None,
        *,
        text: bool = True,
        close: bool = True,
    ) -> None:
        """None: that descriptor is closed. ``text``: descriptor 6 is open. ``close``: the pipes end behind the data."""
        pipes = {number: os.pipe() for number in (0, 1)}
        out, log = os.pipe(), os.pipe()
        given = {0: message, 1: envelope}

        def child() -> None:  # in the child, between fork and exec
            places = {number: pipes[number][0] for number in (0, 1) if given[number] is not None}
            places[2] = log[1]
            if text:
                places[6] = out[1]
            high = {number: fcntl.fcntl(source, fcntl.F_DUPFD, 100) for number, source in places.items()}
            for number in (0, 1, 6):
                _close(number)
            for number, source in high.items():
                os.dup2(source, number)
            os.closerange(7, 400)

        environ = {name: value for name, value in os.environ.items() if not name.startswith("ICAPSCAN_")}
        environ |= {"PYTHONPATH": str(CHECKOUT), **environment}
        self._process = subprocess.Popen(PROGRAM, env=environ, close_fds=False, preexec_fn=child, cwd=CHECKOUT)
        for end in (pipes[0][0], pipes[1][0], out[1], log[1]):
            os.close(end)
        self._text, self._log = out[0], log[0]
        self._writer = threading.Thread(target=self._write, args=(pipes, given, close), daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL to the program, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Called:
        """Its end."""
        code = self._process.wait(SECONDS)
        self._writer.join(SECONDS)
        return Called(code, _all(self._text), _all(self._log).decode())

    @staticmethod
    def _write(pipes: dict[int, tuple[int, int]], given: dict[int, bytes | None], close: bool) -> None:
        for number in (0, 1):  # first the message, then the envelope, as qmail.c
            end = pipes[number][1]
            view = memoryview(given[number] or b"")
            try:
                while view:
                    view = view[os.write(end, view) :]
            except OSError:  # it reads no more
                pass
            if close or number == 0:
                os.close(end)


def call(environment: Mapping[str, str], message: bytes | None, envelope: bytes | None, *, text: bool = True) -> Called:
    """Run the program to its end."""
    with Caller(environment, message, envelope, text=text) as caller:
        return caller.wait()


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass


def _all(descriptor: int) -> bytes:
    data = b""
    while piece := os.read(descriptor, 65536):
        data += piece
    os.close(descriptor)
    return data
