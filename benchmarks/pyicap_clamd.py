"""A pyicap server that scans with the ``clamd`` package (INSTREAM): ``python -m benchmarks.pyicap_clamd PORT SOCKET``.

What is soon written with what is on PyPI. Service ``/avscan``: 204 for a clean body, else 200 with a 403.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import clamd

from tests.peers.pyicap_server import load_pyicap, threading_server

PAGE = b"<html><body>blocked</body></html>"


def serve(port: int, path: str) -> None:
    """Serve until the process is ended."""
    pyicap: Any = load_pyicap()

    class Handler(pyicap.BaseICAPRequestHandler):  # type: ignore[misc]
        disable_nagle_algorithm = True

        def avscan_RESPMOD(self) -> None:
            pieces = []
            while piece := self.read_chunk():
                pieces.append(piece)
            answer = clamd.ClamdUnixSocket(path).instream(io.BytesIO(b"".join(pieces)))
            if answer["stream"][0] == "OK":
                self.set_icap_response(204)
                self.send_headers()
                return
            self.set_icap_response(200)
            self.set_enc_status(b"HTTP/1.1 403 Forbidden")
            self.set_enc_header(b"Content-Length", str(len(PAGE)).encode())
            self.send_headers(True)
            self.write_chunk(PAGE)
            self.write_chunk(b"")

    threading_server(pyicap, ("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
