"""EVASION.md 1 to 32: techniques in the structure of a mail, generated from a mail with EICAR as an attachment."""

from __future__ import annotations

from base64 import b64encode, encodebytes
from functools import partial

import pytest

from icapscan.findings import Reason
from icapscan.unwrap import mime_alternatives
from icapscan.unwrap.contract import Declared
from tests.unwrap import samples_mime
from tests.unwrap.samples_mime import (
    EICAR_BASE64,
    HEAD,
    TEXT,
    found,
    mail,
    multipart,
    part,
    reject,
    unpack,
)

find = partial(samples_mime.find, structure=True)
BASE64 = b"Content-Transfer-Encoding: base64\r\n"
QUOTED = b"Content-Transfer-Encoding: quoted-printable\r\n"


def attachment(encoding: bytes, body: bytes = EICAR_BASE64) -> bytes:
    """A mail whose attachment has these Content-Transfer-Encoding lines."""
    return mail(multipart(TEXT, part(body, encoding=encoding)))


@pytest.mark.parametrize(
    "encoding",
    [
        BASE64 + QUOTED,
        QUOTED + BASE64,
        BASE64 + BASE64,
        b"Content-Transfer-Encoding: 7bit\r\n" + QUOTED + BASE64,
    ],
)
def test_evasion_01_two_transfer_encodings(encoding: bytes) -> None:
    unpacked = find(attachment(encoding))
    assert encoding == BASE64 + BASE64 or unpacked.anomalies


@pytest.mark.parametrize(
    "value",
    [
        b"base64, quoted-printable",
        b"quoted-printable base64",
        b"(c) base64",
        b'"base64"',
        b"base64;x=y",
        b"BASE64 x",
        b"=?us-ascii?Q?base64?=",
        b"x-base64",
        b"base64\t",
        b"",
        b"BaSe64",
        b"unknown",
        b" base64 ,",
        b"base64(x)",
    ],
)
def test_evasion_02_transfer_encoding_with_junk(value: bytes) -> None:
    find(attachment(b"Content-Transfer-Encoding: " + value + b"\r\n"))


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Transfer-Encoding : base64",
        b"Content-Transfer-Encoding:: base64",
        b"Content-Transfer-Encoding base64",
        b"Content-Transfer-\r\n Encoding: base64",
        b"Content-Transfer\x0b-Encoding: base64",
        b"Content-Tra\rnsfer-Encoding: base64",
        b"Content-Transfer-Encoding\r\n : base64",
        b" Content-Transfer-Encoding: base64",
    ],
)
def test_evasion_03_broken_field_name(field: bytes) -> None:
    find(attachment(field + b"\r\n"))


@pytest.mark.parametrize(
    "field",
    [
        b"\0Content-Transfer-Encoding: base64",
        b"Content-\xff-Transfer-Encoding: x\r\nContent-Transfer-Encoding: base64",
        b"\xff\xfe\r\nContent-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: \0base64",
        b"Content-Transfer-Encoding: base64\xff",
        b"Content-Trans\0fer-Encoding: base64",
    ],
)
def test_evasion_04_odd_bytes_in_the_header(field: bytes) -> None:
    find(attachment(field + b"\r\n"))


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\n\r", b"\r\r\n"])
def test_evasion_05_line_ends(ending: bytes) -> None:
    find(mail().replace(b"\r\n", ending))


def test_evasion_05_bare_cr_in_the_header_of_a_part() -> None:
    find(mail(multipart(TEXT, part(more=b"X-A: b\rX-C: d\r\n").replace(BASE64, b"X-E: f\r" + BASE64))))


@pytest.mark.parametrize("blank", [b"\r", b"\n", b" \r\n", b"\t\r\n", b"\x0c\r\n", b"", b"\0\r\n"])
def test_evasion_06_what_ends_a_header(blank: bytes) -> None:
    find(mail(multipart(TEXT, part(blank=blank))))
    reject(mail(blank=blank))


@pytest.mark.parametrize("junk", [b"just junk\r\n", b"\xe3\x81\x82\r\n", b"no colon here\r\n more\r\n"])
def test_evasion_07_junk_line_in_a_header(junk: bytes) -> None:
    find(mail(multipart(TEXT, part(encoding=junk + BASE64))))
    find(mail(multipart(TEXT, part(encoding=BASE64 + junk))))
    find(mail(type=junk + b'Content-Type: multipart/mixed; boundary="frontier"\r\n'))


def test_evasion_07_junk_line_ends_the_header() -> None:
    body = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n"
    find(HEAD + BASE64 + EICAR_BASE64 + body)


MIXED = b'Content-Type: multipart/mixed; boundary="frontier"\r\n'
PLAIN = b"Content-Type: text/plain\r\n"


@pytest.mark.parametrize("types", [MIXED + PLAIN, PLAIN + MIXED, b"Content-Type: image/png\r\n" + PLAIN + MIXED])
def test_evasion_08_conflicting_types(types: bytes) -> None:
    assert find(mail(type=types)).anomalies


def test_evasion_08_multipart_or_a_single_body() -> None:
    find(mail(EICAR_BASE64, type=PLAIN + MIXED + BASE64))


@pytest.mark.parametrize(
    "parameters",
    [
        b"boundary=frontier; boundary=bad",
        b"boundary=bad; boundary=frontier",
        b"boundary=bad; boundary*=us-ascii''frontier",
        b"boundary*=us-ascii''bad; boundary=frontier",
        b"boundary*0=bad; boundary=frontier",
    ],
)
def test_evasion_09_two_boundaries(parameters: bytes) -> None:
    find(mail(type=b"Content-Type: multipart/mixed; " + parameters + b"\r\n"))
    decoy = multipart(TEXT, boundary=b"bad")
    find(mail(decoy + multipart(TEXT, part()), type=b"Content-Type: multipart/mixed; " + parameters + b"\r\n"))


@pytest.mark.parametrize(
    "parameters",
    [
        b"; ".join([*(b"boundary=x%d" % number for number in range(60)), b"boundary=frontier"]),
        b"boundary=x; y=" + b"z" * 9000 + b"; boundary=frontier",
    ],
    ids=["many", "far"],
)
def test_evasion_09_more_boundaries_than_are_tried_are_never_clean(parameters: bytes) -> None:
    reject(mail(type=b"Content-Type: multipart/mixed; " + parameters + b"\r\n"))


@pytest.mark.parametrize(
    "parameters",
    [
        b"boundary*0=fron; boundary*1=tier",
        b"boundary*1=tier; boundary*0=fron",
        b"boundary*=us-ascii'en'front%69er",
        b"boundary*0*=us-ascii''fron; boundary*1*=t%69er",
        b"boundary*0*=us-ascii''fron; boundary*1=tier",
        b"boundary*0=frontier",
        b"boundary*1=fron; boundary*2=tier",
        b"boundary*0=fron; boundary*2=tier",
        b"boundary*=utf-16be''%00f%00r%00o%00n%00t%00i%00e%00r",
        b"boundary*=utf-16le''f%00r%00o%00n%00t%00i%00e%00r%00",
    ],
)
def test_evasion_10_boundary_in_rfc_2231(parameters: bytes) -> None:
    find(mail(type=b"Content-Type: multipart/mixed; " + parameters + b"\r\n"))


@pytest.mark.parametrize(
    ("outer", "inner"), [(b"a", b"ab"), (b"ab", b"a"), (b"a", b"a"), (b"a", b"a--"), (b"a--", b"a"), (b"a", b"a-b")]
)
@pytest.mark.parametrize("close", [None, b""])
def test_evasion_11_related_boundaries(outer: bytes, inner: bytes, close: bytes | None) -> None:
    nested = part(
        multipart(TEXT, part(), boundary=inner, close=close),
        type=b'Content-Type: multipart/mixed; boundary="' + inner + b'"\r\n',
        encoding=b"",
    )
    header = b'Content-Type: multipart/mixed; boundary="' + outer + b'"\r\n'
    find(mail(multipart(TEXT, nested, boundary=outer), type=header))
    find(mail(multipart(nested, TEXT, boundary=outer, close=close), type=header))


def test_evasion_11_inner_goes_on_past_the_outer() -> None:
    half = len(EICAR_BASE64) // 8 * 4
    body = b"--in\r\n" + part(EICAR_BASE64[:half] + b"\r\n--out\r\n" + EICAR_BASE64[half:]) + b"\r\n--in--\r\n"
    nested = part(body, type=b"Content-Type: multipart/mixed; boundary=in\r\n", encoding=b"")
    unpacked = unpack(
        mail(multipart(TEXT, nested, boundary=b"out"), type=b"Content-Type: multipart/mixed; boundary=out\r\n")
    )
    assert found(unpacked) or unpacked.failed


@pytest.mark.parametrize(
    "parameter",
    [
        b'boundary="frontier',
        b'boundary=frontier"',
        b'boundary="fron\\tier"',
        b"boundary='frontier'",
        b'boundary="frontier";;',
        b"boundary=frontier;x",
        b"boundary=frontier(c)",
        b"boundary=(c)frontier",
        b'boundary="frontier"x',
        b'boundary=x"frontier"',
        b'boundary="fron"tier',
        b"boundary =frontier",
        b"boundary= frontier",
        b"boundary=frontier,x",
        b'x="; boundary=frontier',
        b'boundary=fron"tier"',
        b"BOUNDARY=frontier",
        b"boundary=\tfrontier",
    ],
)
def test_evasion_12_boundary_quoting(parameter: bytes) -> None:
    find(mail(type=b"Content-Type: multipart/mixed; " + parameter + b"\r\n"))


@pytest.mark.parametrize("boundary", [b" frontier", b"frontier ", b"fron tier", b"   ", b"", b"f" * 100])
@pytest.mark.parametrize("padding", [b"", b" ", b" \t "])
def test_evasion_13_boundary_with_blanks_or_too_long(boundary: bytes, padding: bytes) -> None:
    body = multipart(TEXT, part(), boundary=boundary + padding)
    find(mail(body, type=b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n'))
    stripped = multipart(TEXT, part(), boundary=boundary.strip())
    find(mail(stripped, type=b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n'))


@pytest.mark.parametrize("tail", [b"x", b" text", b"\tx", b"\x0b", b"-", b"--x", b"(comment)", b"\0"])
def test_evasion_14_text_behind_the_delimiter(tail: bytes) -> None:
    body = mail().replace(b"--frontier\r\n", b"--frontier" + tail + b"\r\n")
    find(body)
    assert unpack(body).anomalies


def test_evasion_14_delimiter_in_a_header() -> None:
    find(mail(multipart(TEXT, b"X-A: b\r\n --frontier\r\n" + part())))
    find(mail(b"--frontier\r\nContent-Type: text/plain\r\nX-A: b --frontier\r\n" + part() + b"\r\n--frontier--\r\n"))


@pytest.mark.parametrize("outer", [None, b""])
@pytest.mark.parametrize("inner", [None, b""])
def test_evasion_15_missing_closing_delimiter(outer: bytes | None, inner: bytes | None) -> None:
    body = multipart(TEXT, part(), boundary=b"inner", close=inner)
    nested = part(body, type=b"Content-Type: multipart/mixed; boundary=inner\r\n", encoding=b"")
    find(mail(multipart(TEXT, nested, TEXT, close=outer)))


@pytest.mark.parametrize(
    "type",
    [
        b"",
        b"Content-Type: multipart/mixed\r\n",
        b"Content-Type: multi part/mixed; boundary=frontier\r\n",
        b"Content-Type: x.multipart/mixed; boundary=frontier\r\n",
        b"Content-Type: multipart; boundary=frontier\r\n",
        b"Content-Type: mutlipart/mixed; boundary=frontier\r\n",
        b"Content-Typ: multipart/mixed; boundary=frontier\r\n",
        b"Content-Type: text/plain\r\n",
        b"Content-Type: \r\n",
    ],
)
def test_evasion_16_no_boundary_or_no_type(type: bytes) -> None:
    find(mail(type=type))


def test_evasion_17_payload_in_the_preamble() -> None:
    find(mail(part() + b"\r\n" + multipart(TEXT)))
    find(mail(multipart(TEXT, part(), boundary=b"other") + multipart(TEXT)))


def test_evasion_18_payload_in_the_epilogue() -> None:
    find(mail(multipart(TEXT) + multipart(TEXT, part())))
    find(mail(multipart(TEXT) + part()))
    find(mail(multipart(TEXT) + multipart(TEXT, part(), boundary=b"other")))


@pytest.mark.parametrize(
    "type", [b"application/octet-stream", b"text/plain", b"message/rfc822", b"message/delivery-status", b"image/png"]
)
def test_evasion_19_multipart_with_another_label(type: bytes) -> None:
    nested = part(multipart(TEXT, part(), boundary=b"inner"), type=b"Content-Type: " + type + b"\r\n", encoding=b"")
    find(mail(multipart(TEXT, nested)))
    find(mail(type=b"Content-Type: " + type + b"\r\n"))


def test_evasion_19_multipart_far_behind_the_start_of_a_text() -> None:
    text = b"some words of text\r\n" * 1000 + multipart(TEXT, part(), boundary=b"inner")
    find(mail(multipart(part(text, type=PLAIN, encoding=b""))))


def test_evasion_20_transfer_encoding_on_a_multipart() -> None:
    inner = multipart(TEXT, part(), boundary=b"inner")
    header = b"Content-Type: multipart/mixed; boundary=inner\r\n"
    find(mail(multipart(TEXT, part(encodebytes(inner), type=header))))
    find(mail(encodebytes(inner), type=header + BASE64))
    find(mail(multipart(TEXT, part(inner, type=header, encoding=BASE64))))
    quoted = inner.replace(b"=", b"=3D")
    find(mail(multipart(TEXT, part(quoted, type=header, encoding=QUOTED))))


@pytest.mark.parametrize("type", [b"message/rfc822", b"message/global"])
def test_evasion_21_message_with_transfer_encoding(type: bytes) -> None:
    header = b"Content-Type: " + type + b"\r\n"
    body = mail()
    for _ in range(3):
        body = HEAD + header + BASE64 + b"\r\n" + encodebytes(body)
    find(body)
    find(mail(multipart(TEXT, part(encodebytes(mail()), type=header))))
    find(mail(multipart(TEXT, part(mail().replace(b"frontier", b"in"), type=header, encoding=BASE64))))


@pytest.mark.parametrize("levels", [10, 40, 400])
def test_evasion_22_deep_nesting(levels: int) -> None:
    body = part()
    for level in range(levels):
        name = b"b%d" % level
        body = b"Content-Type: multipart/mixed; boundary=" + name + b"\r\n\r\n" + multipart(body, boundary=name)
    unpacked = unpack(HEAD + body)
    assert found(unpacked) or Reason.OVER_LIMIT in unpacked.failed.values()


@pytest.mark.parametrize("count", [3000, 12_000])
def test_evasion_23_thousands_of_parts(count: int) -> None:
    unpacked = unpack(mail(multipart(*[TEXT] * count, part())))
    assert found(unpacked) or Reason.OVER_LIMIT in unpacked.failed.values()


@pytest.mark.parametrize("size", [100_000, 900_000, 2_000_000])
def test_evasion_24_long_header(size: int) -> None:
    unpacked = unpack(mail(multipart(TEXT, part(type=b"X-Long: " + b"a" * size + b"\r\n" + PLAIN))))
    assert found(unpacked) or Reason.OVER_LIMIT in unpacked.failed.values()


def test_evasion_25_no_mime_version() -> None:
    find(mail().replace(b"MIME-Version: 1.0\r\n", b""))


def test_evasion_26_fragment() -> None:
    header = b'Content-Type: message/partial; id="a"; number=1; total=2\r\n'
    unpacked = unpack(mail(mail()[:200], type=header))
    assert unpacked.failed == {"1": Reason.UNSUPPORTED}
    assert "message-partial" in unpacked.kinds
    nested = unpack(mail(multipart(TEXT, part(mail()[:200], type=header, encoding=b""))))
    assert nested.failed == {"2": Reason.UNSUPPORTED}


def test_evasion_27_external_body() -> None:
    header = b'Content-Type: message/external-body; access-type=URL; URL="http://example.org/"\r\n'
    unpacked = unpack(mail(multipart(TEXT, part(b"Content-Type: text/plain\r\n\r\n", type=header, encoding=b""))))
    assert unpacked.failed == {"2": Reason.UNSUPPORTED}
    assert "message-external-body" in unpacked.kinds


@pytest.mark.parametrize("subtype", [b"digest", b"parallel", b"x-anything", b"related", b"report", b"signed", b"MIXED"])
def test_evasion_28_every_multipart_alike(subtype: bytes) -> None:
    find(mail(type=b"Content-Type: multipart/" + subtype + b"; boundary=frontier\r\n"))


def test_evasion_28_parts_of_a_digest_are_messages() -> None:
    body = multipart(b"\r\n" + mail().replace(b"frontier", b"inner"))
    find(mail(body, type=b"Content-Type: multipart/digest; boundary=frontier\r\n"))


def test_evasion_29_boundary_on_a_leaf() -> None:
    header = b"Content-Type: application/octet-stream; boundary=inner\r\n"
    find(mail(multipart(TEXT, part(type=header))))
    find(mail(multipart(TEXT, part(multipart(TEXT, part(), boundary=b"inner"), type=header, encoding=b""))))
    find(mail(EICAR_BASE64, type=b"Content-Type: text/plain; boundary=frontier\r\n" + BASE64))
    find(mail(type=b"Content-Type: text/plain; boundary=frontier\r\n"))


@pytest.mark.parametrize(
    "value",
    [
        b"(c) multipart/mixed; boundary=frontier",
        b"multipart/mixed (a (b) c); boundary=frontier",
        b"multipart/mixed; (x) boundary=frontier",
        b"multipart/mixed; boundary (x)=frontier",
        b"multipart/mixed; boundary= (x) frontier",
        b"multipart/mixed; (boundary=bad) boundary=frontier",
        b"multipart/mixed; (x; boundary=frontier",
        b"multipart(x)/mixed; boundary=frontier",
        b"multipart/mixed; boundary=frontier (x",
    ],
)
def test_evasion_30_comments(value: bytes) -> None:
    find(mail(type=b"Content-Type: " + value + b"\r\n"))


def test_evasion_30_comment_in_a_transfer_encoding() -> None:
    find(attachment(b"Content-Transfer-Encoding: (quoted-printable) base64\r\n"))
    find(attachment(b"Content-Transfer-Encoding (x): base64\r\n"))


@pytest.mark.parametrize(
    "value",
    [
        b"multipart/mixed;\r\n boundary\r\n =frontier",
        b"multipart/mixed; boundary=\r\n frontier",
        b"multipart/mixed;\r\n\t\r\n boundary=frontier",
        b"\r\n multipart/mixed;\r\n  boundary=frontier",
        b"multipart/\r\n mixed; boundary=frontier",
        b"multipart/mixed;\r\n \r\n \r\n boundary=frontier",
    ],
)
def test_evasion_31_odd_folding(value: bytes) -> None:
    find(mail(type=b"Content-Type: " + value + b"\r\n"))


@pytest.mark.parametrize("hiding", [b"Subject: a\r", b"To: b@example.org,\r", b"X-Y: z\r\n "])
def test_evasion_32_hidden_field(hiding: bytes) -> None:
    find(mail(type=hiding + MIXED))
    find(mail(multipart(TEXT, part(encoding=hiding + BASE64))))


def test_evasion_69_mime_as_an_http_body() -> None:
    body = multipart(TEXT, part())
    for media_type in ("multipart/mixed", "multipart/x-mixed-replace", "multipart/related"):
        find(body, Declared(media_type=media_type, content_type=media_type.encode() + b"; boundary=frontier"))
        find(body, Declared(media_type=media_type))
    find(mail(), Declared(media_type="message/rfc822"))
    find(mail(), Declared(media_type="application/octet-stream"))
    location = b"Content-Location: http://example.org/a\r\n"
    find(
        mail(multipart(TEXT, part(more=location)), type=b"Content-Type: multipart/related; boundary=frontier\r\n"),
        Declared(),
    )


def test_readings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where doubts multiply there are many readings; past the bound the verdict is over-limit, never clean."""
    body = b64encode(b"nothing to be found here, in any reading")
    odd = b"\r\n".join(body[at : at + 5] + b"=.-" for at in range(0, len(body), 5))
    text = b"junk\r\n \r\nX: y\rz\r\n" + BASE64 + QUOTED + PLAIN + b"\r\n" + odd
    types = b"Content-Type: multipart/mixed; boundary=a; boundary='b'; boundary*0=c; boundary*1=d\r\n"
    parts = b"".join(b"--" + name + b"\r\n" + text + b"\r\n" for name in (b"a", b"b", b"'b'", b"cd", b"ax"))
    unpacked = unpack(mail(parts, type=types + PLAIN))
    assert unpacked.anomalies
    monkeypatch.setattr(mime_alternatives, "READINGS_MAX", 5)
    assert unpack(mail(parts, type=types + PLAIN)).failed[""] is Reason.OVER_LIMIT
