"""``python -m benchmarks.relay``: mails a second from one Postfix to another, with nothing or a scanner in between.

``none``: no scanner. ``icapscan``: ``icapscan smtp`` with ``icapscan serve``. ``clamsmtp``, ``amavis`` (amavisd-new):
Debian's, without spam checks. One clamd for all; YARA is on in ``icapscan+yara`` only, and our cache is off.
Every mail is new, with a new attachment. The first Postfix takes the mails from the generator and sends them on with
the same concurrency to each; the time ends when the second has taken the last one. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pybase64
from msgspec import Struct

from tests.peers import require
from tests.peers.clamd import run_clamd
from tests.peers.icapscan_server import CHECKOUT, run_icapscan
from tests.peers.postfix import Postfix, run_postfix
from tests.peers.processes import Process, accepts, free_port, wait_until

CONCURRENCY = 20
"""Connections from the generator, and from the first Postfix to what is in between."""
RELAY = """\
relayhost = [127.0.0.1]:{next}
smtpd_relay_restrictions = permit_mynetworks, reject
mynetworks = 127.0.0.0/8
default_process_limit = 100
smtp_destination_concurrency_limit = {most}
initial_destination_concurrency = {most}
smtpd_client_connection_count_limit = 0
message_size_limit = 0
in_flow_delay = 0
"""
FINAL = """\
relay_transport = discard:
default_transport = discard:
local_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, reject
mynetworks = 127.0.0.0/8
default_process_limit = 100
smtpd_client_connection_count_limit = 0
message_size_limit = 0
"""
CLAMSMTP = """\
OutAddress: 127.0.0.1:{next}
Listen: 127.0.0.1:{port}
ClamAddress: {clamd}
TempDirectory: {folder}
MaxConnections: 64
"""
AMAVIS = """\
use strict;
$daemon_user = 'amavis'; $daemon_group = 'amavis';
$MYHOME = '{folder}'; $TEMPBASE = '{folder}/tmp'; $db_home = '{folder}/db'; $helpers_home = '{folder}/var';
$lock_file = '{folder}/amavisd.lock'; $pid_file = '{folder}/amavisd.pid';
$mydomain = 'inside.test'; $myhostname = 'scanner.inside.test';
$max_servers = {servers}; $max_requests = 1000;
$enable_db = 0; $nanny_details_level = 0; $log_level = 0; $do_syslog = 0; $LOGFILE = '{folder}/amavis.out';
$inet_socket_bind = '127.0.0.1'; $inet_socket_port = {port};
$forward_method = 'smtp:[127.0.0.1]:{next}'; $notify_method = $forward_method;
@bypass_spam_checks_maps = (1); @mynetworks = qw( 127.0.0.0/8 );
$final_virus_destiny = D_DISCARD; $virus_quarantine_to = undef; $enable_dkim_verification = 0; $enable_dkim_signing = 0;
@av_scanners = (['ClamAV-clamd', \\&ask_daemon, ["CONTSCAN {{}}\\n", '{clamd}'], qr/\\bOK$/m, qr/\\bFOUND$/m,
  qr/^.*?: (?!Infected Archive)(.*) FOUND$/m]);
@av_scanners_backup = ();
1;
"""
HEAD = (
    b"From: <a@outside.test>\r\nTo: <reader@inside.test>\r\nSubject: sample %d\r\nMessage-ID: <%d.%d@outside.test>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=frontier\r\n\r\n"
    b"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello,\r\n\r\nsee the attachment.\r\n\r\n"
    b"--frontier\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="a.bin"\r\n\r\n%b\r\n--frontier--\r\n'
)


class Way(Struct, frozen=True):
    """One thing in between."""

    name: str
    first: Postfix
    last: Postfix
    alive: Callable[[], bool]


def mails(count: int, size: int) -> list[bytes]:
    """New mails, each with an attachment of ``size`` random bytes."""
    made = []
    for number in range(count):
        coded = pybase64.b64encode(os.urandom(size))
        lines = b"\r\n".join(coded[at : at + 76] for at in range(0, len(coded), 76))
        made.append(HEAD % (number, time.time_ns(), number, lines))
    return made


async def _send(port: int, queue: list[bytes]) -> None:
    """One connection that sends mails until none is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

    async def say(line: bytes, code: bytes) -> None:
        if line:
            writer.write(line + b"\r\n")
            await writer.drain()
        while True:
            reply = await reader.readline()
            if not reply.startswith(code):
                raise RuntimeError(f"{line[:60]!r}: {reply!r}")
            if reply[3:4] != b"-":
                return

    await say(b"", b"220")
    await say(b"EHLO generator.outside.test", b"250")
    while queue:
        data = queue.pop()
        await say(b"MAIL FROM:<a@outside.test>", b"250")
        await say(b"RCPT TO:<reader@inside.test>", b"250")
        await say(b"DATA", b"354")
        writer.write(data)
        await say(b".", b"250")
    await say(b"QUIT", b"221")
    writer.close()


async def _send_all(port: int, queue: list[bytes]) -> None:
    await asyncio.gather(*(_send(port, queue) for _ in range(CONCURRENCY)))


def _discarded(postfix: Postfix) -> int:
    return len(re.findall(r"postfix/discard\[\d+\]: \w+: to=", postfix.log_text()))


def measure(way: Way, count: int, size: int) -> float:
    """Mails a second, from the first byte to the last mail taken by the second Postfix."""
    queue = mails(count, size)
    before = _discarded(way.last)
    began = time.perf_counter()
    asyncio.run(_send_all(way.first.port, queue))

    def done() -> bool:
        if not way.alive():
            raise RuntimeError(f"{way.name} has ended")
        return _discarded(way.last) >= before + count

    wait_until(done, f"{count} mails through {way.name}", 600.0, pause=0.05)
    taken = time.perf_counter() - began
    way.first.wait_empty()
    if _discarded(way.last) != before + count:
        raise RuntimeError(f"{way.name}: mails were doubled")
    return count / taken


@contextlib.contextmanager
def ways(folder: Path, names: list[str]) -> Iterator[list[Way]]:
    """Start everything; end it at the exit."""
    folder.chmod(0o755)  # amavis and Postfix have users of their own
    with contextlib.ExitStack() as stack:
        clamd = stack.enter_context(run_clamd(folder / "clamd", threads=10, settings={"LocalSocketMode": "666"}))
        made = []
        for name in names:
            home = folder / name
            last = stack.enter_context(run_postfix(home / "last", main=FINAL, name="last"))
            port, process = last.port, None
            if name != "none":
                port = free_port()
                process = stack.enter_context(_start(name, home, port, last.port, clamd.unix_address, stack))
            first = stack.enter_context(
                run_postfix(home / "first", main=RELAY.format(next=port, most=CONCURRENCY), name="first")
            )
            made.append(Way(name, first, last, lambda one=process: one is None or one.exit_code is None))  # type: ignore[misc]
        yield made


def _start(name: str, home: Path, port: int, next_port: int, clamd: str, stack: contextlib.ExitStack) -> Process:
    home.mkdir(parents=True, exist_ok=True)
    names = {"port": port, "next": next_port, "clamd": clamd.removeprefix("unix:"), "folder": home}
    if name.startswith("icapscan"):
        settings: dict[str, object] = {
            "server.workers": 2, "engines.clamd.address": [clamd], "engines.yara.enabled": name.endswith("yara"),
            "log.file": str(home / "access.log"), "cache.enabled": False,
        }  # fmt: skip
        serve = stack.enter_context(run_icapscan(home / "serve", settings))
        (home / "smtp.toml").write_text("[smtp]\nmax_per_client = 200\n")
        command: list[str | Path] = [
            Path(CHECKOUT / ".venv/bin/icapscan"), "smtp", "--listen", f"127.0.0.1:{port}", "--next-hop",
            f"127.0.0.1:{next_port}", "--icap", f"icap://127.0.0.1:{serve.icap_port}/avscan", "--config",
            home / "smtp.toml",
        ]  # fmt: skip
    elif name == "clamsmtp":
        (home / "clamsmtpd.conf").write_text(CLAMSMTP.format(**names))
        command = [require("clamsmtpd", "clamsmtp"), "-f", home / "clamsmtpd.conf", "-d", "1"]
    else:
        for part in ("tmp", "db", "var"):
            (home / "run" / part).mkdir(parents=True, exist_ok=True)
            shutil.chown(home / "run" / part, "amavis", "amavis")
        shutil.chown(home / "run", "amavis", "amavis")
        (home / "amavisd.conf").write_text(AMAVIS.format(**{**names, "folder": home / "run"}, servers=CONCURRENCY))
        program = next((one for one in ("amavisd", "amavisd-new") if Path("/usr/sbin", one).exists()), "amavisd")
        command = [require(program, "amavisd-new"), "-c", home / "amavisd.conf", "foreground"]
    process = Process(name, command, home)
    process.wait_until(lambda: accepts(("127.0.0.1", port)), f"port {port}")
    return process


def main() -> None:
    """Run, print a table, and write JSON where ``--json`` says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=400, help="mails of one round")
    parser.add_argument("--size", type=int, default=75_000, help="bytes of an attachment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default="none,icapscan,icapscan+yara,clamsmtp,amavis")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="icapscan-relay-") as name, ways(Path(name), given.ways.split(",")) as made:
        for one in made:
            measure(one, CONCURRENCY, given.size)  # warm
        for number in range(given.rounds):
            for one in made if number % 2 == 0 else made[::-1]:
                rates.setdefault(one.name, []).append(measure(one, given.count, given.size))
    middle = {what: statistics.median(found) for what, found in rates.items()}
    print(f"{given.count} mails with a new attachment of {given.size:,} bytes each, {CONCURRENCY} at a time")
    for what, rate in middle.items():
        shown = " ".join(f"{one:.0f}" for one in rates[what])
        of_none = f"{rate / middle['none']:.2f} of none   " if "none" in middle else ""
        print(f"{what:14} {rate:7.1f} mails/s   {of_none}({shown})")
    if given.json:
        given.json.write_text(json.dumps({"count": given.count, "size": given.size, "rates": rates}, indent=1))


if __name__ == "__main__":
    main()
