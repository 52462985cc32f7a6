"""Field lines: what is one, what is not, and how they are looked up."""

from __future__ import annotations

import pytest

from icapscan.errors import LocalProtocolError, ProtocolError
from icapscan.wire.fields import Fields, parse_fields


def test_s31_names_in_any_case_and_white_space_around_values() -> None:
    fields = parse_fields(b"eNcApSuLaTeD:null-body=0\r\nAllow: \t 204 \t\r\n", 10)
    assert fields.get(b"encapsulated") == b"null-body=0"
    assert fields.get(b"allow") == b"204"


def test_s32_folded_lines_become_one_space() -> None:
    fields = parse_fields(b"Allow: 204,\r\n\t 206\r\nX: a\r\n b\r\n  c\r\n", 10)
    assert fields.get(b"allow") == b"204, 206"
    assert fields.get(b"x") == b"a b c"
    assert list(fields.items()) == [(b"Allow", b"204, 206"), (b"X", b"a b c")]


def test_a_fold_of_white_space_only_adds_nothing() -> None:
    assert parse_fields(b"X: a\r\n \r\n", 10).get(b"x") == b"a"


def test_d36_lines_of_one_name_are_merged_in_order() -> None:
    fields = parse_fields(b"Allow: 206\r\nHost: a\r\nALLOW: 204\r\n", 10)
    assert fields.get(b"allow") == b"206, 204"
    assert fields.count(b"allow") == 2
    assert fields.repeated(b"allow")
    assert not fields.repeated(b"host")


def test_an_absent_field_is_none_and_an_empty_one_is_empty() -> None:
    fields = parse_fields(b"Empty:\r\n", 10)
    assert fields.get(b"empty") == b""
    assert fields.get(b"absent") is None
    assert fields.count(b"absent") == 0


def test_raw_bytes_stay_as_they_came() -> None:
    raw = b"x-B:1\r\nX-a:  2\r\n\tfold\r\n"
    assert parse_fields(raw, 10).raw == raw


def test_d25_eight_bit_values_are_opaque() -> None:
    assert parse_fields(b"X-Name: \xff\xfe\xc3\x28\r\n", 10).get(b"x-name") == b"\xff\xfe\xc3\x28"


@pytest.mark.parametrize(
    "line",
    [
        b"no colon here",  # d20
        b"Preview : 10",  # d21
        b"Preview\t: 10",  # d21
        b": x",  # d22
        b"A\x00B: x",  # d23
        b"A\x7fB: x",  # d23
        b"A\x01: x",  # d23
        b"A\xff: x",  # d23
        b"A(B): x",  # d23
        b"A: x\x00y",  # d24
        b"A: x\ry",  # d26
        b"A: x\r",  # d26
        b"A: x\ny: z",  # d28
    ],
)
def test_d20_d21_d22_d23_d24_d26_d28_lines_that_are_no_fields(line: bytes) -> None:
    for block in (line + b"\r\n", b"Good: 1\r\n" + line + b"\r\nGood: 2\r\n"):
        with pytest.raises(ProtocolError) as caught:
            parse_fields(block, 10)
        assert caught.value.status == 400


def test_d29_a_fold_with_nothing_to_continue() -> None:
    for block in (b" Allow: 204\r\n", b"\tx\r\n"):
        with pytest.raises(ProtocolError):
            parse_fields(block, 10)


def test_the_sentence_names_the_line_and_the_fault() -> None:
    with pytest.raises(ProtocolError, match="Field line 2 of the header has no colon"):
        parse_fields(b"A: 1\r\nB\r\n", 10)
    with pytest.raises(ProtocolError, match="Field line 1 of the trailer section holds a bare CR or LF"):
        parse_fields(b"A: 1\n\r\n", 10, "trailer section")
    with pytest.raises(ProtocolError, match="Field line 1 of the header is not a field name"):
        parse_fields(b"A : 1\r\n", 10)


def test_d30_d32_too_many_lines_folded_ones_included() -> None:
    assert parse_fields(b"A: 1\r\n" * 10, 10).count(b"a") == 10
    for block in (b"A: 1\r\n" * 11, b"A: 1\r\n" + b" more\r\n" * 10):
        with pytest.raises(ProtocolError, match="more than 10 field lines"):
            parse_fields(block, 10)


def test_a_block_that_does_not_end_with_crlf_is_refused() -> None:
    with pytest.raises(ProtocolError):
        parse_fields(b"A: 1", 10)


def test_an_empty_block_has_no_fields() -> None:
    fields = parse_fields(b"", 0)
    assert list(fields.items()) == []
    assert fields.get(b"a") is None


def test_composed_lines_read_back() -> None:
    fields = Fields.compose([(b"A", b"1"), (b"B", b"")])
    assert fields.raw == b"A: 1\r\nB: \r\n"
    assert parse_fields(fields.raw, 2) == fields
    assert hash(parse_fields(fields.raw, 2)) == hash(fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"A", b"1\r\nB: 2"),
        (b"A", b"1\n"),
        (b"A", b"\x00"),
        (b"A\r\nB", b"1"),
        (b"", b"1"),
        (b"A:", b"1"),
        (b"A B", b""),
    ],
)
def test_c54_nothing_can_inject_a_line(name: bytes, value: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Fields.compose([(name, value)])
