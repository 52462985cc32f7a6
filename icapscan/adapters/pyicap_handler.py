"""A handler for ``pyicap`` servers that answers by our scanner: ``pip install icapscan[pyicap]``, docs/pyicap.md.

pyicap reads the request line and the heads, and its server has a thread for each connection. Verdict, policy and answer
are those of ``icapscan serve``. What pyicap reads loosely is checked once more where a mistake could hide a body; it
remains a library for embedding and for comparison, not for a network with strangers in it.

A server for the benchmark: ``python -m tests.peers.pyicap_scanner --listen 127.0.0.1:0 --set KEY=VALUE...``.
"""

from __future__ import annotations

import collections.abc
import logging
import re
import socket
import time
from typing import Any, BinaryIO, ClassVar

import pyicap

from icapscan.adapters.pyicap_scanner import Answer, Conversation, ScannerClosed, ScannerThread
from icapscan.errors import ProtocolError
from icapscan.servers import replies
from icapscan.servers.stationery import SERVER, http_date
from icapscan.wire.icap_events import HttpHeads, RequestHead
from icapscan.wire.icap_head import parse_request
from icapscan.wire.limits import DEFAULT

# QUIRK: pyicap 1.0b1 looks for collections.Callable, which Python 3.10 took away. Only pyicap sees this one.
pyicap.collections = collections.abc

PIECE_MOST = 64 * 1024
"""Bytes of a chunk that are read at a time: a chunk may claim any size."""
_LINE_MOST = DEFAULT.http_head + 1
_HEADS_MOST = DEFAULT.head + 2 * DEFAULT.http_head
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[ \t]*([^\r\n]*))?\r\n")
_log = logging.getLogger("icapscan")


class PyicapHandler(pyicap.BaseICAPRequestHandler):  # type: ignore[misc]
    """Answers ``/avscan``. `make_handler` gives it a scanner and the paths of all configured services."""

    scanner: ClassVar[ScannerThread]
    disable_nagle_algorithm = True
    _begun = False
    """Something of the answer is out."""
    _left = 0
    """Bytes of the present chunk that are not read yet."""
    _trailers = b""
    _lines: _Lines
    rfile: Any
    eob: bool
    ieof: bool
    has_body: bool

    def setup(self) -> None:
        """Called by `socketserver` for each connection."""
        self.timeout = self.scanner.settings.server.body_timeout
        super().setup()
        self._lines = self.rfile = _Lines(self.rfile)

    def handle_one_request(self) -> None:
        """Called by pyicap, which stumbles over many a malformed head with an exception of Python."""
        self._lines.restart()
        self._begun, self._left, self._trailers = False, 0, b""
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True  # the client is gone, and got no answer or half a one
        except Exception as error:
            self.log_error("%r", error)
            self._fail(400, "The request cannot be read.")

    def serve(self) -> None:
        """One transaction of any method."""
        head, heads = self._heads()
        conversation = self.scanner.begin(head, heads, "{}:{}".format(*self.client_address[:2]))
        try:
            self._send(self._answer(conversation, head))
        except ScannerClosed as error:
            self._fail(503, str(error))
        except (OSError, pyicap.ICAPError):
            raise
        except Exception as error:  # a mistake of ours: no verdict, and never silence that is taken for one
            _log.error("A transaction of %s failed.", self.client_address, exc_info=error)
            self._fail(500, "An internal error happened.")
        finally:
            conversation.close()

    avscan_OPTIONS = avscan_REQMOD = avscan_RESPMOD = serve

    # Reading

    def _heads(self) -> tuple[RequestHead, HttpHeads]:
        """The heads as they came. Raises `pyicap.ICAPError`."""
        lines = self._lines.taken()
        blank = next((at for at, line in enumerate(lines) if not line.strip()), len(lines))
        rest = b"".join(lines[blank + 1 :])
        try:
            head = parse_request(b"".join(lines[:blank]), DEFAULT)
            sections = head.encapsulated
            if b"".join(lines[blank : blank + 1]) != b"\r\n" or len(rest) != sections.head_length:
                raise ProtocolError("The heads are not as long as the Encapsulated header says.")
            if sections.has_body != self.has_body:
                raise ProtocolError("The body is not one of this method.")
        except ProtocolError as error:
            raise pyicap.ICAPError(error.status, [str(error)]) from error
        at = sections.req_hdr or 0
        return head, HttpHeads(rest[:at] or None, rest[at:] or None)

    def _answer(self, conversation: Conversation, head: RequestHead) -> Answer:
        """Read the body and hear what is to be answered."""
        preview = head.preview is not None
        while True:
            while piece := self.read_chunk():
                early = conversation.feed(piece)
                if early is not None:
                    return early
            if not preview or self.ieof or not self.has_body:
                return conversation.end(self._trailers, preview)
            answer = conversation.preview_end()
            if answer is not None:
                return answer
            preview = False
            self.cont()

    def read_chunk(self) -> bytes:
        """More of the body, at most `PIECE_MOST` bytes; empty at its end, or that of the preview.

        In place of pyicap's own, which takes a lost connection for the end. Raises `pyicap.ICAPError`.
        """
        if not self.has_body or self.eob:
            return b""
        if not self._left:
            match = _SIZE_LINE.fullmatch(self.rfile.readline())
            if match is None:
                raise pyicap.ICAPError(400, ["The body was cut short, or a chunk begins with no size."])
            self._left = int(match[1], 16)
            if not self._left:
                self.eob = True
                self.ieof = (match[2] or b"").strip().lower() == b"ieof"
                self._trailers = self._read_trailers()
                return b""
        piece: bytes = self.rfile.read(min(self._left, PIECE_MOST))
        self._left -= len(piece)
        if not piece or (not self._left and self.rfile.read(2) != b"\r\n"):
            raise pyicap.ICAPError(400, ["The body was cut short, or a chunk ends without CRLF."])
        return piece

    def _read_trailers(self) -> bytes:
        block = b""
        while (line := self.rfile.readline()) != b"\r\n":
            block += line
            if not line.endswith(b"\r\n") or len(block) > DEFAULT.trailer:
                raise pyicap.ICAPError(400, ["The trailer section has no end, or is too long."])
        return block

    # Answering

    def _send(self, answer: Answer) -> None:
        self._begun = True
        self.icap_response_code = answer.status
        self.close_connection = self.close_connection or answer.close
        body = answer.body
        if body is None:
            self.wfile.write(answer.opening)
        else:
            last = b"0\r\n%s\r\n" % answer.trailers
            if isinstance(body, bytes):
                chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
                self.wfile.write(answer.opening + chunk + last)
            else:
                self.wfile.write(answer.opening)
                for piece in body.pieces():
                    self.write_chunk(piece)
                self.wfile.write(last)
        if answer.unread:
            self._linger()

    def send_error(self, code: int, message: object = None) -> None:
        """Called by pyicap. ``message`` is the sentence of our own errors, and one letter of those of pyicap."""
        self._fail(code, message if isinstance(message, str) and len(message) > 1 else "The request cannot be read.")

    def _fail(self, status: int, sentence: str) -> None:
        """An ICAP error, and the end of the connection. Where an answer has begun, only the end is left."""
        self.close_connection = True
        if self._begun:
            return
        self._begun = True
        self.icap_response_code = status if status in replies.REASONS else 500
        reply = replies.error(self.icap_response_code, sentence)
        self.wfile.write(
            b'ICAP/1.0 %d %s\r\nDate: %s\r\nServer: %s\r\nISTag: "%s"\r\nConnection: close\r\n%s'
            b"Encapsulated: null-body=0\r\n\r\n"
            % (
                reply.status, replies.REASONS[reply.status], http_date(time.time()), SERVER,
                self.scanner.istag.encode(), reply.fields,
            )
        )  # fmt: skip
        self._linger()

    def _linger(self) -> None:
        """Read and drop what is still coming, so that the answer is not lost to a reset."""
        settings = self.scanner.settings.server
        left, until = settings.linger_bytes, time.monotonic() + settings.linger_timeout
        self.connection.shutdown(socket.SHUT_WR)
        while left > 0 and (seconds := until - time.monotonic()) > 0:
            self.connection.settimeout(seconds)
            dropped = self.connection.recv(PIECE_MOST)
            if not dropped:
                return
            left -= len(dropped)

    def log_message(self, format: str, *arguments: object) -> None:
        """One line of pyicap's for each request, where somebody wants it. `ScannerThread` has an observer for more."""
        _log.debug("pyicap: " + format, *arguments)


def make_handler(scanner: ScannerThread) -> type[PyicapHandler]:
    """The handler class for a `pyicap.ICAPServer`: all services and aliases in the settings of ``scanner``."""
    members: dict[str, object] = {"scanner": scanner}
    for path in scanner.generation.routes:
        for method in ("OPTIONS", "REQMOD", "RESPMOD"):
            members[f"{path.decode().strip('/')}_{method}"] = PyicapHandler.serve
    return type("Handler", (PyicapHandler,), members)


class _Lines:
    """The input of a connection, which keeps the lines of the heads: pyicap changes their order and their letters."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kept: list[bytes] | None = None
        self._size = 0
        self.read = file.read
        self.close = file.close

    def restart(self) -> None:
        """A request begins."""
        self._kept = []
        self._size = 0

    def taken(self) -> list[bytes]:
        """The lines since then; no more are kept."""
        lines, self._kept = self._kept or [], None
        return lines

    def readline(self, most: int = -1) -> bytes:
        """A line. Raises `pyicap.ICAPError` for one, or heads, that are too long."""
        line = self._file.readline(_LINE_MOST)
        if self._kept is not None:
            self._kept.append(line)
            self._size += len(line)
        if len(line) == _LINE_MOST or self._size > _HEADS_MOST:
            raise pyicap.ICAPError(400, ["The heads are too long."])
        return line

    @property
    def closed(self) -> bool:
        """As of any file."""
        return self._file.closed
