"""What is sent: plain random bodies, and mails in which every one differs where a row says so."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pybase64
from msgspec import Struct

from benchmarks.load import MARKER

NONCE = 32
"""Hex digits that ``load.c`` replaces for each request. In base64 they are 24 bytes of the attachment."""
LINE = 76

RECEIVED = b"".join(
    b"Received: from mx%d.bench.icapscan.test (mx%d.bench.icapscan.test [192.0.2.%d])\r\n"
    b"\tby mail.bench.icapscan.test (Postfix) with ESMTPS id 4F%dXk2v;\r\n\tTue, 24 Nov 2026 03:4%d:06 +0000 (UTC)\r\n"
    % ((number,) * 5)
    for number in (1, 2, 3)
)
FIELDS = (
    b"From: Sender Example <sender@bench.icapscan.test>\r\nTo: Reader Example <reader@bench.icapscan.test>\r\n"
    b"Date: Tue, 24 Nov 2026 03:41:05 +0000\r\nUser-Agent: Mozilla Thunderbird\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="=_outer"\r\n'
)
PARAGRAPH = b"Dear reader, please find enclosed what we spoke of last week. Prices are per piece and without tax.\r\n"


class Body(Struct, frozen=True):
    """One kind of body. A plain one has ``size`` random bytes; a mail has ``attachments``, by size in bytes."""

    size: int = 0
    attachments: tuple[int, ...] = ()
    new_attachments: bool = True
    """Every attachment of every mail is new; else only the header fields and texts of a mail are."""

    @property
    def is_mail(self) -> bool:
        return bool(self.attachments)


class Sample(Struct, frozen=True):
    """A mail, the same with the marker in its last attachment, and where both have their nonces."""

    clean: bytes
    marked: bytes
    nonces: tuple[int, ...]

    def fresh(self) -> bytes:
        """The clean mail with a new nonce."""
        mail, nonce = bytearray(self.clean), secrets.token_hex(NONCE // 2).encode()
        for at in self.nonces:
            mail[at : at + NONCE] = nonce
        return bytes(mail)


class _Writer:
    def __init__(self) -> None:
        self.data = bytearray()
        self.nonces: list[int] = []

    def text(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.data += piece

    def nonce(self) -> None:
        self.nonces.append(len(self.data))
        self.data += b"0" * NONCE


def _texts(out: _Writer) -> None:
    out.text(b'--=_outer\r\nContent-Type: multipart/alternative; boundary="=_inner"\r\n\r\n')
    out.text(b"--=_inner\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nOffer ")
    out.nonce()
    out.text(b"\r\n\r\n", PARAGRAPH * 8, b"\r\n--=_inner\r\nContent-Type: text/html; charset=utf-8\r\n\r\n")
    out.text(b"<html><head><title>Offer</title></head><body><p>Offer ")
    out.nonce()
    out.text(b"</p>\r\n", (b"<p>" + PARAGRAPH.rstrip() + b"</p>\r\n") * 8, b"</body></html>\r\n--=_inner--\r\n")


def _attachment(out: _Writer, number: int, content: bytes, new: bool) -> None:
    out.text(
        b"--=_outer\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n",
        b'Content-Disposition: attachment; filename="enclosure-%d.dat"\r\n\r\n' % number,
    )
    coded = pybase64.b64encode(content)
    lines = b"\r\n".join(coded[at : at + LINE] for at in range(0, len(coded), LINE))
    if new:  # the first 32 characters of the first line
        out.nonce()
        lines = lines[NONCE:]
    out.text(lines, b"\r\n")


def _mail(contents: list[bytes], new: bool) -> _Writer:
    out = _Writer()
    out.text(RECEIVED, FIELDS, b"Subject: Offer ")
    out.nonce()
    out.text(b"\r\nMessage-ID: <")
    out.nonce()
    out.text(b"@bench.icapscan.test>\r\n\r\nThis is a message in MIME format.\r\n")
    _texts(out)
    for number, content in enumerate(contents, 1):
        _attachment(out, number, content, new)
    out.text(b"--=_outer--\r\n")
    return out


def compose(body: Body) -> Sample:
    """A mail with header fields, a text in plain and in HTML, and random attachments in base64."""
    contents = [os.urandom(size) for size in body.attachments]
    clean = _mail(contents, body.new_attachments)
    contents[-1] = contents[-1][: -len(MARKER)] + MARKER.encode()
    marked = _mail(contents, body.new_attachments)
    return Sample(bytes(clean.data), bytes(marked.data), tuple(clean.nonces))


class Bodies:
    """The bodies of one run as arguments for the load generator, files included."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Body, list[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def arguments(self, body: Body, every: int) -> list[str]:
        """For ``body``, with every ``every``-th one marked (0: none)."""
        if not body.is_mail:
            marks = ["--marker", MARKER, "--every", str(every)] if every else []
            return ["--size", str(body.size), *marks]
        if body not in self._made:
            self._made[body] = self._write(compose(body), self._folder / f"mail-{len(self._made)}")
        words = self._made[body]
        return [*words, "--every", str(every)] if every else words[: words.index("--marked")]

    @staticmethod
    def _write(sample: Sample, path: Path) -> list[str]:
        clean, marked = path.with_suffix(".clean"), path.with_suffix(".marked")
        clean.write_bytes(sample.clean)
        marked.write_bytes(sample.marked)
        nonces = ",".join(map(str, sample.nonces))
        return ["--body", str(clean), "--nonce", nonces, "--type", "message/rfc822", "--marked", str(marked)]
