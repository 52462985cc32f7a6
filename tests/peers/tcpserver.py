"""tcpserver and tcprules of ucspi-tcp, and tinycdb's cdb: the programs around qmail that decide who may relay.

Sources: tcpserver(1), tcprules(1), tcprulescheck(1), cdb(1). qmail itself is no Debian package; `QMAIL_SMTPD` does what
qmail-smtpd(8) documents about RELAYCLIENT, rcpthosts, DATABYTES and QMAILQUEUE, and no more.
"""

from __future__ import annotations

import os
import smtplib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers import require
from tests.peers.processes import Process, free_port


class Tcpserver(Process):
    """A running tcpserver; ``port`` on 127.0.0.1."""

    port: int


def run_tcpserver(
    folder: Path,
    program: Sequence[str | Path],
    *,
    rules: Path | None = None,
    port: int = 0,
    name: str = "tcpserver",
    environment: Mapping[str, str] | None = None,
) -> Tcpserver:
    """Start ``program`` for each connection. ``rules``: a cdb that `tcprules` made, looked at anew for each one."""
    port = port or free_port()
    # -H, -R, -l: no look-ups of names, none of the other side's user
    command: list[str | Path] = [require("tcpserver", "ucspi-tcp"), "-v", "-H", "-R", "-l", "localhost"]
    command += ["-x", rules] if rules else []
    server = Tcpserver(name, [*command, "127.0.0.1", str(port), *program], folder, environment)
    server.port = port
    try:
        server.wait_for_log("status: 0/") if rules else server.wait_for_port(port)
    except BaseException:
        server.end()
        raise
    return server


def run_script(folder: Path, text: str, port: int, name: str) -> Tcpserver:
    """Start a run script (see daemontools' supervise) that ends in ``exec tcpserver``."""
    require("tcpserver", "ucspi-tcp")
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / f"run-{name}"
    script.write_text(text)
    script.chmod(0o755)
    server = Tcpserver(name, [script], folder)
    server.port = port
    try:
        server.wait_for_log("status: 0/")
    except BaseException:
        server.end()
        raise
    return server


def tcprules(cdb: Path, text: str) -> None:
    """Make ``cdb`` of rules such as ``127.:allow,RELAYCLIENT=""``; a file that is there is replaced in one step."""
    command = [require("tcprules", "ucspi-tcp"), str(cdb), f"{cdb}.tmp"]
    ran = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60, check=False)
    if ran.returncode != 0:
        raise AssertionError(f"tcprules ended with {ran.returncode}: {ran.stderr.decode(errors='replace')}")


def tcprulescheck(cdb: Path, address: str) -> str:
    """What tcpserver would do with a connection from ``address``, in tcprulescheck's words."""
    environment = {**os.environ, "TCPREMOTEIP": address}
    command = [require("tcprulescheck", "ucspi-tcp"), str(cdb)]
    ran = subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment)
    return ran.stdout.decode(errors="replace")


def cdb_dump(cdb: Path) -> dict[bytes, bytes]:
    """Every record of ``cdb`` as tinycdb reads it (``+klen,dlen:key->data``)."""
    said = subprocess.run(
        [require("cdb", "tinycdb"), "-d", str(cdb)], capture_output=True, timeout=60, check=True
    ).stdout
    records = {}
    while said.startswith(b"+"):
        sizes, _, rest = said[1:].partition(b":")
        key_size, data_size = (int(size) for size in sizes.split(b","))
        key, data = rest[:key_size], rest[key_size + 2 : key_size + 2 + data_size]
        records[key] = data
        said = rest[key_size + 2 + data_size + 1 :]
    return records


QMAIL_SMTPD = r"""
import os, re, subprocess, sys
hosts = set(open(folder + "/control/rcpthosts").read().split())
bytes_most = int(os.environ.get("DATABYTES", "0"))
def say(line):
    sys.stdout.buffer.write(line.encode() + b"\r\n"); sys.stdout.buffer.flush()
def path(line):
    found = re.search(rb"<(.*)>", line)
    return found[1] if found else line.partition(b":")[2].strip()
say("220 mx.inside.test ESMTP")
sender, recipients = None, []
for line in iter(sys.stdin.buffer.readline, b""):
    verb = line.strip().partition(b" ")[0].upper()
    if verb in (b"EHLO", b"HELO"):
        say("250-mx.inside.test"); say("250-PIPELINING"); say("250 8BITMIME")
    elif verb == b"MAIL":
        sender, recipients = path(line), []; say("250 ok")
    elif verb == b"RCPT":
        address = path(line)
        if "RELAYCLIENT" in os.environ:
            recipients.append(address + os.environb[b"RELAYCLIENT"]); say("250 ok")
        elif address.rpartition(b"@")[2].decode().lower() in hosts:
            recipients.append(address); say("250 ok")
        else:
            say("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)")
    elif verb == b"DATA":
        if sender is None or not recipients:
            say("503 MAIL and RCPT first (#5.5.1)"); continue
        say("354 go ahead")
        data, lost = [], True
        for row in iter(sys.stdin.buffer.readline, b""):
            if not row.endswith(b"\r\n"):
                say("451 See http://pobox.com/~djb/docs/smtplf.html."); sys.exit(1)
            if row == b".\r\n":
                lost = False; break
            data.append((row[1:] if row[:1] == b"." else row)[:-2] + b"\n")
        if lost:
            sys.exit(1)
        message = b"".join(data)
        if bytes_most and len(message) > bytes_most:
            say("552 sorry, that message size exceeds my databytes limit (#5.3.4)"); continue
        head = "Received: from unknown (HELO x) (%s)\n  by mx.inside.test with SMTP; 24 Nov 2026 10:00:00 -0000\n"
        message = (head % os.environ.get("TCPREMOTEIP", "?")).encode() + message
        envelope = b"F" + sender + b"\0" + b"".join(b"T" + one + b"\0" for one in recipients) + b"\0"
        message_read, message_write = os.pipe(); envelope_read, envelope_write = os.pipe()
        queue = os.environ.get("QMAILQUEUE", folder + "/bin/qmail-queue")
        child = subprocess.Popen([queue], stdin=message_read, stdout=envelope_read)
        os.close(message_read); os.close(envelope_read)
        try:
            with os.fdopen(message_write, "wb") as pipe: pipe.write(message)
            with os.fdopen(envelope_write, "wb") as pipe: pipe.write(envelope)
        except BrokenPipeError:
            pass
        code = child.wait()
        if code == 0: say("250 ok 1795514400 qp 4242")
        elif 11 <= code <= 40: say("554 mail server permanently rejected message (#5.3.0)")
        else: say("451 qq temporary problem (#4.3.0)")
        sender, recipients = None, []
    elif verb == b"QUIT":
        say("221 mx.inside.test"); break
    elif verb in (b"RSET", b"NOOP"):
        sender, recipients = (None, []) if verb == b"RSET" else (sender, recipients); say("250 flushed")
    else:
        say("502 unimplemented (#5.5.1)")
"""
"""A stand-in for qmail-smtpd(8) under tcpserver: RELAYCLIENT, control/rcpthosts, DATABYTES, QMAILQUEUE."""

QMAIL_QUEUE = r"""#!{python} -IS
import os, sys, time
message = sys.stdin.buffer.read()
envelope = os.fdopen(1, "rb").read()
if not envelope.endswith(b"\0\0"):
    os._exit(54)
name = "%d.%d" % (time.time_ns(), os.getpid())
with open({folder!r} + "/new/" + name + ".part", "wb") as file:
    file.write(envelope + message)
os.rename({folder!r} + "/new/" + name + ".part", {folder!r} + "/new/" + name)
os._exit(0)
"""


class QmailStandIn:
    """Folders and programs of a qmail that only takes mail: give ``command`` to `run_tcpserver`."""

    def __init__(self, folder: Path, domains: Sequence[str] = ("inside.test",)) -> None:
        for made in ("control", "bin", "new"):
            (folder / made).mkdir(parents=True, exist_ok=True)
        (folder / "control" / "rcpthosts").write_text("".join(f"{domain}\n" for domain in domains))
        program = folder / "bin" / "qmail-smtpd"
        program.write_text(f"#!{sys.executable} -IS\nfolder = {str(folder)!r}\n{QMAIL_SMTPD}")
        program.chmod(0o755)
        queue = folder / "bin" / "qmail-queue"
        queue.write_text(QMAIL_QUEUE.format(python=sys.executable, folder=str(folder)))
        queue.chmod(0o755)
        self.folder = folder
        self.command = [str(program)]

    def remote(self) -> list[str]:
        """What qmail-send and qmail-remote do with the oldest queued message and ``control/smtproutes``.

        One session for each recipient; the last reply of each. The message leaves the queue.
        """
        route = (self.folder / "control" / "smtproutes").read_text().strip()
        host, _, port = route.removeprefix(":").rpartition(":")
        path = min(self.folder.glob("new/*[0-9]"))
        sender, recipients, message = self.mails()[0]
        path.unlink()
        replies = []
        for recipient in recipients:
            with smtplib.SMTP(host, int(port), local_hostname="mx.example.com", timeout=150) as client:
                client.helo()
                code, said = client.mail(sender)
                code, said = client.rcpt(recipient) if code == 250 else (code, said)
                code, said = client.data(message.replace(b"\n", b"\r\n")) if code == 250 else (code, said)
                replies.append(f"{code} {said.decode(errors='replace')}")
        return replies

    def mails(self) -> list[tuple[str, list[str], bytes]]:
        """Reverse-path, forward-paths and message (LF at line ends) of each that was queued, oldest first."""
        found = []
        for path in sorted(self.folder.glob("new/*[0-9]")):
            envelope, _, message = path.read_bytes().partition(b"\0\0")
            sender, *recipients = (part[1:].decode() for part in envelope.split(b"\0"))
            found.append((sender, recipients, message))
        return found
