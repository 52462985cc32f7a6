"""The envelope on descriptor 1, as qmail-queue.c reads it, and the text on descriptor 6, as qmail.c reads it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.wire.qmail_queue import (
    ADDRESS_MOST,
    Envelope,
    EnvelopeError,
    EnvelopeReader,
    Exit,
    encode_envelope,
    refusal_text,
)

ADDRESS = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"0"))


def read(data: bytes, cuts: list[int], most: int = 1 << 20) -> Envelope | EnvelopeError:
    """What the reader says of ``data`` cut at these places."""
    reader = EnvelopeReader(most)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    try:
        for start, stop in pairwise(places):
            if (envelope := reader.feed(data[start:stop])) is not None:
                return envelope
    except EnvelopeError as error:
        return error
    return reader.finish()


@given(ADDRESS, st.lists(ADDRESS, max_size=5), st.binary(max_size=5), st.lists(st.integers(0, 500), max_size=9))
def test_any_split_gives_the_envelope_byte_for_byte(
    sender: bytes, recipients: list[bytes], behind: bytes, cuts: list[int]
) -> None:
    wire = encode_envelope(sender, recipients)
    assert read(wire + behind, cuts) == Envelope(sender, tuple(recipients), wire)


@given(st.binary(max_size=60), st.lists(st.integers(0, 500), max_size=9))
def test_any_split_of_anything_says_the_same(data: bytes, cuts: list[int]) -> None:
    for start in (data, b"Fa\0" + data, b"Fa\0Tb\0" + data):
        whole, cut, single = read(start, []), read(start, cuts), read(start, list(range(100)))
        if isinstance(whole, Envelope):
            assert cut == single == whole
        else:
            assert isinstance(cut, EnvelopeError)
            assert isinstance(single, EnvelopeError)
            assert cut.exit == single.exit == whole.exit


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Exit.READ_ERROR),
        (b"Fa@b", Exit.READ_ERROR),
        (b"Fa@b\0Tc@d\0", Exit.READ_ERROR),
        (b"\0", Exit.ENVELOPE_FORMAT),
        (b"Ta@b\0\0", Exit.ENVELOPE_FORMAT),
        (b"Fa@b\0Fc@d\0\0", Exit.ENVELOPE_FORMAT),
        (b"Fa@b\0c@d\0\0", Exit.ENVELOPE_FORMAT),
        (b"F" + b"x" * 1003 + b"\0\0", Exit.ADDRESS_TOO_LONG),
        (b"Fa@b\0T" + b"x" * 2000, Exit.ADDRESS_TOO_LONG),
        (b"Fa@b\0" + b"Tc@d\0" * 1000 + b"\0", Exit.OUT_OF_MEMORY),
    ],
)
def test_a_bad_envelope_has_the_exit_code_of_qmail_queue(data: bytes, code: Exit) -> None:
    found = read(data, [], most=4000)
    assert isinstance(found, EnvelopeError)
    assert found.exit is code


def test_the_longest_address_of_qmail_queue_passes() -> None:
    wire = encode_envelope(b"x" * ADDRESS_MOST, [b"y" * ADDRESS_MOST])
    assert read(wire, list(range(len(wire)))) == Envelope(b"x" * ADDRESS_MOST, (b"y" * ADDRESS_MOST,), wire)
    for sender, recipients in ((b"x" * 1003, []), (b"a\0b", []), (b"", [b"\0"])):
        with pytest.raises(ValueError, match="address"):
            encode_envelope(sender, recipients)


def test_the_text_is_one_line_that_qmail_smtpd_can_send() -> None:
    assert refusal_text("Eicar\r\n250 ok \u00e9", permanent=True) == b"DEicar??250 ok ? (#5.7.1)"
    assert refusal_text("later", permanent=False) == b"Zlater (#4.7.1)"
    assert len(refusal_text("x" * 999, permanent=True)) == 255
