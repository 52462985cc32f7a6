"""The field that a released mail carries, by which it is known when it comes back: the guard against a loop.

It opens no door: a mail that carries it is scanned and decided about like any other.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from icapscan.limits import MIB
from icapscan.quarantine.item import ID_LENGTH, is_id
from icapscan.quarantine.keys import Keys

FIELD = "X-Icapscan-Released"
_LOOKED_AT = 1 * MIB
"""Bytes of the header section that are searched; we put the field at the top, and each relay adds about a kilobyte."""
_HEADER_END = re.compile(rb"\r?\n\r?\n|\r\r")
_MARK = re.compile(
    rb"(?:^|[\r\n])" + FIELD.encode() + rb"[ \t]*:\s*([0-9a-z]{%d})\s*;\s*([0-9a-f]{32})\s*?(?=[\r\n]|$)" % ID_LENGTH,
    re.IGNORECASE,
)


def mark(keys: Keys, name: str) -> bytes:
    """The field line for the mail with that id, with its CRLF."""
    return f"{FIELD}: {name}; {keys.current.release_code(name)}\r\n".encode("ascii")


def marked(head: bytes, keys: Keys) -> str:
    """The item that a message with this beginning was released from; ``""`` where it carries no valid mark."""
    end = _HEADER_END.search(head)
    header = head[: end.start()] if end else head
    for found in _MARK.finditer(header):
        name, code = found[1].decode("ascii").lower(), found[2].decode("ascii").lower()
        if is_id(name) and keys.is_release_code(name, code):
            return name
    return ""


def peek(pieces: Iterable[bytes | memoryview]) -> tuple[bytes, Iterator[bytes | memoryview]]:
    """The beginning of a message up to the end of its header section or a bound, and all of its pieces again."""
    taken: list[bytes | memoryview] = []
    rest = iter(pieces)
    head = bytearray()
    for piece in rest:
        taken.append(bytes(piece))
        head += piece
        if len(head) >= _LOOKED_AT or _HEADER_END.search(head, max(0, len(head) - len(piece) - 4)):
            break
    return bytes(head[:_LOOKED_AT]), itertools.chain(taken, rest)
