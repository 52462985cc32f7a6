"""The real clamd with a private folder, socket and database, started in the foreground and ended by its pid."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.peers import require
from tests.peers.processes import Process, free_port

SIGNATURES = Path(__file__).resolve().parents[2] / "signatures" / "clamav"

CONFIG = """\
Foreground yes
DatabaseDirectory {database}
LocalSocket {unix}
LocalSocketMode 600
FixStaleSocket yes
TemporaryDirectory {folder}
User {user}
MaxThreads {threads}
MaxQueue 200
SelfCheck 600
AlertExceedsMax yes
AlertEncrypted yes
"""


class ClamdPeer:
    """One running clamd. Its configuration file is ``folder/clamd.conf``, its databases in ``folder/database``."""

    def __init__(self, folder: Path, config: str, unix: Path, tcp: str | None) -> None:
        self.folder = folder
        self.database = folder / "database"
        self.socket = unix
        self.unix_address = f"unix:{unix}"
        self.tcp_address = tcp
        self._config = folder / "clamd.conf"
        self._config.write_text(config)
        self._program = require("clamd", "clamav-daemon")
        self._process: Process | None = None
        self.start()

    @property
    def process(self) -> Process:
        assert self._process is not None, "clamd was ended"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start it and return once it answers PING."""
        self._process = Process("clamd", [self._program, "-c", self._config], self.folder)
        self.process.wait_until(lambda: self.command("PING") == "PONG", "PONG from clamd")

    def stop(self) -> None:
        """SIGSTOP: hung, not dead. Connections are still accepted by the kernel."""
        self.process.signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: goes on as if nothing had been."""
        self.process.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: dead at once; the socket file stays behind."""
        self.process.signal(signal.SIGKILL)
        self.process.end()

    def restart(self) -> None:
        """End it, if it still runs, and start it again with the same configuration and socket."""
        self.process.end()
        self.start()

    def reload(self) -> None:
        """RELOAD, and return once the databases are loaded anew."""
        before = self.process.log_text().count("Database correctly reloaded")
        assert self.command("RELOAD") == "RELOADING"
        self.process.wait_until(
            lambda: self.process.log_text().count("Database correctly reloaded") > before, "the reload"
        )
        self.process.wait_until(lambda: self.command("PING") == "PONG", "PONG after the reload")

    def command(self, word: str, seconds: float = 5.0) -> str:
        """One plain command over the Unix socket; the reply without its end, empty when there is none."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(seconds)
            sock.connect(str(self.socket))
            sock.sendall(b"z" + word.encode() + b"\0")
            with sock.makefile("rb") as replies:
                return replies.read().rstrip(b"\0").decode()
        return ""

    def end(self) -> None:
        """End it for good."""
        self.process.end()


@contextlib.contextmanager
def run_clamd(
    folder: Path,
    *,
    tcp: bool | str = False,
    database: Path | None = None,
    threads: int = 10,
    settings: Mapping[str, str | int] | None = None,
) -> Iterator[ClamdPeer]:
    """Run clamd in ``folder`` (made if missing) until the block ends.

    ``tcp``: also listen on a free port of 127.0.0.1, or of the given loopback address such as ``"::1"``.
    ``database``: a folder whose files are copied into the private database (default: the shipped signatures).
    ``settings``: further lines of clamd.conf(5).
    """
    folder.mkdir(parents=True, exist_ok=True)
    copied = folder / "database"
    shutil.copytree(database or SIGNATURES, copied, dirs_exist_ok=True)
    unix = folder / "clamd.sock"
    config = CONFIG.format(database=copied, unix=unix, folder=folder, threads=threads, user=_user())
    address = None
    if tcp:
        host = tcp if isinstance(tcp, str) else "127.0.0.1"
        port = free_port(socket.AF_INET6 if ":" in host else socket.AF_INET)
        config += f"TCPAddr {host}\nTCPSocket {port}\n"
        address = f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
    for key, value in (settings or {}).items():
        config = "".join(line for line in config.splitlines(keepends=True) if line.split(" ")[0] != key)
        config += f"{key} {value}\n"
    peer = ClamdPeer(folder, config, unix, address)
    try:
        yield peer
    finally:
        peer.end()


def _user() -> str:
    """Whoever runs the tests: as root, clamd stays root, so that it reaches the private folder."""
    import getpass

    return getpass.getuser()
