"""One SMTP connection, for either end: bytes in, events out; commands, replies and data in, bytes out (RFC 5321).

There is no socket, clock or logger in here. The shell gives what it read to `receive` and asks `next_event` until it
is None. One command at a time: what a client sent ahead (RFC 2920) is kept until the command before is answered. The
table of what may happen when is `icapscan.wire.smtp_states`; both roles make their steps by it.
"""

from __future__ import annotations

from icapscan.errors import LocalProtocolError, ProtocolError
from icapscan.wire.smtp_command import Chunk, Command, parse_chunk, parse_command
from icapscan.wire.smtp_data import Bytes, Stuffer, Unstuffer, has_bare
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
from icapscan.wire.smtp_reply import LINE_MOST, Reply, ReplyReader
from icapscan.wire.smtp_states import TABLE, Role, State, Step

COMMAND_MOST = 4096
"""Bytes of a command line. RFC 5321 4.5.3.1.4 says 512, and its extensions add to that (DSN: 500 and more)."""
AUTH_MOST = 12288
"""Bytes of a line of an AUTH exchange (RFC 4954 4)."""
_STEPS = {
    b"EHLO": Step.HELLO,
    b"HELO": Step.HELLO,
    b"MAIL": Step.MAIL,
    b"RCPT": Step.RCPT,
    b"DATA": Step.DATA_GO,
    b"RSET": Step.RESET,
    b"AUTH": Step.AUTH_GO,
    b"STARTTLS": Step.TLS_GO,
    b"XCLIENT": Step.GREETED,
    b"QUIT": Step.QUIT,
}
_GREETING = Command(b"", b"", b"")


class SmtpConnection:
    """The codec of one connection. ``normalize``: of mail data received, make each bare CR or LF a CR LF."""

    def __init__(self, role: Role, *, normalize: bool = False) -> None:
        self.role = role
        self.state = State.GREETING
        self._normalize = normalize
        self._buffer = bytearray()
        self._dropping = False
        self._eof = False
        self._failed = False
        self._asked: Command | None = _GREETING if role is Role.CLIENT else None
        """The command that waits for its reply."""
        self._chunk: Chunk | None = None
        self._left = 0
        """Bytes of the BDAT chunk that are still to come."""
        self._last_byte = b""
        self._bare = False
        self._unstuffer: Unstuffer | None = None
        self._stuffer: Stuffer | None = None
        self._replies = ReplyReader()

    # Reading

    @property
    def awaits_reply(self) -> bool:
        """A command was read (server) or sent (client) and is not answered."""
        return self._asked is not None

    @property
    def backlog(self) -> int:
        """Bytes received and not understood yet."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Some bytes from the peer."""
        if self.state not in (State.CLOSED, State.TLS) and not self._failed:
            self._buffer += data

    def receive_eof(self) -> None:
        """The peer's FIN."""
        self._eof = True

    def next_event(self) -> Event | None:
        """What comes next; None: more bytes, or a reply of ours, are needed first."""
        if self._failed or self.state in (State.CLOSED, State.TLS):
            return None
        try:
            event = self._next_of_server() if self.role is Role.SERVER else self._next_of_client()
        except ProtocolError as error:
            return self._fail(error)
        if event is None and self._eof and (self.role is Role.CLIENT or self._asked is None):
            orderly = not self._buffer and self.state not in (State.DATA, State.AUTH) and not self._left
            self._failed = True
            return PeerClosed(orderly and not (self.role is Role.CLIENT and self._asked is not None))
        return event

    def _fail(self, error: ProtocolError) -> Failure:
        self._failed = True
        self._buffer.clear()
        return Failure(error)

    def _next_of_server(self) -> Event | None:
        if self._chunk is not None:
            return self._next_of_chunk()
        if self._asked is not None:
            return None
        if self.state is State.GREETING:
            return None  # what it says before the greeting waits
        if self.state is State.DATA:
            return self._next_of_data()
        return self._next_line_of_server()

    def _next_line_of_server(self) -> Event | None:
        auth = self.state is State.AUTH
        line = self._line(AUTH_MOST if auth else COMMAND_MOST)
        if line is None:
            return None
        if line is _TOO_LONG:
            return LineRefused("Line too long.")
        if auth:
            self._asked = Command(b"AUTH", b"", b"")
            return AuthLine(line)
        try:
            command = parse_command(line)
        except ProtocolError as error:
            return LineRefused(str(error))
        step = _STEPS.get(command.verb, Step.ANY)
        if command.verb == b"BDAT":
            self._chunk = parse_chunk(command)
            self._left = self._chunk.size
            step = Step.CHUNK
        self._asked = command
        return CommandReceived(command, step in TABLE[self.state], self._chunk)

    def _next_of_data(self) -> Event | None:
        unstuffer = self._unstuffer
        assert unstuffer is not None
        if not self._buffer and not unstuffer.ended:
            return None
        if not unstuffer.ended:
            message, rest = unstuffer.feed(bytes(self._buffer))
            self._buffer[:] = rest
            if message:
                return DataReceived(message)
            if not unstuffer.ended:
                return None
        self._asked = Command(b"", b"", b"")
        return DataEnded(unstuffer.bare)

    def _next_of_chunk(self) -> Event | None:
        """The bytes of BDAT as they are; whether a CR or LF stands alone is seen across chunks."""
        if self._left:
            if not self._buffer:
                return None
            data = bytes(self._buffer[: self._left])
            del self._buffer[: len(data)]
            self._left -= len(data)
            self._look(data)
            return DataReceived(data)
        chunk, self._chunk = self._chunk, None
        assert chunk is not None
        if chunk.last and self._last_byte == b"\r":
            self._bare = True
        self._asked = Command(b"BDAT", b"LAST" if chunk.last else b"", b"")
        return DataEnded(self._bare)

    def _look(self, data: bytes) -> None:
        block = self._last_byte + data
        self._last_byte = b"\r" if block.endswith(b"\r") else b""
        self._bare = self._bare or has_bare(block[:-1] if self._last_byte else block)

    def _next_of_client(self) -> Event | None:
        while (line := self._line(LINE_MOST)) is not None:
            if line is _TOO_LONG:
                raise ProtocolError("A line of an SMTP reply is too long.")
            reply = self._replies.take(line)
            if reply is None:
                continue
            asked = self._asked
            if asked is None:
                if self.state is not State.DATA:
                    raise ProtocolError("The peer answers although nothing was asked.")
                self.state = State.CLOSED  # it has its say before the end of the message: nothing can follow
                return ReplyReceived(reply)
            self._asked = None
            self._answered(asked, reply)
            return ReplyReceived(reply)
        return None

    def _line(self, most: int) -> bytes | None:
        """The next line without its CR LF; `_TOO_LONG` in place of one that was. Raises for a bare CR or LF."""
        buffer = self._buffer
        stop = buffer.find(b"\n")
        if stop < 0:
            if len(buffer) > most + 1:
                self._dropping = True
                del buffer[:-1]  # it may be the CR
            return None
        if stop == 0 or buffer[stop - 1] != 13:
            raise ProtocolError("A line ends with a bare LF.", 500)
        line = bytes(buffer[: stop - 1])
        del buffer[: stop + 1]
        if self._dropping or len(line) > most:
            self._dropping = False
            return _TOO_LONG
        if b"\r" in line:
            raise ProtocolError("A line holds a bare CR.", 500)
        return line

    # Writing: server

    def send_reply(self, reply: Reply) -> bytes:
        """The reply to what was read last, or the greeting."""
        if self.role is not Role.SERVER:
            raise LocalProtocolError("A client sends no replies.")
        wire = reply.encode()
        asked, self._asked = self._asked, None
        if self.state is State.GREETING:
            asked = _GREETING
        if asked is not None:
            self._answered(asked, reply)
        if reply.code == 421:
            self.state = State.CLOSED
        return wire

    # Writing: client

    def send_command(self, command: Command) -> bytes:
        """A command line. Raises `LocalProtocolError` while another one waits for its reply."""
        self._may_ask()
        if b"\r" in command.line or b"\n" in command.line:
            raise LocalProtocolError("A command must be one line.")
        self._asked = command
        return command.line + b"\r\n"

    def send_auth_line(self, line: bytes) -> bytes:
        """Our line of an AUTH exchange."""
        self._may_ask()
        if self.state is not State.AUTH or b"\r" in line or b"\n" in line:
            raise LocalProtocolError("There is no AUTH exchange to go on with.")
        self._asked = Command(b"AUTH", b"", b"")
        return line + b"\r\n"

    def send_data(self, data: Bytes) -> bytes:
        """Bytes of the message, after 354."""
        if self.state is not State.DATA or self._stuffer is None:
            raise LocalProtocolError("There is no leave to send mail data.")
        return self._stuffer.feed(data)

    def end_data(self) -> bytes:
        """The end of the message."""
        if self.state is not State.DATA or self._stuffer is None:
            raise LocalProtocolError("There is no leave to send mail data.")
        wire = self._stuffer.finish()
        self._stuffer = None
        self._asked = Command(b"", b"", b"")
        return wire

    def _may_ask(self) -> None:
        if self.role is not Role.CLIENT or self._asked is not None or self._buffer or self._failed:
            raise LocalProtocolError("No command may be sent now.")

    # Both

    def tls_started(self) -> None:
        """The connection is secured now. Whatever was read in clear is forgotten (RFC 3207 4.2)."""
        self._step(Step.TLS_UP)
        self._buffer.clear()
        self._replies = ReplyReader()
        self._dropping = False

    def discard(self) -> int:
        """Forget what the peer sent ahead; how many bytes that were."""
        count = len(self._buffer)
        self._buffer.clear()
        return count

    def _answered(self, asked: Command, reply: Reply) -> None:
        """Make the step that a reply to ``asked`` means."""
        step = self._step_of(asked, reply)
        if step is not None:
            self._step(step)

    def _step_of(self, asked: Command, reply: Reply) -> Step | None:
        if self.state is State.GREETING:
            return Step.GREETED if reply.positive else None
        if self.state is State.DATA:
            return Step.DATA_DONE
        if self.state is State.AUTH:
            return Step.AUTH_GO if reply.code == 334 else Step.AUTH_DONE
        verb = asked.verb
        if verb == b"BDAT":
            if self.state not in (State.RCPT, State.CHUNKS):
                return None
            done = not reply.positive or asked.argument.upper().endswith(b"LAST")
            return Step.CHUNK_DONE if done else Step.CHUNK
        if verb == b"DATA":
            return Step.DATA_GO if reply.code == 354 else None
        if verb == b"AUTH":
            return Step.AUTH_GO if reply.code == 334 else None
        return _STEPS.get(verb) if reply.positive else None

    def _step(self, step: Step) -> None:
        state = TABLE[self.state].get(step)
        if state is None:
            if self.role is Role.SERVER:
                raise LocalProtocolError(f"The session is {self.state.name}: {step.name} is illegal.")
            raise ProtocolError(f"The peer says yes to {step.name}, which cannot be now.")
        self.state = state
        if step is Step.DATA_GO:
            self._unstuffer, self._stuffer = Unstuffer(normalize=self._normalize), Stuffer()
        elif step not in (Step.CHUNK, Step.ANY):
            self._bare, self._last_byte = False, b""


_TOO_LONG = b"".join([b"too", b" long"])
"""Compared by identity only: no line that was read is this very object."""
