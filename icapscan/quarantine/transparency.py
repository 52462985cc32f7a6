"""Mail data as SMTP wants it on the wire (RFC 5321 2.3.8, 4.5.2), a piece at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_LINE_END = re.compile(rb"\r\n|\r|\n")


def on_the_wire(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a message with every line end as CRLF, dots doubled, and the final ``.`` line.

    A lone LF or CR is a line end too: RFC 5321 2.3.8 lets nobody send one, and servers that take ``LF . LF`` for the
    end of the data would read what follows as commands.
    """
    held = b""
    at_line_start = True
    for piece in pieces:
        data = held + piece
        held = b"\r" if data.endswith(b"\r") else b""  # its LF may be in the next piece
        data = data[: len(data) - len(held)]
        if data:
            yield (out := _stuffed(data, at_line_start))
            at_line_start = out.endswith(b"\r\n")
    if held:
        yield b"\r\n"
        at_line_start = True
    yield b".\r\n" if at_line_start else b"\r\n.\r\n"


def _stuffed(data: bytes, at_line_start: bool) -> bytes:
    data = _LINE_END.sub(b"\r\n", data).replace(b"\r\n.", b"\r\n..")
    return b"." + data if at_line_start and data.startswith(b".") else data
