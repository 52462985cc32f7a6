"""Seeds for mail, form-data and text."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Iterable

from tests.unwrap import coders, samples_mime

TEXT = b"A harmless text, some of it twice, some of it twice.\n" * 6
EVIL = bytes(range(256)) + b"the bytes that must be found"


def mails() -> Iterable[bytes]:
    part, multipart, mail = samples_mime.part, samples_mime.multipart, samples_mime.mail
    inner = mail()
    yield inner
    yield inner.replace(b"\r\n", b"\n")
    yield mail(
        b64encode(EVIL), type=b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n"
    )
    yield mail(multipart(part(inner, type=b"Content-Type: message/rfc822\r\n", encoding=b""), samples_mime.TEXT))
    yield mail(multipart(samples_mime.TEXT, part(), boundary=b"a") + multipart(part(), boundary=b"b"),
               type=b"Content-Type: multipart/mixed; boundary=a; boundary=b\r\n")  # fmt: skip
    for name in (b"filename*0*=utf-8''a%20; filename*1=b.exe", b'filename="=?utf-8?B?YS5leGU=?="', b"filename=a.b.c"):
        yield mail(multipart(part(more=b"Content-Disposition: attachment; " + name + b"\r\n")))
    for coding, body in (
        (b"quoted-printable", b"a=3Db=\r\nc=C3=A9\r\n"), (b"x-uuencode", coders.uuencode(EVIL)), (b"yenc",
        coders.yenc(EVIL)),
        (b"binhex", coders.binhex(EVIL)), (b"base64, 7bit", b64encode(EVIL)), (b"base64", b"QUJD=\r\nREVG-_..\r\n"),
    ):  # fmt: skip
        yield mail(multipart(part(body, encoding=b"Content-Transfer-Encoding: " + coding + b"\r\n"), samples_mime.TEXT))
    yield multipart(part(b"value", type=b'Content-Disposition: form-data; name="x"; filename="a"\r\n', encoding=b""))
    yield mail(multipart(samples_mime.TEXT, part()), type=b"Content-Type: text/plain\r\n")


def headers() -> Iterable[bytes]:
    for one in mails():
        yield one.partition(b"\r\n\r\n")[0]
    yield b'attachment; filename*0="a"; filename*1*=%20b; filename="c(d)" (comment)'
    yield b'multipart/mixed; boundary="a\\"b"; boundary*=utf-8\'\'c; charset*0=u'


def multiparts() -> Iterable[bytes]:
    for boundary in (b"frontier", b"a", b"--"):
        body = samples_mime.multipart(
            samples_mime.TEXT, b"x\r\n--" + boundary + b" y\r\n\r--" + boundary, boundary=boundary
        )
        yield boundary + b"\n" + body + b"the end\n"
        yield boundary + b"\n" + body.replace(b"\r\n", b"\n")


def texts() -> Iterable[bytes]:
    for thing in (
        coders.uuencode(EVIL), coders.uuencode(EVIL, frame=False), coders.yenc(EVIL), coders.yenc(EVIL, end=False),
        coders.binhex(EVIL, b"resource"), b"begin-base64 644 a\n" + samples_mime.EICAR_BASE64 + b"====\n",
        b"<a href='data:text/html;base64," + b64encode(TEXT) + b"'>", b"atob('" + b64encode(EVIL * 4) + b"')",
        b"url(data:image/svg+xml,%3Csvg%3E%3Cscript%3Ealert%281%29)", coders.yenc(b"\n.." + EVIL) * 2,
    ):  # fmt: skip
        yield b"Some words before it.\n\n" + thing + b"\nSome words behind it.\n"
        yield (thing + b"\n") * 2


def tnefs() -> Iterable[bytes]:
    yield coders.winmail(EVIL)
    rtf = b"{\\rtf1 text}"
    packed = struct.pack("<II4sI", len(rtf) + 12, len(rtf), b"MELA", 0) + rtf
    listed = coders.properties((0x3701, 13, bytes(16) + coders.winmail(EVIL)), (0x3707, 31,
    "a.exe".encode("utf-16-le")),
                               (0x1009, 258, packed), (0x1013, 258, b"<html>"))  # fmt: skip
    yield coders.tnef(
        (1, coders.MESSAGE_PROPERTIES, listed), (2, coders.RENDERING, bytes(14)), (2, coders.PROPERTIES, listed)
    )
    yield listed
    yield struct.pack("<II4sI", 40, 30, b"LZFu", 0) + b"\0{\\rtf1 " + b"\x03ab\x01\x02\x0c\xf0"


def smimes() -> Iterable[bytes]:
    for content in (EVIL, EVIL * 5):
        yield from (
            coders.cms(2, content),
            coders.cms(2, content, pieces=100),
            coders.cms(3, None),
            coders.cms(2, None),
        )
    inner = coders.der(
        0x30, bytes.fromhex("06092a864886f70d010701"), coders.der(0xA0, coders.der(4, zlib.compress(TEXT)))
    )
    yield coders.der(0x30, bytes.fromhex("060b2a864886f70d0109100109"),
                     coders.der(0xA0, coders.der(0x30, coders.der(2, b"\0"), coders.der(0x30), inner)))  # fmt: skip


def openpgps() -> Iterable[bytes]:
    for how in range(4):
        yield coders.openpgp(EVIL, how)
        yield coders.openpgp(EVIL, how, old=True, pieces=4)
    yield coders.packet(1, b"\3" + bytes(8) + b"\1" + bytes(99)) + coders.packet(18, b"\1" + bytes(99))


def base64s() -> Iterable[bytes]:
    return (b64encode(EVIL), samples_mime.EICAR_BASE64, b"QUJD=\r\nREVG", b"QUI=QUI=", b"QU-_\n\nQUI")


def quoteds() -> Iterable[bytes]:
    return b"a=3Db=\r\nc=c3=A9 =\t\nx", TEXT, b"=", b"=4"


def uus() -> Iterable[bytes]:
    return coders.uuencode(EVIL), coders.uuencode(TEXT, frame=False)


def yencs() -> Iterable[bytes]:
    return EVIL, b"=\n..=}\r\n.x" * 9


def binhexes() -> Iterable[bytes]:
    return coders.binhex(EVIL), coders.binhex(bytes(300), b"r"), EVIL


def undeclared() -> Iterable[bytes]:
    return b"caf=C3=A9 =\nand so on=\n" * 9, b"=3D" * 30 + TEXT


def charsets() -> Iterable[bytes]:
    yield from (TEXT.decode().encode(name) for name in ("utf-16", "utf-16-le", "utf-32", "utf-7", "cp037"))
    yield b"+ADw-script+AD4-"


def mboxes() -> Iterable[bytes]:
    for message in list(mails())[:3]:
        yield b"From a@example.org Tue Nov 24 03:41:06 2026\n" + message + b"\n"


def forms() -> Iterable[bytes]:
    yield b"a=" + b64encode(EVIL) + b"&b=%41%2B" + b"x" * 300 + b"&c"
    yield b"&".join(b"k=%%%02x" % number for number in range(256))
