"""A foreign ICAP server: pyicap 1.0b1 with a scanner that knows the EICAR test file. Also a program: ``-m … PORT``."""

from __future__ import annotations

import collections
import collections.abc
import socketserver
import sys
from pathlib import Path
from typing import Any

from tests.peers import require_module
from tests.peers.icapscan_server import CHECKOUT
from tests.peers.origin import EICAR
from tests.peers.processes import Process, free_port

PAGE = b"<html><body>pyicap found EICAR</body></html>"


class PyicapServer(Process):
    """A running pyicap. Services: ``/scan`` (blocks EICAR), ``/echo`` (copies back), ``/broken`` (answers 500)."""

    icap_port: int


def run_pyicap(folder: Path) -> PyicapServer:
    """Start pyicap in a process of its own and wait until it accepts."""
    require_module("pyicap", "pyicap==1.0b1")
    port = free_port()
    command = [sys.executable, "-m", "tests.peers.pyicap_server", str(port)]
    server = PyicapServer("pyicap", command, folder, environment={"PYTHONPATH": str(CHECKOUT)})
    server.icap_port = port
    try:
        server.wait_for_port(port)
    except BaseException:
        server.end()
        raise
    return server


def load_pyicap() -> Any:
    """The module, with the name that it asks for on each request and that Python 3.10 took away."""
    collections.Callable = collections.abc.Callable  # type: ignore[attr-defined]
    return require_module("pyicap", "pyicap==1.0b1")


def threading_server(pyicap: Any, address: tuple[str, int], handler: type) -> Any:
    """A server of pyicap with a thread for each connection; not yet serving."""

    class Server(socketserver.ThreadingMixIn, pyicap.ICAPServer):  # type: ignore[misc]
        daemon_threads = True
        request_queue_size = 256

    return Server(address, handler)


def serve(port: int) -> None:
    """Serve until the process is ended."""
    pyicap: Any = load_pyicap()

    class Handler(pyicap.BaseICAPRequestHandler):  # type: ignore[misc]
        preview: bytes | None

        def _options(self) -> None:
            self.set_icap_response(200)
            self.set_icap_header(b"Methods", b"RESPMOD, REQMOD")
            self.set_icap_header(b"Service", b"pyicap")
            self.set_icap_header(b"Allow", b"204")
            self.set_icap_header(b"Preview", b"1024")
            self.set_icap_header(b"Transfer-Preview", b"*")
            self.set_icap_header(b"Options-TTL", b"3600")
            self.send_headers(False)

        scan_OPTIONS = echo_OPTIONS = broken_OPTIONS = _options

        def _whole_body(self) -> bytes:
            pieces = []
            while True:
                piece = self.read_chunk()
                if piece:
                    pieces.append(piece)
                elif self.preview is not None and not self.ieof and self.has_body:
                    self.preview = None
                    self.cont()
                else:
                    return b"".join(pieces)

        def _answer(self, body: bytes) -> None:
            self.set_icap_response(200)
            if self.enc_res_status is not None:
                self.set_enc_status(b" ".join(self.enc_res_status))
                heads = self.enc_res_headers
            else:
                self.set_enc_request(b" ".join(self.enc_req))
                heads = self.enc_req_headers
            for name, values in heads.items():
                for value in values:
                    self.set_enc_header(name, value)
            self.send_headers(self.has_body)
            if self.has_body:
                if body:
                    self.write_chunk(body)
                self.write_chunk(b"")

        def _block(self) -> None:
            self.set_icap_response(200)
            self.set_icap_header(b"X-Infection-Found", b"Type=0; Resolution=2; Threat=Eicar-Test;")
            self.set_enc_status(b"HTTP/1.1 403 Forbidden")
            self.set_enc_header(b"Content-Type", b"text/html")
            self.set_enc_header(b"Content-Length", str(len(PAGE)).encode())
            self.send_headers(True)
            self.write_chunk(PAGE)
            self.write_chunk(b"")

        def _scan(self) -> None:
            may_204 = b"204" in self.allow or self.preview is not None
            body = self._whole_body()
            if EICAR in body:
                self._block()
            elif may_204:
                self.set_icap_response(204)
                self.send_headers()
            else:
                self._answer(body)

        def _echo(self) -> None:
            self._answer(self._whole_body())

        def _broken(self) -> None:
            self._whole_body()
            self.set_icap_response(500)
            self.send_headers()

        scan_RESPMOD = scan_REQMOD = _scan
        echo_RESPMOD = echo_REQMOD = _echo
        broken_RESPMOD = broken_REQMOD = _broken

    threading_server(pyicap, ("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
