"""Notices and settings to try things with, and an HTTP server that takes what is posted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from icapscan.findings import Finding
from icapscan.notify.contract import Notice
from icapscan.notify.guard import Marks
from icapscan.notify.settings import NotifySettings

SECRET = bytes(range(32))
SECRET_TEXT = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ADMIN = "admin@example.org"
PATIENCE = 60.0
"""Seconds after which a test gives up on what hangs."""
MAIL = Notice(
    time=1769903999.5,
    host="scanner.example.org",
    service="mail",
    direction="mail",
    client="10.1.2.3",
    icap_client="192.0.2.1:4711",
    user="jane",
    url="/mail",
    sender="jane@example.org",
    recipients=("bob@example.org", "eve@elsewhere.test"),
    subject="Invoice",
    message_id="<1@example.org>",
    marks=Marks(),
    media_type="message/rfc822",
    names=("bad.exe",),
    size=1234,
    verdict="infected",
    findings=(Finding("yara", "Evil_Rule", "2/bad.exe"),),
    decision="block",
    rule="viruses",
    rules=("viruses",),
    quarantine="0123456789abcdef",
    reference="0123abcd",
)


def notice(**changes: Any) -> Notice:
    """The mail above, with something else about it."""
    return replace(MAIL, **changes)


def settings(**changes: Any) -> NotifySettings:
    """Settings in which an administrator and own people are known."""
    given: dict[str, Any] = {
        "from_address": "icapscan@example.org",
        "administrators": (ADMIN,),
        "own_domains": ("example.org",),
        "own_networks": ("10.0.0.0/8",),
        "timeout": PATIENCE,
        **changes,
    }
    return NotifySettings(**given)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def wait(condition: Callable[[], Any], what: str) -> None:
    """Wait until ``condition`` holds."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.005)


class Posted(Struct):
    """One request."""

    path: str
    fields: dict[str, str]
    body: bytes


class HttpSink:
    """Used as a context. Answers with ``answers`` in turn, then 204; what it got is in ``posted``."""

    def __init__(self, *answers: int, fields: dict[str, str] | None = None) -> None:
        self.posted: list[Posted] = []
        self.answers = list(answers)
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = {name.lower(): value for name, value in self.headers.items()}
                sink.posted.append(Posted(self.path, names, body))
                self.send_response(sink.answers.pop(0) if sink.answers else 204)
                for name, value in (fields or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook?a=b"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> HttpSink:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)
