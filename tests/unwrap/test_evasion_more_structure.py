"""EVASION.md 1 to 32 once more: each technique in every place and every combination that its row names."""

from __future__ import annotations

from base64 import encodebytes
from functools import partial
from itertools import permutations

import pytest

from icapscan.findings import Reason
from tests.unwrap import samples_mime
from tests.unwrap.samples_mime import EICAR, EICAR_BASE64, HEAD, TEXT, found, mail, multipart, part, reject, unpack

find = partial(samples_mime.find, structure=True)
BASE64 = b"Content-Transfer-Encoding: base64\r\n"
QUOTED = b"Content-Transfer-Encoding: quoted-printable\r\n"
SEVEN = b"Content-Transfer-Encoding: 7bit\r\n"
MIXED = b'Content-Type: multipart/mixed; boundary="frontier"\r\n'
PLAIN = b"Content-Type: text/plain\r\n"
QUOTED_EICAR = b"".join(b"=%02X" % code for code in EICAR)
ODD = [b"\0", b"\xff", b"\x80", b"\xe3\x81\x82"]


def attachment(encoding: bytes, body: bytes = EICAR_BASE64) -> bytes:
    """A mail whose attachment has these Content-Transfer-Encoding lines."""
    return mail(multipart(TEXT, part(body, encoding=encoding)))


@pytest.mark.parametrize("body", [EICAR_BASE64, QUOTED_EICAR, EICAR], ids=["base64", "quoted", "plain"])
@pytest.mark.parametrize("count", [2, 3])
def test_evasion_01_every_order_of_transfer_encodings(body: bytes, count: int) -> None:
    for lines in permutations((BASE64, QUOTED, SEVEN), count):
        decodes = {BASE64: EICAR_BASE64, QUOTED: QUOTED_EICAR, SEVEN: EICAR}
        if body in {decodes[line] for line in lines} or body is EICAR:
            find(attachment(b"".join(lines), body))
            find(mail(body, type=PLAIN + b"".join(lines)))


VALUES = [
    b"base64, quoted-printable", b"base64 quoted-printable", b"quoted-printable;base64", b"base64 qp", b"qp base64",
    b"qp", b"(base64)", b"(base64) quoted-printable", b"base64 (quoted-printable)", b"'base64'", b'"base64', b'base64"',
    b"=?utf-8?B?YmFzZTY0?=", b"=?utf-8?Q?quoted-printable?=", b"x-base64", b"X-Quoted-Printable",
    b"", b" ", b"\t", b"base64.", b"base 64", b"base64=", b"8bit base64", b"\xe3\x81\x82", b";base64",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_evasion_02_every_known_token_and_the_raw_bytes(value: bytes) -> None:
    line = b"Content-Transfer-Encoding: " + value + b"\r\n"
    for body in (EICAR_BASE64, QUOTED_EICAR, EICAR):
        find(attachment(line, body))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "field",
    [
        b"%sContent-Transfer-Encoding: base64",
        b"Content-%sTransfer-Encoding: base64",
        b"Content-Transfer-Encoding%s: base64",
        b"Content-Transfer-Encoding:%s base64",
        b"Content-Transfer-Encoding: ba%sse64",
        b"Content-Transfer-Encoding: base64%s",
        b"%s\r\nContent-Transfer-Encoding: base64",
        b"X-A: b%s\r\nContent-Transfer-Encoding: base64",
    ],
)
def test_evasion_04_odd_bytes_in_every_place(odd: bytes, field: bytes) -> None:
    find(attachment(field.replace(b"%s", odd) + b"\r\n"))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "field",
    [b"%sContent-Type: multipart/mixed; boundary=frontier", b"Content%s-Type: multipart/mixed; boundary=frontier",
     b"Content-Type%s: multipart/mixed; boundary=frontier", b"Content-Type: %smultipart/mixed; boundary=frontier",
     b"Content-Type: multi%spart/mixed; boundary=frontier", b"Content-Type: multipart/mixed;%s boundary=frontier",
     b"Content-Type: multipart/mixed; boundary=frontier%s", b"Content-Type: multipart/mixed; bound%sary=frontier",
     b"%s\r\nContent-Type: multipart/mixed; boundary=frontier"],
)  # fmt: skip
def test_evasion_04_odd_bytes_in_the_content_type(odd: bytes, field: bytes) -> None:
    find(mail(type=field.replace(b"%s", odd) + b"\r\n"))


@pytest.mark.parametrize("ending", [b"\r", b"\n", b"\n\r", b"\r\r\n"])
def test_evasion_05_line_ends_in_one_place_only(ending: bytes) -> None:
    whole = mail()
    head, _, body = whole.partition(b"\r\n\r\n")
    find(head.replace(b"\r\n", ending) + ending * 2 + body)
    find(head.replace(b"\r\n", ending) + b"\r\n\r\n" + body)
    delimiters = body.replace(b"--frontier\r\n", b"--frontier" + ending).replace(
        b"\r\n--frontier", ending + b"--frontier"
    )
    find(head + b"\r\n\r\n" + delimiters)
    find(head + b"\r\n\r\n" + body.replace(b"--frontier\r\n", b"--frontier" + ending))
    find(attachment(BASE64, EICAR_BASE64.replace(b"\r\n", ending)))
    find(attachment(QUOTED, QUOTED_EICAR[:99] + b"=" + ending + QUOTED_EICAR[99:]))
    fields = part().replace(BASE64, BASE64.replace(b"\r\n", ending))
    reject(mail(multipart(TEXT, fields)))


@pytest.mark.parametrize("junk", [b"just junk\r\n", b"\xe3\x81\x82\r\n", b"\xff\xfe\r\n", b"-\r\n", b"=\r\n"])
def test_evasion_07_a_junk_line_under_both_readings(junk: bytes) -> None:
    inner = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n"
    find(HEAD + BASE64 + junk + inner.replace(b"hello", EICAR))  # the header goes on
    assert unpack(HEAD + BASE64 + junk + EICAR_BASE64 + b"\r\n" + inner, structure=True).holding(EICAR)  # it ends there
    find(mail(multipart(TEXT, part(blank=junk))))
    find(mail(multipart(TEXT, PLAIN + junk + BASE64 + b"\r\n" + EICAR_BASE64)))


@pytest.mark.parametrize("body", [EICAR_BASE64, None], ids=["single", "multipart"])
@pytest.mark.parametrize("other", [b"text/plain", b"text/html", b"image/png", b"message/rfc822", b"x"])
def test_evasion_08_conflicting_types_in_either_order(body: bytes | None, other: bytes) -> None:
    line = b"Content-Type: " + other + b"\r\n"
    for lines in (line + MIXED, MIXED + line, line + MIXED + line):
        find(mail(body, type=lines, more=BASE64 if body else b""))
        inner = part(body or multipart(TEXT, part()), type=lines, encoding=BASE64 if body else b"")
        find(mail(multipart(TEXT, inner, boundary=b"outer"), type=b"Content-Type: multipart/mixed; boundary=outer\r\n"))


GOOD = [b"boundary=frontier", b'boundary="frontier"', b"boundary*=us-ascii''frontier", b"boundary*0=frontier",
        b"boundary*0*=us-ascii''front%69er"]  # fmt: skip
BAD = [b"boundary=bad", b"boundary*=us-ascii''bad", b"boundary*0=bad", b'boundary="bad"', b"boundary="]


@pytest.mark.parametrize("good", GOOD)
@pytest.mark.parametrize("bad", BAD)
def test_evasion_09_good_and_bad_in_either_order_and_form(good: bytes, bad: bytes) -> None:
    for parameters in (good + b"; " + bad, bad + b"; " + good):
        header = b"Content-Type: multipart/mixed; " + parameters + b"\r\n"
        find(mail(type=header))
        find(mail(multipart(TEXT, boundary=b"bad") + multipart(TEXT, part()), type=header))
        find(mail(multipart(TEXT, part()) + multipart(TEXT, boundary=b"bad"), type=header))


@pytest.mark.parametrize(("outer", "inner"), [(b"a", b"ab"), (b"ab", b"a"), (b"a", b"b"), (b"a", b"a"), (b"a", b"a--")])
def test_evasion_11_the_inner_one_closes_the_outer(outer: bytes, inner: bytes) -> None:
    """A closing delimiter of the outer multipart within the inner one, and the payload behind it."""
    body = b"--" + inner + b"\r\n" + TEXT + b"\r\n--" + outer + b"--\r\n"
    body += b"--" + inner + b"\r\n" + part() + b"\r\n--" + inner + b"--\r\n"
    nested = part(body, type=b'Content-Type: multipart/mixed; boundary="' + inner + b'"\r\n', encoding=b"")
    header = b'Content-Type: multipart/mixed; boundary="' + outer + b'"\r\n'
    find(mail(multipart(TEXT, nested, boundary=outer), type=header))
    find(mail(multipart(TEXT, nested, boundary=outer, close=b""), type=header))


@pytest.mark.parametrize(
    ("parameter", "boundary"),
    [
        (b'boundary="fron\\"tier"', b'fron"tier'),
        (b'boundary="fron\\"tier"', b'fron\\"tier'),
        (b'boundary="fron\\"tier"', b"fron\\"),
        (b'boundary="fron;tier"', b"fron;tier"),
        (b"boundary=fron;tier", b"fron"),
        (b"boundary=fron;tier", b"fron;tier"),
        (b'boundary="fron(x)tier"', b"fron(x)tier"),
        (b'boundary="fron(x)tier"', b"frontier"),
        (b"boundary=fron(x)tier", b"frontier"),
        (b"boundary=fron(x)tier", b"fron(x)tier"),
        (b"boundary=fron(x)tier", b"fron"),
        (b'boundary="frontier', b'"frontier'),
        (b"boundary='frontier'", b"'frontier'"),
        (b'boundary=x"frontier"', b'x"frontier"'),
        (b'boundary=x"frontier"', b"xfrontier"),
        (b'boundary="frontier"x', b"frontierx"),
        (b'boundary="frontier" x', b"frontier"),
        (b'boundary=frontier "x"', b"frontier"),
        (b'boundary=""frontier""', b"frontier"),
    ],
)
def test_evasion_12_quoting_as_each_reader_takes_it(parameter: bytes, boundary: bytes) -> None:
    header = b"Content-Type: multipart/mixed; " + parameter + b"\r\n"
    find(mail(multipart(TEXT, part(), boundary=boundary), type=header))
    reject(mail(multipart(TEXT, boundary=b"frontier") + multipart(TEXT, part(), boundary=boundary), type=header))


@pytest.mark.parametrize("white", [b" ", b"\t", b" \t", b"\x0b", b"\x0c"])
def test_evasion_13_white_space_in_the_parameter_and_behind_the_delimiter(white: bytes) -> None:
    for value in (white + b"frontier", b"frontier" + white, b"fron" + white + b"tier", white * 3):
        for quoted in (b'"' + value + b'"', value):
            header = b"Content-Type: multipart/mixed; boundary=" + quoted + b"\r\n"
            for boundary in (value, value.strip(), value + white):
                reject(mail(multipart(TEXT, part(), boundary=boundary), type=header))


@pytest.mark.parametrize("tail", [b" ", b"x", b"\t", b"\x0b", b"--", b"---", b"-x", b" --", b"\0", b"\xff"])
@pytest.mark.parametrize("decoy", [True, False])
def test_evasion_14_the_text_behind_the_delimiter_counts_or_does_not(tail: bytes, decoy: bool) -> None:
    """A payload between two such lines, and one that such a line would cut in two."""
    odd = b"--frontier" + tail + b"\r\n"
    body = (b"--frontier\r\n" + TEXT + b"\r\n" if decoy else b"") + odd + part() + b"\r\n--frontier--\r\n"
    find(mail(body))
    half = len(EICAR_BASE64) // 8 * 4
    split = EICAR_BASE64[:half] + b"\r\n" + odd + EICAR_BASE64[half:]
    unpacked = unpack(mail(multipart(TEXT, part(split))), structure=True)
    assert found(unpacked) or unpacked.anomalies or tail == b"--"  # which every reader takes for the end


@pytest.mark.parametrize(
    "type", [b"message/global", b"message/http", b"message/x-y", b"message/", b"application/x-y", b"audio/wav", b"x"]
)
def test_evasion_19_any_label_on_a_multipart(type: bytes) -> None:
    nested = part(multipart(TEXT, part(), boundary=b"inner"), type=b"Content-Type: " + type + b"\r\n", encoding=b"")
    find(mail(multipart(TEXT, nested)))
    find(mail(type=b"Content-Type: " + type + b"\r\n"))


@pytest.mark.parametrize("encoding", [BASE64, QUOTED])
@pytest.mark.parametrize("applied", [True, False])
def test_evasion_20_encoded_or_not_at_every_level(encoding: bytes, applied: bool) -> None:
    inner = multipart(TEXT, part(), boundary=b"inner")
    header = b"Content-Type: multipart/mixed; boundary=inner\r\n"
    coded = inner
    if applied:
        coded = (
            encodebytes(inner) if encoding is BASE64 else inner.replace(b"=", b"=3D").replace(b"--inner", b"=2D-inner")
        )
    find(mail(multipart(TEXT, part(coded, type=header, encoding=encoding))))
    find(mail(coded, type=header + encoding))
    find(mail(coded, type=encoding + header))


@pytest.mark.parametrize("type", [b"message/rfc822", b"message/global"])
def test_evasion_21_layers_of_either_encoding(type: bytes) -> None:
    header = b"Content-Type: " + type + b"\r\n"
    for encodings in ((QUOTED,) * 3, (BASE64, QUOTED, BASE64), (QUOTED, BASE64, QUOTED), (SEVEN, BASE64, QUOTED)):
        body = mail()
        for encoding in encodings:
            coded = {BASE64: encodebytes(body), QUOTED: body.replace(b"=", b"=3D"), SEVEN: body}[encoding]
            body = HEAD + header + encoding + b"\r\n" + coded
        find(body)


@pytest.mark.parametrize("levels", [40, 400])
def test_evasion_22_deep_nesting_of_messages(levels: int) -> None:
    body = mail()
    for _ in range(levels):
        body = b"Subject: x\r\nContent-Type: message/rfc822\r\n\r\n" + body
    unpacked = unpack(HEAD + body)
    assert found(unpacked) or Reason.OVER_LIMIT in unpacked.failed.values()


@pytest.mark.parametrize("size", [100_000, 900_000, 3_000_000])
def test_evasion_24_a_long_field_before_the_one_that_matters(size: int) -> None:
    for long in (b"X-Long: " + b"a" * size, b"X-Long: " + b"a b\r\n " * (size // 6), b"X-Y: z\r\n" * (size // 8)):
        unpacked = unpack(mail(type=long.strip() + b"\r\n" + MIXED))
        assert found(unpacked) or Reason.OVER_LIMIT in unpacked.failed.values()


@pytest.mark.parametrize("number", [b"1", b"2"])
def test_evasion_26_each_fragment_is_refused(number: bytes) -> None:
    whole = mail()
    for cut in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
        header = b'Content-Type: message/partial; id="a"; number=' + number + b"; total=2\r\n"
        assert Reason.UNSUPPORTED in unpack(mail(cut, type=header)).failed.values()


@pytest.mark.parametrize("kind", [b"URL; URL=x", b"anon-ftp; site=x", b"local-file; name=x", b"mail-server", b"x-y"])
def test_evasion_27_every_kind_of_external_body(kind: bytes) -> None:
    header = b"Content-Type: message/external-body; access-type=" + kind + b"\r\n"
    assert Reason.UNSUPPORTED in unpack(mail(b"Content-ID: <x>\r\n\r\n", type=header)).failed.values()


@pytest.mark.parametrize(
    "value",
    [
        b"multipart/mixed; boundary (x) = (y) frontier",
        b"multipart/mixed; boundary=(a (b) c)frontier",
        b"multipart/mixed; boundary=frontier (a (b) c)",
        b"(boundary=bad) multipart/mixed; boundary=frontier",
        b"multipart/mixed (; boundary=bad); boundary=frontier",
        b'multipart/mixed; boundary="frontier" (; boundary=bad)',
        b"multipart/mixed; (a\\)b) boundary=frontier",
        b"multipart/mixed; a=b (x; boundary=frontier",
        b"(x multipart/mixed; boundary=frontier",
        b"multipart/(x)mixed; boundary=frontier",
        b"multi(x)part/mixed; boundary=frontier",
    ],
)
def test_evasion_30_comments_before_and_behind_everything(value: bytes) -> None:
    reject(mail(type=b"Content-Type: " + value + b"\r\n"))
    find(mail(type=b"Content-Type: " + value + b"\r\n"))


@pytest.mark.parametrize(
    "value",
    [
        b"base64\r\n ", b"\r\n base64", b"\r\n\tbase64\r\n\t(x)", b" \r\n \r\n base64", b"\r\n \r\n\r\n base64",
    ],
)  # fmt: skip
def test_evasion_31_folds_in_the_transfer_encoding(value: bytes) -> None:
    reject(attachment(b"Content-Transfer-Encoding:" + value + b"\r\n"))


@pytest.mark.parametrize(
    "field", [b"To: a@example.org", b"Cc: a, b,", b"Subject: x", b"From: A <a@b>", b"Received: x;", b"X: =?utf-8?Q?a?="]
)
@pytest.mark.parametrize("joiner", [b"\r", b"\r ", b"\r\r", b"\r\t", b"\r\n ", b",\r"])
def test_evasion_32_fields_that_swallow_the_next_one(field: bytes, joiner: bytes) -> None:
    reject(mail(type=field + joiner + MIXED))
    reject(mail(multipart(TEXT, part(encoding=field + joiner + BASE64))))
