"""A private Dovecot that serves nothing but the authentication socket, for Postfix and others (PLAIN, LOGIN, CRAM-MD5).

Sources: Dovecot's documentation on ``auth_mechanisms``, ``passdb passwd-file`` and ``service auth``.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.peers import require, require_root
from tests.peers.processes import Process, accepts

CONFIG = """\
base_dir = {home}/run
state_dir = {home}/run
log_path = /dev/stderr
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5
auth_verbose = yes
auth_debug = yes
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = {home}/users
}}
userdb {{
  driver = static
  args = uid=dovecot gid=dovecot home={home}
}}
service auth {{
  unix_listener {home}/auth-client {{
    mode = 0666
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""

USERS = {"anna@inside.test": "blue-Anchor 7", "ben@inside.test": "grüne Tür"}
"""User names and passwords: with a blank and with letters that are not ASCII."""


class Dovecot(Process):
    """A running Dovecot; ``socket`` is its authentication socket."""

    socket: Path
    keep: Path

    def end(self, seconds: float = 20.0) -> int:
        code = super().end(seconds)
        if self.folder != self.keep and self.folder.exists():
            shutil.copy(self.log, self.keep / self.log.name)
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder, self.log = self.keep, self.keep / self.log.name
        return code


def run_dovecot(folder: Path, users: Mapping[str, str] = USERS) -> Dovecot:
    """Start Dovecot in the foreground and wait until its authentication socket accepts.

    It lives in a short folder of its own: its helpers run as other users, and a socket's path has 107 bytes at most.
    """
    program = require("dovecot", "dovecot-core")
    require_root("Dovecot")
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="icapscan-dovecot-"))
    home.chmod(0o755)
    (home / "dovecot.conf").write_text(CONFIG.format(home=home))
    (home / "users").write_text("".join(f"{name}:{{PLAIN}}{password}\n" for name, password in users.items()))
    dovecot = Dovecot("dovecot", [program, "-F", "-c", home / "dovecot.conf"], home)
    dovecot.socket = home / "auth-client"
    dovecot.keep = folder
    try:
        dovecot.wait_until(lambda: accepts(str(dovecot.socket)), "the authentication socket")
    except BaseException:
        dovecot.end()
        raise
    return dovecot
