"""Postfix's XCLIENT and XFORWARD: who the client is, told as attributes (XCLIENT_README, XFORWARD_README).

Values are xtext (RFC 3461 4), so that nothing that a client chose can become another attribute or command.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping

from icapscan.errors import ProtocolError
from icapscan.wire.smtp_command import Command, command

_UNAVAILABLE = "[UNAVAILABLE]"
_TEXT_MOST = 255
"""Characters of one value. The READMEs ask for no more."""
FORWARDED = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
"""The attributes of XFORWARD, as they are offered."""
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*")
_PLAIN = frozenset(range(33, 127)) - frozenset(b"+=")


def xtext(value: str) -> bytes:
    """``value`` with everything but printable ASCII, and "+" and "=", written as +XX (RFC 3461 4)."""
    raw = value[:_TEXT_MOST].encode("utf-8", "surrogateescape")
    return b"".join(b"%c" % byte if byte in _PLAIN else b"+%02X" % byte for byte in raw)


def parse_xtext(value: bytes) -> str:
    """What `xtext` made. Raises `ProtocolError` for what is none, and for control characters in it."""
    if not _XTEXT.fullmatch(value) or len(value) > 3 * _TEXT_MOST:
        raise ProtocolError("Syntax error in an attribute.", 501)
    raw = re.sub(rb"\+([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), value)
    if any(byte < 32 or byte == 127 for byte in raw):
        raise ProtocolError("An attribute holds control characters.", 501)
    return raw.decode("utf-8", "replace")


def parse_attributes(argument: bytes) -> dict[str, str]:
    """The attributes of an XFORWARD command; "" for one that is unavailable, IP addresses without their prefix.

    Raises `ProtocolError`.
    """
    known = frozenset(FORWARDED.split())
    found: dict[str, str] = {}
    for word in argument.split():
        name, mark, value = word.partition(b"=")
        key = name.decode("latin-1").upper()
        if not mark or key not in known:
            raise ProtocolError("There is no such attribute.", 501)
        text = parse_xtext(value)
        found[key] = "" if text.upper() in (_UNAVAILABLE, "[TEMPUNAVAIL]") else text
    if found.get("ADDR"):
        text = found["ADDR"]
        try:
            found["ADDR"] = str(ipaddress.ip_address(text[5:] if text.upper().startswith("IPV6:") else text))
        except ValueError as error:
            raise ProtocolError("ADDR is no IP address.", 501) from error
    if not found.get("PORT", "0").isdecimal() and found.get("PORT"):
        raise ProtocolError("PORT is no number.", 501)
    return found


def address_text(address: str) -> str:
    """An IP address as an attribute: IPv6 with its prefix; [UNAVAILABLE] for what is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return _UNAVAILABLE
    return str(parsed) if parsed.version == 4 else f"IPV6:{parsed}"


def attributes(verb: str, offered: Collection[str], values: Mapping[str, str], most: int = 480) -> list[Command]:
    """Commands ``verb`` that tell ``values`` (by attribute name), as far as the server's EHLO reply offers them.

    An empty value is told as [UNAVAILABLE]. Several commands where one line would be longer than ``most`` bytes.
    """
    commands: list[Command] = []
    line = b""
    for name, value in values.items():
        if name not in offered:
            continue
        word = name.encode() + b"=" + (xtext(value) if value else _UNAVAILABLE.encode())
        if line and len(line) + len(word) + 1 > most:
            commands.append(command(verb, line))
            line = b""
        line = line + b" " + word if line else word
    if line:
        commands.append(command(verb, line))
    return commands
