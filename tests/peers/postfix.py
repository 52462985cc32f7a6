"""A private Postfix: its own configuration, queue, data folder, ports and log; it looks up nothing in the DNS.

Postfix wants to be started by root and changes to the user ``postfix``, who may not enter a test's private folder. So
it lives in a folder of its own under the system's temporary one; what it logged moves to the test's folder at the end.
Sources: postconf(5), master(5), postfix(1), MAILLOG_README, and Debian's ``/usr/share/postfix/master.cf.dist``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.peers import require, require_root
from tests.peers.icapscan_server import CHECKOUT
from tests.peers.processes import Process, accepts, children, free_port

EXAMPLES = CHECKOUT / "docs" / "examples"

# What only a test wants. What the test or the example itself sets is left out.
PRIVATE = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/mail.log
maillog_file_prefixes = {home}
mail_owner = postfix
setgid_group = postdrop
multi_instance_enable = no
multi_instance_name =
alternate_config_directories =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = {hostname}
mydomain = inside.test
myorigin = inside.test
mydestination =
alias_maps =
local_recipient_maps =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_security_level = none
smtpd_peername_lookup = no
biff = no
readme_directory = no
html_directory = no
manpage_directory = /usr/share/man
smtpd_error_sleep_time = 0
queue_run_delay = 5s
minimal_backoff_time = 2s
maximal_backoff_time = 10s
smtp_destination_rate_delay = 0s
"""

# As Debian ships them, but nothing in a chroot: a chroot wants copies of files of /etc.
SERVICES = """\
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""

SMTPD = "127.0.0.1:{port} inet n - n - - smtpd\n"


class Postfix(Process):
    """A running Postfix. ``port``: its first SMTP port."""

    def __init__(self, name: str, home: Path, keep: Path, port: int) -> None:
        self.home = home
        self.keep = keep
        self.port = port
        self.config = home / "config"
        # a session of its own: master signals its process group
        command = [require("setsid", "util-linux"), _daemon("master"), "-d", "-c", str(self.config)]
        # what postfix(1) would tell master, so that everything logs by postlogd (maillog_client.c)
        environment = {"MAIL_CONFIG": str(self.config), "POSTLOG_SERVICE": "postlog", "POSTLOG_HOSTNAME": name}
        super().__init__(name, command, home, environment)

    def log_text(self) -> str:
        path = self.folder / "mail.log"
        return super().log_text() + (path.read_text(errors="replace") if path.exists() else "")

    def run(self, program: str, *arguments: str) -> str:
        """Run one of Postfix's commands with this configuration; what it printed. Raises `PeerError` when it fails."""
        command = [require(program, "postfix"), "-c", str(self.config), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if ran.returncode != 0:
            raise self.failure(f"{program} {' '.join(arguments)} ended with {ran.returncode}: {ran.stdout}{ran.stderr}")
        return ran.stdout

    def queued(self) -> int:
        """How many messages are in its queue, whatever the reason.

        What was not complete when its daemons were killed was never answered 250 and is none: a whole message has the
        execute bit (``mail_queue.h``, MAIL_QUEUE_STAT_READY). Only ``maildrop`` has no such mark.
        """
        places = ("incoming", "active", "deferred", "hold", "maildrop", "corrupt")
        return sum(
            1
            for place in places
            for folder, _, files in os.walk(self.home / "queue" / place)
            for name in files
            if place == "maildrop" or _is_whole(Path(folder, name))
        )

    def wait_empty(self, seconds: float = 60.0) -> None:
        """Return once its queue is empty."""
        self.wait_until(lambda: self.queued() == 0, "an empty queue", seconds)

    def flush(self) -> None:
        """Try every queued message again now."""
        self.run("postqueue", "-f")

    def flush_until(self, true: Callable[[], bool], what: str, seconds: float = 150.0) -> None:
        """Try every queued message again and again until ``true()``: the first try may come too early for others."""
        last = 0.0

        def tried() -> bool:
            nonlocal last
            if time.monotonic() > last + 2.0:
                self.flush()
                last = time.monotonic()
            return true()

        self.wait_until(tried, what, seconds)

    def map(self, name: str, entries: Mapping[str, str] | str) -> Path:
        """Write a lookup table ``config/NAME`` and, for ``hash:`` tables, its database; returns the file's path."""
        path = self.config / name
        text = entries if isinstance(entries, str) else "".join(f"{key} {value}\n" for key, value in entries.items())
        path.write_text(text)
        _make_table(self.config, name)
        return path

    def maildir(self, name: str = "reader") -> list[bytes]:
        """The messages that virtual(8) put into ``mail/NAME/``, oldest first, with LF at their line ends."""
        folder = self.folder / "mail" / name / "new"
        files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns) if folder.is_dir() else []
        return [path.read_bytes() for path in files]

    def kill(self) -> None:
        """SIGKILL to the master and all its daemons at once; the queue stays. See `start_again`."""
        daemons = children(self.pid)
        for pid in (self.pid, *daemons):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        super().end()

    def start_again(self) -> Postfix:
        """A new Postfix with the same folder, queue and ports, after `kill`."""
        again = Postfix(self.name, self.home, self.keep, self.port)
        return _wait(again)

    def end(self, seconds: float = 20.0) -> int:
        descendants = children(self.pid) if self.exit_code is None else []
        code = super().end(seconds)
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        if self.home != self.keep and self.home.exists():
            shutil.rmtree(self.home / "queue", ignore_errors=True)
            shutil.copytree(self.home, self.keep, dirs_exist_ok=True, ignore_dangling_symlinks=True)
            shutil.rmtree(self.home, ignore_errors=True)
            self.folder = self.home = self.keep
            self.log = self.keep / self.log.name
        return code


def run_postfix(
    folder: Path,
    *,
    main: str = "",
    master: str = "",
    port: int = 0,
    smtpd: bool = True,
    hostname: str = "mx.inside.test",
    name: str = "postfix",
    files: Mapping[str, str] | None = None,
) -> Postfix:
    """Start Postfix and wait until it accepts on its first SMTP port.

    ``main``, ``master``: lines of main.cf and master.cf, after those that every test has; ``{home}`` in them is its
    folder, ``{config}`` the folder of its configuration.
    ``smtpd``: with an SMTP port of its own, ``port`` or a free one; False: ``master`` has the ports, and ``port`` is
    the one to wait for.
    ``files``: lookup tables by name, made in the configuration folder for use as ``hash:{config}/NAME``.
    Mail goes where ``relayhost`` or the transports say, or with `maildir_lines` to a Maildir.
    """
    require("postfix", "postfix")
    require_root("Postfix")
    port = port or free_port()
    home = Path(tempfile.mkdtemp(prefix="icapscan-postfix-"))
    home.chmod(0o755)
    folder.mkdir(parents=True, exist_ok=True)
    config = home / "config"
    config.mkdir()
    _make_queue(home / "queue")
    for owned in (home / "data", home / "mail"):
        owned.mkdir()
        shutil.chown(owned, "postfix", "postfix")
    marks = {"{home}": str(home), "{config}": str(config)}
    own = PRIVATE.format(home=home, hostname=hostname).splitlines(keepends=True)
    given = {line.partition("=")[0].strip() for line in main.splitlines()}
    private = "".join(line for line in own if line.partition("=")[0].strip() not in given)
    (config / "main.cf").write_text(private + _filled(main, marks))
    services = SERVICES + (SMTPD.format(port=port) if smtpd else "")
    (config / "master.cf").write_text(services + _filled(master, marks))
    for path in config.iterdir():
        os.utime(path, (1e9, 1e9))  # Postfix waits until its configuration has been left alone for seconds
    for table, text in (files or {}).items():
        (config / table).write_text(_filled(text, marks))
        _make_table(config, table)
    return _wait(Postfix(name, home, folder, port))


MAILDIR = """\
virtual_mailbox_domains = inside.test
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = static:reader/
virtual_minimum_uid = 1
virtual_uid_maps = static:%d
virtual_gid_maps = static:%d
virtual_mailbox_limit = 0
mailbox_size_limit = 0
"""


def maildir_lines() -> str:
    """Lines of main.cf that deliver all mail for inside.test to the Maildir that `Postfix.maildir` reads."""
    import pwd

    require("postfix", "postfix")
    user = pwd.getpwnam("postfix")
    return MAILDIR % (user.pw_uid, user.pw_gid)


def _is_whole(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o100)
    except FileNotFoundError:
        return False


def _filled(text: str, marks: Mapping[str, str]) -> str:
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


def _daemon(name: str) -> str:
    path = Path("/usr/lib/postfix/sbin") / name
    return str(path) if path.exists() else require(name, "postfix")


def _make_queue(queue: Path) -> None:
    """The folders of a queue with owners and modes as in Debian's ``/etc/postfix/postfix-files``."""
    queue.mkdir()
    (queue / "pid").mkdir(mode=0o755)
    for name in (
        "active",
        "bounce",
        "corrupt",
        "defer",
        "deferred",
        "flush",
        "hold",
        "incoming",
        "private",
        "saved",
        "trace",
    ):
        (queue / name).mkdir(mode=0o700)
        shutil.chown(queue / name, "postfix")
    for name, mode in (("maildrop", 0o730), ("public", 0o710)):
        (queue / name).mkdir()
        shutil.chown(queue / name, "postfix", "postdrop")
        (queue / name).chmod(mode)


def _make_table(config: Path, name: str) -> None:
    command = [require("postmap", "postfix"), "-c", str(config), f"hash:{config / name}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if ran.returncode != 0:
        raise AssertionError(f"postmap {name} ended with {ran.returncode}: {ran.stdout}{ran.stderr}")


def _wait(postfix: Postfix) -> Postfix:
    try:
        postfix.wait_until(lambda: accepts(("127.0.0.1", postfix.port)), f"port {postfix.port}")
    except BaseException:
        postfix.end()
        raise
    return postfix
