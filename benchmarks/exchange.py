"""One ICAP transaction at a time over plain sockets, where a row watches the clock and not the rate."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

from msgspec import Struct

PATIENCE = 300.0
"""Seconds: only a guard against hanging."""


class Said(Struct, frozen=True):
    """What came of one transaction. Seconds."""

    status: int
    sending: float
    """From the first byte to the last one."""
    waiting: float
    """From the last byte sent to the first line of the answer."""


def reqmod_head(port: int, mail: bytes) -> bytes:
    """The heads of a mail, as ``load_request.c`` builds them."""
    http = (
        b"PUT http://bench.icapscan.test/ HTTP/1.1\r\nHost: bench.icapscan.test\r\nContent-Type: message/rfc822\r\n"
        b"Content-Length: %d\r\nX-SMTP-From: sender@bench.icapscan.test\r\n"
        b"X-SMTP-To: reader@bench.icapscan.test\r\n\r\n" % len(mail)
    )
    return (
        b"REQMOD icap://127.0.0.1:%d/avscan ICAP/1.0\r\nHost: 127.0.0.1:%d\r\nAllow: 204\r\n"
        b"Encapsulated: req-hdr=0, req-body=%d\r\n\r\n%b" % (port, port, len(http), http)
    )


def respmod_head(port: int, size: int) -> bytes:
    """The heads of a download of ``size`` bytes."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size
    return (
        b"RESPMOD icap://127.0.0.1:%d/avscan ICAP/1.0\r\nHost: 127.0.0.1:%d\r\nAllow: 204\r\n"
        b"Encapsulated: res-hdr=0, res-body=%d\r\n\r\n%b" % (port, port, len(http), http)
    )


def chunked(body: bytes, size: int) -> Iterator[bytes]:
    """The body in chunks of ``size`` bytes; the last one with the end of the body."""
    for at in range(0, len(body), size):
        piece = body[at : at + size]
        end = b"0\r\n\r\n" if at + size >= len(body) else b""
        yield b"%x\r\n%b\r\n%b" % (len(piece), piece, end)


def status_of(sock: socket.socket) -> int:
    """The ICAP status of an answer that has only a head to read. Raises `ConnectionError` when there is none."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError(f"no whole answer: {answer[:200]!r}")
        answer += piece
    return int(answer.split(b" ", 2)[1])


def send_mail(port: int, mail: bytes, over: float, pieces: int = 200) -> Said:
    """A mail in ``pieces`` chunks, spread evenly ``over`` so many seconds (0: as fast as it is taken)."""
    chunks = [reqmod_head(port, mail), *chunked(mail, -(-len(mail) // pieces))]
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        if over:
            for number, chunk in enumerate(chunks):
                time.sleep(max(0.0, begun + over * number / pieces - time.perf_counter()))
                sock.sendall(chunk)
        else:
            sock.sendall(b"".join(chunks))
        sent = time.perf_counter()
        status = status_of(sock)
        return Said(status, sent - begun, time.perf_counter() - sent)


def send_small(port: int, size: int) -> Said:
    """A new body of ``size`` random bytes over a connection of its own."""
    request = respmod_head(port, size) + b"".join(chunked(os.urandom(size), size))
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        sent = time.perf_counter()
        status = status_of(sock)
        return Said(status, sent - begun, time.perf_counter() - sent)
