"""EVASION.md 33 to 50 and 71 to 73: techniques in the encoding of a body, generated from an EICAR attachment."""

from __future__ import annotations

import gzip
import re
from base64 import b64encode, encodebytes, urlsafe_b64encode
from urllib.parse import quote_from_bytes

import pytest

from icapscan.findings import Reason
from icapscan.unwrap.contract import Declared
from tests.unwrap.coders import binhex, cms, uuencode, winmail, yenc
from tests.unwrap.samples_mime import EICAR, EICAR_BASE64, HEAD, MAIL, TEXT, find, found, mail, multipart, part, unpack

CODE = b64encode(EICAR)
PLAIN = b"Content-Type: text/plain\r\n"


def labelled(encoding: bytes) -> bytes:
    return b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""


def attached(body: bytes, encoding: bytes = b"base64", type: bytes = b"application/octet-stream") -> bytes:
    """A mail with a text, and an attachment with this body as it stands."""
    header = b"Content-Type: " + type + b"\r\n"
    return mail(multipart(TEXT, part(body, type=header, encoding=labelled(encoding))))


def quads(joiner: bytes, size: int = 4) -> bytes:
    return joiner.join(CODE[at : at + size] for at in range(0, len(CODE), size))


@pytest.mark.parametrize("junk", [b".", b"-", b":", b"#", b"%", b"\xff", b"\0", b".\r\n", b" ! "])
def test_evasion_33_illegal_characters(junk: bytes) -> None:
    unpacked = find(attached(quads(junk)), structure=True)
    assert "base64-junk" in unpacked.kinds


def test_evasion_33_a_reader_stops_at_the_first_illegal_character() -> None:
    find(attached(CODE + b"\r\n.\r\n" + b64encode(b"decoy")), structure=True)


def test_evasion_33_junk_behind_quads_on_their_lines() -> None:
    find(attached(quads(b"#abcd\r\n", 20)), structure=True)
    find(attached(quads(b"XX\r\n") + b"XX"), structure=True)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 20])
def test_evasion_34_padding_in_the_middle(size: int) -> None:
    joined = b"".join(b64encode(EICAR[at : at + size]) for at in range(0, len(EICAR), size))
    find(attached(joined), structure=True)
    find(attached(re.sub(b"(.{76})", rb"\1\r\n", joined)), structure=True)


def test_evasion_34_a_reader_stops_at_the_first_padding() -> None:
    assert b64encode(EICAR).endswith(b"=")
    find(attached(b64encode(EICAR) + b"\r\n" + b64encode(b"more")), structure=True)


def test_evasion_34_a_reader_ignores_padding() -> None:
    find(attached(CODE[:4] + b"=" + CODE[4:21] + b"==" + CODE[21:]), structure=True)


@pytest.mark.parametrize("ending", [b"", b"=", b"==", b"===", b"====", b"=\r\n=\r\n"])
def test_evasion_35_padding_at_the_end(ending: bytes) -> None:
    find(attached(CODE.rstrip(b"=") + ending), structure=True)
    find(attached(b"=" + CODE), structure=True)


def test_evasion_35_misplaced_padding_is_not_clean() -> None:
    broken = re.sub(b"(.)", rb"\1=", CODE)
    unpacked = unpack(attached(broken))
    assert found(unpacked) or unpacked.failed


@pytest.mark.parametrize("size", [1, 3, 4, 5, 6, 7, 61, 1000])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r\n\r\n", b"\r", b"\t", b"\x0b"])
def test_evasion_36_line_length(size: int, ending: bytes) -> None:
    find(attached(quads(ending, size)), structure=True)


@pytest.mark.parametrize(
    "first",
    [b"just some words", b"QUJDR", b"ABC", b"A", b"#", b"Content-Foo: bar", b"AB\r\n", b"QUJD\r\n", b"====", b"QQ=="],
)
def test_evasion_37_a_line_before_the_base64(first: bytes) -> None:
    unpacked = unpack(attached(first + b"\r\n" + EICAR_BASE64), structure=True)
    assert unpacked.holding(EICAR)
    assert found(unpacked) or first == b"QUJD\r\n"  # which nobody can tell from the rest


def test_evasion_38_url_safe_alphabet() -> None:
    padded = EICAR + b"\n" * 2
    data = next(padded + bytes([n]) * 3 for n in (0xFB, 0xFF) if b"_" in urlsafe_b64encode(padded + bytes([n]) * 3))
    unpacked = unpack(attached(urlsafe_b64encode(data)))
    assert any(part.startswith(EICAR) and part.endswith(data[-3:]) for part in unpacked.parts.values())


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_evasion_39_truncated(cut: int) -> None:
    unpacked = unpack(attached(CODE[:-cut]))
    assert any(data.startswith(EICAR[:66]) for data in unpacked.parts.values())
    assert cut == 4 or unpacked.anomalies


def escaped(data: bytes = EICAR, form: bytes = b"=%02X") -> bytes:
    return b"".join(form % code for code in data)


@pytest.mark.parametrize(
    "body",
    [
        escaped(),
        escaped(form=b"=%02x"),
        escaped(form=b"=%02X=\r\n"),
        escaped(form=b"=%02X= \t\r\n"),
        escaped(form=b"=%02X=\n"),
        EICAR.replace(b"$", b"=24").replace(b"*", b"=2a"),
        EICAR + b"=",
        EICAR + b"=\r\n",
        EICAR + b"\r\n\r\n",
        escaped(form=b"=XX=%02X"),
        escaped(form=b"= =%02X"),
        b"=\r\n" * 50 + EICAR,
    ],
)
def test_evasion_40_odd_quoted_printable(body: bytes) -> None:
    find(attached(body, b"quoted-printable"), structure=True)


@pytest.mark.parametrize("form", [b"=%X", b"=\r=%02X", b"=0=%02X", b"==%02X"])
def test_evasion_40_what_no_reader_can_decode_is_not_clean(form: bytes) -> None:
    unpacked = unpack(attached(escaped(form=form), b"quoted-printable"))
    assert found(unpacked) or unpacked.failed


@pytest.mark.parametrize("label", [b"", b"7bit", b"8bit", b"binary", b"quoted-printable", b"x-uuencode", b"x-unknown"])
def test_evasion_41_base64_with_another_label(label: bytes) -> None:
    find(attached(EICAR_BASE64, label))
    find(attached(CODE + b"\r\n", label))
    find(attached(quads(b"\r\n", 24), label))
    find(mail(EICAR_BASE64, type=PLAIN + labelled(label)))


def test_evasion_41_quoted_printable_with_another_label() -> None:
    body = escaped(form=b"=%02X=\r\n")
    find(attached(body, b""))
    find(attached(body, b"base64"))


def test_evasion_41_nothing_encoded_although_labelled() -> None:
    find(attached(EICAR, b"base64"))
    find(attached(EICAR, b"quoted-printable"))


def test_evasion_42_encoded_twice() -> None:
    find(attached(encodebytes(EICAR_BASE64)))
    find(attached(encodebytes(escaped(form=b"=%02X=\r\n"))))
    find(attached(escaped(EICAR_BASE64), b"quoted-printable"))


@pytest.mark.parametrize(
    "text",
    [
        uuencode(EICAR),
        b"Hello\n\n" + uuencode(EICAR) + b"\nBye\n",
        uuencode(b"decoy") + uuencode(EICAR),
        uuencode(EICAR).replace(b"end\n", b""),
        uuencode(EICAR).replace(b"\n", b"\r\n"),
        uuencode(EICAR).replace(b"644", b"0644"),
        b"begin-base64 644 a.com\n" + encodebytes(EICAR) + b"====\n",
        b"BEGIN 644 a.com\n" + uuencode(EICAR).partition(b"\n")[2],
    ],
)
def test_evasion_43_uuencode_in_a_text(text: bytes) -> None:
    find(attached(text, b"7bit", b"text/plain"))
    find(mail(text, type=PLAIN))


def test_evasion_43_uuencode_without_begin() -> None:
    data = EICAR + b"\n" * 60
    unpacked = unpack(attached(b"Hello\n" + uuencode(data, frame=False) + b"\n", b"7bit", b"text/plain"))
    assert unpacked.holding(EICAR)


@pytest.mark.parametrize("label", [b"x-uuencode", b"uuencode", b"uue", b"x-uue", b"x-uu", b"X-UUENCODE"])
@pytest.mark.parametrize("frame", [True, False])
def test_evasion_44_uuencode_as_transfer_encoding(label: bytes, frame: bool) -> None:
    find(attached(uuencode(EICAR, frame=frame), label))


@pytest.mark.parametrize(
    "text",
    [
        yenc(EICAR),
        b"Hello\r\n" + yenc(EICAR) + b"Bye\r\n",
        yenc(b"decoy") + yenc(EICAR),
        yenc(EICAR, crc=1),
        yenc(EICAR, size=3),
        yenc(EICAR, end=False),
        yenc(EICAR, size=1 << 50),
        yenc(EICAR)
        .replace(b"=ybegin ", b"=ybegin part=1 total=1 ")
        .replace(b"a.com\r\n", b"a.com\r\n=ypart begin=1 end=68\r\n"),
    ],
)
def test_evasion_45_yenc(text: bytes) -> None:
    find(attached(text, b"8bit", b"text/plain"))
    find(attached(text, b"x-yencode"))


def test_evasion_45_a_yenc_line_hides_nothing_behind_it() -> None:
    find(attached(b"=ybegin line=128 size=9 name=x\r\n" + uuencode(EICAR), b"8bit", b"text/plain"))


def test_evasion_46_binhex() -> None:
    text = binhex(EICAR)
    assert find(attached(text, b"7bit", b"application/mac-binhex40")).clean
    find(attached(text, b"x-binhex"))
    find(attached(b"Hello\n" + text + b"Bye\n", b"7bit", b"text/plain"))
    find(attached(binhex(b"", EICAR), b"mac-binhex40"))
    assert unpack(attached(binhex(EICAR, crc=7), b"7bit")).failed


@pytest.mark.parametrize("type", [b"application/ms-tnef", b"text/plain", b"image/png", b"application/octet-stream"])
def test_evasion_47_tnef(type: bytes) -> None:
    find(attached(encodebytes(winmail(EICAR)), type=type))
    find(attached(encodebytes(winmail(winmail(EICAR))), type=type))
    find(attached(encodebytes(winmail(EICAR, checksum=1)), type=type))
    cut = unpack(attached(encodebytes(winmail(EICAR + bytes(100))[:-80]), type=type))
    assert cut.holding(EICAR) and Reason.MALFORMED in cut.failed.values()


def test_evasion_48_gzip() -> None:
    packed = encodebytes(gzip.compress(EICAR))
    find(attached(packed, b"x-gzip64"))
    find(attached(packed, b"gzip64"))
    find(attached(packed, type=b"application/gzip"))


def test_evasion_49_smime() -> None:
    type = b"application/pkcs7-mime; smime-type=signed-data; name=smime.p7m"
    find(attached(encodebytes(cms(2, part())), type=type))
    find(attached(encodebytes(cms(2, mail(), pieces=10)), type=type))
    find(attached(encodebytes(cms(2, cms(2, EICAR))), type=b"image/png"))
    find(mail(encodebytes(cms(2, part())), type=b"Content-Type: " + type + b"\r\n" + labelled(b"base64")))
    signed = b"Content-Type: multipart/signed; protocol=x; boundary=frontier\r\n"
    find(mail(multipart(part(), part(encodebytes(cms(2, None)))), type=signed))


@pytest.mark.parametrize("kind", [3, 4, 6])
def test_evasion_49_encrypted(kind: int) -> None:
    unpacked = unpack(attached(encodebytes(cms(kind, None)), type=b"application/pkcs7-mime"))
    assert list(unpacked.failed.values()) == [Reason.ENCRYPTED]


def test_evasion_49_multipart_encrypted() -> None:
    version = part(b"Version: 1\r\n", type=b"Content-Type: application/pgp-encrypted\r\n", encoding=b"")
    body = multipart(version, part(b"-----BEGIN PGP MESSAGE-----\r\n", encoding=b""))
    unpacked = unpack(mail(body, type=b"Content-Type: multipart/encrypted; boundary=frontier\r\n"))
    assert unpacked.failed == {"2": Reason.ENCRYPTED}


HTML = '<html><a href="data:application/octet-stream;base64,' + CODE.decode() + '">x</a></html>'


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-7", "cp037", "cp500", "utf-32"])
def test_evasion_50_charset(charset: str) -> None:
    shown = {"utf-16-le": "utf-16", "utf-16-be": "utf-16", "cp037": "ebcdic-us"}.get(charset, charset)
    encoded = HTML.encode(charset)
    if charset == "utf-7":
        encoded = HTML.replace("<", "+ADw-").replace('"', "+ACI-").encode()
    type = b"text/html; charset=" + shown.encode()
    assert find(attached(encodebytes(encoded), type=type)).anomalies


def test_evasion_50_charset_in_the_text_itself() -> None:
    html = b'<meta http-equiv="Content-Type" content="text/html; charset=utf-7">' + HTML.replace('"', "+ACI-").encode()
    find(html, Declared(media_type="text/html"))


@pytest.mark.parametrize(
    "html",
    [
        HTML.encode(),
        HTML.replace("data:", "DATA:").replace("base64", "Base64").encode(),
        b"<svg><image xlink:href='data:;base64," + CODE + b"'/></svg>",
        b"body { background: url(data:image/png;base64," + CODE + b") }",
        b'<a href="data:text/plain;charset=utf-8;base64,' + CODE.replace(b"=", b"%3D") + b'">',
        b'<a href="data:application/x,' + quote_from_bytes(EICAR).encode() + b'">',
        b'<a href="data:text/html,' + quote_from_bytes(HTML.encode()).encode() + b'">',
        b"x" * 70_000 + HTML.encode(),
    ],
)
def test_evasion_71_data_uri(html: bytes) -> None:
    find(html, Declared(media_type="text/html"))
    find(html, Declared(media_type="image/svg+xml"))
    find(attached(encodebytes(html), type=b"text/html"))


@pytest.mark.parametrize(
    "script",
    [
        b"<script>var b = atob('" + CODE + b"'); save(new Blob([b]))</script>",
        b'x = "' + CODE[:80] + b"\\n" + CODE[80:] + b'";',
        b"x = `\n  " + quads(b"\n  ", 64) + b"`",
        b"<xml><file>" + CODE + b"</file></xml>",
    ],
)
def test_evasion_72_base64_in_a_script(script: bytes) -> None:
    find(script, Declared(media_type="text/html"))
    find(script, Declared(media_type="application/javascript"))


def test_evasion_73_uploads() -> None:
    form = multipart(b'Content-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + EICAR, boundary=b"x")
    find(form, Declared(media_type="multipart/form-data", content_type=b"multipart/form-data; boundary=x"))
    coded = quote_from_bytes(CODE, safe="").encode()
    urlencoded = Declared(media_type="application/x-www-form-urlencoded")
    find(b"a=b&file=" + coded + b"&c=d", urlencoded)
    find(b"a=" + quote_from_bytes(EICAR).encode(), urlencoded)
    data = EICAR + bytes(range(256))
    slashes = b64encode(data).replace(b"/", b"\\/")
    unpacked = unpack(b'{"name": "a.com", "data": "' + slashes + b'"}', Declared(media_type="application/json"))
    assert data in unpacked.parts.values()


def test_a_mail_without_any_of_this_has_no_anomaly() -> None:
    assert not unpack(mail(), MAIL).anomalies
    assert not unpack(HEAD + b"\r\nhello\r\n").anomalies
