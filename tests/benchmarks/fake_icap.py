"""An ICAP server of a few lines that a test makes behave well or badly."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

NO_CONTENT = b"ICAP/1.0 204 No Content\r\nISTag: x\r\n\r\n"
REFUSED = b"ICAP/1.0 503 Service Unavailable\r\nISTag: x\r\nEncapsulated: null-body=0\r\n\r\n"
PAGE = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n"
BLOCKED = b"ICAP/1.0 200 OK\r\nISTag: x\r\nEncapsulated: res-hdr=0, res-body=%d\r\n\r\n%b2\r\nno\r\n0\r\n\r\n" % (
    len(PAGE),
    PAGE,
)


class Request(Struct, frozen=True):
    """What came: the ICAP head and the decoded body."""

    head: bytes
    body: bytes


def copied(body: bytes) -> bytes:
    """An answer that sends ``body`` back."""
    http = b"HTTP/1.1 200 OK\r\n\r\n"
    head = b"ICAP/1.0 200 OK\r\nISTag: x\r\nEncapsulated: res-hdr=0, res-body=%d\r\n\r\n%b" % (len(http), http)
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@contextmanager
def fake_icap(answer: Callable[[Request], bytes]) -> Iterator[int]:
    """Serve on a free port, which is given, until the block ends."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while request := self._read():
                    self.wfile.write(answer(request))
            except OSError:
                pass  # the load generator ends in the middle of things

        def _read(self) -> Request | None:
            head = self._head()
            if not head:
                return None
            if head.startswith(b"OPTIONS"):
                return Request(head, b"")
            for _ in range(head.count(b"-hdr=")):
                head += self._head()
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return Request(head, b"".join(pieces))

        def _head(self) -> bytes:
            lines = []
            while line := self.rfile.readline():
                lines.append(line)
                if line == b"\r\n":
                    break
            return b"".join(lines)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
