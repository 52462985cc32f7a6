"""The settings of ``icapscan-qmail-queue``: variables ``ICAPSCAN_…`` of the environment, else of one small file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from icapscan.errors import ConfigError

DEFAULT_FILE = "/etc/icapscan/qmail-queue.conf"
_PREFIX = "ICAPSCAN_"
_LINE = re.compile(r"(?:export\s+)?([A-Z_]+)\s*=\s*(.*)")
_YES = frozenset({"1", "yes", "true", "on"})
_NO = frozenset({"0", "no", "false", "off", ""})
_LOGS = ("all", "found", "none")


class QueueSettings(Struct, frozen=True):
    """Everything about one run."""

    icap: tuple[str, ...] = ("icap://127.0.0.1:1344/avscan",)
    """Services that are asked in this order until one answers."""
    queue: str = "/var/qmail/bin/qmail-queue"
    timeout: float = 300.0
    """Seconds for the scan with everything in it. An SMTP client waits 10 min for the answer (RFC 5321 4.5.3.2.6)."""
    connect_timeout: float = 5.0
    """Seconds for one connection."""
    custom_error: bool = False
    """The caller reads a text from descriptor 6 with exit code 82: notqmail, and netqmail with that patch."""
    user_from: tuple[str, ...] = ("SMTPAUTHUSER",)
    """Variables that hold the name of the authenticated user; the first that is set counts."""
    spool: str | None = None
    """Folder for unlinked files of large messages; None: the system's."""
    most: int = 2 * 1024**3
    """Bytes of the largest message; more is a write error (53)."""
    log: str = "found"
    """What gets a line on descriptor 2: ``all`` messages, ``found``: all but the clean ones, ``none``."""
    ca: str | None = None
    """``icaps://``: file of trusted certificates (PEM); None: the system's."""


def load_settings(environ: Mapping[str, str]) -> QueueSettings:
    """Environment before file before defaults. Raises `ConfigError` for what cannot be used."""
    named = environ.get("ICAPSCAN_CONFIG")
    given = _read_file(named or DEFAULT_FILE, must=named is not None)
    origin = dict.fromkeys(given, named or DEFAULT_FILE)
    for key in _READERS:
        if (value := environ.get(_PREFIX + key)) is not None:
            given[key] = value
            origin[key] = "environment"
    values = {}
    for key, text in given.items():
        try:
            values[key.lower()] = _READERS[key](text)
        except ValueError as error:
            raise ConfigError(f"{_PREFIX}{key} ({origin[key]}): {error}.") from error
    return QueueSettings(**values)  # type: ignore[arg-type]


def _read_file(path: str, *, must: bool) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(64 * 1024)
    except FileNotFoundError:
        if must:
            raise ConfigError(f"There is no file {path}.") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    given: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        key = match[1].removeprefix(_PREFIX) if match else ""
        if match is None or key not in _READERS:
            raise ConfigError(f"{path}, line {number}: expected one of {', '.join(_PREFIX + key for key in _READERS)}.")
        value = match[2]
        given[key] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    return given


def _urls(text: str) -> tuple[str, ...]:
    if not (urls := tuple(text.replace(",", " ").split())):
        raise ValueError("expected at least one URL such as icap://127.0.0.1:1344/avscan")
    return urls


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _program(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError("expected the full path of a program")
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", text) or not float(text):
        raise ValueError("expected a number of seconds above 0")
    return float(text)


def _bytes(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text) or not int(text):
        raise ValueError("expected a number of bytes above 0")
    return int(text)


def _switch(text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise ValueError("expected 1 or 0")
    return text.lower() in _YES


def _log(text: str) -> str:
    if text not in _LOGS:
        raise ValueError(f"expected one of {', '.join(_LOGS)}")
    return text


def _path(text: str) -> str | None:
    return text or None


_READERS: dict[str, Callable[[str], object]] = {
    "ICAP": _urls,
    "QUEUE": _program,
    "TIMEOUT": _seconds,
    "CONNECT_TIMEOUT": _seconds,
    "CUSTOM_ERROR": _switch,
    "USER_FROM": _words,
    "SPOOL": _path,
    "MOST": _bytes,
    "LOG": _log,
    "CA": _path,
}
