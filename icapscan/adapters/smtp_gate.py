"""What all sessions of one proxy share: settings, rules, counts, the ICAP services, the room for messages."""

from __future__ import annotations

import ipaddress
import ssl
from collections import Counter
from collections.abc import Callable

from icapscan.adapters.asking import mail_client_settings
from icapscan.adapters.relay_rules import RelayRules, Standing
from icapscan.adapters.settings import SmtpSettings
from icapscan.adapters.smtp_message import Envelope, Message
from icapscan.adapters.smtp_record import MessageRecord, line_of
from icapscan.clients.balance import IcapPool
from icapscan.clients.settings import ClientSettings
from icapscan.errors import ConfigError
from icapscan.limits import Limits
from icapscan.store import Purse


class Gate:
    """One for each proxy. ``write`` takes lines of the log."""

    def __init__(self, settings: SmtpSettings, write: Callable[[str], None]) -> None:
        """Raises `ConfigError` and `InvalidArgument` for settings that cannot be used."""
        self.settings = settings
        self.tls = _tls_context(settings)
        self._write = write
        self._rules = RelayRules(settings.relay_rules) if settings.relay_rules is not None else None
        self._proxies = tuple(_network(text) for text in settings.proxy_from)
        self._forwarders = tuple(_network(text) for text in settings.xforward_from)
        self._clients: Counter[str] = Counter()
        self._purse = Purse(settings.memory, settings.disk)
        self._limits = Limits()
        self.pool = IcapPool(settings.icap, settings=_asking(settings))

    def speaks_for_others(self, address: str) -> bool:
        """Whether a connection from there begins with a PROXY header."""
        parsed = _parsed(address)
        return any(parsed in network for network in self._proxies)

    def may_forward(self, address: str) -> bool:
        """Whether XFORWARD from there is believed."""
        parsed = _parsed(address)
        return any(parsed in network for network in self._forwarders)

    def standing(self, address: str) -> Standing:
        """What the relay rules say. Raises `RulesUnreadable`."""
        return self._rules.standing(address) if self._rules is not None else Standing()

    def admit(self, address: str) -> bool:
        """Count a client in; False: there are too many connections."""
        settings = self.settings
        if self._clients.total() >= settings.max_connections or self._clients[address] >= settings.max_per_client:
            return False
        self._clients[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count a client out; "" for one that was not admitted."""
        if address:
            self._clients[address] -= 1
            if not self._clients[address]:
                del self._clients[address]

    def new_message(self, envelope: Envelope, most: int) -> Message:
        """Room for one message of at most ``most`` bytes (0 = any)."""
        return Message(envelope, self.pool, self._purse, self._limits, self.settings.spool, most)

    def record(self, record: MessageRecord) -> None:
        """The log line of one message."""
        self._write(line_of(record))

    def complain(self, sentence: str) -> None:
        """A log line about something that went wrong."""
        self._write("smtp " + sentence.replace("\r", "?").replace("\n", "?"))


def _asking(settings: SmtpSettings) -> ClientSettings:
    return mail_client_settings(settings.timeouts.scan, settings.icap_connections, "icapscan-smtp")


def _tls_context(settings: SmtpSettings) -> ssl.SSLContext | None:
    if settings.tls == "off":
        return None
    if not settings.tls_certificate:
        raise ConfigError("smtp.tls_certificate: expected a PEM file, because smtp.tls is not off.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"smtp.tls_certificate: expected a PEM certificate and its key in {settings.tls_certificate}: {error}."
        ) from error
    return context


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ConfigError(
            f"smtp.proxy_from, smtp.xforward_from: expected a network such as 10.0.0.0/8, got {text!r}."
        ) from error


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
