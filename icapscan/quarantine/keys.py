"""The master key and what is derived from it.

HKDF-SHA256 (RFC 5869) makes a key for each item, with a random salt and the item's id, and one for the field that marks
released mails, so that the master key itself never encrypts anything.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets

from icapscan.errors import ConfigError, QuarantineFailed
from icapscan.private_file import read_private

KEY_SIZE = 32
SALT_SIZE = 32
NUMBER_SIZE = 8
_FILE_MAX = 1024
_DISTINCT_LEAST = 8
"""32 random bytes with fewer different values do not happen; a file of zeros does."""


class Key:
    """One master key. It shows only its number."""

    __slots__ = ("_master", "number")

    def __init__(self, master: bytes) -> None:
        self._master = master
        self.number = self._derived(b"number", b"", NUMBER_SIZE)
        """Tells keys apart, and nothing about them."""

    def __repr__(self) -> str:
        return f"Key({self.number.hex()})"

    def of_item(self, salt: bytes, name: str) -> bytes:
        """The key of the item with that id: 32 bytes."""
        return self._derived(b"item " + name.encode("ascii"), salt, KEY_SIZE)

    def release_code(self, name: str) -> str:
        """What proves that we released the item with that id: 32 hex digits."""
        return hmac.new(self._derived(b"release", b"", KEY_SIZE), name.encode("ascii"), hashlib.sha256).hexdigest()[:32]

    def _derived(self, purpose: bytes, salt: bytes, size: int) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        derive = HKDF(algorithm=SHA256(), length=size, salt=salt or None, info=b"icapscan quarantine 1 " + purpose)
        return derive.derive(self._master)


class Keys:
    """The key for new items, and those of the past."""

    __slots__ = ("_all", "current")

    def __init__(self, current: Key, old: tuple[Key, ...] = ()) -> None:
        self.current = current
        self._all = {key.number: key for key in (*old, current)}

    def get(self, number: bytes) -> Key:
        """Raises `QuarantineFailed` for a key that is not configured."""
        key = self._all.get(number)
        if key is None:
            raise QuarantineFailed(
                f"It is encrypted with the key {number.hex()}, which is neither quarantine.key_file "
                "nor one of quarantine.old_key_files."
            )
        return key

    def is_release_code(self, name: str, code: str) -> bool:
        """Whether one of our keys made this code for the item with that id."""
        given = code.encode("utf-8", "replace")
        return any(hmac.compare_digest(key.release_code(name).encode(), given) for key in self._all.values())


def read_key(path: str) -> Key:
    """The key in a file. Raises `ConfigError`, whose sentence says what is wrong with the file and names no setting."""
    data = read_private(path, _FILE_MAX + 1)
    master = _decoded(data)
    if master is None:
        raise ConfigError(
            f"expected {KEY_SIZE} random bytes, or their base64, in {path}, as icapscan quarantine key writes them"
        )
    return Key(master)


def write_key(path: str) -> Key:
    """Make a new key in a new file with mode 0600. Raises `QuarantineFailed` where it cannot, or the file is there."""
    master = secrets.token_bytes(KEY_SIZE)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise QuarantineFailed(f"{path} is there already, and a key is never overwritten.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise QuarantineFailed(f"The key cannot be written to {path}: {reason}.") from error
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, base64.b64encode(master) + b"\n")
        os.fsync(descriptor)
    except OSError as error:
        os.unlink(path)
        raise QuarantineFailed(f"The key cannot be written to {path}: {error.strerror}.") from error
    finally:
        os.close(descriptor)
    return Key(master)


def _decoded(data: bytes) -> bytes | None:
    """The key in what a file holds; None where it is none, or can be none that was made at random."""
    master = data
    if data.isascii():  # so a password of 32 letters, or half a key in hex, is not taken for a key
        try:
            master = base64.b64decode(data.strip(), validate=True)
        except binascii.Error:
            return None
    return master if len(master) == KEY_SIZE and len(set(master)) >= _DISTINCT_LEAST else None
