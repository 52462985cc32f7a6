"""A small SMTP server on a free port of the loopback address, in a thread, that takes mails as a strict server does."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import BinaryIO

from msgspec import Struct


class Behaviour(Struct, frozen=True):
    """How it answers."""

    extensions: tuple[str, ...] = ("8BITMIME", "SIZE 100000000")
    banner: str = "220 mx.example.org ESMTP"
    ehlo: str = ""
    """Answer to EHLO in place of the extensions."""
    mail: str = "250 ok"
    rcpt: tuple[tuple[str, str], ...] = ()
    """Answers for recipients; others get 250."""
    data: str = "354 go on"
    end: str = "250 2.0.0 taken as 4711"
    cut: str = ""
    """The command (or ``data``, ``end``) in which the connection is cut."""


class Mail(Struct):
    """One mail that was taken."""

    sender: str
    recipients: list[str]
    data: bytes
    """As the sender meant it: without the doubled dots."""


class SmtpServer:
    """Used as a context. ``mails`` are those it took, ``lines`` the commands it got."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.mails: list[Mail] = []
        self.lines: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SmtpServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(60)
                try:
                    self._talk(connection)
                except OSError:
                    pass  # the client has gone, as some tests want it

    def _talk(self, connection: socket.socket) -> None:
        behaviour, mail = self.behaviour, Mail("", [], b"")
        file = connection.makefile("rb")

        def say(text: str) -> None:
            connection.sendall(text.encode() + b"\r\n")

        say(behaviour.banner)
        while line := file.readline():
            assert line.endswith(b"\r\n") and line.count(b"\r") == 1, line
            text = line[:-2].decode("utf-8")
            self.lines.append(text)
            word = text[:4].upper()
            if word == behaviour.cut:
                return
            if word == "EHLO":
                names = ["mx.example.org", *behaviour.extensions]
                marks = "-" * (len(names) - 1) + " "
                say(behaviour.ehlo or "\r\n".join(f"250{mark}{name}" for mark, name in zip(marks, names, strict=True)))
            elif word == "HELO":
                say("250 mx.example.org")
            elif word == "MAIL":
                mail.sender = text[len("MAIL FROM:<") : text.index(">")]
                say(behaviour.mail)
            elif word == "RCPT":
                address = text[len("RCPT TO:<") : text.index(">")]
                mail.recipients.append(address)
                say(dict(behaviour.rcpt).get(address, "250 ok"))
            elif word == "DATA":
                say(behaviour.data)
                if behaviour.data.startswith("354") and not self._take(file, mail, behaviour):
                    return
                if behaviour.data.startswith("354"):
                    say(behaviour.end)
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("500 what?")

    def _take(self, file: BinaryIO, mail: Mail, behaviour: Behaviour) -> bool:
        """The mail data; False when the connection ended within."""
        lines = []
        while True:
            line = file.readline()
            if not line.endswith(b"\r\n") or behaviour.cut == "data":
                return False  # the end of the connection
            if line == b".\r\n":
                break
            assert line.count(b"\r") == 1 and line.count(b"\n") == 1, line
            lines.append(line[1:] if line.startswith(b".") else line)
        if behaviour.cut == "end":
            return False
        if behaviour.end.startswith("250"):
            self.mails.append(Mail(mail.sender, mail.recipients, b"".join(lines)))
        return True
