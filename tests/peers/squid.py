"""A private Squid with the ICAP lines of ``docs/examples/squid.conf``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.peers import require
from tests.peers.icapscan_server import CHECKOUT
from tests.peers.processes import Process, free_port

EXAMPLE = CHECKOUT / "docs" / "examples" / "squid.conf"

PRIVATE = """
http_port 127.0.0.1:{port}
http_access allow all
pid_filename {folder}/squid.pid
cache_log {folder}/cache.log
access_log stdio:{folder}/access.log
logformat icapscan %icap::to/%03icap::Hs %icap::rm %icap::ru preview=%{{Preview}}icap::>h allow=%{{Allow}}icap::>h
icap_log stdio:{folder}/icap.log icapscan
coredump_dir {folder}
cache deny all
cache_effective_user {user}
shutdown_lifetime 1 seconds
netdb_filename none
pinger_enable off
visible_hostname squid.icapscan.test
workers 1
max_filedescriptors 4096
"""

ICAP_TROUBLE = re.compile(
    r".*(?:suspending|optional ICAP|essential ICAP|ICAP (?:error|server)|icap_service|\bERROR:).*"
)
"""Lines of cache.log in which Squid is not content with the ICAP service (src/adaptation/icap/ServiceRep.cc)."""


ICAP_GOOD = re.compile(r"ICAP_(?:MOD|ECHO|SAT|OPT)/(?:200|204) |ICAP_ERR_GONE/000 ")
"""Start of a line of icap.log for a transaction that Squid used (adapted, unchanged, satisfied, OPTIONS), or that it
gave up because its own HTTP client had gone."""


class Squid(Process):
    """A running Squid; ``proxy`` is its URL.

    Squid refuses to stay root and changes to a user who may not enter a test's private folder. So it lives in
    ``home``, which is that user's, and its files are moved to ``keep`` when it ends.
    """

    def __init__(self, home: Path, keep: Path, port: int, program: str) -> None:
        self.keep = keep
        self.port = port
        # the service name sets apart the shared memory of several Squids on one machine
        self._service = f"icapscan{port}"
        super().__init__("squid", [program, "-N", "-n", self._service, "-f", home / "squid.conf"], home)

    def end(self, seconds: float = 20.0) -> int:
        code = super().end(seconds)
        for left in Path("/dev/shm").glob(f"{self._service}-*"):  # by a Squid that was killed
            left.unlink()
        if self.folder != self.keep and self.folder.exists():
            shutil.copytree(self.folder, self.keep, dirs_exist_ok=True)
            shutil.rmtree(self.folder)
            self.folder = self.keep
            self.log = self.keep / self.log.name
        return code

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cache_log(self) -> str:
        path = self.folder / "cache.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_text(self) -> str:
        return super().log_text() + self.cache_log()

    def icap_log(self) -> list[str]:
        """One line for each ICAP transaction."""
        path = self.folder / "icap.log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def icap_trouble(self) -> list[str]:
        """Every line of cache.log about ICAP trouble and every ICAP transaction that did not end in 200 or 204."""
        trouble = [found[0] for found in ICAP_TROUBLE.finditer(self.cache_log())]
        return trouble + [line for line in self.icap_log() if not ICAP_GOOD.match(line)]


def example_lines(mark: str, icap_port: int) -> str:
    """The lines of the documented example between ``# MARK:`` and ``# end``, on another ICAP port."""
    found = re.search(rf"^# {mark}:\n(.*?)^# end$", EXAMPLE.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise AssertionError(f"{EXAMPLE} lost its marks")
    return found[1].replace("127.0.0.1:1344", f"127.0.0.1:{icap_port}")


def squid_version() -> str:
    """The version of the installed Squid, e.g. ``5.7``."""
    said = subprocess.run([require("squid", "squid-openssl"), "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"Version (\S+)", said.stdout)
    return found[1] if found else "unknown"


def run_squid(
    folder: Path, icap_port: int, *, service: str = "avscan", more: str = "", pool: bool = True, requests: bool = True
) -> Squid:
    """Start Squid in the foreground without a cache and wait until it accepts. ``more``: further directives;
    ``requests`` False: only responses go to the scanner.

    ``pool``: where it is Squid 5.7, with the delay pool that docs/squid.md asks for; without it downloads of 64 KiB
    or more stall there, with it an upload that is blocked sometimes gets no answer from Squid.
    """
    program = require("squid", "squid-openssl")
    folder.mkdir(parents=True, exist_ok=True)
    home, user, port = folder, "proxy", free_port()
    if os.geteuid() == 0:
        home = Path(tempfile.mkdtemp(prefix="icapscan-squid-"))
        shutil.chown(home, user, user)
    lines = example_lines("icapscan", icap_port).replace("/avscan", f"/{service}")
    if not requests:
        lines = "".join(line for line in lines.splitlines(keepends=True) if "icapscan_req" not in line)
    if pool and squid_version() == "5.7":
        lines += example_lines("debian12", icap_port)
    (home / "squid.conf").write_text(PRIVATE.format(port=port, folder=home, user=user) + lines + more)
    squid = Squid(home, folder, port, program)
    try:
        squid.wait_for_port(port)
    except BaseException:
        squid.end()
        raise
    return squid
