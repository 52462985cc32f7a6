"""A private c-icap 0.5 server (echo, and virus_scan over clamd) and its two command-line clients.

Directives: the comments of Debian's ``/etc/c-icap/c-icap.conf``, ``virus_scan.conf`` and ``clamd_mod.conf``.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from msgspec import Struct

from tests.peers import require
from tests.peers.processes import Process, free_port

MODULES = Path("/usr/lib/x86_64-linux-gnu/c_icap")
SCANNER = "libc-icap-mod-virus-scan"

BASE = """
PidFile {folder}/c-icap.pid
CommandsSocket {folder}/c-icap.ctl
Timeout 300
MaxKeepAliveRequests -1
KeepAliveTimeout 600
StartServers {processes}
MaxServers {processes}
MinSpareThreads 1
MaxSpareThreads {spare}
ThreadsPerChild {threads}
MaxRequestsPerChild 0
Port 127.0.0.1:{port}
ServerAdmin tester@icapscan.test
ServerName icapscan.test
TmpDir {folder}/tmp
MaxMemObject 131072
DebugLevel 1
Pipelining on
SupportBuggyClients off
ModulesDir {modules}
ServicesDir {modules}
TemplateDir /usr/share/c_icap/templates/
TemplateDefaultLanguage en
LoadMagicFile /etc/c-icap/c-icap.magic
ServerLog {folder}/server.log
AccessLog {folder}/access.log
Service echo srv_echo.so
"""

# every group of c-icap.magic: a type that is not in the list would pass unscanned
VIRUS_SCAN = """
Service antivirus_module virus_scan.so
ServiceAlias avscan virus_scan?allow204=on&sizelimit=off&mode=simple
virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GRAPHICS STREAM DOCUMENT
virus_scan.SendPercentData 0
virus_scan.Allow204Responces on
virus_scan.PassOnError off
virus_scan.MaxObjectSize 64M
virus_scan.DefaultEngine clamd
Module common clamd_mod.so
clamd_mod.ClamdSocket {socket}
"""


class CicapServer(Process):
    """A running c-icap. ``icap_port`` serves ``/echo`` and, with a clamd socket, ``/avscan``."""

    icap_port: int

    def log_text(self) -> str:
        server_log = self.folder / "server.log"
        return super().log_text() + (server_log.read_text(errors="replace") if server_log.exists() else "")


def run_cicap(
    folder: Path, clamd_socket: str | None = None, *, processes: int = 2, threads: int = 160, port: int = 0
) -> CicapServer:
    """Start c-icap in the foreground and wait until it accepts.

    ``processes`` and ``threads`` (of each process): c-icap keeps one thread for each open connection, so all
    threads together must exceed the connections of the test. ``clamd_socket`` is the path of clamd's Unix socket.
    """
    program = require("c-icap", "c-icap")
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    config = BASE.format(
        folder=folder, processes=processes, threads=threads, spare=processes * threads, port=port, modules=MODULES
    )
    if clamd_socket is not None:
        if not (MODULES / "virus_scan.so").exists():
            require("virus_scan.so", SCANNER)
        config += VIRUS_SCAN.format(socket=clamd_socket.removeprefix("unix:"))
    (folder / "c-icap.conf").write_text(config)
    server = CicapServer("c-icap", [program, "-N", "-f", folder / "c-icap.conf"], folder)
    server.icap_port = port
    try:
        server.wait_for_port(port)
    except BaseException:
        server.end()
        raise
    return server


def cicap_version() -> str:
    """The version of the installed c-icap, e.g. ``0.5.10``."""
    said = subprocess.run([require("c-icap", "c-icap"), "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found[0] if found else "unknown"


class ClientSaid(Struct, frozen=True):
    """What ``c-icap-client`` printed and wrote."""

    exit_code: int
    text: str
    """Standard output and error: the ICAP and HTTP heads with ``-v``."""
    body: bytes | None
    """The adapted body, or None when the client wrote no file (204)."""


def cicap_client(
    port: int, service: str, file: Path | None = None, *options: str, output: Path | None = None, seconds: float = 120
) -> ClientSaid:
    """``c-icap-client -v`` against ``icap://127.0.0.1:port/service``; without ``file`` it asks for OPTIONS."""
    command = [require("c-icap-client", "c-icap"), "-i", "127.0.0.1", "-p", str(port), "-s", service, "-v"]
    if file is not None:
        command += ["-f", str(file)]
        if output is not None:
            command += ["-o", str(output)]
    said = subprocess.run([*command, *options], capture_output=True, timeout=seconds, check=False)
    body = output.read_bytes() if output is not None and output.exists() else None
    return ClientSaid(said.returncode, (said.stdout + said.stderr).decode(errors="replace"), body)


class StretchSaid(Struct, frozen=True):
    """The totals of one ``c-icap-stretch`` run."""

    requests: int
    failed: int
    text: str


def cicap_stretch(port: int, service: str, files: list[Path], *, requests: int, threads: int) -> StretchSaid:
    """``c-icap-stretch`` in RESPMOD with ``files`` until ``requests`` were sent.

    Each of its threads rests about half a second between two requests: many threads, not many requests, make load.
    """
    command = [require("c-icap-stretch", "c-icap"), "-i", "127.0.0.1", "-p", str(port), "-s", service]
    command += ["-m", str(requests), "-t", str(threads), *(str(file) for file in files)]
    said = subprocess.run(command, capture_output=True, timeout=300, check=False)
    text = (said.stdout + said.stderr).decode(errors="replace")
    return StretchSaid(_total(r"Requests served\D*(\d+)", text), _total(r"Requests failed\D*(\d+)", text), text)


def _total(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)  # it prints its totals every second: the last ones count
    if not found:
        raise AssertionError(f"c-icap-stretch printed no {pattern!r}:\n{text[-4000:]}")
    return int(found[-1])
