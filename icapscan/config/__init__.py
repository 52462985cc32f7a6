"""Reads the configuration into frozen values: TOML file, environment, ``--set``; and shows it as TOML again.

Every key with its default and its reason is in docs/configuration.md.
"""

from __future__ import annotations

from icapscan.config.reader import load, load_every
from icapscan.config.show import show

__all__ = ["load", "load_every", "show"]
