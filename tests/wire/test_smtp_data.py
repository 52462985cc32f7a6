"""Transparency: one message in, one message out, however it is cut and whatever stands in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.wire.smtp_data import Stuffer, Unstuffer, has_bare, normalized

END = b"\r\n.\r\n"
PIECES = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"..", b"bc\r\n", b"\xff\x00"]), max_size=30
).map(b"".join)


def received(wire: bytes, cuts: list[int], *, normalize: bool = False) -> tuple[bytes, bytes, bool, bool]:
    unstuffer = Unstuffer(normalize=normalize)
    message, rest, at = b"", b"", 0
    for cut in [*sorted(min(cut, len(wire)) for cut in cuts), len(wire)]:
        if unstuffer.ended:
            rest += wire[at:cut]
        else:
            more, rest = unstuffer.feed(wire[at:cut])
            message += more
        at = cut
    return message, rest, unstuffer.ended, unstuffer.bare


def sent(message: bytes, cuts: list[int]) -> bytes:
    stuffer = Stuffer()
    wire, at = b"", 0
    for cut in [*sorted(min(cut, len(message)) for cut in cuts), len(message)]:
        wire += stuffer.feed(message[at:cut])
        at = cut
    return wire + stuffer.finish()


def slow(wire: bytes) -> tuple[bytes, bytes] | None:
    """The oracle: line by line, only CR LF ends one."""
    message, at = b"", 0
    while (stop := wire.find(b"\r\n", at)) >= 0:
        line, at = wire[at:stop], stop + 2
        if line == b".":
            return message, wire[at:]
        message += (line[1:] if line.startswith(b".") else line) + b"\r\n"
    return None


@given(PIECES, st.lists(st.integers(0, 80), max_size=6))
def test_any_split_is_what_the_oracle_says(data: bytes, cuts: list[int]) -> None:
    wire = data + END + b"MAIL FROM:<>\r\n"
    expected = slow(wire)
    assert expected is not None
    message, rest, ended, bare = received(wire, cuts)
    assert (message, rest, ended) == (*expected, True)
    assert bare is bool(re.search(rb"\r(?!\n)|(?<!\r)\n", wire[: len(wire) - len(rest)]))


@given(PIECES, st.lists(st.integers(0, 80), max_size=6))
def test_what_is_sent_has_one_end_and_no_bare_line_end(message: bytes, cuts: list[int]) -> None:
    wire = sent(message, cuts)
    assert not has_bare(wire) and wire.endswith(b".\r\n")
    again, rest, ended, _ = received(wire, [])
    assert ended and rest == b""
    clean = normalized(message)
    assert again == (clean if clean.endswith(b"\r\n") or not clean else clean + b"\r\n")


SMUGGLED = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\r\n\x00.\r\n", b"\n.\r", b"\r.\n",
    b"\n\n.\r\n", b"\r\n.\r\r\n", b"\r\n..\r\n", b"\r\n.\x00\r\n", b"\r\r\n.\r\r\n", b"\n\r\n.\n\r\n",
]  # fmt: skip
SECOND = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: second\r\n\r\nhello"


@pytest.mark.parametrize("trick", SMUGGLED)
@pytest.mark.parametrize("normalize", [False, True])
def test_one_message_in_is_one_message_out(trick: bytes, normalize: bool) -> None:
    wire = b"Subject: first\r\n\r\nhello" + trick + SECOND + END
    message, rest, ended, bare = received(wire, list(range(len(wire))), normalize=normalize)
    assert ended and rest == b"" and b"second" in message
    if normalize:
        assert not has_bare(message)
    out = sent(message, [])
    assert out.count(b"\r\n.\r\n") == 1 and not has_bare(out)
    # every other idea of an end that a reader may have is gone too
    assert not re.search(rb"(?:^|[\r\n])\.(?:[\r\n]|$)", out[:-5])
    if not bare:
        assert b"\x00" in trick or trick == b"\r\n..\r\n"


@given(PIECES, st.lists(st.integers(0, 80), max_size=6))
def test_normalizing_does_not_depend_on_the_cuts(data: bytes, cuts: list[int]) -> None:
    wire = data + END
    assert received(wire, cuts, normalize=True) == received(wire, [], normalize=True)


def test_an_empty_message() -> None:
    assert received(b".\r\nQUIT\r\n", []) == (b"", b"QUIT\r\n", True, False)
    assert sent(b"", []) == b".\r\n"


def test_a_large_message_goes_through_in_blocks() -> None:
    message = (b"." * 70 + b"\r\n") * 100_000
    stuffer, unstuffer = Stuffer(), Unstuffer()
    wire = b"".join(stuffer.feed(message[at : at + 65536]) for at in range(0, len(message), 65536)) + stuffer.finish()
    back = b"".join(unstuffer.feed(wire[at : at + 50000])[0] for at in range(0, len(wire), 50000))
    assert back == message
