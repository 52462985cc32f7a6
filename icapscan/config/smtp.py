"""The table ``[smtp]``: values that cannot be used, each with its place."""

from __future__ import annotations

import ipaddress

from icapscan.adapters.settings import SmtpSettings
from icapscan.clients.address import parse_url
from icapscan.clients.errors import InvalidArgument
from icapscan.config.sources import Sources
from icapscan.errors import ConfigError

_PORT_MAX = 65535


def check_smtp(smtp: SmtpSettings, sources: Sources) -> None:
    """Raises `ConfigError` for the first key that cannot be used; the sentence names it and where it was given."""

    def fail(key: str, sentence: str) -> ConfigError:
        return ConfigError(f"smtp.{key} ({sources.origin(('smtp', *key.split('.')))}): {sentence}.")

    addresses = [("listen", one) for one in smtp.listen]
    addresses += [(f"hop.{name}", getattr(smtp.hop, name)) for name in ("inbound", "relay", "authenticated")]
    for key, address in addresses:
        if address and int(address.rpartition(":")[2]) > _PORT_MAX:
            raise fail(key, f"expected a port up to {_PORT_MAX}, got {address}")
    if not smtp.listen:
        raise fail("listen", "expected at least one address")
    if not smtp.hop.inbound:
        raise fail("hop.inbound", "expected the address of a mail server")
    if not smtp.icap:
        raise fail("icap", "expected at least one ICAP URL")
    for url in smtp.icap:
        try:
            parse_url(url)
        except InvalidArgument as error:
            raise fail("icap", str(error).rstrip(".")) from error
    networks = [("proxy_from", one) for one in smtp.proxy_from] + [("xforward_from", one) for one in smtp.xforward_from]
    for key, text in networks:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise fail(key, f'expected networks such as "10.0.0.0/8", got "{text}"') from error
    if smtp.tls != "off" and not smtp.tls_certificate:
        raise fail("tls", "expected smtp.tls_certificate to be set too")
    if smtp.hostname and not (smtp.hostname.isascii() and smtp.hostname.isprintable() and " " not in smtp.hostname):
        raise fail("hostname", "expected a host name in ASCII")
