"""One milter packet: a letter and what follows it, to an event and back. Lengths and order are `milter`'s business."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from icapscan.errors import LocalProtocolError, ProtocolError
from icapscan.wire import milter_events as ev
from icapscan.wire.milter_codes import Actions, Command, Protocol, Response, Stage

_WORD = struct.Struct(">I")
_OFFER = struct.Struct(">III")
_PORT = struct.Struct(">H")
_FAMILIES = (b"4", b"6", b"L")


def decode_command(command: Command, data: bytes) -> ev.FromMta:
    """What the MTA sent. Raises `ProtocolError`."""
    return _COMMANDS[command](data)


def decode_response(response: Response, data: bytes) -> ev.FromFilter:
    """What the filter sent. Raises `ProtocolError`."""
    return _RESPONSES[response](data)


def encode(event: ev.Event) -> tuple[Command | Response, bytes]:
    """Letter and data. Raises `LocalProtocolError` for what cannot be sent."""
    encoder = _ENCODERS.get(type(event))
    if encoder is None:
        raise LocalProtocolError(f"{type(event).__name__} is never sent.")
    return encoder(event)


# From bytes


def read_offer(data: bytes) -> ev.Negotiate:
    """A negotiation packet of either end."""
    if len(data) < _OFFER.size:
        raise ProtocolError("A negotiation is shorter than three numbers.")
    version, actions, protocol = _OFFER.unpack_from(data)
    macros = []
    at = _OFFER.size
    while at < len(data):
        stop = data.find(b"\0", at + _WORD.size)
        if stop < 0:
            raise ProtocolError("A list of macro names does not end.")
        number = _WORD.unpack_from(data, at)[0]
        if number not in set(Stage):
            raise ProtocolError("There is no such stage for macros.")
        macros.append((Stage(number), data[at + _WORD.size : stop]))
        at = stop + 1
    # bits that are not known here stay what they are: an offer may have more than any version of today
    return ev.Negotiate(version, Actions(actions), Protocol(protocol), tuple(macros))


def _strings(data: bytes, least: int, most: int | None = None) -> Sequence[bytes]:
    """Texts that each end with a NUL."""
    parts = data.split(b"\0")
    if parts.pop() or len(parts) < least or (most is not None and len(parts) > most):
        raise ProtocolError("A packet does not consist of the texts that it should.")
    return parts


def _macros(data: bytes) -> ev.Macros:
    try:
        command = Command(data[:1])
    except ValueError:
        raise ProtocolError("Macros for a command that does not exist.") from None
    parts = _strings(data[1:], 0) if len(data) > 1 else ()
    if len(parts) % 2:
        raise ProtocolError("A macro has a name and no value.")
    return ev.Macros(command, tuple(zip(parts[::2], parts[1::2], strict=True)))


def _connect(data: bytes) -> ev.Connect:
    host, nul, rest = data.partition(b"\0")
    family = rest[:1]
    if not nul or (family == b"U" and len(rest) != 1) or family not in (*_FAMILIES, b"U"):
        raise ProtocolError("A connect packet has no host name or no family.")
    if family == b"U":
        return ev.Connect(host)
    if len(rest) < 4 or rest[-1] or b"\0" in rest[3:-1]:
        raise ProtocolError("A connect packet has no port or no address.")
    return ev.Connect(host, family, _PORT.unpack_from(rest, 1)[0], rest[3:-1])


def _header(data: bytes) -> ev.Header:
    name, value = _strings(data, 2, 2)
    return ev.Header(name, value)


def _nothing(event: Any) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        if data:
            raise ProtocolError(f"A packet {type(event).__name__} has data.")
        return event

    return decode


def _numbered(kind: type[ev.InsertHeader] | type[ev.ChangeHeader]) -> Callable[[bytes], ev.FromFilter]:
    def decode(data: bytes) -> ev.FromFilter:
        if len(data) < _WORD.size:
            raise ProtocolError("A packet has no index.")
        name, value = _strings(data[_WORD.size :], 2, 2)
        return kind(_WORD.unpack_from(data)[0], name, value)

    return decode


_COMMANDS: dict[Command, Callable[[bytes], ev.FromMta]] = {
    Command.NEGOTIATE: read_offer,
    Command.MACROS: _macros,
    Command.CONNECT: _connect,
    Command.HELO: lambda data: ev.Helo(*_strings(data, 1, 1)),
    Command.MAIL: lambda data: ev.MailFrom(tuple(_strings(data, 1))),
    Command.RCPT: lambda data: ev.RcptTo(tuple(_strings(data, 1))),
    Command.DATA: _nothing(ev.Data()),
    Command.UNKNOWN: lambda data: ev.UnknownCommand(*_strings(data, 1, 1)),
    Command.HEADER: _header,
    Command.END_OF_HEADERS: _nothing(ev.EndOfHeaders()),
    Command.BODY: ev.BodyPiece,
    Command.END_OF_BODY: ev.EndOfBody,
    Command.ABORT: _nothing(ev.Abort()),
    Command.QUIT: _nothing(ev.Quit()),
    Command.QUIT_NEW: _nothing(ev.Quit(again=True)),
}
_RESPONSES: dict[Response, Callable[[bytes], ev.FromFilter]] = {
    Response.CONTINUE: _nothing(ev.Continue()),
    Response.ACCEPT: _nothing(ev.Accept()),
    Response.REJECT: _nothing(ev.Reject()),
    Response.TEMPFAIL: _nothing(ev.TempFail()),
    Response.REPLY: lambda data: ev.Reply(*_strings(data, 1, 1)),
    Response.SKIP: _nothing(ev.Skip()),
    Response.PROGRESS: _nothing(ev.Progress()),
    Response.ADD_HEADER: lambda data: ev.AddHeader(*_strings(data, 2, 2)),
    Response.INSERT_HEADER: _numbered(ev.InsertHeader),
    Response.CHANGE_HEADER: _numbered(ev.ChangeHeader),
    Response.REPLACE_BODY: ev.ReplaceBody,
    Response.QUARANTINE: lambda data: ev.Quarantine(*_strings(data, 1, 1)),
}


# To bytes


def _texts(*texts: bytes) -> bytes:
    for text in texts:
        if b"\0" in text:
            raise LocalProtocolError("A text in a packet has no NUL.")
    return b"".join(text + b"\0" for text in texts)


def _offer(event: ev.Negotiate) -> tuple[Command, bytes]:
    lists = b"".join(_WORD.pack(stage) + _texts(names) for stage, names in event.macros)
    return Command.NEGOTIATE, _OFFER.pack(event.version, event.actions, event.protocol) + lists


def _encode_connect(event: ev.Connect) -> tuple[Command, bytes]:
    start = _texts(event.host) + event.family
    if event.family not in _FAMILIES:
        return Command.CONNECT, start
    return Command.CONNECT, start + _PORT.pack(event.port) + _texts(event.address)


def _encode_macros(event: ev.Macros) -> tuple[Command, bytes]:
    return Command.MACROS, event.command.value + _texts(*(text for pair in event.values for text in pair))


_ENCODERS: dict[type, Callable[[Any], tuple[Command | Response, bytes]]] = {
    ev.Negotiate: _offer,
    ev.Macros: _encode_macros,
    ev.Connect: _encode_connect,
    ev.Helo: lambda event: (Command.HELO, _texts(event.name)),
    ev.MailFrom: lambda event: (Command.MAIL, _texts(*event.arguments)),
    ev.RcptTo: lambda event: (Command.RCPT, _texts(*event.arguments)),
    ev.Data: lambda event: (Command.DATA, b""),
    ev.UnknownCommand: lambda event: (Command.UNKNOWN, _texts(event.line)),
    ev.Header: lambda event: (Command.HEADER, _texts(event.name, event.value)),
    ev.EndOfHeaders: lambda event: (Command.END_OF_HEADERS, b""),
    ev.BodyPiece: lambda event: (Command.BODY, event.data),
    ev.EndOfBody: lambda event: (Command.END_OF_BODY, event.data),
    ev.Abort: lambda event: (Command.ABORT, b""),
    ev.Quit: lambda event: (Command.QUIT_NEW if event.again else Command.QUIT, b""),
    ev.Continue: lambda event: (Response.CONTINUE, b""),
    ev.Accept: lambda event: (Response.ACCEPT, b""),
    ev.Reject: lambda event: (Response.REJECT, b""),
    ev.TempFail: lambda event: (Response.TEMPFAIL, b""),
    ev.Reply: lambda event: (Response.REPLY, _texts(event.text)),
    ev.Skip: lambda event: (Response.SKIP, b""),
    ev.Progress: lambda event: (Response.PROGRESS, b""),
    ev.AddHeader: lambda event: (Response.ADD_HEADER, _texts(event.name, event.value)),
    ev.InsertHeader: lambda event: (Response.INSERT_HEADER, _WORD.pack(event.index) + _texts(event.name, event.value)),
    ev.ChangeHeader: lambda event: (Response.CHANGE_HEADER, _WORD.pack(event.index) + _texts(event.name, event.value)),
    ev.ReplaceBody: lambda event: (Response.REPLACE_BODY, event.data),
    ev.Quarantine: lambda event: (Response.QUARANTINE, _texts(event.reason)),
}
