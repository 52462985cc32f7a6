"""SMTP commands: verb, path and parameters (RFC 5321 4.1); EHLO keywords; who a SASL exchange is about.

A command keeps its line byte for byte: what is passed on is what came.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

from msgspec import Struct

from icapscan.errors import ProtocolError

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WORD = re.compile(rb"[A-Za-z][A-Za-z0-9-]*")
_PATH = re.compile(
    rb"(?:FROM|TO):[ \t]*(?:<(?P<path>(?:\"(?:[^\"\\]|\\.)*\"|[^<>\"])*)>|(?P<bare>[^<> \t]+))(?P<rest>[ \t].*)?", re.I
)
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+(?:=[^\x00-\x20\x7f]*)?))?")
_BDAT = re.compile(rb"([0-9]{1,18})(?:[ \t]+(LAST))?[ \t]*", re.I)


class Command(Struct, frozen=True):
    """One command line."""

    verb: bytes
    """In upper case; empty for a line that does not begin with a word."""
    argument: bytes
    line: bytes
    """As it came, without its line end."""


class Path(Struct, frozen=True):
    """The argument of MAIL or RCPT."""

    address: str
    """Without angle brackets and source route; bytes that are no UTF-8 are kept as surrogates."""
    parameters: dict[str, str]
    """By upper-case name; "" for one without a value."""


class Chunk(Struct, frozen=True):
    """The argument of BDAT (RFC 3030 2)."""

    size: int
    last: bool


def parse_command(line: bytes) -> Command:
    """A line without its line end. Raises `ProtocolError` for control characters."""
    if _CONTROL.search(line):
        raise ProtocolError("A command holds control characters.")
    match = _WORD.match(line)
    if match is None or line[match.end() : match.end() + 1] not in (b"", b" ", b"\t"):
        return Command(b"", b"", line)
    return Command(match[0].upper(), line[match.end() :].strip(b" \t"), line)


def command(verb: str, argument: bytes = b"") -> Command:
    """A command of our own."""
    line = verb.encode() + (b" " + argument if argument else b"")
    return Command(verb.encode(), argument, line)


def parse_path(made: Command) -> Path:
    """The path of MAIL or RCPT. Raises `ProtocolError` with status 501."""
    match = _PATH.fullmatch(made.argument)
    wanted = b"FROM:" if made.verb == b"MAIL" else b"TO:"
    if match is None or not made.argument.upper().startswith(wanted):
        raise ProtocolError("Syntax error in the address.", 501)
    address = match["path"] if match["path"] is not None else match["bare"]
    if address.startswith(b"@") and b":" in address:
        address = address.partition(b":")[2]  # a source route, to be ignored (RFC 5321 appendix C)
    parameters: dict[str, str] = {}
    for word in (match["rest"] or b"").split():
        found = _PARAMETER.fullmatch(word)
        if found is None or (name := found[1].decode().upper()) in parameters:
            raise ProtocolError("Syntax error in the parameters.", 501)
        parameters[name] = (found[2] or b"").decode("utf-8", "surrogateescape")
    return Path(address.strip().decode("utf-8", "surrogateescape"), parameters)


def with_suffix(made: Command, suffix: bytes) -> Command:
    """A RCPT command with ``suffix`` added to its address. Raises `ProtocolError`."""
    match = _PATH.fullmatch(made.argument)
    if match is None:
        raise ProtocolError("Syntax error in the address.", 501)
    address = match["path"] if match["path"] is not None else match["bare"]
    argument = b"TO:<" + address + suffix + b">" + (match["rest"] or b"")
    return Command(made.verb, argument, made.verb + b" " + argument)


def parse_chunk(made: Command) -> Chunk:
    """The argument of BDAT. Raises `ProtocolError`: how many bytes follow is then not known."""
    match = _BDAT.fullmatch(made.argument)
    if match is None:
        raise ProtocolError("Syntax error in BDAT.", 501)
    return Chunk(int(match[1]), match[2] is not None)


def keywords_of(lines: Sequence[bytes]) -> dict[str, str]:
    """The keywords of an EHLO reply (its first line is a greeting), upper case, with their parameters."""
    found: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.decode("latin-1").strip().replace("AUTH=", "AUTH ", 1).partition(" ")
        if name:
            name = name.upper()
            found[name] = f"{found[name]} {value}".strip() if name in found else value.strip()
    return found


def sasl_user(mechanism: str, responses: Sequence[bytes]) -> str:
    """Who an exchange of PLAIN, LOGIN or CRAM-MD5 was about, from the client's lines; "" where it cannot be read."""
    try:
        texts = [base64.b64decode(line, validate=True) for line in responses]
    except (binascii.Error, ValueError):
        return ""
    if not texts:
        return ""
    match mechanism.upper():
        case "PLAIN":
            parts = texts[-1].split(b"\0")
            user = parts[1] if len(parts) == 3 else b""
        case "LOGIN":
            user = texts[0]
        case "CRAM-MD5":
            user = texts[-1].rpartition(b" ")[0]
        case _:
            return ""
    return "" if _CONTROL.search(user) else user.decode("utf-8", "replace")
