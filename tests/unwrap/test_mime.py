"""Messages and multiparts in the reading of a strict reader: parts, names, audiences, and any split."""

from __future__ import annotations

from base64 import b64encode
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.limits import Limits
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.events import Audience
from icapscan.unwrap.formats import FORMATS
from tests.unwrap.samples_mime import EICAR, HEAD, MAIL, TEXT, find, found, mail, multipart, part, unpack
from tests.unwrap.unpacked import Unpacked


def letter() -> bytes:
    """A usual mail: text and HTML, and an attachment."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "letter"
    message.set_content("Hello\n")
    message.add_alternative("<p>Hello</p>\n", subtype="html")
    message.add_attachment(bytes(range(256)) * 20, maintype="application", subtype="zip", filename="päck.zip")
    return message.as_bytes()


def test_the_parts_of_a_usual_mail() -> None:
    unpacked = unpack(letter())
    assert unpacked.leaves().keys() >= {"1/1", "1/2", "2", "skeleton"}
    assert unpacked.parts["1/1"] == b"Hello\n"
    assert unpacked.parts["1/2"] == b"<p>Hello</p>\n"
    assert unpacked.parts["2"] == bytes(range(256)) * 20
    assert unpacked.begins["2"].name == "päck.zip"
    assert unpacked.begins["2"].media_type == "application/zip"
    assert not unpacked.anomalies and unpacked.clean


def test_the_skeleton_has_headers_structure_and_text_but_no_attachment() -> None:
    unpacked = unpack(letter())
    skeleton = unpacked.parts["skeleton"]
    assert unpacked.begins["skeleton"].audience is Audience.CLAMD
    assert b"Subject: letter" in skeleton and b"<p>Hello</p>" in skeleton and b"application/zip" in skeleton
    assert b"AAECAwQF" in letter() and b"AAECAwQF" not in skeleton
    assert unpacked.begins["2"].audience is Audience.ALL
    assert unpacked.begins["1/1"].audience is Audience.NOT_CLAMD


def test_large_text_goes_to_clamd_by_itself_and_not_in_the_skeleton() -> None:
    text = part(b"0123456789abcdef\r\n" * 5000, type=b"Content-Type: text/plain\r\n", encoding=b"")
    unpacked = unpack(mail(multipart(text, part())))
    assert unpacked.begins["1"].audience is Audience.ALL
    assert len(unpacked.parts["skeleton"]) < 2000


def test_with_an_anomaly_there_is_no_skeleton_and_clamd_gets_the_texts() -> None:
    unpacked = unpack(mail(multipart(TEXT, part(encoding=b"Content-Transfer-Encoding: base64, quoted\r\n"))))
    assert "skeleton" not in unpacked.parts
    assert unpacked.parts["1~clamd"] == unpacked.parts["1"]
    assert unpacked.begins["1~clamd"].audience is Audience.CLAMD


def test_a_mail_of_one_part() -> None:
    head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"
    unpacked = unpack(HEAD + head + b"\r\na=3Db=\r\nc")
    assert unpacked.parts["1"] == b"a=bc"
    assert unpacked.begins["1"].charset == "utf-8"


def test_a_message_in_a_message() -> None:
    inner = part(mail().replace(b"frontier", b"inner"), type=b"Content-Type: message/rfc822\r\n", encoding=b"")
    unpacked = find(mail(multipart(TEXT, inner)))
    assert unpacked.parts["2/2"] == EICAR


def test_form_data_has_each_field_with_its_name() -> None:
    field = b'Content-Disposition: form-data; name="comment"\r\n\r\nnice\r\n'
    file = b'Content-Disposition: form-data; name="f"; filename="a.com"\r\n\r\n' + EICAR
    body = multipart(field.removesuffix(b"\r\n"), file, boundary=b"x1")
    content_type = b"multipart/form-data; boundary=x1"
    unpacked = unpack(body, Declared(media_type="multipart/form-data", content_type=content_type))
    assert unpacked.begins["1"].name == "comment" and unpacked.parts["1"] == b"nice"
    assert unpacked.begins["2"].name == "a.com" and unpacked.parts["2"] == EICAR


def test_form_data_without_the_boundary_of_its_http_head() -> None:
    file = b'Content-Disposition: form-data; name="f"; filename="a.com"\r\n\r\n' + EICAR
    find(multipart(file, boundary=b"----WebKitFormBoundary7"), Declared(media_type="multipart/form-data"))


def test_a_multipart_whose_boundary_is_not_known_loses_nothing_and_is_no_anomaly() -> None:
    unpacked = unpack(b"before\r\n" + multipart(TEXT, part()), Declared(media_type="multipart/mixed"))
    assert found(unpacked) and unpacked.parts["preamble"].strip() == b"before" and not unpacked.anomalies
    nothing = unpack(b"no delimiter at all\r\n", Declared(media_type="multipart/mixed"))
    assert nothing.parts["preamble"] == b"no delimiter at all\r\n"
    assert "boundary-missing" in unpack(mail(type=b"Content-Type: multipart/mixed\r\n")).kinds


def test_a_multipart_in_a_text_with_odd_bytes_at_its_start() -> None:
    for start in (b"\0text\r\n" * 10, b"\x01\r\n" + b"text " * 500):
        find(mail(start + multipart(TEXT, part()), type=b"Content-Type: text/plain\r\n"), structure=True)
    junk = bytes(range(256)) * 10 + b"\r\n"
    find(junk + multipart(TEXT, part()), Declared(media_type="text/plain"), structure=True)


def test_depth_and_parts_are_bounded() -> None:
    body = mail()
    for _ in range(40):
        body = HEAD + b"Content-Type: message/rfc822\r\n\r\n" + body
    unpacked = unpack(body)
    assert found(unpacked) or Reason.OVER_LIMIT in unpacked.failed.values()
    many = Unpacked(
        mail(multipart(*[TEXT] * 60, part())), [entry.format for entry in FORMATS], MAIL, limits=Limits(parts=50)
    )
    assert many.budget.spent == "parts"


def test_a_header_without_end_is_bounded() -> None:
    unpacked = unpack(HEAD + b"X-Long: " + b"a" * 1_100_000 + b"\r\n\r\nbody")
    assert unpacked.failed == {"": Reason.OVER_LIMIT}


PIECES = [
    b"--frontier\r\n", b"--frontier--\r\n", b"--frontier", b"--frontie", b"--inner\r\n", b"\r\n", b"\n", b"\r",
    b"Content-Type: text/plain\r\n", b"Content-Type: multipart/mixed; boundary=inner\r\n", b"From: a\r\n",
    b"Content-Type: message/rfc822\n", b"Content-Transfer-Encoding: base64\r\n", b"Subject: b\r\n", b"QUJD", b"QUI=",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"=", b"=3D", b"=\r\n", b"hello ", b"\t", b" ", b"\0", b"\xff",
    b"\r\n\r\n", b"junk\r\n", b"--", b"-",
]  # fmt: skip


def told(unpacked: Unpacked) -> object:
    """All that a body came to."""
    return unpacked.parts, unpacked.failed, sorted(unpacked.anomalies), unpacked.begins


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(0, 2**32))
def test_any_split_gives_the_same_parts(pieces: list[bytes], seed: int) -> None:
    body = mail(b"".join(pieces))
    whole = unpack(body)
    assert told(unpack(body, step=1)) == told(whole)
    assert told(unpack(body, seed=seed)) == told(whole)


@given(st.binary(max_size=200), st.sampled_from(["message/rfc822", "multipart/mixed", "text/plain", ""]))
def test_nothing_in_the_input_raises(body: bytes, media_type: str) -> None:
    unpack(body, Declared(media_type=media_type))
    unpack(mail(body))


@pytest.mark.parametrize("step", [1, 3, 64, 1000])
def test_a_usual_mail_in_pieces(step: int) -> None:
    body = letter()
    assert told(unpack(body, step=step)) == told(unpack(body))


def test_evasion_6_a_body_of_one_line_without_an_empty_line_before_it() -> None:
    """The line end behind it belongs to the delimiter, so that line never ends; readers take it for the body."""
    body = multipart(part(b64encode(EICAR), blank=b""), TEXT)
    assert found(unpack(mail(body)))
    assert found(unpack(mail(multipart(TEXT, part(b64encode(EICAR), blank=b"")))))
