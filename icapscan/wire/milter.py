"""One milter connection, for either end: bytes in, events out; events in, bytes out. No socket, clock or logger.

A packet is a length (four bytes, big-endian), a letter, and data. The MTA sends one command at a time and waits for its
answer, but for those that need none; so a filter's codec gives no further command before the last one was answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from icapscan.errors import LocalProtocolError, ProtocolError
from icapscan.wire.milter_codes import (
    FLAGS_OF,
    NEVER_ANSWERED,
    NEWEST,
    OLDEST,
    PIECE,
    SILENT,
    Actions,
    Command,
    Protocol,
    Response,
    Stage,
)
from icapscan.wire.milter_events import Event, Failure, Negotiate, PeerClosed
from icapscan.wire.milter_packets import decode_command, decode_response, encode
from icapscan.wire.milter_states import COMMANDS, MODIFICATIONS, Role, State, after_answer

PACKET_MOST = 1024 * 1024
"""Bytes of one packet. Body pieces have 64 KiB; Postfix cuts a header field at 100 KB, Sendmail at 32 KB."""

_ACTION_OF = {
    Response.ADD_HEADER: Actions.ADD_HEADERS,
    Response.INSERT_HEADER: Actions.ADD_HEADERS,
    Response.CHANGE_HEADER: Actions.CHANGE_HEADERS,
    Response.REPLACE_BODY: Actions.CHANGE_BODY,
    Response.QUARANTINE: Actions.QUARANTINE,
}
Macros = Sequence[tuple[Stage, bytes]]
_LETTERS_OF_MTA = {command.value: command for command in Command}
_LETTERS_OF_FILTER = {response.value: response for response in Response}


class MilterConnection:
    """The codec of one connection."""

    def __init__(self, role: Role, packet_most: int = PACKET_MOST) -> None:
        self.role = role
        self.state = State.OPENED
        self.pending: Command | None = None
        """The command that the filter has still to answer."""
        self.offered: Negotiate | None = None
        self.agreed: Negotiate | None = None
        """What the filter chose."""
        self._most = packet_most
        self._buffer = bytearray()
        self._eof = False

    @property
    def backlog(self) -> int:
        """Bytes received and not yet understood."""
        return len(self._buffer)

    @property
    def may(self) -> Actions:
        """What the filter may do to a message."""
        return self.agreed.actions if self.agreed else Actions.NONE

    @property
    def protocol(self) -> Protocol:
        """What was agreed on."""
        return self.agreed.protocol if self.agreed else Protocol.NONE

    # Bytes to events

    def receive(self, data: bytes) -> list[Event]:
        """What ``data`` completes. A filter gives ``b""`` after its answer, to go on with what was kept.

        Never raises for what a peer sent: the last event is then a `Failure`.
        """
        if self._has_failed():
            return []
        buffer = self._buffer
        buffer += data
        events: list[Event] = []
        at = 0
        try:
            while not (self.role is Role.FILTER and self.pending):
                size = self._size(buffer, at)
                if size is None or len(buffer) - at < 4 + size:
                    break
                letter, content = bytes(buffer[at + 4 : at + 5]), bytes(buffer[at + 5 : at + 4 + size])
                at += 4 + size
                events.append(self._take(letter, content))
            del buffer[:at]
            if self._eof and not (self.role is Role.FILTER and self.pending):
                if buffer:
                    raise ProtocolError("The connection ended within a packet.")
                self._eof = False
                events.append(PeerClosed())
        except ProtocolError as error:
            self.state = State.FAILED
            self.pending = None
            buffer.clear()
            events.append(Failure(error))
        return events

    def receive_eof(self) -> list[Event]:
        """The peer sends no more: `PeerClosed`, or `Failure` within a packet."""
        self._eof = True
        return self.receive(b"")

    def _has_failed(self) -> bool:
        return self.state is State.FAILED

    def _size(self, buffer: bytearray, at: int) -> int | None:
        if len(buffer) - at < 4:
            return None
        size = int.from_bytes(buffer[at : at + 4], "big")
        if not 0 < size <= self._most:
            raise ProtocolError(f"A packet of {size} bytes cannot be.")
        return size

    def _take(self, letter: bytes, data: bytes) -> Event:
        if self.role is Role.FILTER:
            command = _LETTERS_OF_MTA.get(letter)
            if command is None:
                raise ProtocolError(f"There is no command {letter!r}.")
            state = COMMANDS[self.state].get(command)
            if state is None:
                raise ProtocolError(f"The session is {self.state.name}: {command.name} is illegal.")
            event = decode_command(command, data)
            if isinstance(event, Negotiate):
                if event.version < OLDEST:
                    raise ProtocolError(
                        f"The MTA speaks version {event.version} of the protocol; 2 is the oldest known."
                    )
                self.offered = event
            self._after_command(command, state)
            return event
        return self._take_answer(letter, data)

    def _take_answer(self, letter: bytes, data: bytes) -> Event:
        if self.pending is None:
            raise ProtocolError("The filter answers although nothing was asked.")
        if self.pending is Command.NEGOTIATE:
            if letter != Command.NEGOTIATE.value:
                raise ProtocolError("The filter does not negotiate.")
            choice = decode_command(Command.NEGOTIATE, data)
            assert isinstance(choice, Negotiate)
            if (wrong := self._why_not(choice)) is not None:
                raise ProtocolError(wrong)
            self.agreed, self.pending = choice, None
            return choice
        response = _LETTERS_OF_FILTER.get(letter)
        if response is None:
            raise ProtocolError(f"There is no answer {letter!r}.")
        answer = decode_response(response, data)
        if (illegal := self._step_answer(response)) is not None:
            raise ProtocolError(illegal)
        return answer

    # Events to bytes

    def send(self, *events: Event) -> bytes:
        """The bytes of our own events. Raises `LocalProtocolError` for one that is illegal now."""
        return b"".join(self._send(event) for event in events)

    def _send(self, event: Event) -> bytes:
        code, data = encode(event)
        if len(data) > (PIECE if code in (Command.BODY, Response.REPLACE_BODY) else self._most - 1):
            raise LocalProtocolError(f"{len(data)} bytes are too many for one packet.")
        if self.role is Role.MTA:
            self._send_command(code, event)
        elif isinstance(event, Negotiate):
            if self.pending is not Command.NEGOTIATE:
                raise LocalProtocolError("There is nothing to negotiate now.")
            if (wrong := self._why_not(event)) is not None:
                raise LocalProtocolError(wrong)
            self.agreed, self.pending = event, None
        elif not isinstance(code, Response):
            raise LocalProtocolError(f"A filter never sends {type(event).__name__}.")
        elif (illegal := self._step_answer(code)) is not None:
            raise LocalProtocolError(illegal)
        letter: bytes = code.value
        return (len(data) + 1).to_bytes(4, "big") + letter + data

    def _send_command(self, code: Command | Response, event: Event) -> None:
        if not isinstance(code, Command):
            raise LocalProtocolError(f"An MTA never sends {type(event).__name__}.")
        state = COMMANDS[self.state].get(code)
        if state is None or (self.pending is not None and code not in (Command.ABORT, Command.QUIT)):
            raise LocalProtocolError(f"The session is {self.state.name}: {code.name} is illegal.")
        if isinstance(event, Negotiate):
            self.offered = event
        self._after_command(code, state)

    # Both

    def _after_command(self, command: Command, state: State) -> None:
        self.state = state
        silent = SILENT.get(command, Protocol.NONE) & self.protocol
        self.pending = None if command in NEVER_ANSWERED or silent else command

    def _step_answer(self, response: Response) -> str | None:
        """Move on; or why this answer is illegal now."""
        command = self.pending
        if command is None:
            return "There is nothing to answer now."
        if response is Response.PROGRESS:
            return None
        if response in MODIFICATIONS:
            if command is not Command.END_OF_BODY:
                return f"{response.name} answers the end of the body, and nothing else."
            if not _ACTION_OF[response] & self.may:
                return f"{response.name} was not agreed on."
            return None
        state = after_answer(self.state, command, response)
        if state is None or (response is Response.SKIP and not self.protocol & Protocol.SKIP):
            return f"{response.name} is no answer to {command.name}."
        self.state = state
        self.pending = None
        return None

    def _why_not(self, choice: Negotiate) -> str | None:
        """Why a filter may not choose so, or None."""
        offer = self.offered
        assert offer is not None
        if not OLDEST <= choice.version <= min(offer.version, NEWEST):
            return f"Version {choice.version} is not one of those offered."
        if choice.actions & ~offer.actions or choice.protocol & ~offer.protocol:
            return "The filter chooses what was not offered."
        if choice.macros and not Actions.SET_MACROS & offer.actions:
            return "The filter chooses macros, which was not offered."
        return None


def choose(offer: Negotiate, actions: Actions, protocol: Protocol, macros: Macros = ()) -> Negotiate:
    """A filter's choice: of what it wants, as much as is offered and its version knows."""
    version = min(offer.version, NEWEST)
    known = FLAGS_OF[version] | Protocol.SILENT_HEADER
    names = tuple(macros) if Actions.SET_MACROS & offer.actions else ()
    return Negotiate(version, actions & offer.actions, protocol & offer.protocol & known, names)
