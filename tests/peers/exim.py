"""A private Exim: its own configuration, spool, port and log; it looks up nothing in the DNS.

Debian's Exim and Postfix exclude each other as packages, so ``.ci/peers`` only unpacks Exim into ``build/peers/exim``
and makes the user that it is built for. Source: The Exim Specification 4.96.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.peers import missing_peer, require_root
from tests.peers.icapscan_server import CHECKOUT
from tests.peers.processes import Process, accepts, free_port

UNPACKED = CHECKOUT / "build" / "peers" / "exim" / "usr" / "sbin" / "exim4"
USER = "Debian-exim"

# What only a test wants. Exim takes no option twice: what the configuration itself sets is left out.
PRIVATE = """\
exim_path = {home}/exim
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/exim.pid
local_interfaces = <; [127.0.0.1]:{port}
primary_hostname = {hostname}
deliver_drop_privilege = true
never_users =
keep_environment =
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
split_spool_directory = false
check_spool_space = 0
check_spool_inodes = 0
"""


class Exim(Process):
    """A running Exim; ``port`` on 127.0.0.1."""

    def __init__(self, name: str, home: Path, keep: Path, port: int) -> None:
        self.home = home
        self.keep = keep
        self.port = port
        command: list[str | Path] = [home / "exim", "-C", home / "exim.conf", "-bdf", "-q5s"]
        super().__init__(name, command, home)

    def log_text(self) -> str:
        logs = (self.folder / "log" / name for name in ("mainlog", "rejectlog", "paniclog"))
        return super().log_text() + "".join(path.read_text(errors="replace") for path in logs if path.exists())

    def queued(self) -> int:
        """How many messages are in its queue."""
        folder = self.home / "spool" / "input"
        return len(list(folder.glob("*-H"))) if folder.is_dir() else 0

    def wait_empty(self, seconds: float = 60.0) -> None:
        """Return once its queue is empty."""
        self.wait_until(lambda: self.queued() == 0, "an empty queue", seconds)

    def flush(self) -> None:
        """Try every queued message again now, waiting for the end of it."""
        command = [str(self.home / "exim"), "-C", str(self.home / "exim.conf"), "-qff"]
        subprocess.run(command, capture_output=True, timeout=120, check=True)

    def flush_until(self, true: Callable[[], bool], what: str, seconds: float = 150.0) -> None:
        """`flush` again and again until ``true()``: the first try may come too early for others."""

        def tried() -> bool:
            if not true():
                self.flush()
                time.sleep(0.5)
            return true()

        self.wait_until(tried, what, seconds)

    def end(self, seconds: float = 20.0) -> int:
        code = super().end(seconds)
        if self.home != self.keep and self.home.exists():
            for name in ("exim", "spool"):
                left = self.home / name
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
            shutil.copytree(self.home, self.keep, dirs_exist_ok=True)
            shutil.rmtree(self.home, ignore_errors=True)
            self.folder = self.home = self.keep
            self.log = self.keep / self.log.name
        return code


def run_exim(
    folder: Path,
    config: str,
    *,
    port: int = 0,
    hostname: str = "mx.inside.test",
    name: str = "exim",
    files: Mapping[str, str | bytes] | None = None,
) -> Exim:
    """Start Exim in the foreground and wait until it accepts.

    ``config``: the whole configuration but for `PRIVATE`; ``{home}`` in it is its folder, where ``files`` are put.
    """
    require_root("Exim")
    try:
        pwd.getpwnam(USER)
    except KeyError:
        missing_peer(f"there is no user {USER}: run .ci/peers as root")
    if not UNPACKED.exists():
        missing_peer(f"Exim is not unpacked in {UNPACKED.parents[2]}: run .ci/peers as root")
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="icapscan-exim-"))
    home.chmod(0o755)
    # not setuid, and where that user may run it, wherever the checkout is
    shutil.copyfile(UNPACKED, home / "exim")
    (home / "exim").chmod(0o755)
    for owned in ("log", "spool"):
        (home / owned).mkdir()
        shutil.chown(home / owned, USER, USER)
    for file, content in (files or {}).items():
        (home / file).write_bytes(content.encode() if isinstance(content, str) else content)
    own = PRIVATE.format(home=home, port=port, hostname=hostname).splitlines(keepends=True)
    given = {line.partition("=")[0].strip() for line in config.partition("\nbegin ")[0].splitlines()}
    own = [line for line in own if line.partition("=")[0].strip() not in given]
    text = "".join(own) + config.replace("{home}", str(home))
    (home / "exim.conf").write_text(text)
    (home / "exim.conf").chmod(0o644)
    exim = Exim(name, home, folder, port)
    try:
        exim.wait_until(lambda: accepts(("127.0.0.1", port)), f"port {port}")
    except BaseException:
        exim.end()
        raise
    return exim


def exim_version() -> str:
    """The version of the unpacked Exim, or ``absent``."""
    if not UNPACKED.exists():
        return "absent"
    said = subprocess.run([UNPACKED, "-C", os.devnull, "-bV"], capture_output=True, text=True, check=False).stdout
    return said.partition("Exim version ")[2].partition(" ")[0] or "unknown"
