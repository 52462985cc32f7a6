"""Transfer encodings alone: any split gives the same bytes and the same doubts, in every reading."""

from __future__ import annotations

import random

import pytest

from icapscan.unwrap.transfer import Transfer
from icapscan.unwrap.transfer_base64 import Base64Reading, base64
from icapscan.unwrap.transfer_quoted import QuotedPrintable, QuotedReading


def told(stream: Transfer, data: bytes, size: int) -> tuple[bytes, set[object]]:
    out = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size))
    return out + stream.finish(), set(stream.doubts)


@pytest.mark.parametrize("reading", [*Base64Reading, *QuotedReading])
def test_the_split_of_what_is_odd_does_not_matter(reading: Base64Reading | QuotedReading) -> None:
    dice = random.Random(7)
    odd = b"=\r\n \tQUJ-#" if isinstance(reading, Base64Reading) else b"==\r\n \t34cCx"

    def stream() -> Transfer:
        return base64(reading) if isinstance(reading, Base64Reading) else QuotedPrintable(reading)

    for _ in range(1500):
        data = bytes(dice.choices(odd, k=dice.randrange(1, 16)))
        whole = told(stream(), data, len(data))
        for size in (1, 2, 3):
            assert told(stream(), data, size) == whole, data


def test_a_reading_that_stops_raises_no_doubt_about_what_follows() -> None:
    for data in (b"QUI=QQ\n\n#\r\nUI=", b"QUI=\n#Q", b"#QUI=-"):
        for reading in (Base64Reading.STOP_AT_PADDING, Base64Reading.STOP_AT_JUNK):
            assert told(base64(reading), data, 1) == told(base64(reading), data, 100)


@pytest.mark.parametrize("blanks", [999, 1000, 1001, 1002, 3000])
def test_blanks_at_the_end_of_a_line_are_left_out_up_to_a_number(blanks: int) -> None:
    run = b" \t" * (blanks // 2) + b" " * (blanks % 2)
    data = b"a" + run + b"\r\nb=" + run + b"\nc" + run
    kept = run if blanks > 1000 else b""
    assert told(QuotedPrintable(QuotedReading.STRIP_BLANKS), data, 7)[0] == b"a" + kept + b"\r\nb" + (
        b"=" + kept + b"\nc" + kept if kept else b"c"
    )
    for size in (1, 2, 700, 1001):
        assert told(QuotedPrintable(QuotedReading.STRIP_BLANKS), data, size) == told(
            QuotedPrintable(QuotedReading.STRIP_BLANKS), data, len(data)
        )
