"""clamd's replies: every form, every split, nothing unknown is clean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.wire.clamd import (
    FILDES,
    IDSESSION,
    INSTREAM,
    INSTREAM_END,
    MAX_CHUNK,
    MAX_REPLY,
    Outcome,
    Reply,
    ReplyReader,
    chunk_head,
    parse,
)

# From clamd 1.4.6 where it could be made to say so, else from clamd(8).
REPLIES = [
    (b"1: fd[12]: OK", Reply(1, Outcome.CLEAN, "OK")),
    (b"stream: OK", Reply(None, Outcome.CLEAN, "OK")),
    (b"27: stream: OK", Reply(27, Outcome.CLEAN, "OK")),
    (b"3: instream(127.0.0.1@4711): OK", Reply(3, Outcome.CLEAN, "OK")),
    (b"1: fd[12]: Eicar-Test-Signature.UNOFFICIAL FOUND", Reply(1, Outcome.FOUND, "Eicar-Test-Signature.UNOFFICIAL")),
    (b"2: stream: Win.Test.EICAR_HDB-1 FOUND", Reply(2, Outcome.FOUND, "Win.Test.EICAR_HDB-1")),
    (
        b"2: stream: Win.Test.EICAR_HDB-1(44d88612fea8a8f36de82e1278abb02f:68) FOUND",
        Reply(2, Outcome.FOUND, "Win.Test.EICAR_HDB-1"),
    ),
    (
        b"1: fd[9]: Heuristics.Phishing.Email.SSL-Spoof FOUND",
        Reply(1, Outcome.FOUND, "Heuristics.Phishing.Email.SSL-Spoof"),
    ),
    (
        b"1: fd[12]: Heuristics.Limits.Exceeded.MaxFileSize FOUND",
        Reply(1, Outcome.OVER_LIMIT, "Heuristics.Limits.Exceeded.MaxFileSize"),
    ),
    (b"1: fd[12]: Heuristics.Limits.Exceeded FOUND", Reply(1, Outcome.OVER_LIMIT, "Heuristics.Limits.Exceeded")),
    (b"4: stream: Heuristics.Encrypted.Zip FOUND", Reply(4, Outcome.ENCRYPTED, "Heuristics.Encrypted.Zip")),
    (b"4: stream: Heuristics.Encrypted.PDF FOUND", Reply(4, Outcome.ENCRYPTED, "Heuristics.Encrypted.PDF")),
    (
        b"2: INSTREAM size limit exceeded. ERROR",
        Reply(2, Outcome.OVER_LIMIT, "INSTREAM size limit exceeded. ERROR", last=True),
    ),
    (
        b"1: No file descriptor received. ERROR",
        Reply(1, Outcome.FAILED, "No file descriptor received. ERROR", last=True),
    ),
    (b"3: fd[12]: Not a regular file ERROR", Reply(3, Outcome.FAILED, "fd[12]: Not a regular file ERROR", last=True)),
    (
        b"3: stream: Time limit reached ERROR",
        Reply(3, Outcome.TIME_LIMIT, "stream: Time limit reached ERROR", last=True),
    ),
    (b"COMMAND READ TIMED OUT", Reply(None, Outcome.FAILED, "COMMAND READ TIMED OUT", last=True)),
    (b"UNKNOWN COMMAND", Reply(None, Outcome.FAILED, "UNKNOWN COMMAND", last=True)),
    (b"1: PONG", Reply(1, Outcome.FAILED, "PONG", last=True)),
    (b"", Reply(None, Outcome.FAILED, "", last=True)),
    (b"stream:  FOUND", Reply(None, Outcome.FOUND, "unnamed")),
    (b"1: fd[1]: A: B FOUND", Reply(1, Outcome.FOUND, "A: B")),
    (b"1: fd[1]: n\x1b[2J\xff FOUND", Reply(1, Outcome.FOUND, "n\\x1b[2J\\\\xff")),
]


@pytest.mark.parametrize(("line", "reply"), REPLIES, ids=[str(line) for line, _ in REPLIES])
def test_a_reply_is_what_it_says(line: bytes, reply: Reply) -> None:
    assert parse(line) == reply


@pytest.mark.parametrize(
    "line",
    [
        b"OK", b"1: OK", b"1: fd[12]: OK ", b"1: fd[12]: ok", b"1: fd[12]:OK", b" 1: fd[12]: OK", b"1:fd[12]: OK",
        b"1: fd[]: OK", b"1: fd[12]: OK\n", b"-1: stream: OK", b"1: 1: stream: OK", b"99999999999: stream: OK",
        b"1: fd[12]: OKAY", b"1: fd[12]: NOT OK", b"1: /etc/passwd: OK", b"\xff\xfe: OK",
    ],
)  # fmt: skip
def test_nearly_ok_is_not_clean(line: bytes) -> None:
    assert parse(line).outcome is Outcome.FAILED


@given(st.binary(max_size=200).filter(lambda line: b"\0" not in line))
def test_no_garbage_is_clean(line: bytes) -> None:
    reply = parse(line)
    assert reply.text.isprintable()
    assert reply.outcome is not Outcome.CLEAN or line.rpartition(b": ")[2] == b"OK"


@given(
    st.lists(st.sampled_from([line for line, _ in REPLIES]) | st.binary(max_size=MAX_REPLY * 2), max_size=6),
    st.lists(st.integers(0, 3 * MAX_REPLY), max_size=8),
)
def test_any_split_gives_the_same_replies(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(line + b"\0" for line in lines)
    whole = ReplyReader()
    expected = whole.feed(stream)
    reader, got, at = ReplyReader(), [], 0
    for cut in [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]:
        got += reader.feed(stream[at:cut])
        at = cut
    assert got == expected
    assert reader.midway == whole.midway


def test_byte_by_byte_gives_the_same_replies() -> None:
    stream = b"".join(line + b"\0" for line, _ in REPLIES)
    reader = ReplyReader()
    assert [reply for byte in stream for reply in reader.feed(bytes([byte]))] == [reply for _, reply in REPLIES]


def test_half_a_reply_is_none_yet() -> None:
    reader = ReplyReader()
    assert reader.feed(b"1: fd[12]: OK") == []
    assert reader.midway
    assert reader.feed(b"\0") == [Reply(1, Outcome.CLEAN, "OK")]
    assert not reader.midway


def test_an_endless_reply_is_a_failure_and_the_end() -> None:
    reader = ReplyReader()
    (reply,) = reader.feed(b"x" * (MAX_REPLY + 1))
    assert reply.outcome is Outcome.FAILED and reply.last
    assert reader.feed(b"\0" + b"1: stream: OK\0") == []


def test_the_longest_reply_is_read() -> None:
    name = b"N" * (MAX_REPLY - len(b"1: stream:  FOUND"))
    assert ReplyReader().feed(b"1: stream: " + name + b" FOUND\0") == [Reply(1, Outcome.FOUND, name.decode())]


def test_commands_are_as_the_manual_has_them() -> None:
    assert (IDSESSION, INSTREAM, INSTREAM_END) == (b"zIDSESSION\0", b"zINSTREAM\0", b"\0\0\0\0")
    assert FILDES == b"zFILDES\0" + b"\0"  # the command, and the one byte beside the descriptor
    assert chunk_head(1) == b"\0\0\0\1"
    assert chunk_head(65_536) == b"\0\1\0\0"
    assert chunk_head(MAX_CHUNK) == b"\xff\xff\xff\xff"


@pytest.mark.parametrize("size", [0, -1, MAX_CHUNK + 1])
def test_a_chunk_that_cannot_be_announced_is_our_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="INSTREAM"):
        chunk_head(size)
