"""The mark of a released mail, and mail data as SMTP wants it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.quarantine.item import new_id
from icapscan.quarantine.keys import Key, Keys
from icapscan.quarantine.marks import FIELD, mark, marked, peek
from icapscan.quarantine.transparency import on_the_wire

KEYS = Keys(Key(bytes(range(32))))
NAME = new_id()
MARK = mark(KEYS, NAME)


# The mark


def test_the_mark_is_a_short_field_of_ascii() -> None:
    assert MARK.isascii() and MARK.endswith(b"\r\n") and len(MARK) <= 78
    assert MARK.startswith(f"{FIELD}: {NAME}; ".encode())


@pytest.mark.parametrize(
    "message",
    [
        MARK + b"Subject: x\r\n\r\nbody",
        b"Received: by x\r\nReceived: by y\r\n" + MARK + b"Subject: x\r\n\r\nbody",
        (b"Received: by x\r\n" + MARK + b"Subject: x\r\n\r\nbody").replace(b"\r\n", b"\n"),
        b"Subject: x\r\n" + MARK,
        b"Subject: x\r\n" + MARK[:-2],
        MARK.replace(b": ", b":\r\n ").replace(b"; ", b";\r\n\t") + b"\r\n",
        MARK.replace(b"X-Icapscan-Released", b"x-icapscan-released") + b"\r\n",
        MARK.replace(b"X-Icapscan-Released", b"X-ICAPSCAN-RELEASED ") + b"\r\n",
        mark(Keys(Key(bytes(range(1, 33)))), NAME) + MARK + b"\r\n",
    ],
)
def test_the_mark_is_found_as_relays_leave_it(message: bytes) -> None:
    assert marked(message, KEYS) == NAME


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"Subject: x\r\n\r\n" + MARK,
        b"Subject: x\n\n" + MARK,
        b"Subject: x " + MARK + b"\r\n",
        b"Not-" + MARK,
        MARK.replace(NAME.encode(), new_id().encode()),
        mark(Keys(Key(bytes(range(1, 33)))), NAME),
        MARK.replace(b"; ", b" "),
        MARK[:-4] + b"\r\n",
    ],
)
def test_what_is_no_mark_of_ours(message: bytes) -> None:
    assert marked(message, KEYS) == ""


@given(st.lists(st.sampled_from([b"Subject: x\r\n", MARK, b"\r\n", b"\n", b"\r", b"a" * 100, MARK[:30]]), max_size=20))
def test_peeking_loses_nothing_and_sees_the_header_section(parts: list[bytes]) -> None:
    head, pieces = peek(parts)
    whole = b"".join(parts)
    assert b"".join(bytes(piece) for piece in pieces) == whole
    assert whole.startswith(head)
    assert marked(head, KEYS) == marked(whole, KEYS)


def test_a_header_section_without_end_is_not_read_whole() -> None:
    taken = []

    def pieces() -> Sequence[bytes]:  # type: ignore[misc]
        for number in range(100):
            taken.append(number)
            yield b"X-Long: " + b"a" * 100_000 + b"\r\n"

    head, rest = peek(pieces())
    assert len(taken) < 15 and len(head) <= 1 << 20
    assert sum(map(len, rest)) == 100 * 100_010


# Transparency


def received(data: bytes) -> bytes:
    """What a strict server takes from the wire: everything up to the first line that is only a dot."""
    lines: list[bytes] = []
    at = 0
    while True:
        end = data.index(b"\r\n", at)
        line, at = data[at:end], end + 2
        assert b"\r" not in line and b"\n" not in line
        if line == b".":
            assert at == len(data), "nothing may follow"
            return b"".join(line + b"\r\n" for line in lines)
        lines.append(line[1:] if line.startswith(b".") else line)


WORDS = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\n.\r", b"MAIL FROM:<x>"]), max_size=30)


@given(words=WORDS, cuts=st.lists(st.integers(0, 100), max_size=8))
def test_a_message_arrives_as_its_lines_were_and_never_ends_early(words: list[bytes], cuts: list[int]) -> None:
    message = b"".join(words)
    places = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
    wire = b"".join(on_the_wire(message[a:b] for a, b in pairwise(places)))
    normal = re.sub(rb"\r\n|\r|\n", b"\r\n", message)
    expected = normal if not normal or normal.endswith(b"\r\n") else normal + b"\r\n"
    assert received(wire) == expected


def test_large_pieces_of_anything() -> None:
    message = secrets.token_bytes(500_000).replace(b"\r", b"").replace(b"\n", b"\r\n.") + b"\r\n"
    wire = b"".join(on_the_wire(message[at : at + 65536] for at in range(0, len(message), 65536)))
    assert received(wire) == message


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\n.\r", b"\r\n.\r"])
def test_no_end_of_data_can_be_smuggled(end: bytes) -> None:
    wire = b"".join(on_the_wire([b"Subject: x\r\n\r\nhello" + end + b"MAIL FROM:<evil@example.org>\r\n"]))
    assert wire.endswith(b"\r\n..\r\nMAIL FROM:<evil@example.org>\r\n.\r\n")
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", wire)
