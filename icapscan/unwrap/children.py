"""Child processes that unpack: started with the part as their standard input, read with bounds, ended for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from types import TracebackType

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap import bounded
from icapscan.unwrap.events import Waiting
from icapscan.unwrap.gate import Stop

READ = 64 * KIB
CHILDREN_MAX = 16
"""Children of one process at the same time: of the few bodies that take turns (`icapscan.turns`) one each, or one for
each archive within an archive, of which only the innermost works."""
_ERROR_MAX = 4 * KIB
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2"}

_running: set[Child] = set()
"""Those that run. A set, since documents are cleaned in threads, and counting up is no single step."""


class Child:
    """One child process. A context manager: it is dead when the block ends."""

    def __init__(self, arguments: list[str], store: PartStore, passwords: tuple[str, ...] = ()) -> None:
        """``passwords`` reach it in its environment, which no other user of the machine can read.

        Raises `Stop` when there are too many, or when it cannot be started.
        """
        if len(_running) >= CHILDREN_MAX:
            raise Stop(Reason.ENGINE_FAILED, "Too many archives are being unpacked at the same time.")
        self._error = b""
        try:
            self._process = subprocess.Popen(
                arguments,
                stdin=store.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_ENVIRONMENT | {bounded.PASSWORDS: "\n".join(passwords)} if passwords else _ENVIRONMENT,
                bufsize=0,
            )
        except OSError as error:
            raise Stop(Reason.ENGINE_FAILED, f"The unpacker cannot be started: {error.strerror}.") from None
        _running.add(self)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._out = self._process.stdout
        os.set_blocking(self._process.stderr.fileno(), False)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()  # nobody will hear the rest
        self.end()

    # For decoders: they say that they wait, and go on when there is something (`Waiting`)

    def more(self, most: int = READ) -> Generator[Waiting, None, bytes]:
        """As `read`, without holding up the caller where it does not want that."""
        out = self._out.fileno()
        os.set_blocking(out, False)
        try:
            data = os.read(out, most)
        except BlockingIOError:
            os.set_blocking(out, True)
            yield Waiting(out)
            return self.read(most)
        os.set_blocking(out, True)
        self._drain()
        return data

    def exactly(self, count: int) -> Generator[Waiting, None, bytes]:
        """As `read_exactly`, in the same way."""
        pieces = []
        while count and (data := (yield from self.more(count))):
            pieces.append(data)
            count -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    # Where waiting is no matter

    def read(self, most: int) -> bytes:
        """At most ``most`` bytes of output, as soon as there are any; none at its end. Keeps standard error short."""
        data = self._out.read(most) or b""
        self._drain()
        return data

    def read_exactly(self, count: int) -> bytes:
        """``count`` bytes, or fewer at the end of the output."""
        pieces = []
        while count:
            data = self.read(count)
            if not data:
                break
            pieces.append(data)
            count -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def end(self) -> tuple[int, str]:
        """Its exit status (negative: the signal) and what it wrote to standard error. Ends it where it still runs."""
        process = self._process
        if self in _running:  # also one that is dead: whoever looked for it (`Popen.kill` does) left the rest to us
            if process.returncode is None and self._out.read(1):  # it wants to say more than we hear
                process.kill()
            self._out.close()
            process.wait()
            self._drain()
            assert process.stderr is not None
            process.stderr.close()
            _running.discard(self)
        return process.returncode or 0, self._error.decode("utf-8", "replace")

    def kill(self) -> None:
        """End it now."""
        if self._process.returncode is None:
            self._process.kill()

    def _drain(self) -> None:
        error = self._process.stderr
        assert error is not None
        while not error.closed:
            piece = error.read(_ERROR_MAX)
            if not piece:
                return
            self._error = (self._error + piece)[:_ERROR_MAX]


def why(status: int) -> tuple[Reason, str] | None:
    """What a signal that ended a child says; None where it ended by itself."""
    if status in (-signal.SIGXCPU, -signal.SIGPROF, -signal.SIGKILL):
        return Reason.OVER_LIMIT, "The unpacker took too long."
    if status < 0:
        return Reason.MALFORMED, f"The unpacker ended by signal {-status}."
    return None


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a child."""
    return [sys.executable, "-I", "-m", module, *arguments]


def within_bounds(program: str, *arguments: str) -> list[str]:
    """The command that runs another program with the bounds of `bounded.py`."""
    return [sys.executable, "-I", "-S", bounded.__file__, program, *arguments]
