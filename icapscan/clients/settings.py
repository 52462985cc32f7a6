"""How an ICAP client behaves: frozen values, all with a default that suits a mail relay."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from icapscan.limits import GIB, KIB, Bytes, Count, Seconds

Share = Annotated[int, Meta(ge=0)]


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """One for each thing that is waited for, in seconds (PROTOCOL C43)."""

    queue: Seconds = 30.0
    """For a free connection, when all that may be open are in use."""
    connect: Seconds = 5.0
    tls: Seconds = 5.0
    options: Seconds = 10.0
    """For one OPTIONS request with everything in it."""
    proceed: Seconds = 60.0
    """From the end of the preview to ``100 Continue`` or the answer."""
    answer: Seconds = 180.0
    """From the last byte sent to the first byte of the answer: the time for scanning."""
    idle: Seconds = 60.0
    """Without a byte in either direction, while sending or within an answer."""
    total: Seconds = 600.0
    """For one scan with everything in it. A relay's data timeout is 10 min (RFC 5321 4.5.3.2.6)."""


class TlsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """For ``icaps://`` only."""

    verify: bool = True
    """Check the certificate and the name. Off only for tests: an answer of a stranger is then believed."""
    ca: str | None = None
    """File of trusted certificates (PEM); None = the system's."""
    certificate: str | None = None
    key: str | None = None
    """Our own certificate and key, where the server wants one."""
    server_name: str | None = None
    """Name to expect in place of the host of the URL (SNI and check)."""


class ClientSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything about one client."""

    timeouts: Timeouts = Timeouts()
    tls: TlsSettings = TlsSettings()
    connections: Count = 10
    """Most connections to one server; its Max-Connections may lower it."""
    keep_alive: bool = True
    """Off: every request says ``Connection: close``."""
    keep_idle: Seconds = 50.0
    """An unused connection older than this is not used again; servers close theirs after 60 s and more."""
    options: Literal["use", "strict", "never"] = "use"
    """``use``: a server that fails to answer OPTIONS is scanned with all the same; ``strict``: it is an error."""
    options_retry: Seconds = 30.0
    """OPTIONS that failed, or that a failed connection or a new ISTag puts in doubt, are asked for again after this."""
    preview: Literal["auto", "never"] | Share = "auto"
    """``auto``: as OPTIONS announces; a number forces a preview of so many bytes. ``never`` makes sure that a server
    sees every byte before it answers."""
    preview_most: Bytes = 64 * KIB
    """Our own bound on an announced preview."""
    allow_204: bool = True
    """A scan can always honour 204: the body is replayable."""
    offer_206: bool = False
    offer_trailers: bool = False
    """ICAP trailers (draft-rousskov-icap-trailers); verdict headers in them then count."""
    request_head: bool = True
    """RESPMOD with a request head too. Some servers answer 418 without one, which is then sent after all."""
    identity: Literal["auto", "always", "never"] = "auto"
    """X-Client-IP and X-Authenticated-User: ``auto`` where the server lists them in X-Include."""
    user_agent: str = "icapscan"
    host: str = "scan.invalid"
    """Host of the made-up URL in the HTTP heads."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further ICAP header fields."""
    answer_most: Bytes = 2 * GIB
    """Largest adapted body that is read."""
    cache_entries: Share = 0
    """Verdicts that are remembered, by URL, ISTag and SHA-256; 0 = none."""
    cache_seconds: Seconds = 300.0
    failures: Count = 3
    """`IcapPool`: failures in a row after which a server is suspended."""
    suspend: Seconds = 30.0
    """`IcapPool`: a suspended server is probed by OPTIONS after this."""
