"""An ICAP service's URL taken apart (RFC 3507 4.2; PROTOCOL C1, C2)."""

from __future__ import annotations

import re

from msgspec import Struct

from icapscan.clients.errors import InvalidArgument

_URL = re.compile(
    r"(?P<scheme>icaps?)://(?:[^/?#@\s]*@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%[0-9A-Za-z._~-]+)?\]|[0-9A-Za-z._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-\"$-\[\]-~]*)?",
    re.IGNORECASE,
)
_PORTS = {"icap": 1344, "icaps": 11344}


class ServiceAddress(Struct, frozen=True):
    """Where a service is and how it is called on the wire."""

    host: str
    """To connect to; an IPv6 address without brackets."""
    port: int
    tls: bool
    authority: str
    """For the Host field: brackets around IPv6, the port where it is not the usual one, no zone, no user."""
    uri: str
    """For the request line."""


def parse_url(url: str) -> ServiceAddress:
    """``icap://host[:port]/path`` or ``icaps://``. A user name in it is dropped. Raises `InvalidArgument`."""
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidArgument(f"An ICAP URL looks like icap://host:1344/service, not like {url[:200]!r}.")
    scheme = match["scheme"].lower()
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 65536:
        raise InvalidArgument(f"There is no port {port}.")
    host = match["host"].strip("[]")
    shown = f"[{host.partition('%')[0]}]" if match["host"].startswith("[") else host
    authority = shown if port == _PORTS[scheme] else f"{shown}:{port}"
    return ServiceAddress(host, port, scheme == "icaps", authority, f"{scheme}://{authority}{match['path'] or '/'}")
