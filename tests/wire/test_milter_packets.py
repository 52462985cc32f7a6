"""Milter packets: any split gives the same events, and nothing that a peer sends is more than a failure."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.errors import LocalProtocolError
from icapscan.wire import milter_events as ev
from icapscan.wire.milter import PACKET_MOST, MilterConnection, choose
from icapscan.wire.milter_codes import FLAGS_OF, Actions, Command, Protocol
from icapscan.wire.milter_states import Role, State

SILENT = FLAGS_OF[6] & ~Protocol((1 << 7) - 1) & ~(Protocol.NO_UNKNOWN | Protocol.NO_DATA)
TEXT = st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"0"))


def packet(letter: bytes, data: bytes = b"") -> bytes:
    return (len(data) + 1).to_bytes(4, "big") + letter + data


def negotiated(most: int = PACKET_MOST) -> MilterConnection:
    """A filter that has agreed to answer nothing before the end of the body."""
    conn = MilterConnection(Role.FILTER, most)
    offer = ev.Negotiate(6, Actions(0x1FF), FLAGS_OF[6])
    mta = MilterConnection(Role.MTA)
    assert conn.receive(mta.send(offer)) == [offer]
    conn.send(choose(offer, Actions(0x3F), SILENT))
    return conn


def take(pieces: list[bytes]) -> list[ev.Event]:
    """What a filter sees; it answers the end of a body with Continue."""
    conn = negotiated()
    seen: list[ev.Event] = []

    def go(events: list[ev.Event]) -> None:
        while events:
            seen.extend(events)
            if conn.pending is not None:
                conn.send(ev.Continue())
            events = conn.receive(b"") if conn.backlog else []

    for piece in pieces:
        go(conn.receive(piece))
    go(conn.receive_eof())
    return seen


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(at % (len(data) + 1) for at in cuts)})
    return [data[start:stop] for start, stop in pairwise(places)]


MESSAGE = [
    packet(b"D", b"Cj\0mx.icapscan.test\0{client_addr}\x00192.0.2.7\0"),
    packet(b"C", b"mx.icapscan.test\x006\x00\x192001:db8::7\0"),
    packet(b"H", b"mx\0"),
    packet(b"U", b"FOO\0"),
    packet(b"D", b"Mi\x004F1\0{auth_authen}\0joe\0"),
    packet(b"M", b"<a@icapscan.test>\0SIZE=10\0"),
    packet(b"R", b"<b@icapscan.test>\0"),
    packet(b"T"),
    packet(b"L", b"Subject\0 hello\n world\0"),
    packet(b"L", b"X-Empty\0\0"),
    packet(b"N"),
    packet(b"B", b"line\r\n" * 300),
    packet(b"B", b""),
    packet(b"E", b"end"),
]
SESSION = b"".join([*MESSAGE, *MESSAGE[4:], packet(b"A"), packet(b"K"), *MESSAGE, packet(b"Q")])


def test_a_whole_session_is_read_as_it_was_meant() -> None:
    events = take([SESSION])
    assert events[:12] == [
        ev.Macros(Command.CONNECT, ((b"j", b"mx.icapscan.test"), (b"{client_addr}", b"192.0.2.7"))),
        ev.Connect(b"mx.icapscan.test", b"6", 25, b"2001:db8::7"),
        ev.Helo(b"mx"),
        ev.UnknownCommand(b"FOO"),
        ev.Macros(Command.MAIL, ((b"i", b"4F1"), (b"{auth_authen}", b"joe"))),
        ev.MailFrom((b"<a@icapscan.test>", b"SIZE=10")),
        ev.RcptTo((b"<b@icapscan.test>",)),
        ev.Data(),
        ev.Header(b"Subject", b" hello\n world"),
        ev.Header(b"X-Empty", b""),
        ev.EndOfHeaders(),
        ev.BodyPiece(b"line\r\n" * 300),
    ]
    assert events[-2:] == [ev.Quit(), ev.PeerClosed()]
    assert sum(isinstance(event, ev.EndOfBody) for event in events) == 3


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_any_split_of_a_session_gives_the_same_events(cuts: list[int]) -> None:
    assert take(cut(SESSION, cuts)) == take([SESSION])


def test_a_session_byte_by_byte_gives_the_same_events() -> None:
    assert take([SESSION[at : at + 1] for at in range(len(SESSION))]) == take([SESSION])


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=4),
    st.lists(st.integers(0, 100_000), max_size=9),
)
def test_any_split_of_a_broken_session_gives_the_same_events(
    mutations: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    data = SESSION
    for at, over, put in mutations:
        at %= len(data) + 1
        data = data[:at] + put + data[at + over :]
    whole, split = take([data]), take(cut(data, cuts))
    assert [repr(event) for event in split] == [repr(event) for event in whole]
    assert not any(isinstance(event, ev.Failure) for event in whole[:-1])


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xffB",
        (PACKET_MOST + 1).to_bytes(4, "big"),
        packet(b"Z"),
        packet(b"O", b"\0\0\0\6"),
        packet(b"M"),
        packet(b"M", b"<a@b>"),
        packet(b"D"),
        packet(b"D", b"Zi\0x\0"),
        packet(b"D", b"Mi\0"),
        packet(b"D", b"Mi\0x"),
        packet(b"C", b"host"),
        packet(b"C", b"host\0"),
        packet(b"C", b"host\x004\0"),
        packet(b"C", b"host\x004\0\x19192.0.2.7"),
        packet(b"C", b"host\x009\0\x19192.0.2.7\0"),
        packet(b"C", b"host\0Umore"),
        packet(b"Q", b"x"),
        packet(b"c"),
    ],
)
def test_bad_packets_are_failures_and_nothing_is_read_behind_them(data: bytes) -> None:
    conn = negotiated()
    [failure] = conn.receive(data + MESSAGE[1])
    assert isinstance(failure, ev.Failure)
    assert conn.state is State.FAILED
    assert conn.receive(MESSAGE[1]) == []


@pytest.mark.parametrize(
    "data", [packet(b"L", b"a\0"), packet(b"L", b"a\0b"), packet(b"L", b"a\0b\0c\0"), packet(b"N", b"x")]
)
def test_bad_packets_within_a_message(data: bytes) -> None:
    conn = negotiated()
    conn.receive(b"".join(MESSAGE[:8]))
    assert conn.state is State.DATA
    assert isinstance(conn.receive(data)[-1], ev.Failure)


def test_the_longest_packet_is_met_to_the_byte() -> None:
    for size, fails in ((100, False), (101, True)):
        conn = negotiated(101)
        conn.receive(b"".join(MESSAGE[1:2]))
        events = conn.receive(packet(b"H", b"x" * (size - 1) + b"\0"))
        assert isinstance(events[-1], ev.Failure) is fails


def test_an_end_within_a_packet_is_a_failure_and_one_between_is_not() -> None:
    for stop in range(len(MESSAGE[1]) + 1):
        conn = negotiated()
        conn.receive(MESSAGE[1][:stop])
        kind = type(conn.receive_eof()[-1])
        assert kind is (ev.PeerClosed if stop in (0, len(MESSAGE[1])) else ev.Failure)


@given(TEXT, TEXT, st.integers(0, 2**31))
def test_what_a_filter_sends_its_mta_reads(name: bytes, value: bytes, index: int) -> None:
    sent: list[ev.FromFilter] = [
        ev.AddHeader(name, value), ev.InsertHeader(index, name, value), ev.ChangeHeader(index, name, value),
        ev.ReplaceBody(value), ev.Quarantine(value), ev.Reply(value),
    ]  # fmt: skip
    mta, conn = MilterConnection(Role.MTA), MilterConnection(Role.FILTER)
    mta.agreed = conn.agreed = ev.Negotiate(6, Actions(0x3F))
    mta.state = conn.state = State.ENDED
    mta.pending = conn.pending = Command.END_OF_BODY
    data = conn.send(*sent)
    seen = [event for at in range(len(data)) for event in mta.receive(data[at : at + 1])]
    assert seen == sent


def test_nothing_can_be_put_into_a_packet_that_is_no_part_of_it() -> None:
    for event in (ev.AddHeader(b"a\0b", b"c"), ev.Reply(b"554 x\0y"), ev.ReplaceBody(b"x" * 65536)):
        conn = MilterConnection(Role.FILTER)
        conn.agreed, conn.state, conn.pending = ev.Negotiate(6, Actions(0x3F)), State.ENDED, Command.END_OF_BODY
        with pytest.raises(LocalProtocolError):
            conn.send(event)


def test_an_answer_to_nothing_is_a_failure() -> None:
    assert isinstance(MilterConnection(Role.MTA).receive(packet(b"c"))[-1], ev.Failure)
    mta = MilterConnection(Role.MTA)
    mta.send(ev.Negotiate(6))
    assert isinstance(mta.receive(packet(b"c"))[-1], ev.Failure)
