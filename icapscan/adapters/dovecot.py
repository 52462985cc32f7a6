"""Asks Dovecot whether a user is who they say (Dovecot authentication protocol 1.x, client side).

One connection for each exchange. Dovecot decides about mechanisms; nothing but base64 of the SMTP client goes to it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from icapscan.errors import IcapscanError

_LINE_MOST = 16384
_LINES_MOST = 100
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_ESCAPES = {"0": "\0", "1": "\x01", "t": "\t", "r": "\r", "n": "\n"}
SUPPORTED = ("PLAIN", "LOGIN", "CRAM-MD5")


class AuthFailed(IcapscanError):
    """Dovecot could not be asked, or made no sense. Nobody is authenticated by that."""

    retry = True


class Verdict(Struct, frozen=True):
    """What Dovecot says to one step."""

    user: str | None = None
    """Not None: authenticated."""
    challenge: bytes | None = None
    """Not None (base64): the client has to answer this."""
    later: bool = False
    """Refused for now only."""


class Exchange:
    """One connection to Dovecot; use it as `dovecot` gives it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.mechanisms: tuple[str, ...] = ()

    async def greet(self) -> None:
        """The handshake. Raises `AuthFailed`."""
        self._writer.write(b"VERSION\t1\t1\nCPID\t%d\n" % os.getpid())
        mechanisms = []
        for _ in range(_LINES_MOST):
            word, *rest = await self._line()
            if word == "VERSION" and rest[:1] != ["1"]:
                raise AuthFailed("Dovecot speaks another version of its protocol.")
            if word == "MECH" and rest:
                mechanisms.append(rest[0].upper())
            if word == "DONE":
                self.mechanisms = tuple(name for name in SUPPORTED if name in mechanisms)
                return
        raise AuthFailed("Dovecot does not end its greeting.")

    async def start(self, mechanism: str, initial: bytes | None, *, client: str, server: str, tls: bool) -> Verdict:
        """Begin. ``initial``: the client's initial response in base64, None where it sent none."""
        if mechanism not in self.mechanisms:
            raise AuthFailed(f"Dovecot does not offer {mechanism!r}.")
        words = ["AUTH", "1", mechanism, "service=smtp", f"lip={_escaped(server)}", f"rip={_escaped(client)}"]
        words += ["secured"] if tls else []
        if initial is not None:
            words.append(f"resp={_base64(initial)}")
        self._writer.write("\t".join(words).encode() + b"\n")
        return await self._verdict()

    async def go_on(self, response: bytes) -> Verdict:
        """The client's answer to a challenge, in base64."""
        self._writer.write(f"CONT\t1\t{_base64(response)}\n".encode())
        return await self._verdict()

    async def _verdict(self) -> Verdict:
        for _ in range(_LINES_MOST):
            word, *rest = await self._line()
            if rest[:1] != ["1"]:
                continue  # about something else, such as a MECH that came late
            fields = dict(one.partition("=")[::2] for one in rest[1:])
            if word == "OK" and fields.get("user"):
                return Verdict(user=fields["user"])
            if word == "CONT":
                return Verdict(challenge=_base64((rest[1] if len(rest) > 1 else "").encode()).encode())
            if word == "FAIL":
                return Verdict(later="temp" in fields or fields.get("code") == "temp_fail")
            break
        raise AuthFailed("Dovecot's answer makes no sense.")

    async def _line(self) -> list[str]:
        try:
            raw = await self._reader.readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise AuthFailed("Dovecot closed the connection, or sent an endless line.") from error
        return [_unescaped(word) for word in raw[:-1].decode("utf-8", "replace").split("\t")]


@asynccontextmanager
async def dovecot(path: str, seconds: float) -> AsyncIterator[Exchange]:
    """A connection to the socket at ``path`` that has shaken hands. Raises `AuthFailed`, after ``seconds`` too."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_MOST)
    except (OSError, TimeoutError) as error:
        raise AuthFailed(f"There is no connection to Dovecot at {path}: {error}.") from error
    try:
        exchange = Exchange(reader, writer)
        try:
            async with asyncio.timeout(seconds):
                await exchange.greet()
        except TimeoutError as error:
            raise AuthFailed("Dovecot does not greet in time.") from error
        yield exchange
    finally:
        writer.close()


def _base64(data: bytes) -> str:
    if not _BASE64.fullmatch(data) or len(data) > _LINE_MOST // 2:
        raise AuthFailed("What should be base64 is not.")
    return data.decode()


def _escaped(text: str) -> str:
    for plain, sign in (("\x01", "1"), ("\0", "0"), ("\t", "t"), ("\r", "r"), ("\n", "n")):
        text = text.replace(plain, f"\x01{sign}")
    return text


def _unescaped(text: str) -> str:
    return re.sub("\x01(.?)", lambda match: _ESCAPES.get(match[1], match[1]), text)
