"""The Encapsulated header: legal forms, hostile lists, offsets in and out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.errors import ProtocolError
from icapscan.wire.encapsulated import BodyKind, Encapsulated, check_request_form, parse_encapsulated

K = BodyKind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"null-body=0", Encapsulated(None, None, K.NULL)),
        (b"res-body=0", Encapsulated(None, None, K.RESPONSE)),
        (b"req-body=0", Encapsulated(None, None, K.REQUEST)),
        (b"opt-body=0", Encapsulated(None, None, K.OPTIONS)),
        (b"req-hdr=0, null-body=10", Encapsulated(10, None, K.NULL)),
        (b"res-hdr=0, null-body=10", Encapsulated(None, 10, K.NULL)),
        (b"req-hdr=0, req-body=10", Encapsulated(10, None, K.REQUEST)),
        (b"res-hdr=0, res-body=10", Encapsulated(None, 10, K.RESPONSE)),
        (b"req-hdr=0, res-body=10", Encapsulated(10, None, K.RESPONSE)),
        (b"req-hdr=0, res-hdr=10, null-body=30", Encapsulated(10, 20, K.NULL)),
        (b"req-hdr=0, res-hdr=10, res-body=30", Encapsulated(10, 20, K.RESPONSE)),
    ],
)
def test_s42_s43_legal_lists_give_lengths(value: bytes, expected: Encapsulated) -> None:
    assert parse_encapsulated(value) == expected
    assert parse_encapsulated(expected.encode()) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"req-hdr=0, res-hdr=341, res-body=578",
        b"req-hdr=0,res-hdr=341,res-body=578",
        b"req-hdr=0 ,  res-hdr=341\t,res-body=578",
        b"req-hdr=0 res-hdr=341 res-body=578",
        b"req-hdr=0  res-hdr=341\tres-body=578",
        b"REQ-HDR=0, Res-Hdr=341, RES-BODY=578",
        b"req-hdr=00, res-hdr=0341, res-body=0000000578",
    ],
)
def test_s49_commas_blanks_or_both(value: bytes) -> None:
    assert parse_encapsulated(value) == Encapsulated(341, 237, K.RESPONSE)


@pytest.mark.parametrize(
    "value",
    [
        b"req-hdr=0, res-hdr=137, res-body=100",  # d48
        b"res-hdr=50, res-body=90",  # d49
        b"res-body=5",  # d49
        b"res-body=0, res-hdr=10",  # d54
        b"req-hdr=0, req-body=10, res-body=20",  # d55
        b"req-hdr=0, req-body=10, res-hdr=20, res-body=30",  # d55, as the egirna client writes it
        b"res-hdr=0, null-body=10, res-body=10",  # d56
        b"res-hdr=0, res-hdr=10, res-body=20",  # d57
        b"req-hdr=0, req-hdr=0, req-body=20",  # d57
        b"null-body=0, null-body=0",  # d57
        b"req-hdr=0",  # d60
        b"req-hdr=0, res-hdr=10",  # d60
        b"res-hdr=0, req-hdr=10, res-body=20",  # heads in the wrong order
    ],
)
def test_s47_d48_d49_d54_d55_d56_d57_d60_lists_that_make_no_sense(value: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_encapsulated(value)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b",",
        b"res-body",
        b"res-body=",
        b"=0",
        b"res-body=-1",
        b"res-body=+0",
        b"res-body=0x10",
        b"res-body=1.5",
        "res-body=٣".encode(),
        b"res-body= 0",
        b"res-body =0",
        b"res-body=0;",
        b"res-body=0,",
        b",res-body=0",
        b"res-hdr=0,, res-body=10",
        b"foo=0",
        b"foo=0, res-body=10",
        b"res_body=0",
        b"res-body=0\x00",
    ],
)
def test_d45_d46_d47_entries_that_are_none(value: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_encapsulated(value)
    assert caught.value.status == 400


@pytest.mark.parametrize("offset", [2**31, 2**32, 2**63, 2**64, int("9" * 200)])
def test_s50_d53_a_huge_offset_is_refused_at_once(offset: int) -> None:
    for value in (b"res-hdr=0, res-body=%d" % offset, b"res-hdr=0, null-body=%d" % offset):
        with pytest.raises(ProtocolError):
            parse_encapsulated(value)


def test_d53_five_hundred_digits() -> None:
    with pytest.raises(ProtocolError, match="too long"):
        parse_encapsulated(b"res-hdr=0, res-body=" + b"1" * 500)


def test_s50_each_section_has_its_bound() -> None:
    assert parse_encapsulated(b"req-hdr=0, res-hdr=100, res-body=200", 100).head_length == 200
    for value in (b"req-hdr=0, res-hdr=101, res-body=200", b"req-hdr=0, res-hdr=100, res-body=201"):
        with pytest.raises(ProtocolError, match="longer than 100 bytes"):
            parse_encapsulated(value, 100)


def test_d58_ten_thousand_entries() -> None:
    with pytest.raises(ProtocolError):
        parse_encapsulated(b", ".join([b"req-hdr=0"] * 10_000 + [b"res-body=0"]))


def test_d50_equal_offsets_are_empty_sections() -> None:
    sections = parse_encapsulated(b"req-hdr=0, res-hdr=0, res-body=80")
    assert (sections.req_hdr, sections.res_hdr) == (0, 80)
    assert parse_encapsulated(b"req-hdr=0, res-hdr=0, res-body=0").head_length == 0


@pytest.mark.parametrize(
    ("method", "value"),
    [
        (b"REQMOD", b"req-hdr=0, req-body=10"),
        (b"REQMOD", b"req-hdr=0, null-body=10"),
        (b"REQMOD", b"req-body=0"),
        (b"RESPMOD", b"req-hdr=0, res-hdr=10, res-body=20"),
        (b"RESPMOD", b"req-hdr=0, res-hdr=10, null-body=20"),
        (b"RESPMOD", b"res-hdr=0, res-body=20"),
        (b"RESPMOD", b"res-hdr=0, null-body=20"),
        (b"RESPMOD", b"req-hdr=0, res-body=20"),
        (b"RESPMOD", b"res-body=0"),
        (b"OPTIONS", b"null-body=0"),
        (b"OPTIONS", b"opt-body=0"),
    ],
)
def test_s42_s43_s45_s46_forms_that_a_request_may_have(method: bytes, value: bytes) -> None:
    check_request_form(method, parse_encapsulated(value))


@pytest.mark.parametrize(
    ("method", "value"),
    [
        (b"REQMOD", b"req-hdr=0, res-body=10"),
        (b"REQMOD", b"res-hdr=0, res-body=10"),
        (b"REQMOD", b"res-hdr=0, req-body=10"),
        (b"REQMOD", b"req-hdr=0, res-hdr=10, req-body=20"),
        (b"REQMOD", b"opt-body=0"),
        (b"REQMOD", b"null-body=0"),
        (b"RESPMOD", b"req-hdr=0, req-body=10"),
        (b"RESPMOD", b"req-hdr=0, res-hdr=10, req-body=20"),
        (b"RESPMOD", b"opt-body=0"),
        (b"RESPMOD", b"null-body=0"),
        (b"OPTIONS", b"res-hdr=0, null-body=10"),
        (b"OPTIONS", b"res-body=0"),
        (b"OPTIONS", b"req-body=0"),
    ],
)
def test_s42_s43_d46_forms_that_a_request_must_not_have(method: bytes, value: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_request_form(method, parse_encapsulated(value))
    assert caught.value.status == 400


lengths = st.none() | st.integers(0, 64 * 1024)


@given(lengths, lengths, st.sampled_from(BodyKind))
def test_s89_offsets_written_are_the_lengths_read(req_hdr: int | None, res_hdr: int | None, body: BodyKind) -> None:
    sections = Encapsulated(req_hdr, res_hdr, body)
    assert parse_encapsulated(sections.encode()) == sections
    assert sections.encode().endswith(b"=%d" % sections.head_length)
    assert sections.has_body is (body is not BodyKind.NULL)


@given(st.binary(max_size=300) | st.text("reqshdbodynul-=, 0123456789", max_size=60).map(str.encode))
def test_any_value_is_parsed_or_refused(value: bytes) -> None:
    try:
        sections = parse_encapsulated(value)
    except ProtocolError as error:
        assert error.status == 400
    else:
        assert parse_encapsulated(sections.encode()) == sections
