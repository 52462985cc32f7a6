"""What a rule takes out of the traffic, into the quarantine.

The decision never depends on it: where an item cannot be kept, what was decided is done all the same, and the reply and
the log say that it could not.
"""

from __future__ import annotations

from icapscan.errors import ConfigError, QuarantineFailed
from icapscan.quarantine.item import Item
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.quarantine.sweep import sweep
from icapscan.quarantine.vault import SCANNER, Quarantine
from icapscan.servers.threads import Run
from icapscan.store import PartStore


class NotKept(Exception):
    """It is not in the quarantine. ``str(error)`` is one plain sentence for the log."""


class Keeper:
    """The quarantine of one generation of the configuration. Opened when the first item comes."""

    __slots__ = ("_settings", "_vault")

    def __init__(self, settings: QuarantineSettings) -> None:
        self._settings = settings
        self._vault: Quarantine | None = None

    async def keep(self, store: PartStore, item: Item, run: Run) -> str:
        """Keep the virgin body; returns its id when it is safely on the disk. Raises `NotKept`."""
        try:
            return await run(self._keep, store, item)
        except (QuarantineFailed, ConfigError) as error:
            raise NotKept(str(error)) from error

    def _keep(self, store: PartStore, item: Item) -> str:
        if self._vault is None:
            self._vault = Quarantine(self._settings)
        return self._vault.keep(store.pieces(), item)


def tidy(settings: QuarantineSettings) -> None:
    """Mend what a crash left behind, and remove what is too old. Raises `QuarantineFailed` and `ConfigError`."""
    sweep(Quarantine(settings), who=SCANNER)
