"""Who may relay: ``tcp.smtp.cdb`` as tcpserver reads it (ucspi-tcp, tcprules(1)).

vpopmail, relay-ctrl and other POP-before-SMTP programs write it, so they go on working: `RelayRules` looks at the
file at each question and reads it anew when it was replaced.
"""

from __future__ import annotations

import ipaddress
import os
import re
import struct
from collections.abc import Iterator

from msgspec import Struct

from icapscan.errors import IcapscanError

_FILE_MOST = 64 * 1024 * 1024
_NAME = re.compile(r"[0-9A-Za-z._-]{1,255}")


class RulesUnreadable(IcapscanError):
    """The rules are not there, or are no cdb: nobody can say what this client may do."""

    retry = True


class Standing(Struct, frozen=True):
    """What the rules say about one client."""

    deny: bool = False
    variables: dict[str, str] = {}

    @property
    def relay_client(self) -> str | None:
        """The value of RELAYCLIENT, which is added to each recipient; None: this is no relay client."""
        return self.variables.get("RELAYCLIENT")

    @property
    def databytes(self) -> int:
        """DATABYTES, qmail-smtpd's bound on the size of a message; 0 = none."""
        text = self.variables.get("DATABYTES", "")
        return int(text) if text.isdecimal() and len(text) < 19 else 0


class RelayRules:
    """A file of rules that may be replaced at any time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._state: tuple[int, ...] = ()
        self._data = b""

    def standing(self, address: str, host: str = "") -> Standing:
        """What the rules say about a client. ``host``: its name in the DNS, where it is known and was verified.

        Raises `RulesUnreadable`.
        """
        import cdblib

        try:
            self._refresh()
            reader = cdblib.Reader(data=self._data)
            for key in keys_of(address, host):
                found = reader.get(key.encode())
                if found is not None:
                    return _standing_of(found)
        except (OSError, ValueError, struct.error, IndexError, TypeError) as error:
            self._state = ()
            raise RulesUnreadable(f"The relay rules in {self._path} cannot be read: {error}.") from error
        return Standing()

    def _refresh(self) -> None:
        with open(self._path, "rb") as file:
            about = os.fstat(file.fileno())
            state = (about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size)
            if state == self._state:
                return
            data = file.read(_FILE_MOST + 1)
        if len(data) > _FILE_MOST or len(data) != about.st_size:
            raise ValueError("it is too large, or was changed while it was read")
        _check(data)
        self._data, self._state = data, state


def _check(data: bytes) -> None:
    """Raises ValueError when a table of the index lies outside the file: a file that is not complete."""
    if len(data) < 2048:
        raise ValueError("it is no cdb")
    for place, slots in struct.iter_unpack("<LL", data[:2048]):
        if place < 2048 or place + 8 * slots > len(data):
            raise ValueError("it is no cdb, or is not complete")


def keys_of(address: str, host: str = "") -> Iterator[str]:
    """The addresses under which a rule is looked for, the first that there is one for counts.

    The address; the name; shorter and shorter prefixes of the address that end with a dot; shorter and shorter
    suffixes of the name that begin with one; any name; anybody.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    text = str(mapped or parsed)
    name = host if _NAME.fullmatch(host) else ""
    yield text
    if name:
        yield f"={name}"
    mark = "." if "." in text else ":"
    for at in reversed([at for at, sign in enumerate(text) if sign == mark]):
        yield text[: at + 1]
    if name:
        for at in [at for at, sign in enumerate(name) if sign == "."]:
            yield f"={name[at:]}"
        yield "="
    yield ""


def _standing_of(data: bytes) -> Standing:
    """Instructions as tcprules writes them: ``D`` and ``+NAME=value``, each with a NUL behind it."""
    deny = False
    variables = {}
    for instruction in data.split(b"\0")[:-1]:
        if instruction[:1] == b"D":
            deny = True
        elif instruction[:1] == b"+" and b"=" in instruction:
            name, _, value = instruction[1:].decode("latin-1").partition("=")
            variables[name] = value
    return Standing(deny, variables)
