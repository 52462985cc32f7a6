"""The table ``[milter]``: everything that ``icapscan milter`` is configured with, as frozen values."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from icapscan.limits import GIB, MIB, Bytes, Count, Seconds

MilterAddress = Annotated[
    str, Meta(pattern=r"^(inet:\d{1,5}(@[^@\s:]+)?|inet6:\d{1,5}(@[0-9A-Fa-f:.%a-z]+)?|(unix|local):/.+)$")
]
"""As Sendmail writes it: ``inet:port@host``, ``inet6:port@address`` or ``unix:/path``."""


class MilterTimeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """``[milter.timeouts]``: one for each thing that is waited for."""

    command: Seconds = 7200.0
    """For the MTA's next command. libmilter: 7,210 s, so that an idle SMTP client ends its session first."""
    scan: Seconds = 540.0
    """For the verdict, from the end of the message on. SMTP clients wait 600 s for the reply."""
    progress: Seconds = 20.0
    """So often the MTA is told that the scan goes on. Postfix waits 300 s without that."""
    write: Seconds = 60.0
    """An MTA that takes nothing of what is sent for so long is cut off."""
    drain: Seconds = 60.0
    """SIGTERM: messages that are under way may take so long."""


class MilterSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[milter]``: the filter for Postfix and Sendmail."""

    listen: tuple[MilterAddress, ...] = ("inet:8891@127.0.0.1",)
    socket_mode: Annotated[str, Meta(pattern="^[0-7]{3}$")] = "660"
    """Permissions of Unix sockets, octal. The MTA's user must be able to write."""
    icap: tuple[str, ...] = ("icap://127.0.0.1:1344/avscan",)
    """Services that are asked: the least busy one that works."""
    refused: Literal["reject", "quarantine"] = "reject"
    """A message that the service refuses: 554 5.7.1, or accepted and put on hold in the MTA's queue."""
    scanned_field: bool = True
    """Add an X-Virus-Scanned field."""
    hostname: str = ""
    """In that field; empty = the machine's name."""
    timeouts: MilterTimeouts = MilterTimeouts()
    max_connections: Count = 500
    """From MTAs. One more is closed at once, which the MTA takes as its milter_default_action says."""
    max_size: Bytes = 100 * MIB
    """Of one message, 552 5.3.4 beyond it; 0 = no bound."""
    icap_connections: Count = 100
    """To one ICAP service."""
    memory: Bytes = 256 * MIB
    disk: Bytes = 16 * GIB
    """For the messages that are under way, together."""
    spool: str | None = None
    """Folder for unlinked files of large messages; None = the system's temporary folder."""
