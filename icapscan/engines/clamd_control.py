"""The control commands of clamd (PING, VERSION, STATS), by the ``clamd`` package: blocking, so called in a thread.

What makes up the version is argued in docs/decisions/engines-clamd-version.md.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from typing import TYPE_CHECKING

from icapscan.engines.clamd_backends import Address
from icapscan.engines.clamd_local import LocalFacts, local_facts, peer_pid
from icapscan.engines.settings import ClamdSettings
from icapscan.errors import IcapscanError

if TYPE_CHECKING:
    import clamd

USUAL_ADDRESSES = (
    "unix:/run/clamav/clamd.ctl",  # Debian, Ubuntu
    "unix:/var/run/clamav/clamd.ctl",
    "unix:/run/clamav/clamd.sock",  # Alpine, Arch: /run/clamav
    "unix:/run/clamd.scan/clamd.sock",  # Fedora, RHEL
    "unix:/var/run/clamd.scan/clamd.sock",
    "unix:/run/clamav/clamd.socket",
    "unix:/tmp/clamd.socket",
    "unix:/tmp/clamd.sock",
    "tcp:127.0.0.1:3310",
)
PING_SECONDS = 1.0
SETTLE_SECONDS = 60.0
"""Given to clamd, beyond its SelfCheck, to load databases that changed."""
_DATABASES = frozenset((
    "cvd", "cld", "cud", "db", "hdb", "hsb", "hdu", "hsu", "mdb", "msb", "mdu", "msu", "imp", "ndb", "ndu", "ldb",
    "ldu", "cdb", "ftm", "sfp", "fp", "ign", "ign2", "pdb", "gdb", "wdb", "cbc", "yar", "yara", "pwdb", "crb", "cat",
    "crtdb", "idb", "info",
))  # fmt: skip
_POOLS_USED = re.compile(r"pools_used ([0-9.]+)M")


def connection(address: Address, seconds: float) -> clamd.ClamdNetworkSocket:
    """A client of the ``clamd`` package for one address; each of its calls opens a connection of its own."""
    import clamd

    # QUIRK: the package (1.0.2) connects before it sets the timeout, and knows only IPv4; both hang or fail on us.
    class Network(clamd.ClamdNetworkSocket):  # type: ignore[misc]
        def _init_socket(self) -> None:
            try:
                if address.local:
                    self.clamd_socket = socket.socket(socket.AF_UNIX)
                    self.clamd_socket.settimeout(seconds)
                    self.clamd_socket.connect(address.path)
                else:
                    self.clamd_socket = socket.create_connection((address.host, address.port), seconds)
            except OSError as error:
                raise clamd.ConnectionError(error.strerror or str(error)) from error

    return Network(address.host, address.port, seconds)


def answers(address: Address, seconds: float = PING_SECONDS) -> bool:
    """Whether a clamd answers PING at ``address`` within ``seconds``."""
    if address.local and not os.path.exists(address.path):
        return False
    try:
        return str(connection(address, seconds).ping()) == "PONG"
    except Exception:
        return False  # not a clamd that can be used; whoever needs one says so


def find_addresses() -> tuple[str, ...]:
    """The first usual address at which a clamd answers, as a tuple for ``engines.clamd.address``; empty without one.

    Blocks for up to a second for each that exists and hangs. One clamd often listens on several of them, so the
    first is enough.
    """
    return next(((text,) for text in USUAL_ADDRESSES if answers(Address(text))), ())


def available(settings: ClamdSettings) -> tuple[str, ...]:
    """The addresses to use: none when disabled; when enabled, the configured ones, answering or not.

    ``auto``: the configured ones, answering or not: whoever names a clamd relies on it, and one that starts later than
    we do must not be left out. Without any configured, what `find_addresses` finds. ``enabled = true`` without an
    address and without a clamd gives the first usual address, so that the engine is there, fails, and says so.
    Blocking, for use at start. Raises `ConfigError` for a bad address.
    """
    configured = [Address(text) for text in settings.address]
    if settings.enabled is False:
        return ()
    if not configured:
        return find_addresses() or (USUAL_ADDRESSES[:1] if settings.enabled is True else ())
    return settings.address


def read_version(address: Address, seconds: float) -> tuple[str, int]:
    """A text that changes when this clamd's databases do, and its process (0 where unknown).

    Raises `IcapscanError` when clamd does not say.
    """
    try:
        client = connection(address, seconds)
        version, stats = str(client.version()), str(client.stats())
        pid = _pid(address, seconds)
    except Exception as error:
        raise IcapscanError(f"clamd at {address.text} does not answer: {error}") from error
    pools = _POOLS_USED.search(stats)
    if not version.startswith("ClamAV") or "END" not in stats:
        raise IcapscanError(f"clamd at {address.text} gives no version.")
    words = [version, pools[1] if pools else "?"]
    facts = local_facts(address.path, pid) if address.local else None
    if facts is not None:
        words.append(_databases(facts))
    return " ".join(words), pid


def _pid(address: Address, seconds: float) -> int:
    if not address.local:
        return 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(seconds)
        sock.connect(address.path)
        return peer_pid(sock)


def _databases(facts: LocalFacts) -> str:
    """Names, sizes and times of the database files, and whether clamd must have loaded the newest by now."""
    digest = hashlib.sha256()
    newest = 0.0
    for folder, folders, names in os.walk(facts.database):
        folders.sort()
        for name in sorted(names):
            if name.rpartition(".")[2].lower() not in _DATABASES:
                continue
            try:
                state = os.stat(os.path.join(folder, name))
            except OSError:
                continue  # replaced this moment by freshclam; the next look sees the new one
            inside = os.path.relpath(os.path.join(folder, name), facts.database)
            digest.update(f"{inside}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
            newest = max(newest, state.st_mtime, state.st_ctime)  # ctime: one that came here with an old date
    settled = not facts.self_check or time.time() > newest + facts.self_check + SETTLE_SECONDS
    return digest.hexdigest()[:16] + ("" if settled else "+")
