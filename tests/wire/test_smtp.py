"""The SMTP codec: both roles by one table, any split the same events, bounds on all that a peer sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.errors import LocalProtocolError, ProtocolError
from icapscan.wire.smtp import AUTH_MOST, COMMAND_MOST, SmtpConnection
from icapscan.wire.smtp_command import (
    command,
    keywords_of,
    parse_command,
    parse_path,
    sasl_user,
    with_suffix,
)
from icapscan.wire.smtp_ehlo import Offer, offered
from icapscan.wire.smtp_events import (
    AuthLine,
    CommandReceived,
    DataEnded,
    DataReceived,
    Event,
    Failure,
    LineRefused,
    PeerClosed,
    ReplyReceived,
)
from icapscan.wire.smtp_reply import LINES_MOST, Reply, reply
from icapscan.wire.smtp_states import TABLE, Role, State, Step

CODES = {b"DATA": 354, b"AUTH": 334, b"QUIT": 221, b"STARTTLS": 220}


def serve(wire: bytes, cuts: list[int], *, eof: bool = False) -> tuple[list[Event], bytes]:
    """A server that says yes to everything legal; its events, with the data joined, and its replies."""
    codec = SmtpConnection(Role.SERVER)
    out = codec.send_reply(reply(220, "hello"))
    events: list[Event] = []
    at = 0
    for cut in [*sorted(min(cut, len(wire)) for cut in cuts), len(wire)]:
        codec.receive(wire[at:cut])
        at = cut
        if cut == len(wire) and eof:
            codec.receive_eof()
        while (event := codec.next_event()) is not None:
            if isinstance(event, DataReceived) and events and isinstance(events[-1], DataReceived):
                events[-1] = DataReceived(events[-1].data + event.data)
            else:
                events.append(event)
            if isinstance(event, CommandReceived) and event.chunk is None:
                out += codec.send_reply(reply(CODES.get(event.command.verb, 250) if event.legal else 503, "x"))
            elif isinstance(event, LineRefused):
                out += codec.send_reply(reply(500, "no"))
            elif isinstance(event, DataEnded):
                out += codec.send_reply(reply(250, "taken"))
            elif isinstance(event, AuthLine):
                out += codec.send_reply(reply(235, "in"))
    return events, out


SESSION = (
    b"EHLO me\r\nMAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n..a\r\n.\r\n"
    b"NOOP\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 5\r\nab\r\ncBDAT 3 LAST\r\nd\r\nDATA\r\n"
    b"AUTH PLAIN\r\nAGEAYg==\r\n" + b"x" * 9000 + b"\r\nQUIT\r\n"
)


def test_a_session() -> None:
    events, out = serve(SESSION, [])
    verbs = [event.command.verb for event in events if isinstance(event, CommandReceived)]
    assert verbs == b"EHLO MAIL RCPT DATA NOOP MAIL RCPT BDAT BDAT DATA AUTH QUIT".split()
    assert [event.data for event in events if isinstance(event, DataReceived)] == [
        b"Subject: x\r\n\r\n.a\r\n",
        b"ab\r\nc",
        b"d\r\n",
    ]
    assert [event.line for event in events if isinstance(event, AuthLine)] == [b"AGEAYg=="]
    assert any(isinstance(event, LineRefused) for event in events)
    codes = [int(line[:3]) for line in out.splitlines()]
    assert codes == [220, 250, 250, 250, 354, 250, 250, 250, 250, 250, 250, 503, 334, 235, 500, 221]


@given(st.lists(st.integers(0, len(SESSION)), max_size=12))
def test_any_split_gives_the_same_events(cuts: list[int]) -> None:
    assert serve(SESSION, cuts) == serve(SESSION, [])


def test_byte_by_byte() -> None:
    assert serve(SESSION, list(range(len(SESSION)))) == serve(SESSION, [])


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"NOOP \nRCPT TO:<x>\r\n", b"x" * 5000 + b"\nNOOP\r\n", b"\n"]
)
def test_a_bare_line_end_in_a_command_ends_the_session(line: bytes) -> None:
    for cuts in ([], list(range(len(line) + 6))):
        events, _ = serve(line + b"NOOP\r\n", cuts)
        assert len(events) == 1 and isinstance(events[0], Failure) and events[0].error.status == 500


@pytest.mark.parametrize(("size", "kind"), [(COMMAND_MOST, CommandReceived), (COMMAND_MOST + 1, LineRefused)])
def test_the_length_of_a_line_is_bounded(size: int, kind: type[Event]) -> None:
    events, _ = serve(b"NOOP ".ljust(size, b"x") + b"\r\nNOOP\r\n", [])
    assert isinstance(events[0], kind) and isinstance(events[1], CommandReceived)


def test_an_endless_line_costs_no_memory() -> None:
    codec = SmtpConnection(Role.SERVER)
    codec.send_reply(reply(220, "hello"))
    for _ in range(1000):
        codec.receive(b"x" * 4096)
        assert codec.next_event() is None
        assert codec.backlog <= 4096 + COMMAND_MOST
    codec.receive(b"\r\nNOOP\r\n")
    assert isinstance(codec.next_event(), LineRefused)


def test_an_auth_line_may_be_longer() -> None:
    start = b"EHLO x\r\nAUTH PLAIN\r\n"
    events, _ = serve(start + b"x" * AUTH_MOST + b"\r\n", [])
    assert events[-1] == AuthLine(b"x" * AUTH_MOST)


@pytest.mark.parametrize("line", [b"NO\x00OP", b"NOOP \x1b[31m", b"MAIL FROM:<a\x08@b>"])
def test_control_characters_are_refused(line: bytes) -> None:
    events, _ = serve(line + b"\r\nNOOP\r\n", [])
    assert isinstance(events[0], LineRefused) and isinstance(events[1], CommandReceived)


@pytest.mark.parametrize(
    "commands", [b"MAIL FROM:<a>", b"EHLO x|RCPT TO:<a>", b"EHLO x|DATA", b"EHLO x|MAIL FROM:<>|DATA"]
)
def test_commands_out_of_order_are_illegal(commands: bytes) -> None:
    events, out = serve(commands.replace(b"|", b"\r\n") + b"\r\n", [])
    assert isinstance(events[-1], CommandReceived) and not events[-1].legal and out.endswith(b"503 x\r\n")


def test_bytes_of_an_illegal_bdat_are_no_commands() -> None:
    inside = b"MAIL FROM:<evil>\r\n"
    events, _ = serve(b"EHLO x\r\nBDAT %d LAST\r\n" % len(inside) + inside + b"NOOP\r\n", [])
    verbs = [event.command.verb for event in events if isinstance(event, CommandReceived)]
    assert verbs == [b"EHLO", b"BDAT", b"NOOP"] and not events[1].legal  # type: ignore[union-attr]


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"5 FIRST", b"0x5", b"5,LAST", b"9" * 30])
def test_a_bdat_of_unknown_length_ends_the_session(argument: bytes) -> None:
    events, _ = serve(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT " + argument + b"\r\nNOOP\r\n", [])
    assert isinstance(events[-1], Failure) and events[-1].error.status == 501


@pytest.mark.parametrize(
    ("chunks", "bare"),
    [
        ([b"a\r", b"\nb"], False),
        ([b"a\r", b"b"], True),
        ([b"a\n", b"b"], True),
        ([b"a", b"b\r"], True),
        ([b"", b""], False),
    ],
)
def test_bare_line_ends_are_seen_across_chunks(chunks: list[bytes], bare: bool) -> None:
    wire = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\n"
    wire += b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (len(chunks[0]), chunks[0], len(chunks[1]), chunks[1])
    for cuts in ([], list(range(len(wire)))):
        events, _ = serve(wire, cuts)
        ends = [event for event in events if isinstance(event, DataEnded)]
        assert ends[-1].bare is bare


@pytest.mark.parametrize(("wire", "orderly"), [(b"EHLO x\r\n", True), (b"EHLO", False), (SESSION[:90], False)])
def test_the_end_of_input(wire: bytes, orderly: bool) -> None:
    events, _ = serve(wire, [], eof=True)
    assert events[-1] == PeerClosed(orderly)


def test_nothing_is_read_after_quit() -> None:
    events, _ = serve(b"QUIT\r\nNOOP\r\nMAIL FROM:<a>\r\n", [])
    assert len(events) == 1


def test_what_was_sent_in_clear_before_tls_is_forgotten() -> None:
    codec = SmtpConnection(Role.SERVER)
    codec.send_reply(reply(220, "hello"))
    codec.receive(b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<injected>\r\n")
    assert isinstance(codec.next_event(), CommandReceived)
    codec.send_reply(reply(250, "x"))
    assert isinstance(codec.next_event(), CommandReceived)
    codec.send_reply(reply(220, "go"))
    codec.receive(b"RCPT TO:<injected>\r\n")
    assert codec.next_event() is None
    codec.tls_started()
    assert codec.next_event() is None and codec.state is State.START
    codec.receive(b"EHLO y\r\n")
    event = codec.next_event()
    assert isinstance(event, CommandReceived) and event.command.argument == b"y"


# The client


def asked(*wire: bytes, greeting: bytes = b"220 hi\r\n") -> tuple[SmtpConnection, list[Event]]:
    codec = SmtpConnection(Role.CLIENT)
    codec.receive(greeting)
    assert isinstance(codec.next_event(), ReplyReceived)
    codec.send_command(command("EHLO", b"me"))
    events: list[Event] = []
    for piece in wire:
        codec.receive(piece)
        while (event := codec.next_event()) is not None:
            events.append(event)
    return codec, events


def test_a_reply_of_several_lines_in_any_split() -> None:
    wire = b"250-one\r\n250-\r\n250 SIZE 5\r\n"
    expected = [ReplyReceived(Reply(250, (b"one", b"", b"SIZE 5")))]
    assert asked(wire)[1] == expected
    assert asked(*(wire[at : at + 1] for at in range(len(wire))))[1] == expected
    assert keywords_of((b"hi", b"SIZE 5", b"AUTH=LOGIN", b"AUTH PLAIN")) == {"SIZE": "5", "AUTH": "LOGIN PLAIN"}


@pytest.mark.parametrize(
    "wire",
    [
        b"hello\r\n", b"250\n", b"250 a\rb\r\n", b"999 x\r\n", b"100 x\r\n", b"250-a\r\n251 b\r\n", b"2500 x\r\n",
        b"\r\n",
        b"250-x\r\n" * (LINES_MOST + 1), b"250 " + b"x" * 5000 + b"\r\n", b"250\x00 x\r\n",
    ],
)  # fmt: skip
def test_bad_replies_end_the_connection(wire: bytes) -> None:
    assert isinstance(asked(wire)[1][-1], Failure)


def test_a_reply_that_nobody_asked_for_ends_the_connection() -> None:
    codec, events = asked(b"250 x\r\n250 y\r\n")
    assert isinstance(events[0], ReplyReceived) and isinstance(events[1], Failure)
    with pytest.raises(LocalProtocolError):
        codec.send_command(command("NOOP"))


def test_control_characters_of_a_reply_are_not_passed_on() -> None:
    _, events = asked(b"250 a\x1b[31mb\r\n")
    assert isinstance(events[0], ReplyReceived) and events[0].reply.lines == (b"a?[31mb",)


def test_data_goes_out_after_354_only() -> None:
    codec, _ = asked(b"250 x\r\n")
    for made in (command("MAIL", b"FROM:<>"), command("RCPT", b"TO:<a>")):
        codec.send_command(made)
        codec.receive(b"250 x\r\n")
        codec.next_event()
    with pytest.raises(LocalProtocolError):
        codec.send_data(b"x")
    codec.send_command(command("DATA"))
    codec.receive(b"354 go\r\n")
    codec.next_event()
    assert codec.send_data(b"a\r\n.b") + codec.end_data() == b"a\r\n..b\r\n.\r\n"
    codec.receive(b"250 taken\r\n")
    assert isinstance(codec.next_event(), ReplyReceived) and codec.state is State.READY


def test_an_answer_before_the_end_of_the_message_is_the_last_thing() -> None:
    codec, _ = asked(b"250 x\r\n")
    for made, said in (("MAIL FROM:<>", 250), ("RCPT TO:<a>", 250), ("DATA", 354)):
        codec.send_command(parse_command(made.encode()))
        codec.receive(b"%d x\r\n" % said)
        codec.next_event()
    codec.receive(b"552 too much\r\n")
    event = codec.next_event()
    assert isinstance(event, ReplyReceived) and event.reply.code == 552 and codec.state is State.CLOSED


def test_a_yes_to_what_cannot_be_is_a_lie() -> None:
    codec, _ = asked(b"250 x\r\n")
    codec.send_command(command("RCPT", b"TO:<a>"))
    codec.receive(b"250 x\r\n")
    assert isinstance(codec.next_event(), Failure)


def test_no_command_can_become_two() -> None:
    codec, _ = asked(b"250 x\r\n")
    with pytest.raises(LocalProtocolError):
        codec.send_command(command("NOOP", b"x\r\nQUIT"))
    with pytest.raises(LocalProtocolError):
        Reply(250, (b"a\r\n250 b",)).encode()
    assert reply(250, "a\r\nb").encode() == b"250 a??b\r\n"


def test_every_state_can_be_left_and_only_known_steps_are_in_the_table() -> None:
    assert set(TABLE) == set(State)
    assert all(Step.QUIT in steps for steps in TABLE.values())


# Commands


@pytest.mark.parametrize(
    ("line", "address", "parameters"),
    [
        (b"MAIL FROM:<a@b>", "a@b", {}),
        (b"mail from: <a@b> size=5 RET=HDRS", "a@b", {"SIZE": "5", "RET": "HDRS"}),
        (b"MAIL FROM:<>", "", {}),
        (b"MAIL FROM:a@b SIZE=1", "a@b", {"SIZE": "1"}),
        (b'RCPT TO:<"a> b"@c> NOTIFY=NEVER ORCPT=rfc822;a@b', '"a> b"@c', {"NOTIFY": "NEVER", "ORCPT": "rfc822;a@b"}),
        (b"RCPT TO:<@x,@y:a@b>", "a@b", {}),
        ("RCPT TO:<ü@ü>".encode(), "ü@ü", {}),
        (b"RCPT TO:<\xff@b>", "\udcff@b", {}),
        (b"RCPT TO:<a%c@b>", "a%c@b", {}),
        (b"MAIL FROM:<a@b> AUTH=x+3Dy SMTPUTF8", "a@b", {"AUTH": "x+3Dy", "SMTPUTF8": ""}),
    ],
)
def test_paths(line: bytes, address: str, parameters: dict[str, str]) -> None:
    path = parse_path(parse_command(line))
    assert (path.address, path.parameters) == (address, parameters)


@pytest.mark.parametrize(
    "line",
    [b"MAIL", b"MAIL <a@b>", b"MAIL TO:<a@b>", b"RCPT FROM:<a>", b"MAIL FROM:<a@b", b"MAIL FROM:<a>b",
     b"MAIL FROM:<a<b>>",     b"MAIL FROM:<a> =x", b"MAIL FROM:<a> SIZE=1 SIZE=2", b"RCPT TO:<a> <b>"],
)  # fmt: skip
def test_bad_paths(line: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_path(parse_command(line))
    assert caught.value.status == 501


def test_relayclient_is_added_to_the_address() -> None:
    made = with_suffix(parse_command(b"RCPT TO:<a@b> NOTIFY=NEVER"), b"@fix.me")
    assert made.line == b"RCPT TO:<a@b@fix.me> NOTIFY=NEVER"


@pytest.mark.parametrize(
    ("mechanism", "lines", "user"),
    [
        ("PLAIN", [b"AGEAYg=="], "a"),
        ("plain", [b"", b"eABhAGI="], "a"),
        ("LOGIN", [b"YQ==", b"Yg=="], "a"),
        ("CRAM-MD5", [b"YW5uYSAwMTIz"], "anna"),
        ("PLAIN", [b"!!"], ""),
        ("PLAIN", [b"YQ=="], ""),
        ("GSSAPI", [b"YQ=="], ""),
        ("LOGIN", [b"YQ0KYg=="], ""),
        ("LOGIN", [], ""),
    ],
)
def test_who_an_exchange_is_about(mechanism: str, lines: list[bytes], user: str) -> None:
    assert sasl_user(mechanism, lines) == user


def test_what_is_offered_is_what_both_can_do() -> None:
    hop = {
        "SIZE": "1000",
        "8BITMIME": "",
        "STARTTLS": "",
        "BINARYMIME": "",
        "XCLIENT": "ADDR",
        "AUTH": "PLAIN",
        "ODD": "",
    }
    kept = offered(hop, Offer(500, starttls=False, chunking=True, auth=None))
    assert kept == {"8BITMIME": "", "SIZE": "500", "CHUNKING": "", "AUTH": "PLAIN"}
    kept = offered({**hop, "CHUNKING": ""}, Offer(0, starttls=True, chunking=True, auth=""))
    assert kept == {"8BITMIME": "", "SIZE": "1000", "CHUNKING": "", "BINARYMIME": "", "STARTTLS": ""}
    assert offered({}, Offer(0, starttls=False, chunking=False, auth="LOGIN")) == {"SIZE": "", "AUTH": "LOGIN"}


# Anything at all

NOISE = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            b"\r\n|EHLO x\r\n|MAIL FROM:<a>\r\n|RCPT TO:<b>\r\n|DATA\r\n|\r\n.\r\n|BDAT 3\r\n|BDAT 5 LAST\r\n|RSET\r\n|"
            b"AUTH LOGIN\r\n|QUIT\r\n|250 ok\r\n|250-|354 go\r\n|\n|\r|.".split(b"|")
        ),
    ),
    max_size=40,
).map(b"".join)


def told(event: Event) -> object:
    """Something to compare: two errors of the same text are not equal."""
    return str(event.error) if isinstance(event, Failure) else event


@given(NOISE, st.lists(st.integers(0, 400), max_size=8))
def test_a_server_never_fails_and_never_depends_on_the_cuts(wire: bytes, cuts: list[int]) -> None:
    (one, out_one), (other, out_other) = serve(wire, cuts, eof=True), serve(wire, [], eof=True)
    assert (list(map(told, one)), out_one) == (list(map(told, other)), out_other)


@given(NOISE, st.lists(st.integers(0, 400), max_size=8))
def test_a_client_reads_anything_in_any_split(wire: bytes, cuts: list[int]) -> None:
    def heard(places: list[int]) -> list[Event]:
        codec = SmtpConnection(Role.CLIENT)
        events: list[Event] = []
        at = 0
        for cut in [*sorted(min(cut, len(wire)) for cut in places), len(wire)]:
            codec.receive(wire[at:cut])
            at = cut
            while (event := codec.next_event()) is not None:
                events.append(event)
        return events

    assert list(map(told, heard(cuts))) == list(map(told, heard([])))
