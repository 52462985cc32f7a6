"""Everything ``icapscan serve`` is configured with, as frozen values. `icapscan.config` reads them from TOML."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from icapscan.engines.cache import CacheSettings
from icapscan.engines.settings import EnginesSettings
from icapscan.limits import BYTES, KIB, MIB, SECONDS, Bytes, Count, Limits, Seconds
from icapscan.notify.settings import NotifySettings
from icapscan.policy.settings import PolicySettings
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.sanitize.settings import SanitizeSettings
from icapscan.unwrap.settings import UnwrapSettings

Address = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\s]*):\d{1,5}$")]
"""``host:port``; IPv6 in brackets; port 0 = any free port."""


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[server]``: the ICAP ports, processes and times."""

    listen: tuple[Address, ...] = ("127.0.0.1:1344",)
    tls_listen: tuple[Address, ...] = ()
    """ICAPS: TLS from the first byte. Convention: port 11344."""
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    """When set, a client certificate signed by it is required."""
    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    """0 = one for each processor."""
    max_connections: Count = 1000
    """Over all workers; announced as Max-Connections. One more gets 503."""
    max_requests: Annotated[int, Meta(ge=0)] = 0
    """Requests on one connection before it is closed; 0 = unlimited."""
    idle_timeout: Seconds = 600.0
    """A connection with no byte of a next request is closed silently. c-icap: 600 s."""
    head_timeout: Seconds = 30.0
    """From the first byte of a request to the end of its heads; then 408."""
    body_timeout: Seconds = 300.0
    """Longest gap between two pieces of a body; then 408. c-icap: 300 s."""
    body_total: Seconds = 3600.0
    """Longest time for one whole body; then 408."""
    min_rate: Bytes = 0
    """Bytes a second that a body must average once 30 s have passed; 0 = any rate."""
    write_timeout: Seconds = 300.0
    """A client that reads nothing of an answer for so long is cut off."""
    final_crlf_grace: Seconds = 0.2
    """Wait for the last CRLF of a body that some clients never send."""
    drain_timeout: Seconds = 10.0
    """SIGTERM: running transactions may take so long."""
    linger_bytes: Bytes = 64 * MIB
    linger_timeout: Seconds = 30.0
    """After an early error answer: so much unread input is drained, so long, before the socket is closed."""
    tolerate_bare_lf: bool = False
    """Accept ICAP heads with bare LF line ends. Off: 400."""
    spool: str | None = None
    """Folder for unlinked files of large bodies; None = the system's temporary folder."""


class AdminSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[admin]``: /healthz, /readyz, /metrics."""

    enabled: bool = True
    listen: Address = "127.0.0.1:8344"


class DeliverySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[services.NAME.delivery]``: what a person waiting for a large or slow download (RESPMOD) gets meanwhile."""

    kind: Literal["wait", "trickle", "progress"] = "wait"
    """``wait``: nothing before the verdict. ``trickle``: the beginning of the body, unscanned, at a low rate; its last
    part only after the verdict. ``progress``: browsers get a page with a bar, and the download at its end; for anything
    else, ``wait``."""
    start: Seconds = 10.0
    """From the request to the first byte that is sent early."""
    rate: Annotated[int, Meta(ge=1, extra=BYTES)] = 1 * KIB
    """Trickled bytes a second."""
    hold: Annotated[int, Meta(ge=1 * KIB, extra=BYTES)] = 256 * KIB
    """The last bytes received are not trickled. What is not longer than this never leaves before its verdict."""
    late: Literal["cut", "trailers"] = "cut"
    """When something bad is found after bytes were trickled: cut the connection, or, where the client offered ICAP
    trailers and the length of the body is known, end it early and say so in a trailer."""
    keep: Annotated[float, Meta(gt=0, le=3600, extra=SECONDS)] = 600.0
    """Seconds. So long a cut download is remembered for the page on the next try, and a finished one can be fetched."""


class ServiceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[services.NAME]``: one ICAP service at ``/NAME`` and its aliases."""

    kind: Literal["scan", "echo"] = "scan"
    methods: tuple[Literal["REQMOD", "RESPMOD"], ...] = ("REQMOD", "RESPMOD")
    aliases: tuple[str, ...] = ()
    """Further paths, without the leading slash; ``""`` is the root."""
    preview: Bytes = 4 * KIB
    """Announced Preview; 0 announces ``Preview: 0``."""
    options_ttl: Seconds = 3600.0
    traffic: Literal["auto", "web", "mail"] = "auto"
    """What comes here, for `icapscan.policy`. ``auto``: as the request says, which a stranger may have written."""
    profile: Literal["generic", "trend", "symantec", "mcafee", "kaspersky", "clearswift"] = "generic"
    """The product whose clients read the answers: `icapscan.servers.profiles`, docs/profiles.md."""
    delivery: DeliverySettings = DeliverySettings()
    violations: bool = False
    """Add X-Violations-Found to blocked answers. Its folded lines upset line-oriented clients."""


SCAN_ALIASES = (
    "", "srv_clamav", "virus_scan", "squidclamav", "scan", "respmod", "reqmod", "RESPMOD", "req", "resp", "av/respmod",
    "av/reqmod", "wwreqmod", "wwrespmod", "interscan", "sandblast", "SYMCScanResp-AV", "SYMCScanReq-AV",
    "SYMCScanRespEx-AV", "AVSCANRESP", "AVSCANREQ", "OMSScanReq-AV", "OMSScanResp-AV",
)  # fmt: skip
"""Paths that ICAP clients use by default (PROTOCOL section E)."""

DEFAULT_SERVICES = {
    "avscan": ServiceSettings(aliases=SCAN_ALIASES),
    "echo": ServiceSettings(kind="echo"),
}


class PageSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[page]``: the block page."""

    template: str | None = None
    """A jinja2 file in place of the shipped one."""
    contact: str = ""
    """Shown to the person whose download was blocked, e.g. a mail address."""


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: one line a transaction."""

    format: Literal["plain", "json"] = "plain"
    file: str | None = None
    """Appended to; None = standard error."""
    transactions: bool = True
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration of one ``icapscan serve``."""

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    engines: EnginesSettings = EnginesSettings()
    limits: Limits = Limits()
    unwrap: UnwrapSettings = UnwrapSettings()
    policy: PolicySettings = PolicySettings()
    quarantine: QuarantineSettings = QuarantineSettings()
    notify: NotifySettings = NotifySettings()
    sanitize: SanitizeSettings = SanitizeSettings()
    services: dict[str, ServiceSettings] = field(default_factory=DEFAULT_SERVICES.copy)
    page: PageSettings = PageSettings()
    log: LogSettings = LogSettings()
    cache: CacheSettings = CacheSettings()
