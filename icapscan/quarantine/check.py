"""Settings that cannot be used: found before anything listens, with the key and what was expected."""

from __future__ import annotations

import os
import stat

from icapscan.errors import ConfigError
from icapscan.quarantine.keys import Key, Keys, read_key
from icapscan.quarantine.settings import QuarantineSettings


class Mistake(ConfigError):
    """One key of ``[quarantine]`` that cannot be used. ``sentence`` has neither the key nor a full stop."""

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(f"{key}: {sentence}.")
        self.key = key
        self.sentence = sentence


def check(settings: QuarantineSettings) -> None:
    """Raises `Mistake` (a `ConfigError`) for the first key that cannot be used. Changes nothing on the disk."""
    if settings.next_hop is not None:
        port = int(settings.next_hop.rpartition(":")[2])
        if not 0 < port < 65536:
            raise Mistake("quarantine.next_hop", f"expected a port from 1 to 65535, got {port}")
    if not (settings.helo.isascii() and settings.helo.isprintable() and " " not in settings.helo):
        raise Mistake("quarantine.helo", f"expected a host name, got {settings.helo!r}")
    if settings.enabled:
        usable_folder(settings, make=False)
        load_keys(settings)


def usable_folder(settings: QuarantineSettings, *, make: bool) -> str:
    """The folder; ``make`` makes it where only it is missing. Raises `Mistake` where it cannot be used."""
    key, path = "quarantine.folder", settings.folder
    if not path:
        raise Mistake(key, "expected a folder for the kept items")
    try:
        if make:
            _make(path)
        found = os.stat(path)
    except FileNotFoundError:
        above = os.path.dirname(os.path.abspath(path))
        if not make and os.access(above, os.W_OK | os.X_OK):
            return path
        raise Mistake(key, f"expected a folder, but {path} is not there and cannot be made") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Mistake(key, f"expected a folder, but {path}: {reason}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Mistake(key, f"expected a folder, but {path} is none")
    if found.st_mode & 0o077:
        raise Mistake(key, f"expected a folder that only its owner can look into; try: chmod 700 {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Mistake(key, f"expected a folder that can be written to, but {path} cannot")
    return path


def load_keys(settings: QuarantineSettings) -> Keys:
    """The configured keys. Raises `Mistake`."""
    if not settings.key_file:
        raise Mistake("quarantine.key_file", "expected a key file; icapscan quarantine key FILE makes one")
    old = tuple(_key("quarantine.old_key_files", path) for path in settings.old_key_files)
    return Keys(_key("quarantine.key_file", settings.key_file), old)


def _key(name: str, path: str) -> Key:
    try:
        import cryptography  # noqa: F401  (a broken installation is told now, not with the first item)
    except ImportError as error:
        raise Mistake("quarantine.enabled", f"expected the library cryptography to be installed ({error})") from error
    try:
        return read_key(path)
    except ConfigError as error:
        raise Mistake(name, str(error)) from error


def _make(path: str) -> None:
    if os.path.isdir(path):
        return
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)
    except FileExistsError:
        pass  # another process was quicker, or it is no folder, which the caller sees
