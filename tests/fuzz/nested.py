"""What was packed comes out again: containers around containers, made rightly, around any payload."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from base64 import b64encode, encodebytes
from collections.abc import Callable

import lz4.frame
import zstandard

from icapscan.findings import Reason
from tests.fuzz.walked import Walked
from tests.unwrap import coders, ole_maker, pdf_maker, samples_mime
from tests.unwrap.coders import gzipped
from tests.unwrap.test_odd_archives import record, sis
from tests.unwrap.test_onenote import section
from tests.unwrap.zip_maker import Made, made_zip

LAYERS_MOST = 3
PAYLOAD_LEAST = 1
"""Bytes: in a text, nothing is no part."""


def _tar(data: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT, bufsize=512) as archive:
        info = tarfile.TarInfo("a/b.bin")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def _mail(coded: bytes, coding: bytes) -> bytes:
    part = samples_mime.part(coded, encoding=b"Content-Transfer-Encoding: " + coding + b"\r\n")
    return samples_mime.mail(samples_mime.multipart(samples_mime.TEXT, part))


def _rtf(data: bytes) -> bytes:
    return b"{\\rtf1{\\object\\objemb{\\*\\objdata " + data.hex().encode() + b"}}}"


LAYERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: made_zip(Made(b"a.txt", b"text"), Made(b"b", data)),
    lambda data: made_zip(Made(b"b", data, method=0), comment=b"a comment"),
    lambda data: made_zip(Made(b"b", data, flags=8), Made(b"c", b"text", flags=8)),
    lambda data: made_zip(Made(b"b", data, 12, bz2.compress(data))),
    lambda data: bytes(300) + made_zip(Made(b"b", data)),
    _tar,
    gzipped,
    bz2.compress,
    lzma.compress,
    lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    zstandard.compress,
    lz4.frame.compress,
    lambda data: gzipped(data[:50]) + gzipped(data[50:]),
    lambda data: _mail(encodebytes(data), b"base64"),
    lambda data: _mail(b64encode(data), b"BASE64 (a comment)"),
    lambda data: _mail(coders.uuencode(data), b"x-uuencode"),
    lambda data: _mail(coders.binhex(data), b"binhex"),
    lambda data: samples_mime.HEAD + b"Content-Type: text/plain\r\n\r\nA text.\r\n\r\n" + coders.uuencode(data),
    lambda data: b"A text.\n\n" + coders.yenc(data),
    coders.winmail,
    lambda data: coders.cms(2, data),
    lambda data: coders.cms(2, data, pieces=100),
    lambda data: ole_maker.ole({"Folder/stream": data, "other": b"text"}),
    lambda data: ole_maker.ole({"\1Ole10Native": ole_maker.native("a.exe", data)}),
    lambda data: section(data),
    lambda data: _rtf(ole_maker.ole1("Package", ole_maker.packed("a", data))),
    lambda data: pdf_maker.pdf([pdf_maker.flate(data, b"/Type /EmbeddedFile"), pdf_maker.attachment(b"a.exe", 3)]),
    lambda data: b"ActiveMime" + bytes(40) + zlib.compress(data),
    lambda data: record(b"http://a.example/", data),
    lambda data: sis(data),
    lambda data: coders.openpgp(data, 2),
    lambda data: b"A text.\n\n" + coders.armored(coders.openpgp(data, 1, old=True)),
)  # fmt: skip


def check(data: bytes) -> None:
    """The first bytes choose how the others are packed; they must be a part, unless a limit was met."""
    count = 1 + (data[0] if data else 0) % LAYERS_MOST
    chosen = [LAYERS[byte % len(LAYERS)] for byte in data[1 : 1 + count]]
    payload = data[1 + count :].ljust(PAYLOAD_LEAST, b"\x90")
    body = payload
    for layer in chosen:
        body = layer(body)
    walked = Walked(body, [body])
    if Reason.OVER_LIMIT not in walked.reasons:
        names = [LAYERS.index(layer) for layer in chosen]
        assert payload in walked.contents, f"the payload is missing behind {names}"
