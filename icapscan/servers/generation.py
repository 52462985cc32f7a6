"""Everything a transaction needs that a reload may change, held together so that one transaction sees one state."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from icapscan.findings import Verdict
from icapscan.notify.notifier import Notifier
from icapscan.pipeline import Scanner
from icapscan.policy.decide import Decision, Policy
from icapscan.servers.keeping import Keeper
from icapscan.servers.late import LateAnswers
from icapscan.servers.profiles import PROFILES, Profile
from icapscan.servers.sanitizing import Sanitizer
from icapscan.servers.settings import ServiceSettings, Settings
from icapscan.servers.stationery import Stationery


class Service(Struct, frozen=True):
    """One ICAP service as configured."""

    name: str
    settings: ServiceSettings
    methods: frozenset[bytes]
    echo: bool
    """It copies back and scans nothing."""
    profile: Profile
    """How it speaks of what was found."""


class Page(Struct, frozen=True):
    """A rendered block page."""

    html: bytes
    language: bytes


class RenderPage(Protocol):
    """Makes the page that a person sees in place of what was blocked."""

    def __call__(
        self, accept_language: bytes, decision: Decision, verdict: Verdict, url: bytes, reference: str
    ) -> Page: ...


class Generation:
    """One state of configuration, engines and ISTag. Retired by a reload, freed when its last transaction ended."""

    __slots__ = (
        "_on_free",
        "_retired",
        "keeper",
        "late",
        "notifier",
        "policy",
        "render_page",
        "routes",
        "sanitizer",
        "scanner",
        "settings",
        "stationery",
        "users",
    )

    def __init__(
        self,
        settings: Settings,
        scanner: Scanner,
        istag: str,
        render_page: RenderPage,
        on_free: Callable[[], None] = lambda: None,
        late: LateAnswers | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        self.settings = settings
        self.policy = Policy(settings.policy)
        self.scanner = scanner
        self.stationery = Stationery(istag)
        self.render_page = render_page
        self.sanitizer = Sanitizer(settings.sanitize, contact=settings.page.contact, host=socket.gethostname())
        self.keeper = Keeper(settings.quarantine)
        self.routes = routes(settings)
        self.late = late or LateAnswers()
        self.notifier = notifier
        """Tells whom rules want told; None where none of them does."""
        self._on_free = on_free
        self.users = 0
        """Transactions that began with this generation and have not ended; each counts itself in."""
        self._retired = False

    def leave(self) -> None:
        """One of the transactions counted in `users` ended."""
        self.users -= 1
        if self._retired and self.users == 0:
            self._on_free()

    def retire(self) -> None:
        """No new transaction will use it."""
        self._retired = True
        if self.users == 0:
            self._on_free()

    def set_istag(self, istag: str) -> None:
        """The engines changed by themselves (clamd reloaded its database)."""
        if istag != self.stationery.istag:
            self.stationery = Stationery(istag)


def routes(settings: Settings) -> dict[bytes, Service]:
    """Normal URI path to service: each by its name and its aliases (PROTOCOL S27, E)."""
    table: dict[bytes, Service] = {}
    for name, service in settings.services.items():
        methods = frozenset(method.encode() for method in service.methods)
        route = Service(name, service, methods, service.kind == "echo", PROFILES[service.profile])
        for alias in (name, *service.aliases):
            table[b"/" + alias.encode() if alias else b""] = route
    return table
