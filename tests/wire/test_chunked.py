"""The chunked coding: sizes, extensions, ieof, trailers, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icapscan.errors import ProtocolError
from icapscan.wire.chunked import ChunkReader, encode_last, encode_size
from icapscan.wire.icap_events import BodyChunk, BodyEnd, Event
from icapscan.wire.limits import DEFAULT, KIB, WireLimits


def read(
    data: bytes, limits: WireLimits = DEFAULT, *, allow_original: bool = False
) -> tuple[bytes, BodyEnd | None, int]:
    """Body bytes, its end if it came, and how many bytes were read."""
    reader = ChunkReader(limits)
    reader.begin(allow_original=allow_original)
    events: list[Event] = []
    at, end = reader.read(data, 0, events)
    assert all(isinstance(event, BodyChunk) for event in events)
    return b"".join(bytes(event.data) for event in events if isinstance(event, BodyChunk)), end, at


def refused(data: bytes, limits: WireLimits = DEFAULT) -> str:
    """The sentence with which ``data`` is refused."""
    with pytest.raises(ProtocolError) as caught:
        read(data, limits)
    assert caught.value.status == 400
    return str(caught.value)


@pytest.mark.parametrize("size", [b"a", b"A", b"0a", b"00000A", b"000000000000000a", b"a ", b"a\t", b"a;x", b"a ; x=1"])
def test_s55_d69_sizes_of_one_to_sixteen_digits(size: bytes) -> None:
    data = size + b"\r\n0123456789\r\n0\r\n\r\n"
    assert read(data) == (b"0123456789", BodyEnd(), len(data))


@pytest.mark.parametrize(
    "size",
    [
        b"-1",
        b"+1",
        b"+5",
        b"0x5",
        b"0x1f",
        b" 5",
        b"\t5",
        b"5_0",
        b"g",
        b"",
        b" ",
        b"5 5",
        b"5,",
        b"\xb2",
        b"5\x00",
    ],
)
def test_s55_d67_sizes_that_are_none(size: bytes) -> None:
    assert "chunk size" in refused(size + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "size", [b"ffffffffffffffff", b"8000000000000000", b"00000000000000005", b"10000000000000000", b"f" * 100]
)
def test_d68_sizes_out_of_range(size: bytes) -> None:
    refused(size + b"\r\nhello")


def test_s59_the_largest_size_costs_only_what_arrives() -> None:
    body, end, at = read(b"7fffffffffffffff\r\n0123456789")
    assert (body, end, at) == (b"0123456789", None, 28)


def test_d70_leading_zeros_without_end() -> None:
    refused(b"0" * (DEFAULT.chunk_line + 2))


def test_d72_a_chunk_line_is_bounded_to_the_byte() -> None:
    line = b"5;a=" + b"x" * (DEFAULT.chunk_line - 4)
    assert len(line) == 4096
    assert read(line + b"\r\nhello\r\n0\r\n\r\n")[0] == b"hello"
    assert "longer than 4096 bytes" in refused(line + b"xx")
    refused(line + b"x\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize("data", [b"5\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r\n0\n\r\n"])
def test_d71_bare_line_feeds(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("after", [b"X", b"\rX", b"\n", b"XX", b"0\r\n\r\n", b"\r\r"])
def test_s60_d77_data_must_be_followed_by_crlf(after: bytes) -> None:
    assert "not followed by CRLF" in refused(b"5\r\nhello" + after)


@pytest.mark.parametrize(
    "extension",
    [
        b';foo="b;ar"',
        b";a",
        b"; a",
        b";\ta=b",
        b" ;a = b",
        b';a="q\\"q";c',
        b";a;b;c=d",
        b'; a=""',
        b";ieof",
        b"; ieof",
    ],
)
def test_s56_d75_extensions_on_a_data_chunk_mean_nothing(extension: bytes) -> None:
    assert read(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n") == (b"hello", BodyEnd(), 17 + len(extension) - 2)


@pytest.mark.parametrize(
    "extension",
    [
        b";",
        b";;a",
        b";a=",
        b';a="x',
        b';a="x"y',
        b"; a b",
        b";a=b=c",
        b";\x00",
        b";a=\xff",
    ],
)
def test_s56_extensions_that_are_none(extension: bytes) -> None:
    assert "malformed" in refused(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "last",
    [
        b"0; ieof",
        b"0;ieof",
        b"0 ;ieof",
        b"0;\tieof",
        b"0; IEOF",
        b"0; iEoF",
        b"0;a=b; ieof",
        b"0; ieof ; a",
        b"000;ieof",
        b"0;ieof ",
    ],
)
def test_s57_ieof_spellings(last: bytes) -> None:
    assert read(b"5\r\nhello\r\n" + last + b"\r\n\r\n")[1] == BodyEnd(ieof=True)


@pytest.mark.parametrize(
    "last", [b"0; ieof=1", b'0; ieof=""', b"0; ieofx", b"0; xieof", b'0;a="ieof"', b"0;a=ieof", b'0;a=";ieof"', b"0"]
)
def test_d74_d76_what_is_not_ieof(last: bytes) -> None:
    assert read(b"5\r\nhello\r\n" + last + b"\r\n\r\n")[1] == BodyEnd(ieof=False)


@pytest.mark.parametrize("last", [b'0;a="\r\n";ieof', b'0;a="\n"', b'0;a="\r"', b'0;a="x\\\r\n"'])
def test_d74_line_ends_within_quotes(last: bytes) -> None:
    refused(last + b"\r\n\r\n")


def test_d75_ieof_on_a_data_chunk_is_not_the_end() -> None:
    assert read(b"5; ieof\r\nhello\r\n")[1] is None


def test_d73_many_extension_bytes_are_refused() -> None:
    line = b"1;a=" + b"x" * 1000 + b"\r\ny\r\n"
    count = DEFAULT.extensions // 1003
    assert read(line * count)[0] == b"y" * count
    assert "too many bytes of chunk extensions" in refused(line * (count + 2))


def test_s56_extensions_of_large_chunks_may_be_a_tenth_of_the_data() -> None:
    line = b"1000;a=" + b"x" * 400 + b"\r\n" + b"y" * 4096 + b"\r\n"
    assert len(read(line * 500)[0]) == 500 * 4096


def test_s61_trailers_are_kept() -> None:
    data = b"5\r\nhello\r\n0\r\nX-T: 1\r\nDigest: a\r\n b\r\n\r\n"
    body, end, at = read(data + b"next")
    assert body == b"hello"
    assert end == BodyEnd(trailers=b"X-T: 1\r\nDigest: a b\r\n")
    assert at == len(data)


def test_d85_d102_trailers_that_frame_are_dropped() -> None:
    framing = b"content-length: 5\r\nENCAPSULATED: null-body=0\r\nTransfer-Encoding: x\r\nTrailer: X\r\nPreview: 1\r\n"
    assert read(b"0\r\n" + framing + b"X: 1\r\n\r\n")[1] == BodyEnd(trailers=b"X: 1\r\n")


@pytest.mark.parametrize(
    "trailer",
    [
        b"XX\r\n",
        b": x\r\n",
        b"A : x\r\n",
        b" fold\r\n",
        b"A: \x00\r\n",
        b"A: 1\nB: 2\r\n",
    ],
)
def test_d83_trailers_that_are_none(trailer: bytes) -> None:
    refused(b"0\r\n" + trailer + b"\r\n")


def test_d84_trailers_are_bounded_in_number_and_bytes() -> None:
    assert "field lines" in refused(b"0\r\n" + b"A:\r\n" * 201 + b"\r\n")
    line = b"A: " + b"x" * (DEFAULT.trailer - 3)
    assert read(b"0\r\n" + line + b"\r\n\r\n")[1] == BodyEnd(trailers=line + b"\r\n")
    assert "longer than" in refused(b"0\r\n" + line + b"x\r\n\r\n")
    assert "longer than" in refused(b"0\r\n" + b"A" * (16 * KIB + 4))


def test_d82_the_final_crlf_may_be_forgiven() -> None:
    reader = ChunkReader(DEFAULT)
    reader.begin()
    events: list[Event] = []
    at, end = reader.read(b"5\r\nhello\r\n0; ieof\r\n", 0, events)
    assert end is None and at == 19
    assert reader.awaits_final_crlf
    assert reader.forgive_final_crlf() == BodyEnd(ieof=True)


def test_c36_use_original_body_counts_only_where_it_is_allowed() -> None:
    data = b"5\r\nhello\r\n0; use-original-body=12\r\n\r\n"
    assert read(data, allow_original=True)[1] == BodyEnd(use_original_body=12)
    assert read(data)[1] == BodyEnd()


@pytest.mark.parametrize("value", [b"", b"=-1", b"=0x1", b'="12"', b"=a", b"=" + b"1" * 20])
def test_d130_use_original_body_must_be_an_offset(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(b"0; use-original-body" + value + b"\r\n\r\n", allow_original=True)


def test_totals_go_on_behind_a_preview() -> None:
    reader = ChunkReader(DEFAULT)
    reader.begin()
    reader.read(b"5\r\nhello\r\n0\r\n\r\n", 0, [])
    reader.begin(again=True)
    reader.read(b"5\r\nhello\r\n0\r\n\r\n", 0, [])
    assert reader.size == 10
    reader.begin()
    assert reader.size == 0


def test_s66_more_data_than_allowed_is_refused_at_its_size_line() -> None:
    reader = ChunkReader(DEFAULT)
    reader.begin(most=10)
    events: list[Event] = []
    reader.read(b"a\r\n0123456789\r\n", 0, events)
    with pytest.raises(ProtocolError):
        reader.read(b"1\r\n", 0, events)
    assert len(events) == 1


def test_long_data_is_viewed_and_not_copied() -> None:
    reader = ChunkReader(DEFAULT)
    reader.begin()
    events: list[Event] = []
    reader.read(b"8000\r\n" + b"x" * 0x8000 + b"\r\n", 0, events)
    (event,) = events
    assert isinstance(event, BodyChunk) and isinstance(event.data, memoryview)


def test_written_forms() -> None:
    assert encode_size(0x1F) == b"1f\r\n"
    assert encode_last(BodyEnd()) == b"0\r\n\r\n"
    assert encode_last(BodyEnd(ieof=True)) == b"0; ieof\r\n\r\n"
    assert encode_last(BodyEnd(trailers=b"X: 1\r\n")) == b"0\r\nX: 1\r\n\r\n"
    assert encode_last(BodyEnd(use_original_body=7)) == b"0; use-original-body=7\r\n\r\n"


@settings(max_examples=60)
@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=30))
def test_s63_any_chunking_gives_the_same_bytes(data: bytes, sizes: list[int]) -> None:
    wire, at = b"", 0
    for size in sizes:
        piece = data[at : at + size]
        at += len(piece)
        wire += encode_size(len(piece)) + piece + b"\r\n" if piece else b""
    rest = data[at:]
    wire += encode_size(len(rest)) + rest + b"\r\n" if rest else b""
    assert read(wire + encode_last(BodyEnd()))[0] == data
