"""The root of the configuration: what ``icapscan serve`` has, and a table for each mail adapter."""

from __future__ import annotations

from icapscan.adapters.milter_settings import MilterSettings
from icapscan.adapters.settings import SmtpSettings
from icapscan.servers.settings import Settings


class EverySettings(Settings, frozen=True, forbid_unknown_fields=True):
    """One file may hold all of them, so that every program knows every table."""

    milter: MilterSettings = MilterSettings()
    smtp: SmtpSettings = SmtpSettings()
