"""A changed body put back into its transfer encoding, in the shape of the old one; proved by decoding it again."""

from __future__ import annotations

import binascii
import re

import pybase64
from msgspec import Struct

from icapscan.unwrap.mime_entity import Encoding
from icapscan.unwrap.transfer import Identity, Transfer
from icapscan.unwrap.transfer_base64 import Base64Reading, base64
from icapscan.unwrap.transfer_quoted import QuotedPrintable

LINE = 76
"""Characters of an encoded line (RFC 2045 6.7 and 6.8)."""
LINE_MAX = 998
"""Octets of a line of a mail without its CRLF (RFC 5322 2.1.1)."""
_SHAPE = re.compile(rb"\s*([A-Za-z0-9+/=]+)\r?\n[^\s]")
_LAST_LINE_END = re.compile(rb"[\r\n]*\Z")
_LINE_END = re.compile(rb"\r?\n")
_ODD = re.compile(rb"\0|\r(?!\n)")


class Encoded(Struct, frozen=True):
    """An encoded body, and the encoding that it is in."""

    data: bytes
    encoding: Encoding


def encoded(
    data: bytes, encoding: Encoding, old: bytes, line_end: bytes, needles: tuple[bytes, ...], binary: bool = False
) -> Encoded | None:
    """``data`` in ``encoding``, else in base64; None where it cannot be written without doubt.

    ``old`` is the body as it was, encoded: its line length and its last line ends are kept. None of the ``needles``
    (``--boundary``) occurs in the result. ``binary``: nothing but the bytes themselves will do (form-data).
    """
    ending = _ending(old)
    tries: list[Encoded] = []
    if binary or (encoding is Encoding.IDENTITY and _travels(data, old)):
        tries.append(Encoded(data, Encoding.IDENTITY))
    elif encoding is Encoding.QUOTED_PRINTABLE:
        kinds = (False,) if _ODD.search(data) is not None else (True, False)
        tries += [Encoded(_quoted(data, text, line_end), encoding) for text in kinds]
    if not binary:
        tries.append(Encoded(lines(data, _line_length(old), line_end) + ending, Encoding.BASE64))
    for one in tries:
        if not any(needle in one.data for needle in needles) and decoded(one.data, one.encoding) == data:
            return one
    return None


def decoded(body: bytes, encoding: Encoding, text: bool = False) -> bytes | None:
    """The body as a strict reader sees it, None where readers do not agree or we cannot write that encoding.

    ``text``: as the walker has it, some doubts are none in a text.
    """
    transfer = _transfer(encoding, text)
    if transfer is None:
        return None
    data = transfer.feed(body) + transfer.finish()
    return None if transfer.doubts else data


def decoded_start(body: bytes, encoding: Encoding) -> bytes:
    """The first decoded bytes, of the first bytes of a body; nothing where we cannot write that encoding."""
    transfer = _transfer(encoding)
    return transfer.feed(body) if transfer is not None else b""


def _transfer(encoding: Encoding, text: bool = False) -> Transfer | None:
    if encoding is Encoding.BASE64:
        return base64(Base64Reading.LENIENT)
    if encoding is Encoding.QUOTED_PRINTABLE:
        return QuotedPrintable(text=text)
    return Identity() if encoding is Encoding.IDENTITY else None


def lines(data: bytes, length: int, line_end: bytes) -> bytes:
    """base64 in lines of ``length`` characters, without a line end behind the last."""
    text = pybase64.b64encode(data)
    return line_end.join(text[at : at + length] for at in range(0, len(text), length))


def _line_length(old: bytes) -> int:
    shape = _SHAPE.match(old[: 2 * LINE_MAX])
    length = len(shape[1]) if shape is not None else LINE
    return length if length % 4 == 0 and length <= LINE_MAX else LINE


def _ending(old: bytes) -> bytes:
    found = _LAST_LINE_END.search(old, max(0, len(old) - 64))
    return found[0] if found is not None and b"\n" in found[0] else b""


def _travels(data: bytes, old: bytes) -> bool:
    """Whether bytes can stand in a mail as they are, where ``old`` stood (RFC 2045 2.7 and 2.8)."""
    if _ODD.search(data) is not None or (not data.isascii() and old.isascii()):
        return False
    return max(map(len, _LINE_END.split(data))) <= LINE_MAX


def _quoted(data: bytes, text: bool, line_end: bytes) -> bytes:
    return _LINE_END.sub(line_end, binascii.b2a_qp(data, istext=text))
