"""The secret of the webhook: from the configuration or from a file of its own."""

from __future__ import annotations

import base64
import binascii

from icapscan.errors import ConfigError
from icapscan.notify.settings import NotifySettings
from icapscan.private_file import read_private

LEAST, MOST = 24, 64
"""Bytes (Standard Webhooks 1.0.0, signature scheme)."""
_PREFIX = "whsec_"
_FILE_MAX = 1024


def secret_of(settings: NotifySettings) -> bytes | None:
    """The configured secret, or None. Raises `ConfigError`, whose sentence names no setting and shows nothing of it."""
    if settings.webhook_secret is not None:
        return decoded(settings.webhook_secret)
    if settings.webhook_secret_file is None:
        return None
    return decoded(read_private(settings.webhook_secret_file, _FILE_MAX).decode("latin-1"))


def decoded(text: str) -> bytes:
    """The bytes of a secret as it is written. Raises `ConfigError`."""
    try:
        secret = base64.b64decode(text.strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not LEAST <= len(secret) <= MOST:
        raise ConfigError(f"expected the base64 of {LEAST} to {MOST} random bytes, with or without {_PREFIX}")
    return secret
