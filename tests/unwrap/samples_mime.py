"""Mails that tests are made of: built piece by piece so that each technique is one changed argument."""

from __future__ import annotations

from base64 import encodebytes

from icapscan.findings import Level
from icapscan.unwrap.contract import Declared, Format
from icapscan.unwrap.formats import FORMATS
from icapscan.unwrap.mime import MIME, UNDECLARED
from tests.unwrap.unpacked import WHOLE, Unpacked
from tests.unwrap.verdicts import verdict

# The EICAR test string, cut in two so that this file is not taken for it.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + rb"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
EICAR_BASE64 = encodebytes(EICAR).replace(b"\n", b"\r\n")
HEAD = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: sample\r\nMIME-Version: 1.0\r\n"
MAIL = Declared(media_type="message/rfc822")


def part(
    body: bytes = EICAR_BASE64,
    *,
    type: bytes | None = b"Content-Type: application/octet-stream\r\n",
    encoding: bytes = b"Content-Transfer-Encoding: base64\r\n",
    more: bytes = b"",
    blank: bytes = b"\r\n",
) -> bytes:
    """A body part: header fields, empty line, body."""
    return (type or b"") + encoding + more + blank + body


TEXT = part(b"Hello, see the attachment.\r\n", type=b"Content-Type: text/plain\r\n", encoding=b"")


def multipart(*parts: bytes, boundary: bytes = b"frontier", close: bytes | None = None) -> bytes:
    """The body of a multipart."""
    joined = b"".join(b"--" + boundary + b"\r\n" + one + b"\r\n" for one in parts)
    return joined + (b"--" + boundary + b"--\r\n" if close is None else close)


def mail(
    body: bytes | None = None,
    *,
    type: bytes = b'Content-Type: multipart/mixed; boundary="frontier"\r\n',
    more: bytes = b"",
    blank: bytes = b"\r\n",
    head: bytes = HEAD,
) -> bytes:
    """A mail; without a body, with a text and EICAR as an attachment in base64."""
    return head + type + more + blank + (multipart(TEXT, part()) if body is None else body)


def unpack(
    body: bytes, declared: Declared = MAIL, step: int = WHOLE, seed: int | None = None, structure: bool = False
) -> Unpacked:
    """The tree of parts, with all formats there are; or only with those that know of headers and delimiters.

    Where a test is about ``structure``, base64 that is found in any text must not help.
    """
    formats: list[Format] = [MIME, UNDECLARED] if structure else [entry.format for entry in FORMATS]
    return Unpacked(body, formats, declared, step, seed=seed)


def found(unpacked: Unpacked) -> bool:
    """Whether EICAR is a part of its own, perhaps with a line end."""
    return any(data.strip() == EICAR for data in unpacked.parts.values())


def find(body: bytes, declared: Declared = MAIL, structure: bool = False) -> Unpacked:
    """Unpack and insist that EICAR is found, and that the verdict on the whole is infected."""
    unpacked = unpack(body, declared, structure=structure)
    assert found(unpacked), f"EICAR was not found: {sorted(unpacked.parts)} {unpacked.kinds}"
    said = verdict(body, declared.media_type, content_type=declared.content_type)
    assert said.level is Level.INFECTED, said
    return unpacked


def reject(body: bytes, declared: Declared = MAIL) -> None:
    """EICAR is found, or the verdict is not clean; with what knows of headers and delimiters, and with everything."""
    unpacked = unpack(body, declared, structure=True)
    assert found(unpacked) or unpacked.failed, f"passed as clean: {sorted(unpacked.parts)} {unpacked.kinds}"
    said = verdict(body, declared.media_type, content_type=declared.content_type)
    assert said.level is Level.INFECTED or said.unscanned, said
