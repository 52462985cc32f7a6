"""Who is told about a notice: pure, from the settings and what the notice says of its mail."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from msgspec import Struct

from icapscan.notify.contract import Notice
from icapscan.notify.settings import NotifySettings, RuleNotifySettings, Whom

TOLD_MAX = 50
"""Addresses that are told about one notice; a mail may have a thousand recipients."""
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)*{_LABEL}")
"""RFC 5321 4.1.2, without quoted strings and address literals."""
_DOMAIN = re.compile(rf"\.?(?:{_LABEL}\.)*{_LABEL}")
_PROGRAMS = re.compile(r"(?:mailer-daemon|postmaster|owner-.*|.*-(?:request|owner|bounces?)|no-?reply)@", re.IGNORECASE)
"""Local parts of addresses at which no person reads (RFC 3834 2, RFC 2142)."""
_ORDER: tuple[Whom, ...] = ("administrator", "sender", "recipient")


class Plan(Struct, frozen=True):
    """What holds for one rule."""

    to: tuple[Whom, ...]
    administrators: tuple[str, ...]
    template: str | None
    webhook: bool

    @property
    def mails(self) -> bool:
        """Whether anybody might get a mail."""
        return "sender" in self.to or "recipient" in self.to or bool("administrator" in self.to and self.administrators)


class Addressee(Struct, frozen=True):
    """One mail to be written."""

    address: str
    whom: Whom
    template: str | None = None


def plan_of(settings: NotifySettings, rule: str) -> Plan:
    """The general settings, with what is different for this rule."""
    own = settings.rules.get(rule, RuleNotifySettings())
    return Plan(
        settings.to if own.to is None else own.to,
        settings.administrators if own.administrators is None else own.administrators,
        own.template or settings.template,
        settings.webhook is not None and own.webhook is not False,
    )


def is_address(text: str) -> bool:
    """Whether ``text`` can be written into SMTP and header fields as it is: ASCII, nothing quoted, a domain behind."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None


def is_domain(text: str) -> bool:
    """Whether ``text`` can stand in ``own_domains``."""
    return len(text) <= 254 and _DOMAIN.fullmatch(text) is not None


class People:
    """Finds the addressees of notices."""

    __slots__ = ("_administrators", "_domains", "_networks", "_settings")

    def __init__(self, settings: NotifySettings) -> None:
        self._settings = settings
        self._domains = tuple(domain.lower() for domain in settings.own_domains)
        self._networks = [ip_network(one, strict=False) for one in settings.own_networks]
        lists = [settings.administrators, *(rule.administrators or () for rule in settings.rules.values())]
        self._administrators = frozenset(address.lower() for one in lists for address in one)

    def told(self, notice: Notice) -> tuple[list[Addressee], int]:
        """Each address once, administrators first, with the template of the first rule that wants it told; and how
        many addresses more there are than are told about one notice.
        """
        found: dict[str, Addressee] = {}
        plans = [plan_of(self._settings, rule) for rule in notice.rules]
        for whom in _ORDER:
            for plan in plans:
                if whom in plan.to:
                    for address in self._addresses(whom, plan, notice):
                        found.setdefault(address.lower(), Addressee(address, whom, plan.template))
        told = list(found.values())
        return told[:TOLD_MAX], len(told[TOLD_MAX:])

    def _addresses(self, whom: Whom, plan: Plan, notice: Notice) -> Iterable[str]:
        if whom == "administrator":
            return () if self._came_back(notice) else plan.administrators
        if not _answerable(notice):
            return ()
        return self._senders(notice) if whom == "sender" else filter(self._ours, notice.recipients)

    def _senders(self, notice: Notice) -> Iterator[str]:
        """The sender, where the mail came from one of us and says so: anything else would be backscatter."""
        assert notice.sender is not None and notice.marks is not None
        address = notice.sender
        from_us = self._ours(address) and self._from_us(notice.client)
        if from_us and not notice.marks.bulk and not _PROGRAMS.match(address):
            yield address

    def _ours(self, address: str) -> bool:
        """Whether this is an address in one of our own domains."""
        if not is_address(address):
            return False
        domain = address.rpartition("@")[2].lower()
        return any(domain == one.lstrip(".") or (one.startswith(".") and domain.endswith(one)) for one in self._domains)

    def _from_us(self, client: str) -> bool:
        try:
            address = ip_address(client.strip().strip("[]").partition("%")[0])
        except ValueError:
            return False  # nobody says whom the mail came from
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)

    def _came_back(self, notice: Notice) -> bool:
        """One of our own notices met the scanner on its way. A field of ours alone proves nothing: whoever sends a
        virus may write it. So its envelope counts: whoever forges that hides nothing but a mail to administrators.
        """
        if notice.marks is None or not notice.marks.own:
            return False
        if notice.recipients:
            return all(address.lower() in self._administrators for address in notice.recipients)
        return notice.verdict == "clean" and notice.decision == "allow"


def _answerable(notice: Notice) -> bool:
    """Whether people in the envelope may get a mail: a person has written theirs, as far as can be seen."""
    marks = notice.marks
    if notice.direction != "mail" or not notice.sender or marks is None:
        return False
    return not (marks.own or marks.automatic)
