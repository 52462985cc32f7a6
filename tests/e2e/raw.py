"""ICAP by hand over a plain socket: what is sent is in the test's hand, what comes back is read by its framing."""

from __future__ import annotations

import hashlib
import io
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from msgspec import Struct

KEEP = 1 << 20
"""A body up to this size is kept; of a larger one only length and digest."""

NAMES = {"RESPMOD": b"res", "REQMOD": b"req"}


class Answer(Struct, frozen=True):
    """One ICAP answer. ``status`` 0: the connection ended before an answer began."""

    status: int
    fields: dict[str, str]
    """ICAP field lines, names in lower case."""
    http_head: bytes
    body: bytes
    size: int
    sha256: str

    @property
    def blocked(self) -> bool:
        return self.status == 200 and b" 403 " in self.http_head.split(b"\r\n")[0]

    @property
    def passed(self) -> bool:
        """The client would take the body as clean: 204, or an answer that is no 403 page."""
        return self.status == 204 or (self.status == 200 and not self.blocked)


NOTHING = Answer(0, {}, b"", b"", 0, "")


def head(
    size: int, *, method: str = "RESPMOD", service: str = "avscan", allow_204: bool = True, more: str = ""
) -> bytes:
    """The ICAP head and the encapsulated heads of a request with a body of ``size`` bytes, without preview."""
    request = (
        f"PUT http://origin.icapscan.test/file HTTP/1.1\r\nHost: origin.icapscan.test\r\nContent-Length: {size}\r\n\r\n"
    )
    if method == "RESPMOD":
        request = "GET http://origin.icapscan.test/file HTTP/1.1\r\nHost: origin.icapscan.test\r\n\r\n"
        response = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"
        encapsulated = f"req-hdr=0, res-hdr={len(request)}, res-body={len(request) + len(response)}"
        request += response
    else:
        encapsulated = f"req-hdr=0, req-body={len(request)}"
    allow = "Allow: 204\r\n" if allow_204 else ""
    return (
        f"{method} icap://127.0.0.1/{service} ICAP/1.0\r\nHost: 127.0.0.1\r\n{allow}{more}"
        f"Encapsulated: {encapsulated}\r\n\r\n{request}"
    ).encode()


class Connection:
    """One ICAP connection. ``seconds`` is a guard against hanging."""

    def __init__(self, address: tuple[str, int], seconds: float = 60.0) -> None:
        self.socket = socket.create_connection(address, timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = io.BufferedReader(socket.SocketIO(self.socket, "r"), buffer_size=1 << 18)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def vanish(self) -> None:
        """Close with RST, as a process that was killed with data unread does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_chunks(self, pieces: Iterable[bytes]) -> None:
        """Each piece as one chunk; not the last chunk."""
        for piece in pieces:
            self.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))

    def send_end(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")

    def scan(
        self, body: bytes, *, method: str = "RESPMOD", service: str = "avscan", allow_204: bool = True, more: str = ""
    ) -> Answer:
        """One whole request in one piece and its answer."""
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        self.send(
            head(len(body), method=method, service=service, allow_204=allow_204, more=more) + chunk + b"0\r\n\r\n"
        )
        return self.read_answer()

    def at_end(self) -> bool:
        """Whether the server closed the connection. Waits for a byte or the end."""
        return self._file.read(1) == b""

    def read_answer(self) -> Answer:
        """The next final answer, whole. Raises AssertionError where its framing is broken."""
        line = self._file.readline()
        if not line:
            return NOTHING
        version, status, _ = line.split(b" ", 2)
        assert version == b"ICAP/1.0", line
        fields = {}
        while (line := self._file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), f"the ICAP head ends early: {line!r}"
            name, _, value = line.partition(b":")
            fields[name.decode().strip().lower()] = value.decode().strip()
        last = fields.get("encapsulated", "null-body=0").split(",")[-1].strip()
        kind, _, offset = last.partition("=")
        http_head = self._file.read(int(offset))
        assert len(http_head) == int(offset), "the encapsulated head ends early"
        body, size, sha = self._read_body() if kind != "null-body" else (b"", 0, "")
        return Answer(int(status), fields, http_head, body, size, sha)

    def _read_body(self) -> tuple[bytes, int, str]:
        kept, size, sha = bytearray(), 0, hashlib.sha256()
        while True:
            line = self._file.readline()
            assert line.endswith(b"\r\n"), f"the body ends early: {line!r}"
            left = int(line.split(b";")[0], 16)
            if not left:
                break
            while left:
                piece = self._file.read(min(left, 1 << 18))
                assert piece, "a chunk ends early"
                left -= len(piece)
                size += len(piece)
                sha.update(piece)
                if size <= KEEP:
                    kept += piece
            assert self._file.read(2) == b"\r\n"
        while self._file.readline() not in (b"\r\n", b""):  # trailer section
            pass
        return bytes(kept), size, sha.hexdigest()


def scan(address: tuple[str, int], body: bytes, *, seconds: float = 60.0, allow_204: bool = True) -> Answer:
    """One RESPMOD on a connection of its own. An aborted connection is `NOTHING`: no answer, so no verdict."""
    try:
        with Connection(address, seconds) as connection:
            return connection.scan(body, allow_204=allow_204)
    except ConnectionError:
        return NOTHING
