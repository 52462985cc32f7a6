"""The real server in this process on a free loopback port, and a client of bare sockets that trusts nothing.

The client here reads answers with a small parser of its own, so that a fault of the codec does not hide itself.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop
from msgspec import Struct
from msgspec.structs import replace

from icapscan.engines.cache import BodyCache, ReportCache
from icapscan.engines.contract import Engine
from icapscan.engines.fanout import Fanout
from icapscan.limits import Limits
from icapscan.notify.settings import NotifySettings
from icapscan.pipeline import Scanner
from icapscan.policy.settings import PolicySettings
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.servers.generation import Generation
from icapscan.servers.icap import IcapProtocol
from icapscan.servers.late import LateAnswers
from icapscan.servers.listen import Acceptor, bind
from icapscan.servers.notifying import Notifiers
from icapscan.servers.pages import page_maker
from icapscan.servers.record import TransactionRecord
from icapscan.servers.settings import PageSettings, ServerSettings, ServiceSettings, Settings
from icapscan.servers.shared import Shared
from icapscan.store import Purse
from tests.conformance.fakes import FindsEicar
from tests.wire.samples import chunked, respmod

PATIENCE = 60.0
"""Seconds after which a test gives up on a server that hangs."""
T = TypeVar("T")
SERVER = ServerSettings(final_crlf_grace=0.05)
SERVICES = {
    **Settings().services,
    "respmod-only": ServiceSettings(methods=("RESPMOD",)),
    "reqmod-only": ServiceSettings(methods=("REQMOD",)),
}


class Live:
    """A running server. As a context manager it is ended at the exit, and must have made no mistake of its own."""

    def __init__(
        self,
        *engines: Engine,
        server: ServerSettings = SERVER,
        limits: Limits | None = None,
        policy: PolicySettings | None = None,
        services: dict[str, ServiceSettings] | None = None,
        purse: Purse | None = None,
        limit: int = 1000,
        istag: str = "test-1",
        tls: ssl.SSLContext | None = None,
        mistakes_expected: bool = False,
        quarantine: QuarantineSettings | None = None,
        notify: NotifySettings | None = None,
        downloads: str | None = None,
        cache: ReportCache | None = None,
    ) -> None:
        self.settings = Settings(
            server=server,
            limits=limits or Limits(),
            policy=policy or PolicySettings(),
            services=services or SERVICES,
            quarantine=quarantine or QuarantineSettings(),
            notify=notify or NotifySettings(),
        )
        self.cache = cache
        """Keeps whole bodies that were clean; the engines are asked as they are."""
        self.engines: Sequence[Engine] = engines or (FindsEicar(),)
        self.purse = purse or Purse(1 << 30, 1 << 30)
        self.late = LateAnswers(downloads)
        self.notifiers = Notifiers(1)
        self.records: list[TransactionRecord] = []
        self.mistakes: list[tuple[str, BaseException]] = []
        self._mistakes_expected = mistakes_expected
        self._listening = bind("127.0.0.1:0", "test")
        self.address: tuple[str, int] = self._listening.getsockname()
        self.loop = uvloop.new_event_loop()
        self.shared = Shared(self.generation(istag), self.records.append, limit, self._mistake)
        self._acceptor = Acceptor(
            self.loop, self._listening, lambda: IcapProtocol(self.shared, self.loop), tls, server.head_timeout
        )
        self._thread = threading.Thread(target=self._run, name="icap-server", daemon=True)

    def generation(self, istag: str, *engines: Engine) -> Generation:
        """A further state of engines for this server, as after a reload."""
        limits, spool = self.settings.limits, self.settings.server.spool
        bodies = BodyCache(self.cache) if self.cache is not None else None
        scanner = Scanner(Fanout(engines or self.engines), limits, self.purse, spool, bodies=bodies)
        notifier = self.notifiers.get(self.settings)
        page = page_maker(PageSettings())
        return Generation(self.settings, scanner, istag, page, late=self.late, notifier=notifier)

    def __enter__(self) -> Live:
        self._thread.start()
        self.call(self._acceptor.start)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.call(self._stop)
        self.wait(lambda: not self.shared.connections and not self.shared.surplus, "every connection is gone")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        if kind is None and not self._mistakes_expected:
            assert [(sentence, repr(error)) for sentence, error in self.mistakes] == []

    def _stop(self) -> None:
        self._acceptor.stop()
        for connection in (*self.shared.connections, *self.shared.surplus):
            connection._transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def _mistake(self, sentence: str, error: BaseException) -> None:
        self.mistakes.append((sentence, error))

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the server's loop and return what it returns."""

        async def main() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(main(), self.loop).result(PATIENCE)

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until ``condition`` holds on the server's loop."""
        until = time.monotonic() + PATIENCE
        while not self.call(condition):
            assert time.monotonic() < until, f"never: {what}"
            time.sleep(0.005)

    def connect(self) -> Peer:
        """A client's connection."""
        return Peer(socket.create_connection(self.address, PATIENCE))

    def ask(self, request: bytes) -> Answer:
        """The answer to one request on a connection of its own."""
        with self.connect() as peer:
            return peer.ask(request)

    def wait_records(self, count: int) -> list[TransactionRecord]:
        """The first ``count`` transactions once they have ended."""
        self.wait(lambda: len(self.records) >= count, f"{count} transactions ended")
        return self.records[:count]

    def count(self) -> int:
        """How many transactions ended, once no connection is left."""
        self.wait(lambda: not self.shared.connections, "every connection is gone")
        return self.call(lambda: len(self.records))

    def last(self) -> TransactionRecord:
        """The latest transaction that ended."""
        return self.call(lambda: self.records[-1])

    @contextmanager
    def bystander(self) -> Iterator[None]:
        """Another client in the middle of a request, which is served as if nothing had happened."""
        request = respmod(chunked(b"bystander"))
        with self.connect() as peer:
            peer.send(request[:-7])
            yield
            assert peer.ask(request[-7:]).status == 204
            assert peer.ask(request).status == 204


def with_server(**changes: Any) -> ServerSettings:
    """The test server's settings with some other ones."""
    return replace(SERVER, **changes)


class Answer(Struct):
    """One ICAP answer, as this module's own parser reads it."""

    status: int
    reason: bytes
    lines: list[tuple[bytes, bytes]]
    """Names as spelled, values with their folds."""
    head: bytes
    """From the status line to the empty line."""
    sections: dict[str, bytes]
    """Encapsulated HTTP heads by section name."""
    body: bytes | None
    """None: no body was announced."""
    trailers: bytes = b""
    last: bytes = b"0"
    """The line of the zero chunk."""

    def get(self, name: str) -> bytes | None:
        """The one value of a field, or None."""
        values = [value for given, value in self.lines if given.lower() == name.lower().encode()]
        assert len(values) <= 1, f"{name} is there more than once"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether it says that the server closes."""
        connection = self.get("Connection")
        assert connection in (b"close", b"keep-alive")
        return connection == b"close"

    @property
    def istag(self) -> bytes:
        """The ISTag without its quotes."""
        match = re.fullmatch(rb'"([A-Za-z0-9-]{1,32})"', self.get("ISTag") or b"")
        assert match is not None
        return match[1]


class Peer:
    """A client's end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.pending = b""
        """Received and not yet read as an answer."""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Write all of ``data``."""
        self.socket.sendall(data)

    def send_what_goes(self, data: bytes) -> None:
        """Write ``data`` to a server that may stop reading and close."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has had enough of it

    def fin(self) -> None:
        """No more output of ours."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def ask(self, request: bytes) -> Answer:
        """Send a request and read its answer."""
        self.send(request)
        return self.answer()

    def silent(self, seconds: float = 0.15) -> bool:
        """Whether nothing comes for a while."""
        return not self.pending and not select.select([self.socket], [], [], seconds)[0]

    def hundred(self) -> None:
        """Read a 100 Continue, which is exactly these bytes."""
        expected = b"ICAP/1.0 100 Continue\r\n\r\n"
        while len(self.pending) < len(expected):
            self._more()
        assert self.pending.startswith(expected), self.pending
        self.pending = self.pending[len(expected) :]

    def answer(self) -> Answer:
        """Read one final answer: head, sections by their offsets, body by its chunks, and not a byte more."""
        head = self._until(b"\r\n\r\n")
        status_line, _, block = head[:-2].partition(b"\r\n")
        match = re.fullmatch(rb"ICAP/1\.0 ([0-9]{3}) ([\x20-\x7e]+)", status_line)
        assert match is not None, head
        lines = []
        for line in re.split(rb"\r\n(?![ \t])", block[:-2]):
            name, colon, value = line.partition(b": ")
            assert colon, line
            lines.append((name, value))
        answer = Answer(int(match[1]), match[2], lines, head, {}, None)
        entries = [entry.split(b"=") for entry in (answer.get("Encapsulated") or b"null-body=0").split(b", ")]
        offsets = [int(offset) for _, offset in entries]
        assert offsets[0] == 0 and offsets == sorted(offsets)
        for number, (name, _) in enumerate(entries[:-1]):
            answer.sections[name.decode()] = self._exactly(offsets[number + 1] - offsets[number])
        if entries[-1][0] != b"null-body":
            answer.body, answer.trailers, answer.last = self._chunks()
        return answer

    def rest(self) -> bytes:
        """Everything up to the server's FIN. Raises `ConnectionResetError` when it does not close in an orderly way."""
        while data := self.socket.recv(1 << 20):
            self.pending += data
        data, self.pending = self.pending, b""
        return data

    def rest_or_reset(self) -> bytes:
        """Everything up to the end, however it ends."""
        try:
            return self.rest()
        except ConnectionResetError:
            data, self.pending = self.pending, b""
            return data

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        assert data, f"the server closed in the middle of an answer: {self.pending!r}"
        self.pending += data

    def _until(self, mark: bytes) -> bytes:
        while (at := self.pending.find(mark)) < 0:
            self._more()
        at += len(mark)
        data, self.pending = self.pending[:at], self.pending[at:]
        return data

    def _exactly(self, size: int) -> bytes:
        while len(self.pending) < size:
            self._more()
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def _chunks(self) -> tuple[bytes, bytes, bytes]:
        pieces = []
        while size := int((last := self._until(b"\r\n")).partition(b";")[0], 16):
            assert b";" not in last
            pieces.append(self._exactly(size))
            assert self._exactly(2) == b"\r\n"
        trailers = b""
        while (line := self._until(b"\r\n")) != b"\r\n":
            trailers += line
        return b"".join(pieces), trailers, last[:-2]
