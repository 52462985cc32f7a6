"""The table ``[smtp]``: everything that ``icapscan smtp`` is configured with, as frozen values."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from icapscan.limits import GIB, MIB, Bytes, Count, Seconds

Address = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\s]*):\d{1,5}$")]
"""``host:port``; IPv6 in brackets."""
HopAddress = Annotated[str, Meta(pattern=r"^$|^(\[[0-9a-fA-F:.%a-z]+\]|[^:\s]+):\d{1,5}$")]
"""The same, or empty: there is none."""


class HopSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[smtp.hop]``: how next hops are spoken to, whichever it is."""

    inbound: HopAddress = "127.0.0.1:1025"
    """Where mail goes that no rule sends elsewhere. This hop must accept for its own domains only."""
    relay: HopAddress = ""
    """For clients that ``relay_rules`` gives RELAYCLIENT. Empty: the inbound hop."""
    authenticated: HopAddress = ""
    """For clients that have authenticated; it has the users where ``auth = "pass"``. Empty: as without AUTH."""
    tell: Literal["none", "xclient", "xforward", "proxy-v1", "proxy-v2"] = "none"
    """How the next hop learns who the client is. A PROXY header goes to any hop. One that does not offer XCLIENT to us
    gets no mail then, for it would take the proxy for the client; XFORWARD is told where it is offered."""
    tls: Literal["off", "may", "must", "verify"] = "off"
    """STARTTLS towards the next hop: ``must`` defers mail where there is none, ``verify`` where the certificate is not
    good for its name."""
    ca: str | None = None
    """File of trusted certificates (PEM) for ``verify``; None = the system's."""


class SmtpTimeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """``[smtp.timeouts]``: one for each thing that is waited for (RFC 5321 4.5.3.2)."""

    command: Seconds = 300.0
    """For the client's next command."""
    data_block: Seconds = 180.0
    """For the next bytes of mail data."""
    data_total: Seconds = 3600.0
    """For one whole message."""
    write: Seconds = 300.0
    """A peer that takes nothing of what is sent for so long is cut off."""
    connect: Seconds = 30.0
    greeting: Seconds = 60.0
    """RFC 5321 allows 300 s. One on the same site that takes longer is better given up: mail is deferred then."""
    reply: Seconds = 300.0
    """For the next hop's reply to a command."""
    data_start: Seconds = 120.0
    """For its reply to DATA."""
    data_end: Seconds = 600.0
    """For its reply to the message."""
    scan: Seconds = 540.0
    """For the verdict, from the end of the message on. Clients wait 600 s for the reply."""
    keep: Seconds = 60.0
    """NOOP goes to the next hop so often while a message arrives or is scanned. Postfix waits 300 s for a command."""
    auth: Seconds = 30.0
    """For Dovecot's answer."""
    tls: Seconds = 30.0
    drain: Seconds = 60.0
    """SIGTERM: messages that are under way may take so long."""


class SmtpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[smtp]``: the before-queue proxy."""

    listen: tuple[Address, ...] = ("127.0.0.1:3000",)
    icap: tuple[str, ...] = ("icap://127.0.0.1:1344/avscan",)
    """Services that are asked: the least busy one that works."""
    hostname: str = ""
    """In the greeting and in Received; empty = the machine's name."""
    hop: HopSettings = HopSettings()
    timeouts: SmtpTimeouts = SmtpTimeouts()
    relay_rules: str | None = None
    """``tcp.smtp.cdb`` as made by tcprules; read anew when it is replaced."""
    proxy_from: tuple[str, ...] = ()
    """Networks whose connections begin with a PROXY header, always."""
    xforward_from: tuple[str, ...] = ()
    """Networks whose XFORWARD is believed: a Postfix in front tells by it who the client is."""
    bare_line_ends: Literal["refuse", "normalize"] = "refuse"
    """A message with a CR or LF that stands alone: refused with 550 5.6.11, or each becomes CR LF before the scan."""
    chunking: Literal["take", "hide"] = "take"
    """BDAT: taken, and sent on as DATA where the next hop lacks it; or not offered."""
    received: bool = True
    """Add a Received field."""
    scanned_field: bool = True
    """Add an X-Virus-Scanned field."""
    tls: Literal["off", "may", "must"] = "off"
    """STARTTLS offered to clients; ``must``: mail is taken after it only."""
    tls_certificate: str | None = None
    tls_key: str | None = None
    auth: Literal["pass", "dovecot", "off"] = "pass"
    """AUTH: passed through to the hop that has the users, checked with Dovecot, or not offered."""
    auth_needs_tls: bool = False
    """AUTH is offered and taken after STARTTLS only."""
    dovecot: str = "/run/dovecot/auth-client"
    """Dovecot's authentication socket."""
    max_connections: Count = 500
    max_per_client: Count = 250
    """A relay MTA in front is one client."""
    max_commands: Count = 10_000
    """Commands of one connection."""
    max_recipients: Count = 1000
    """Of one message."""
    max_errors: Count = 20
    """Commands of one connection that were answered with 5xx or make no sense."""
    max_size: Bytes = 100 * MIB
    """Of one message; 0 = no bound."""
    icap_connections: Count = 100
    """To one ICAP service."""
    memory: Bytes = 256 * MIB
    disk: Bytes = 16 * GIB
    """For the messages that are under way, together."""
    spool: str | None = None
    """Folder for unlinked files of large messages; None = the system's temporary folder."""
