"""The PROXY protocol, versions 1 and 2: who the client is that a proxy speaks for (HAProxy, doc/proxy-protocol.txt).

A receiver must know that a header comes; it never guesses. A header has to be complete and is read once.
"""

from __future__ import annotations

import ipaddress
import re
import struct

from msgspec import Struct

from icapscan.errors import ProtocolError

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_MOST = 107
_V2_MOST = 4096
"""Bytes of the addresses and extensions of version 2 that are read at most."""
_V1 = re.compile(rb"PROXY (TCP4|TCP6) ([0-9a-fA-F:.]{2,45}) ([0-9a-fA-F:.]{2,45}) ([0-9]{1,5}) ([0-9]{1,5})")
_LENGTHS = {0x11: 4, 0x21: 16}


class Proxied(Struct, frozen=True):
    """Addresses of a connection."""

    client: str
    client_port: int
    server: str
    server_port: int


class Header(Struct, frozen=True):
    """One header that was read."""

    size: int
    """Bytes of it."""
    proxied: Proxied | None
    """None: the proxy speaks for itself (LOCAL, UNKNOWN)."""


def parse_header(data: bytes) -> Header | None:
    """The header at the beginning of ``data``; None: more bytes are needed. Raises `ProtocolError` for no header."""
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _parse_v2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _parse_v1(data)
    raise ProtocolError("A PROXY header was expected.")


def _parse_v1(data: bytes) -> Header | None:
    stop = data.find(b"\n", 0, _V1_MOST)
    if stop < 0:
        if len(data) >= _V1_MOST:
            raise ProtocolError("A PROXY header is too long.")
        return None
    line = data[: stop - 1]
    if data[stop - 1 : stop] != b"\r" or b"\r" in line:
        raise ProtocolError("A PROXY header does not end with CR LF.")
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(stop + 1, None)
    match = _V1.fullmatch(line)
    if match is None:
        raise ProtocolError("A PROXY header is malformed.")
    version = 4 if match[1] == b"TCP4" else 6
    client, server = (_address(match[number].decode(), version) for number in (2, 3))
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise ProtocolError("A PROXY header is malformed.")
    return Header(stop + 1, Proxied(client, ports[0], server, ports[1]))


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ProtocolError("A PROXY header has no IP address.") from error
    if address.version != version:
        raise ProtocolError("A PROXY header has an address of another family.")
    return str(address)


def _parse_v2(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command >> 4 != 2 or command & 15 > 1:
        raise ProtocolError("A PROXY header is of an unknown version or command.")
    if length > _V2_MOST:
        raise ProtocolError("A PROXY header is too long.")
    size = 16 + length
    if len(data) < size:
        return None
    if command & 15 == 0:
        return Header(size, None)
    bytes_each = _LENGTHS.get(family)
    if bytes_each is None:
        if family == 0:
            return Header(size, None)
        raise ProtocolError("A PROXY header speaks of something else than TCP.")
    if length < 2 * bytes_each + 4:
        raise ProtocolError("A PROXY header is too short.")
    client = str(ipaddress.ip_address(data[16 : 16 + bytes_each]))
    server = str(ipaddress.ip_address(data[16 + bytes_each : 16 + 2 * bytes_each]))
    client_port, server_port = struct.unpack_from("!HH", data, 16 + 2 * bytes_each)
    return Header(size, Proxied(client, client_port, server, server_port))


def encode_v1(proxied: Proxied) -> bytes:
    """A header of version 1. Addresses of two families are told as IPv6. Raises ValueError for what is no address."""
    client, server = _same_family(proxied)
    family = "TCP4" if client.version == 4 else "TCP6"
    return f"PROXY {family} {client} {server} {proxied.client_port} {proxied.server_port}\r\n".encode()


def encode_v2(proxied: Proxied) -> bytes:
    """A header of version 2, likewise."""
    client, server = _same_family(proxied)
    addresses = client.packed + server.packed + struct.pack("!HH", proxied.client_port, proxied.server_port)
    family = 0x11 if client.version == 4 else 0x21
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _same_family(proxied: Proxied) -> tuple[_Address, _Address]:
    both = [ipaddress.ip_address(text.partition("%")[0]) for text in (proxied.client, proxied.server)]
    if len({address.version for address in both}) == 2:
        both = [
            ipaddress.ip_address(f"::ffff:{address}") if address.version == 4 else address for address in both
        ]  # fmt: skip
    return both[0], both[1]
