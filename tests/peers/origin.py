"""A small HTTP/1.1 origin server for a proxy to fetch from: bodies of any size, made as they are sent.

=======================  ========================================================================
``GET /size/N``          N bytes with Content-Length, different for each query string
``GET /chunked/N``       the same bytes in chunks of odd sizes
``GET /close/N``         the same bytes ended by closing the connection
``GET /slow/N?S``        the same bytes with Content-Length, evenly over S seconds, as an attachment
``GET /slow-eicar/N?S``  the same, and the EICAR test file behind them
``GET /eicar``           the EICAR test file; also ``/chunked-eicar``, ``/gzip-eicar``
``POST, PUT /…``         reads the body; answers its length and SHA-256 as text
=======================  ========================================================================
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The EICAR test file, 68 bytes; in two pieces, so that a scanner leaves this file alone."""

BLOCK = 1 << 16


def body(size: int, seed: str) -> Iterator[bytes]:
    """``size`` bytes that depend on ``seed`` only, in blocks of 64 KiB; no two blocks are the same."""
    base = hashlib.shake_128(seed.encode()).digest(BLOCK)
    for number in range(size // BLOCK + 1):
        block = number.to_bytes(8, "big") + base[8:]
        piece = block[: size - number * BLOCK]
        if piece:
            yield piece


def digest(size: int, seed: str) -> str:
    """SHA-256 of `body`."""
    sha = hashlib.sha256()
    for piece in body(size, seed):
        sha.update(piece)
    return sha.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        what, _, number = target.path.strip("/").partition("/")
        size = int(number or 0)
        if what == "size":
            self._with_length(size, body(size, target.query))
        elif what == "chunked":
            self._chunked(body(size, target.query))
        elif what == "close":
            self._until_close(body(size, target.query))
        elif what in ("slow", "slow-eicar"):
            self._slowly(size, float(target.query.partition("&")[0]), EICAR if what == "slow-eicar" else b"")
        elif what == "eicar":
            self._with_length(len(EICAR), iter([EICAR]))
        elif what == "chunked-eicar":
            self._chunked(iter([EICAR[:10], EICAR[10:]]))
        elif what == "gzip-eicar":
            packed = gzip.compress(EICAR)
            self._with_length(len(packed), iter([packed]), encoding="gzip")
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        sha, size = hashlib.sha256(), 0
        for piece in self._request_body():
            sha.update(piece)
            size += len(piece)
        self.server.uploads.append((size, sha.hexdigest()))  # type: ignore[attr-defined]
        answer = f"{size} {sha.hexdigest()}".encode()
        self._with_length(len(answer), iter([answer]))

    do_PUT = do_POST

    def _request_body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailer section
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, BLOCK))
            if not piece:
                raise ConnectionError("the upload ended early")
            left -= len(piece)
            yield piece

    def _head(self, *fields: tuple[str, str]) -> bool:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Cache-Control", "no-store")
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        return self.command != "HEAD"

    def _with_length(self, size: int, pieces: Iterator[bytes], encoding: str = "") -> None:
        fields = [("Content-Length", str(size))] + ([("Content-Encoding", encoding)] if encoding else [])
        if self._head(*fields):
            for piece in pieces:
                self.wfile.write(piece)

    def _slowly(self, size: int, seconds: float, last: bytes) -> None:
        disposition = ("Content-Disposition", 'attachment; filename="report.bin"')
        if not self._head(("Content-Length", str(size + len(last))), disposition):
            return
        began, sent = time.monotonic(), 0
        try:
            for piece in body(size, "slow"):
                sent += len(piece)
                time.sleep(max(0.0, began + seconds * sent / size - time.monotonic()))
                self.wfile.write(piece)  # behind the pause: the last one leaves when all the seconds are over
            self.wfile.write(last)
        except ConnectionError:
            self.close_connection = True

    def _chunked(self, pieces: Iterator[bytes]) -> None:
        if not self._head(("Transfer-Encoding", "chunked")):
            return
        for piece in pieces:
            for at in range(0, len(piece), 7001):
                part = piece[at : at + 7001]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def _until_close(self, pieces: Iterator[bytes]) -> None:
        self.close_connection = True
        if self._head(("Connection", "close")):
            for piece in pieces:
                self.wfile.write(piece)

    def log_message(self, format: str, *args: object) -> None:
        self.server.requests.append(format % args)  # type: ignore[attr-defined]


class Origin(ThreadingHTTPServer):
    """The server on a free port, in threads of this process. ``requests`` has a line for each request that got here."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []
        self.uploads: list[tuple[int, str]] = []
        """(size, SHA-256) of each upload that arrived whole."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no trouble of the origin's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
