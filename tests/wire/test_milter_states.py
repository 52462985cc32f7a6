"""The milter's table of states, and how both roles follow it."""

from __future__ import annotations

import pytest

from icapscan.errors import LocalProtocolError
from icapscan.wire import milter_events as ev
from icapscan.wire.milter import MilterConnection, choose
from icapscan.wire.milter_codes import FLAGS_OF, Actions, Command, Protocol, Response, Stage
from icapscan.wire.milter_states import COMMANDS, Role, State, after_answer

EVERYTHING = Actions(0x1FF)
WANTED = Actions.ADD_HEADERS | Actions.CHANGE_HEADERS | Actions.CHANGE_BODY | Actions.QUARANTINE
SAMPLES: dict[Command, ev.FromMta] = {
    Command.NEGOTIATE: ev.Negotiate(6, EVERYTHING, FLAGS_OF[6]),
    Command.MACROS: ev.Macros(Command.MAIL, ((b"i", b"4F1"),)),
    Command.CONNECT: ev.Connect(b"mx.icapscan.test", b"4", 25, b"192.0.2.7"),
    Command.HELO: ev.Helo(b"mx"),
    Command.MAIL: ev.MailFrom((b"<a@icapscan.test>", b"SIZE=10")),
    Command.RCPT: ev.RcptTo((b"<b@icapscan.test>",)),
    Command.DATA: ev.Data(),
    Command.UNKNOWN: ev.UnknownCommand(b"FOO bar"),
    Command.HEADER: ev.Header(b"Subject", b" hello\n world"),
    Command.END_OF_HEADERS: ev.EndOfHeaders(),
    Command.BODY: ev.BodyPiece(b"line\r\n"),
    Command.END_OF_BODY: ev.EndOfBody(b"last"),
    Command.ABORT: ev.Abort(),
    Command.QUIT: ev.Quit(),
    Command.QUIT_NEW: ev.Quit(again=True),
}
WAY: dict[State, list[Command]] = {
    State.OPENED: [],
    State.READY: [Command.NEGOTIATE],
    State.CONNECTED: [Command.CONNECT],
    State.MAIL: [Command.MAIL],
    State.RCPT: [Command.RCPT],
    State.DATA: [Command.DATA],
    State.HEADERS: [Command.HEADER],
    State.BODY: [Command.END_OF_HEADERS],
    State.ENDED: [Command.END_OF_BODY],
}


class Pair:
    """Both ends, with nothing between them."""

    def __init__(self, actions: Actions = WANTED, protocol: Protocol = Protocol.NONE, version: int = 6) -> None:
        self.mta = MilterConnection(Role.MTA)
        self.filter = MilterConnection(Role.FILTER)
        self._actions, self._protocol, self._version = actions, protocol, version

    def say(self, command: Command) -> list[ev.Event]:
        """The MTA says something; the filter answers ``Continue`` where it must."""
        event = SAMPLES[command]
        if isinstance(event, ev.Negotiate):
            event = ev.Negotiate(self._version, EVERYTHING, FLAGS_OF[self._version])
        seen = self.filter.receive(self.mta.send(event))
        if isinstance(event, ev.Negotiate):
            self.answer(choose(event, self._actions, self._protocol))
        elif self.filter.pending is not None and command is not Command.END_OF_BODY:
            self.answer(ev.Continue())
        return seen

    def answer(self, *events: ev.FromFilter) -> list[ev.Event]:
        return self.mta.receive(self.filter.send(*events))

    def go(self, state: State) -> None:
        """To this state by the shortest way."""
        for step, commands in WAY.items():
            for command in commands:
                self.say(command)
            if step is state:
                break
        assert (self.mta.state, self.filter.state) == (state, state)


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("command", Command)
def test_commands_out_of_order_end_the_connection_and_cannot_be_sent(state: State, command: Command) -> None:
    pair = Pair()
    pair.go(state)
    legal = command in COMMANDS[state]
    if state is State.ENDED:
        assert pair.answer(ev.TempFail()) == [ev.TempFail()]
        state, legal = State.CONNECTED, command in COMMANDS[State.CONNECTED]
    raw = MilterConnection(Role.MTA)
    raw.state = next(from_ for from_ in COMMANDS if command in COMMANDS[from_])
    data = raw.send(SAMPLES[command])
    if not legal:
        with pytest.raises(LocalProtocolError):
            pair.mta.send(SAMPLES[command])
    events = pair.filter.receive(data)
    assert isinstance(events[-1], ev.Failure) is not legal
    assert pair.filter.state is (COMMANDS[state][command] if legal else State.FAILED)


@pytest.mark.parametrize("silent", [False, True])
def test_both_ends_go_through_several_messages_together(silent: bool) -> None:
    protocol = FLAGS_OF[6] & ~Protocol((1 << 7) - 1) if silent else Protocol.NONE
    pair = Pair(protocol=protocol)
    pair.go(State.CONNECTED)
    for _ in range(3):
        for command in (
            Command.MACROS, Command.HELO, Command.MAIL, Command.RCPT, Command.RCPT, Command.DATA, Command.HEADER,
            Command.HEADER, Command.END_OF_HEADERS, Command.BODY, Command.BODY, Command.END_OF_BODY,
        ):  # fmt: skip
            assert pair.say(command) == [SAMPLES[command]]
        changes = (
            ev.Progress(), ev.AddHeader(b"X-A", b" 1"), ev.ChangeHeader(2, b"To", b""),
            ev.InsertHeader(0, b"X-B", b"2"), ev.ReplaceBody(b"new\r\n"),
            ev.ReplaceBody(b""), ev.Quarantine(b"why"), ev.Continue(),
        )  # fmt: skip
        assert pair.answer(*changes) == list(changes)
        assert (pair.mta.state, pair.filter.state) == (State.CONNECTED, State.CONNECTED)
    assert pair.say(Command.QUIT_NEW) == [ev.Quit(again=True)]
    assert pair.say(Command.CONNECT) == [SAMPLES[Command.CONNECT]]
    assert pair.say(Command.QUIT) == [ev.Quit()]
    assert pair.filter.state is State.CLOSED


@pytest.mark.parametrize("answer", [ev.Accept(), ev.Reject(), ev.TempFail(), ev.Reply(b"554 5.7.1 no")])
@pytest.mark.parametrize("state", [State.MAIL, State.RCPT, State.DATA, State.HEADERS, State.BODY, State.ENDED])
def test_a_final_answer_ends_the_message_but_for_one_recipient(state: State, answer: ev.FromFilter) -> None:
    pair = Pair()
    before = list(WAY)[list(WAY).index(state) - 1]
    pair.go(before)
    pair.filter.receive(pair.mta.send(SAMPLES[WAY[state][0]]))
    assert pair.answer(answer) == [answer]
    stays = state is State.RCPT and not isinstance(answer, ev.Accept)
    assert pair.mta.state is pair.filter.state is (state if stays else State.CONNECTED)


def test_the_filter_is_given_nothing_more_before_it_answered() -> None:
    pair = Pair()
    pair.go(State.CONNECTED)
    sender = MilterConnection(Role.MTA)
    sender.state = State.CONNECTED
    mail = sender.send(SAMPLES[Command.MAIL])
    sender.pending = None
    data = mail + sender.send(SAMPLES[Command.RCPT])
    assert pair.filter.receive(data) == [SAMPLES[Command.MAIL]]
    assert pair.filter.backlog > 0
    assert pair.filter.receive(b"") == []
    pair.filter.send(ev.Continue())
    assert pair.filter.receive(b"") == [SAMPLES[Command.RCPT]]


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_each_version_is_negotiated_with_what_it_knows(version: int) -> None:
    wanted = Protocol.SILENT_BODY | Protocol.LEADING_SPACE | Protocol.NO_UNKNOWN | Protocol.NO_HELO
    pair = Pair(protocol=wanted, version=version)
    pair.go(State.READY)
    assert pair.filter.agreed == pair.mta.agreed
    assert pair.filter.agreed is not None
    assert pair.filter.agreed.version == version
    assert pair.filter.protocol == wanted & FLAGS_OF[version]


def test_a_newer_mta_gets_our_newest_and_an_older_one_is_refused() -> None:
    offer = ev.Negotiate(7, EVERYTHING | Actions(1 << 20), Protocol(0xFFFFFFFF))
    assert choose(offer, WANTED, Protocol.SKIP) == ev.Negotiate(6, WANTED, Protocol.SKIP)
    conn = MilterConnection(Role.FILTER)
    mta = MilterConnection(Role.MTA)
    assert isinstance(conn.receive(mta.send(ev.Negotiate(1)))[-1], ev.Failure)


def test_macros_are_chosen_only_where_that_is_offered() -> None:
    macros = ((Stage.MAIL, b"i {auth_authen}"), (Stage.CONNECT, b"j"))
    for actions, chosen in ((EVERYTHING, macros), (WANTED, ())):
        mta, conn = MilterConnection(Role.MTA), MilterConnection(Role.FILTER)
        conn.receive(mta.send(ev.Negotiate(6, actions, FLAGS_OF[6])))
        choice = choose(ev.Negotiate(6, actions, FLAGS_OF[6]), WANTED, Protocol.NONE, macros)
        assert mta.receive(conn.send(choice)) == [choice]
        assert choice.macros == chosen


@pytest.mark.parametrize(
    "choice", [ev.Negotiate(7), ev.Negotiate(1), ev.Negotiate(6, EVERYTHING), ev.Negotiate(6, protocol=Protocol.SKIP)]
)
def test_a_choice_of_what_was_not_offered_is_refused_by_both_ends(choice: ev.Negotiate) -> None:
    offer = ev.Negotiate(6, Actions.ADD_HEADERS)
    mta, conn = MilterConnection(Role.MTA), MilterConnection(Role.FILTER)
    conn.receive(mta.send(offer))
    with pytest.raises(LocalProtocolError):
        conn.send(choice)
    liar = MilterConnection(Role.FILTER)
    liar.offered, liar.pending = ev.Negotiate(6, EVERYTHING, FLAGS_OF[6]), Command.NEGOTIATE
    if 2 <= choice.version <= 6:
        assert isinstance(mta.receive(liar.send(choice))[-1], ev.Failure)


@pytest.mark.parametrize(
    "answers",
    [
        [ev.AddHeader(b"X", b"y")], [ev.ReplaceBody(b"x")], [ev.Quarantine(b"x")], [ev.Skip()],
        [ev.Continue(), ev.Continue()], [ev.Helo(b"x")], [ev.Negotiate(6)],
    ],
)  # fmt: skip
def test_answers_out_of_place_cannot_be_sent(answers: list[ev.FromFilter]) -> None:
    pair = Pair()
    pair.go(State.CONNECTED)
    pair.filter.receive(pair.mta.send(SAMPLES[Command.MAIL]))
    with pytest.raises(LocalProtocolError):
        pair.filter.send(*answers)


def test_what_was_not_agreed_on_cannot_be_sent() -> None:
    pair = Pair(actions=Actions.ADD_HEADERS)
    pair.go(State.ENDED)
    for event in (ev.ChangeHeader(1, b"A", b"b"), ev.ReplaceBody(b""), ev.Quarantine(b"x")):
        with pytest.raises(LocalProtocolError, match="agreed"):
            pair.filter.send(event)
    assert pair.answer(ev.AddHeader(b"A", b"b"), ev.Continue()) == [ev.AddHeader(b"A", b"b"), ev.Continue()]


def test_discard_does_not_exist() -> None:
    with pytest.raises(ValueError, match="b'd'"):
        Response(b"d")


def test_the_table_leads_only_to_its_own_states() -> None:
    assert set(COMMANDS) == set(State)
    assert {state for row in COMMANDS.values() for state in row.values()} < set(State)
    for state in (State.MAIL, State.BODY, State.ENDED):
        assert after_answer(state, Command.MAIL, Response.PROGRESS) is None
