"""What rules look at: who asks for what, what is known of the body, and every part in it."""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from icapscan.findings import CLEAN, PartPath, Verdict

Address = IPv4Address | IPv6Address
_IDENTITY_MAX = 16 * 1024
"""Characters of an identity field that are looked at: a person may be in hundreds of groups."""
_NEXT_URI = re.compile(r",\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""A comma between two group URIs; one within a distinguished name is followed by ``OU=`` or the like."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_COMMON_NAME = re.compile(r"(?:^|[/,;])\s*cn=([^,;/]+)", re.IGNORECASE)


class Direction(enum.Enum):
    """Which way a body travels."""

    UPLOAD = "upload"
    """REQMOD: from one of us into the web."""
    DOWNLOAD = "download"
    """RESPMOD: from the web to one of us."""
    MAIL = "mail"


class PartFacts(Struct, frozen=True):
    """One part. Names and the declared type are untrusted."""

    path: PartPath
    names: tuple[str, ...] = ()
    """Every name that some reader might show."""
    declared: str = ""
    """Media type that its container, or the HTTP head, says it has."""
    types: tuple[str, ...] = ()
    """Media types by content; several where its bytes can be read in several ways. Empty where no rule asks."""
    kinds: tuple[str, ...] = ()
    """Groups of types: ``program``, ``archive``, …; empty where no rule asks."""
    size: int = 0
    opened: tuple[str, ...] = ()
    """Formats that found parts in it; empty for a leaf."""
    base: PartPath = ""
    """What the paths of the parts in it begin with, before a ``/``."""


class Facts(Struct, frozen=True):
    """One transaction. ``final`` and ``parts_complete`` say how far what is missing means anything."""

    service: str = ""
    icap_method: str = ""
    """REQMOD or RESPMOD."""
    method: str = ""
    """Of the encapsulated HTTP request; empty where there is none."""
    directions: tuple[Direction, ...] = ()
    """Several where only the HTTP head, which anybody can write, says that this is mail: a rule that blocks then
    matches if one fits, a rule that allows if all do."""
    client: Address | None = None
    """X-Client-IP: whom the proxy serves. None where it does not say."""
    icap_client: Address | None = None
    """The proxy itself."""
    users: tuple[str, ...] = ()
    """The ways to write who the proxy says this is."""
    groups: tuple[str, ...] = ()
    host: str = ""
    path: str = ""
    url: str = ""
    size: int = 0
    verdict: Verdict = CLEAN
    parts: tuple[PartFacts, ...] = ()
    """The body itself, with the path ``""``, is one of them."""
    parts_complete: bool = True
    """There are no other parts. False where unpacking ended early."""
    final: bool = True
    """The body is complete and scanned. False: more findings, a larger size may follow."""


def address(text: bytes | str) -> Address | None:
    """The address in a field or of a peer (``host``, ``host:port``, ``[v6]:port``); None for anything else."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    text = text.strip()
    for one in (text, text.rpartition(":")[0]):
        try:
            found = ip_address(one.strip("[]").partition("%")[0])
        except ValueError:
            continue
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        return mapped or found
    return None


def identity(field: bytes | None) -> str:
    """A field that names somebody: base64 as draft-stecher-icap-subid has it, or plain, with or without a scheme."""
    if not field:
        return ""
    field = field[:_IDENTITY_MAX].strip()
    if b"://" not in field:
        try:
            decoded = base64.b64decode(field, validate=True).decode("utf-8").strip("\0")
        except (binascii.Error, ValueError):
            decoded = ""
        if decoded and decoded.isprintable():
            return decoded.strip()
    return field.decode("utf-8", "replace")


def user_names(authenticated: bytes | None, username: bytes | None = None) -> tuple[str, ...]:
    """Every way to write a user: ``LDAP://host/CN=Bob,OU=x`` is also ``CN=Bob,OU=x`` and ``Bob``."""
    return _readings([identity(authenticated), (username or b"").decode("utf-8", "replace")])


def group_names(field: bytes | None) -> tuple[str, ...]:
    """Every way to write each group in an X-Authenticated-Groups field: a list, coded as a whole or one by one."""
    whole = identity(field)
    if not whole:
        return ()
    if "://" in whole:
        return _readings(_NEXT_URI.split(whole))
    return _readings(identity(one.encode("utf-8", "replace")) for one in whole.split(","))


def _readings(texts: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in texts:
        text = text.strip()
        if not text:
            continue
        scheme = _SCHEME.match(text)
        plain = text[scheme.end() :] if scheme else text
        forms = [text, plain]
        if scheme:
            forms.append(plain.partition("/")[2] or plain)
        last = forms[-1]
        common = _COMMON_NAME.search(last)
        forms.append(common[1].strip() if common else re.split(r"[/\\]", last)[-1])
        found |= dict.fromkeys(form for form in forms if form)
    return tuple(found)


def host_and_path(url: bytes, host_field: bytes | None = None) -> tuple[str, str]:
    """Host (lower case, without port or final dot) and path (percent-decoded) of what is asked for."""
    text = url.decode("utf-8", "replace")
    host, path = "", text
    if not text.startswith("/"):
        try:
            split = urlsplit(text if "://" in text else f"//{text}")
            host, path = split.hostname or "", split.path
        except ValueError:
            pass  # e.g. a broken IPv6 address: then the path is all of it, and the host what the field says
    if not host and host_field:
        named = host_field.decode("utf-8", "replace").strip()
        bare, colon, port = named.rpartition(":")
        host = bare if colon and port.isdigit() else named
        host = host.strip("[]")
    return host.lower().rstrip("."), unquote(path.partition("?")[0].partition("#")[0], errors="replace")
