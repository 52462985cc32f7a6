"""The small tools of mails: headers rebuilt, names changed, bodies encoded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.sanitize.mail_encode import LINE_MAX, decoded, encoded
from icapscan.sanitize.mail_headers import CONTENT, NotNeat, has_field, outdated, rebuilt, renamed
from icapscan.unwrap.mime_entity import Encoding
from icapscan.unwrap.mime_fields import parse

FIELDS = st.sampled_from(
    [b"X-A: b", b"content-TYPE : text/html;\r\n\tname=x", b"Content-Disposition: attachment", b"Content-Type-X: y",
     b"Subject: Content-Type: x", b"Content-Transfer-Encoding:\r\n base64"]
)  # fmt: skip


@given(st.lists(FIELDS, max_size=6), st.sampled_from([b"", b"\r\n"]))
def test_a_rebuilt_header_has_the_other_fields_as_they_were(fields: list[bytes], blank: bytes) -> None:
    header = b"".join(field + b"\r\n" for field in fields) + blank
    new = rebuilt(header, CONTENT, [b"Content-Type: text/plain"], b"\r\n")
    kept = [
        field
        for field in fields
        if re.match(rb"content-(?:type|disposition|transfer-encoding)[ ]?:", field, re.I) is None
    ]
    assert new.replace(b"Content-Type: text/plain\r\n", b"", 1) == b"".join(one + b"\r\n" for one in kept) + b"\r\n"
    seen = parse(new)
    assert (seen.types, seen.dispositions, seen.encodings) == ((b"text/plain",), (), ())


def test_a_header_that_is_cut_gets_its_line_ends() -> None:
    for header in (b"X: y", b"X: y\n", b"X: y\n\n"):
        assert rebuilt(header, CONTENT, [b"A: b"], b"\n") == b"X: y\nA: b\n\n"
    assert rebuilt(b"", CONTENT, [], b"\r\n") == b"\r\n"
    assert rebuilt(b"\r\r\n", CONTENT, [b"A: b"], b"\r\n") == b"A: b\r\n\r\r\n"


def test_fields_are_found_by_their_whole_name() -> None:
    header = b"X: Content-MD5: a\r\nContent-MD5: b\r\n c\r\nDigest: d\r\n\r\n"
    assert [header[start:end] for start, end in outdated(header)] == [b"Content-MD5: b\r\n c\r\n", b"Digest: d\r\n"]
    assert has_field(header, b"digest") and not has_field(header, b"c") and not has_field(header, b"content")


@pytest.mark.parametrize(
    "value",
    [b"a/b; name=x y", b'a/b; name="x', b"a/b; name=x (comment)", b"a/b; name=x; name=y", b"a/b; name",
     b'a/b; name="a\\"b"'],
)  # fmt: skip
def test_a_name_that_readers_dispute_is_not_rewritten(value: bytes) -> None:
    with pytest.raises(NotNeat):
        renamed(b"Content-Type: " + value + b"\r\n\r\n", "new.docx", b"\r\n")


def test_a_header_without_a_name_stays() -> None:
    for header in (b"Content-Type: text/plain; charset=utf-8\r\n\r\n", b"Content-Type: text/plain\r\n\r\n", b"\r\n"):
        assert renamed(header, "new.docx", b"\r\n") == header


WRITABLE = [Encoding.BASE64, Encoding.QUOTED_PRINTABLE, Encoding.IDENTITY]


@given(st.binary(max_size=300), st.sampled_from(WRITABLE), st.binary(max_size=300), st.sampled_from([b"\r\n", b"\n"]))
def test_what_is_encoded_decodes_to_the_same(data: bytes, encoding: Encoding, old: bytes, line_end: bytes) -> None:
    body = encoded(data, encoding, old, line_end, (b"--x",))
    assert body is not None
    assert decoded(body.data, body.encoding) == data and b"--x" not in body.data
    if body.encoding is not Encoding.IDENTITY:
        assert body.data.isascii() and re.search(rb"\r(?!\n)", body.data) is None
        assert max(map(len, body.data.splitlines() or [b""])) <= LINE_MAX


@pytest.mark.parametrize("encoding", [Encoding.UUENCODE, Encoding.YENC, Encoding.BINHEX])
def test_what_cannot_be_written_is_not_decoded(encoding: Encoding) -> None:
    assert decoded(b"x", encoding) is None
