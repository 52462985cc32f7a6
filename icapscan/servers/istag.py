"""The ISTag: one short text for the state of everything that a verdict depends on (RFC 3507 4.7)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from icapscan import __version__
from icapscan.servers.settings import Settings

_LENGTH = 24
"""Hex digits; at most 32 characters are allowed (PROTOCOL S81)."""


def istag(versions: Mapping[str, str], settings: Settings) -> str:
    """Of engine versions (name to text), rules, limits, policy and this program; the same in all workers."""
    state = [
        __version__,
        sorted(versions.items()),
        msgspec.to_builtins(settings.policy),
        msgspec.to_builtins(settings.limits),
        msgspec.to_builtins(settings.unwrap),
        msgspec.to_builtins(settings.sanitize),
        settings.engines.report,
    ]
    return hashlib.sha256(msgspec.json.encode(state)).hexdigest()[:_LENGTH]
