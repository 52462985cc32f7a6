"""A private Sendmail: its own configuration made by m4, queue and port; it looks up nothing in the DNS.

Debian's Sendmail and Postfix exclude each other as packages, so ``.ci/peers PYTHON full`` only unpacks Sendmail into
``build/peers/sendmail``. Source: Sendmail's ``cf/README`` and its Installation and Operation Guide.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.peers import missing_peer, require, require_root
from tests.peers.icapscan_server import CHECKOUT
from tests.peers.processes import Process, accepts, free_port

UNPACKED = CHECKOUT / "build" / "peers" / "sendmail"
PROGRAM = UNPACKED / "usr" / "libexec" / "sendmail" / "sendmail"
MACROS = UNPACKED / "usr" / "share" / "sendmail" / "cf"
HOSTNAME = "mx.inside.test"

CONFIG = """\
divert(0)dnl
VERSIONID(`icapscan tests')dnl
OSTYPE(`linux')dnl
define(`QUEUE_DIR', `{home}/queue')dnl
define(`confPID_FILE', `{home}/sendmail.pid')dnl
define(`STATUS_FILE', `{home}/statistics')dnl
define(`HELP_FILE', `')dnl
define(`ALIAS_FILE', `')dnl
define(`confCW_FILE', `-o {home}/local-host-names')dnl
define(`confSERVICE_SWITCH_FILE', `{home}/service.switch')dnl
define(`confDOMAIN_NAME', `{hostname}')dnl
define(`confTO_IDENT', `0')dnl
define(`confDEF_USER_ID', `1:1')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
DAEMON_OPTIONS(`Port={port}, Addr=127.0.0.1, Name=MTA')dnl
define(`SMART_HOST', `relay:[127.0.0.1]')dnl
define(`RELAY_MAILER_ARGS', `TCP $h {next_hop}')dnl
{more}
MAILER(`smtp')dnl
LOCAL_CONFIG
C{{R}}127.0.0.1
"""
"""It relays for 127.0.0.1 (class R) and sends everything to one next hop."""


class Sendmail(Process):
    """A running Sendmail; ``port`` on 127.0.0.1."""

    port: int

    def log_text(self) -> str:
        traffic = self.folder / "traffic"
        return super().log_text() + (traffic.read_text(errors="replace") if traffic.exists() else "")

    def queued(self) -> int:
        """How many messages are in its queue, those in quarantine (``hf``) too."""
        return sum(path.name.startswith(("qf", "hf")) for path in (self.folder / "queue").iterdir())


def run_sendmail(folder: Path, next_hop: int, more: str = "") -> Sendmail:
    """Start Sendmail in the foreground and wait until it accepts. ``more``: lines of sendmail.mc.

    ``next_hop``: the port of 127.0.0.1 where all mail goes.
    """
    require_root("Sendmail")
    if not PROGRAM.exists():
        missing_peer(f"Sendmail is not unpacked in {UNPACKED}: run .ci/peers PYTHON full as root")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "queue").mkdir(mode=0o700)
    (folder / "service.switch").write_text("hosts files\naliases files\npasswd files\n")
    master = folder / "sendmail.mc"
    master.write_text(CONFIG.format(home=folder, port=port, next_hop=next_hop, more=more, hostname=HOSTNAME))
    made = subprocess.run(
        [require("m4", "m4"), f"-D_CF_DIR_={MACROS}/", MACROS / "m4" / "cf.m4", master], capture_output=True, check=True
    )
    (folder / "sendmail.cf").write_bytes(made.stdout)
    command: list[str | Path] = [PROGRAM, "-bD", "-C", folder / "sendmail.cf", "-q5s", "-X", folder / "traffic"]
    sendmail = Sendmail("sendmail", [*_with_a_full_name(), *command], folder)
    sendmail.port = port
    try:
        sendmail.wait_until(lambda: accepts(("127.0.0.1", port)), f"port {port}", seconds=150)
    except BaseException:
        sendmail.end()
        raise
    return sendmail


def _with_a_full_name() -> list[str]:
    """Sendmail waits for a minute where the machine's name has no dot: it is given one, where that is allowed."""
    program = shutil.which("unshare")
    if program is None:
        return []
    words = [program, "--uts", "sh", "-c", f'hostname {HOSTNAME} && exec "$@"', "sh"]
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if tried.returncode == 0 else []
