"""Files with a secret in them: read whole, and only where nobody else can read them."""

from __future__ import annotations

import os
import stat

from icapscan.errors import ConfigError


def read_private(path: str, most: int) -> bytes:
    """The first ``most`` bytes of a key file.

    Raises `ConfigError`, whose sentence says what is wrong with the file and names no setting.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise ConfigError(f"expected a key file, but {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"expected a key file, but {path} is no file")
        if found.st_mode & 0o077:
            raise ConfigError(f"expected a key file that only its owner can read; try: chmod 600 {path}")
        return os.read(descriptor, most)
    except OSError as error:
        raise ConfigError(f"expected a key file, but {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
