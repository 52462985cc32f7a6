"""What a clamd on this machine is configured with, where we may read it: limits, database folder, SelfCheck.

clamd tells none of this over its socket, and its limits are silent: a file over MaxFileSize gets OK unread.
"""

from __future__ import annotations

import os
import socket
import struct

from msgspec import Struct

from icapscan.limits import GIB, KIB, MIB

USUAL_FILES = (
    "/etc/clamav/clamd.conf",
    "/etc/clamd.d/scan.conf",
    "/etc/clamd.conf",
    "/usr/local/etc/clamd.conf",
    "/usr/local/etc/clamav/clamd.conf",
)
_UNITS = {"k": KIB, "m": MIB, "g": GIB}
_TRUE = frozenset(("yes", "true", "1", "on"))


class LocalFacts(Struct, frozen=True):
    """From clamd.conf(5); what is not in the file has clamd's default of version 1.4."""

    file: str
    database: str
    """DatabaseDirectory."""
    self_check: float
    """SelfCheck: every so many seconds clamd looks for changed databases by itself; 0 = never."""
    largest: int
    """The smaller of MaxFileSize and MaxScanSize, in bytes: a larger file is not wholly read."""
    alerts_over_limit: bool
    """AlertExceedsMax: content beyond clamd's limits is said to be so, not passed in silence."""
    alerts_encrypted: bool
    """AlertEncrypted, or both AlertEncryptedArchive and AlertEncryptedDoc."""


def peer_pid(sock: socket.socket) -> int:
    """The process that listens behind a connected Unix socket (unix(7), SO_PEERCRED); 0 where it is not known."""
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return 0
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def local_facts(path: str, pid: int) -> LocalFacts | None:
    """The configuration of the clamd that listens on the Unix socket ``path`` (as process ``pid``), or None.

    The file is the one named on its command line, else a usual one whose LocalSocket is ``path``.
    """
    named = _named_file(pid) if pid > 0 else None
    for file in (named,) if named else USUAL_FILES:
        values = _read(file)
        if values is not None and _listens_on(values.get("localsocket", ""), path):
            return _facts(file, values)
    return None


def _named_file(pid: int) -> str | None:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            words = [os.fsdecode(word) for word in source.read(64 * KIB).split(b"\0")]
        folder = os.readlink(f"/proc/{pid}/cwd") if os.access(f"/proc/{pid}/cwd", os.R_OK) else "/"
    except OSError:
        return None
    for at, word in enumerate(words):
        if word in ("-c", "--config-file") and at + 1 < len(words):
            return os.path.join(folder, words[at + 1])
        if word.startswith("--config-file="):
            return os.path.join(folder, word.partition("=")[2])
        if word.startswith("-c") and not word.startswith("--") and len(word) > 2:
            return os.path.join(folder, word[2:])
    return None


def _read(file: str) -> dict[str, str] | None:
    try:
        with open(file, encoding="utf-8", errors="replace") as source:
            lines = source.read(MIB).splitlines()
    except OSError:
        return None
    values: dict[str, str] = {}
    for line in lines:
        key, _, value = line.strip().partition(" ")
        if key and not key.startswith("#"):
            values.setdefault(key.lower(), value.strip().strip('"'))
    return values


def _listens_on(configured: str, path: str) -> bool:
    return bool(configured) and os.path.realpath(configured) == os.path.realpath(path)


def _facts(file: str, values: dict[str, str]) -> LocalFacts:
    def yes(key: str, old: str) -> bool:
        return values.get(key, values.get(old, "no")).lower() in _TRUE

    sizes = [_size(values.get("maxfilesize", "100M")), _size(values.get("maxscansize", "400M"))]
    return LocalFacts(
        file=file,
        database=values.get("databasedirectory", "/var/lib/clamav"),
        self_check=float(_size(values.get("selfcheck", "600"))),
        largest=min(size or 2 * GIB - 1 for size in sizes),
        alerts_over_limit=yes("alertexceedsmax", "blockmax"),
        alerts_encrypted=yes("alertencrypted", "archiveblockencrypted")
        or (yes("alertencryptedarchive", "") and yes("alertencrypteddoc", "")),
    )


def _size(text: str) -> int:
    """``25M`` in bytes; 0 where it cannot be read (clamd itself would not have started)."""
    number, unit = text[:-1], text[-1:].lower()
    if unit in _UNITS and number.isdecimal():
        return int(number) * _UNITS[unit]
    return int(text) if text.isdecimal() else 0
