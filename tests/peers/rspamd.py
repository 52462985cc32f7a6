"""A private rspamd that asks an ICAP server about each mail, by the files of ``docs/examples/rspamd``.

Settings: the comments of ``lualib/lua_scanners/icap.lua`` and ``plugins/external_services.lua`` as Debian ships them.
rspamd 3.4 knows the type ``icap`` in its module ``external_services`` only; ``antivirus`` there calls it unknown.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from tests.peers import require
from tests.peers.examples import example
from tests.peers.processes import Process, free_port

# Only what a scan needs: no statistics, no DNS lists, no fuzzy storage.
MAIN = """
.include "$CONFDIR/metrics.conf"
.include "$CONFDIR/actions.conf"
lua = "$RULESDIR/rspamd.lua";
options {{
  pidfile = "{folder}/rspamd.pid";
  control_socket = "{folder}/rspamd.sock mode=0600";
  cache_file = "{folder}/symbols.cache";
  hs_cache_dir = "{folder}/";
  tempdir = "{folder}";
  filters = "";
  url_tld = "{folder}/tld.dat";
  task_timeout = 30s;
  explicit_modules = ["external_services", "force_actions"];
  dns {{ nameserver = ["127.0.0.1:{dns_port}"]; timeout = 1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; enabled = true; }}
modules {{ path = "${{PLUGINSDIR}}/external_services.lua"; }}
modules {{ path = "${{PLUGINSDIR}}/force_actions.lua"; }}
external_services {{
{external_services}
}}
force_actions {{
{force_actions}
}}
"""

BY_PART = ("scan_mime_parts", "scan_text_mime", "scan_all_mime_parts")


class Rspamd(Process):
    """A running rspamd; ``port`` is its normal worker."""

    port: int

    def check(self, mail: bytes) -> dict[str, Any]:
        """POST ``mail`` to ``/checkv2``: rspamd's answer; ``["symbols"]`` by name, ``["action"]``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/checkv2", body=mail, headers={"IP": "192.0.2.7", "From": "a@icapscan.test"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise self.failure(f"/checkv2 answered {answer.status}: {body.decode(errors='replace')}")
            return msgspec.json.decode(body, type=dict[str, Any])
        finally:
            connection.close()


def run_rspamd(folder: Path, icap_port: int, *, service: str = "avscan", by_part: bool = True) -> Rspamd:
    """Start rspamd in the foreground and wait until its worker answers.

    ``by_part``: rspamd scans each part of a mail; otherwise the whole mail at once.
    """
    program = require("rspamd", "rspamd")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "tld.dat").write_text("com\ntest\n")  # rspamd compiles its own list of 9,600 for ten seconds
    changes = {"127.0.0.1:1344": f"127.0.0.1:{icap_port}", '"avscan"': f'"{service}"'}
    if not by_part:
        changes |= {f"{key} = true;": f"{key} = false;" for key in BY_PART}
    config = folder / "rspamd.conf"
    config.write_text(
        MAIN.format(
            folder=folder, port=port, dns_port=free_port(),
            external_services=example("rspamd/external_services.conf", changes),
            force_actions=example("rspamd/force_actions.conf", {}),
        )
    )  # fmt: skip
    # as root rspamd insists on being told who to be; as another user it may not change
    identity = ["-u", "root", "-g", "root", "--insecure"] if os.geteuid() == 0 else []
    rspamd = Rspamd("rspamd", [program, "-f", "-c", config, *identity], folder)
    rspamd.port = port
    try:
        rspamd.wait_until(lambda: _pings(port), f"/ping on port {port}")
    except BaseException:
        rspamd.end()
        raise
    return rspamd


def _pings(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def rspamd_version() -> str:
    """The version of the installed rspamd, or ``absent``."""
    program = shutil.which("rspamd")
    if program is None:
        return "absent"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+(?:\.\d+)+", said.stdout)
    return found[0] if found else "unknown"
