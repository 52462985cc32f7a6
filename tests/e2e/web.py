"""A browser of sorts: HTTP through a proxy, bodies of any size in both directions without holding them."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator

from msgspec import Struct

KEEP = 1 << 20
"""A body up to this size is kept."""


class Fetched(Struct, frozen=True):
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    """Field names in lower case."""
    body: bytes
    """The first MiB."""
    size: int
    sha256: str


class Browser:
    """Requests through the proxy on ``port``, all on one kept-alive connection."""

    def __init__(self, port: int, seconds: float = 120.0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
        self.connections = 0
        """TCP connections that were made so far."""

    def close(self) -> None:
        self._connection.close()

    def get(self, url: str, method: str = "GET", **headers: str) -> Fetched:
        """``headers``: underscores in the names stand for hyphens."""
        return self._request(method, url, None, headers)

    def upload(self, url: str, pieces: Iterator[bytes], size: int | None, method: str = "POST") -> Fetched:
        """Upload ``pieces``; with Content-Length where ``size`` is given, else chunked."""
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        return self._request(method, url, pieces, headers)

    def _request(self, method: str, url: str, body: Iterator[bytes] | None, headers: dict[str, str]) -> Fetched:
        if self._connection.sock is None:
            self.connections += 1
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        chunked = body is not None and "Content-Length" not in named
        if chunked:
            named["Transfer-Encoding"] = "chunked"
        self._connection.request(method, url, body=body, headers=named, encode_chunked=chunked)
        answer = self._connection.getresponse()
        kept, size, sha = bytearray(), 0, hashlib.sha256()
        while piece := answer.read(1 << 17):
            size += len(piece)
            sha.update(piece)
            if size <= KEEP:
                kept += piece
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Fetched(answer.status, fields, bytes(kept), size, sha.hexdigest())
