"""Postfix's XCLIENT and XFORWARD: who the client is, told as attributes (XCLIENT_README, XFORWARD_README).

Values are xtext (RFC 3461 4), so that nothing that a client chose can become another attribute or command.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from icapscan.wire.smtp_command import Command, command

_UNAVAILABLE = "[UNAVAILABLE]"
_TEXT_MOST = 255
"""Characters of one value. The READMEs ask for no more."""
_PLAIN = frozenset(range(33, 127)) - frozenset(b"+=")


def xtext(value: str) -> bytes:
    """``value`` with everything but printable ASCII, and "+" and "=", written as +XX (RFC 3461 4)."""
    raw = value[:_TEXT_MOST].encode("utf-8", "surrogateescape")
    return b"".join(b"%c" % byte if byte in _PLAIN else b"+%02X" % byte for byte in raw)


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
