"""The two ends of a mail's way: a sink that keeps exactly what came, and swaks that sends.

The sink is written with nothing but sockets, so that what it keeps are the very bytes and the very commands: a library
would make them pretty. It speaks SMTP (RFC 5321) with the extensions that it is told to offer.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from msgspec import Struct

from tests.peers import require
from tests.peers.processes import free_port, wait_until

EXTENSIONS = ("PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES")
SILENCE = 120.0
"""Seconds after which a connection that says nothing is closed: a guard against hanging."""
HANG = "hang"
CLOSE = "close"


class Mail(Struct, frozen=True):
    """One message that the sink took. The paths stand without their angle brackets; the parameters in upper case."""

    sender: str
    sender_parameters: tuple[str, ...]
    recipients: tuple[str, ...]
    recipient_parameters: tuple[tuple[str, ...], ...]
    data: bytes
    """After transparency was undone: CR LF at line ends as they came."""
    helo: str
    commands: tuple[str, ...]
    """Every command line of the connection so far, as it came."""

    @property
    def body(self) -> bytes:
        """What is below the header section."""
        return self.data.partition(b"\r\n\r\n")[2]

    def field(self, name: str) -> str | None:
        """The first field of that name, unfolded; None where there is none."""
        head = self.data.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
        found = re.search(
            rf"^{re.escape(name)}:[ \t]*([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", head, re.MULTILINE | re.IGNORECASE
        )
        return re.sub(r"\r\n[ \t]+", " ", found[1]).strip() if found else None


class MailSink:
    """An SMTP server on a free port that takes every message, or does as it is told.

    ``replies`` (may be changed while it runs): what to answer instead, by place: ``connect``, ``EHLO``, ``MAIL``,
    ``RCPT``, ``RCPT <a@b>`` (one recipient), ``DATA``, ``.`` (the message), ``QUIT``. A value is a reply line such as
    ``"451 4.3.0 not now"``, or `HANG` (say nothing until the peer goes) or `CLOSE`.
    A message that got another reply than 2xx at ``.`` is in ``refused``.
    """

    def __init__(self, extensions: Sequence[str] = EXTENSIONS, port: int = 0) -> None:
        self.extensions = tuple(extensions)
        self.replies: dict[str, str] = {}
        self.mails: list[Mail] = []
        self.refused: list[Mail] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.port = port or free_port()
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Listen, again after `stop`, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name="mail-sink", daemon=True).start()

    def stop(self) -> None:
        """Close the port and cut every connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_for(self, count: int, seconds: float = 60.0) -> list[Mail]:
        """The mails, once there are ``count`` of them. Raises `PeerError`."""
        wait_until(lambda: len(self.mails) >= count, f"{count} mails in the sink (it has {len(self.mails)})", seconds)
        return list(self.mails)

    def wait_for_subject(self, text: str, seconds: float = 60.0) -> Mail:
        """The first mail whose Subject holds ``text``. Raises `PeerError`."""
        wait_until(lambda: self.with_subject(text) != [], f"a mail with {text!r} in its subject", seconds)
        return self.with_subject(text)[0]

    def wait_for_text(self, text: bytes, seconds: float = 60.0) -> Mail:
        """The first mail that holds ``text``. Raises `PeerError`."""
        wait_until(lambda: any(text in mail.data for mail in list(self.mails)), f"a mail that holds {text!r}", seconds)
        return next(mail for mail in list(self.mails) if text in mail.data)

    def with_subject(self, text: str) -> list[Mail]:
        return [mail for mail in list(self.mails) if text in (mail.field("Subject") or "")]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
                self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), name="mail-sink-peer", daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as reader, contextlib.suppress(OSError, _Gone):
                sock.settimeout(SILENCE)
                _Conversation(self, sock, reader).run()
        finally:
            with self._lock:
                self._open.discard(sock)

    def keep(self, mail: Mail, taken: bool) -> None:
        with self._lock:
            (self.mails if taken else self.refused).append(mail)


class _Gone(Exception):
    """The conversation is over."""


class _Conversation:
    """One connection to the sink."""

    def __init__(self, sink: MailSink, sock: socket.socket, reader: BinaryIO) -> None:
        self._sink = sink
        self._sock = sock
        self._reader = reader
        self._commands: list[str] = []
        self._helo = ""
        self._reset()

    def _reset(self) -> None:
        self._sender: tuple[str, tuple[str, ...]] | None = None
        self._recipients: list[tuple[str, tuple[str, ...]]] = []
        self._bdat = b""

    def run(self) -> None:
        if not self._told("connect"):
            self._say("220 sink.icapscan.test ESMTP")
        while True:
            line = self._line()
            self._commands.append(line)
            verb, _, rest = line.partition(" ")
            handler = getattr(self, f"_on_{verb.lower()}", None)
            if handler is None:
                self._say("502 5.5.1 not known")
            else:
                handler(rest)

    def _on_ehlo(self, rest: str) -> None:
        self._helo = rest
        self._reset()
        if not self._told("EHLO"):
            lines = ["sink.icapscan.test", *self._sink.extensions]
            self._sock.sendall("".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}\r\n"
                                       for at, line in enumerate(lines)).encode())  # fmt: skip

    def _on_helo(self, rest: str) -> None:
        self._helo = rest
        self._reset()
        if not self._told("EHLO"):
            self._say("250 sink.icapscan.test")

    def _on_mail(self, rest: str) -> None:
        self._reset()
        if not self._told("MAIL"):
            self._sender = _path(rest)
            self._say("250 2.1.0 fine")

    def _on_rcpt(self, rest: str) -> None:
        path = _path(rest)
        if not self._told(f"RCPT <{path[0]}>") and not self._told("RCPT"):
            self._recipients.append(path)
            self._say("250 2.1.5 fine")

    def _on_data(self, rest: str) -> None:
        if self._sender is None or not self._recipients:
            self._say("503 5.5.1 MAIL and RCPT first")
        elif not self._told("DATA"):
            self._say("354 go on")
            data = bytearray()
            while (line := self._raw_line()) != b".\r\n":
                data += line[1:] if line.startswith(b".") else line
            self._end(bytes(data))

    def _on_bdat(self, rest: str) -> None:
        words = rest.upper().split()
        left = int(words[0])
        while left:
            piece = self._reader.read(min(left, 1 << 16))
            if not piece:
                raise _Gone
            self._bdat += piece
            left -= len(piece)
        if words[1:] == ["LAST"]:
            self._end(self._bdat)
        else:
            self._say("250 2.0.0 fine")

    def _end(self, data: bytes) -> None:
        assert self._sender is not None
        reply = self._sink.replies.get(".", "250 2.0.0 taken")
        mail = Mail(
            *self._sender, tuple(one[0] for one in self._recipients), tuple(one[1] for one in self._recipients), data,
            self._helo, tuple(self._commands),
        )  # fmt: skip
        self._reset()
        self._sink.keep(mail, reply.startswith("2"))
        if not self._told("."):
            self._say(reply)

    def _on_rset(self, rest: str) -> None:
        self._reset()
        self._say("250 2.0.0 fine")

    def _on_noop(self, rest: str) -> None:
        self._say("250 2.0.0 fine")

    _on_xclient = _on_xforward = _on_noop

    def _on_quit(self, rest: str) -> None:
        if not self._told("QUIT"):
            self._say("221 2.0.0 bye")
        raise _Gone

    def _told(self, place: str) -> bool:
        """Whether the sink was told what to do at ``place``, and it is done."""
        reply = self._sink.replies.get(place)
        if reply is None:
            return False
        if reply == CLOSE:
            raise _Gone
        if reply == HANG:
            while self._sock.recv(1 << 16):
                pass
            raise _Gone
        self._say(reply)
        return True

    def _say(self, line: str) -> None:
        self._sock.sendall(line.encode() + b"\r\n")

    def _line(self) -> str:
        return self._raw_line().rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    def _raw_line(self) -> bytes:
        line = self._reader.readline()
        if not line.endswith(b"\n"):
            raise _Gone
        return line


def _path(rest: str) -> tuple[str, tuple[str, ...]]:
    """``FROM:<a@b> SIZE=3`` as path and parameters."""
    _, _, after = rest.partition("<")
    path, _, parameters = after.rpartition(">")
    return path, tuple(_upper(word) for word in parameters.split())


def _upper(parameter: str) -> str:
    name, mark, value = parameter.partition("=")
    return name.upper() + mark + value


class Sent(Struct, frozen=True):
    """What swaks saw. ``text``: the conversation, client lines after ``->``, server lines after ``<-`` or ``<**``."""

    exit_code: int
    text: str

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    def reply_to(self, command: str) -> str:
        """The last line of the server's reply to the client's first line that begins with ``command``."""
        pattern = r"\." if command == "." else f"{re.escape(command)}.*"
        after = re.split(rf"^[ ~]*(?:->|~>) {pattern}\n", self.text, maxsplit=1, flags=re.MULTILINE)[1:]
        said = re.match(r"(?:(?:<-|<~|<\*\*|<~\*) .*\n)+", after[0]) if after else None
        if said is None:
            raise AssertionError(f"no reply to {command!r} in\n{self.text}")
        return said[0].rstrip("\n").splitlines()[-1].partition(" ")[2].strip()

    @property
    def verdict(self) -> str:
        """The server's reply to the message itself."""
        return self.reply_to(".")


def run_swaks(
    port: int, *arguments: str, sender: str = "sender@client.test", to: str = "reader@inside.test",
    data: bytes | None = None, folder: Path | None = None, environment: Mapping[str, str] | None = None,
) -> Sent:  # fmt: skip
    """Send one mail to 127.0.0.1:``port`` with swaks(1), which has ``arguments`` too.

    ``data``: the message, with LF at its line ends (swaks makes them CR LF); kept in ``folder`` meanwhile.
    """
    program = require("swaks", "swaks")
    command = [program, "--server", "127.0.0.1", "--port", str(port), "--from", sender, "--to", to, "--timeout", "90",
               "--hide-informational", *arguments]  # fmt: skip
    if data is not None:
        assert folder is not None, "the message needs a folder"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "message.eml"
        path.write_bytes(data)
        command += ["--data", f"@{path}"]
    ran = subprocess.run(
        command, capture_output=True, timeout=170, check=False, stdin=subprocess.DEVNULL,
        env=dict(environment) if environment is not None else None,
    )  # fmt: skip
    return Sent(ran.returncode, (ran.stdout + ran.stderr).decode(errors="replace"))
