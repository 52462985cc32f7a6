"""Daemons that answer like no clamd should: each connection is played by a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path

from icapscan.engines.clamd import ClamdEngine
from icapscan.engines.contract import Report
from icapscan.engines.settings import ClamdSettings
from tests.conformance.engine import SECONDS, make_part

Play = Callable[["Line"], Awaitable[None]]


class Line:
    """The daemon's end of one connection; ``number`` counts the connections from 1."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self._writer = writer
        self._in_session = False

    async def command(self) -> None:
        """Wait for one scan command and take its bytes (a descriptor is dropped by the stream)."""
        while True:
            word = await self.reader.readuntil(b"\0")
            if word == b"zIDSESSION\0":
                continue
            if word == b"zFILDES\0":
                await self.reader.readexactly(1)
                return
            assert word == b"zINSTREAM\0"
            while size := int.from_bytes(await self.reader.readexactly(4), "big"):
                await self.reader.readexactly(size)
            return

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def hang_up(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()


class FakeClamd:
    def __init__(self, play: Play) -> None:
        self._play = play
        self.connections = 0
        self.failures: list[BaseException] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._play(Line(self.connections, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the engine hung up
        finally:
            writer.close()
            self._tasks.discard(task)

    def end(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def fake_clamd(play: Play, path: Path | None = None) -> AsyncIterator[tuple[FakeClamd, str]]:
    """A daemon on a Unix socket at ``path``, or on a free TCP port; gives it and its address."""
    fake = FakeClamd(play)
    if path is not None:
        server = await asyncio.start_unix_server(fake.serve, path)
        address = f"unix:{path}"
    else:
        server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
        address = f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake, address
    finally:
        fake.end()
        server.close()


ENGINE: ContextVar[type[ClamdEngine]] = ContextVar("ENGINE", default=ClamdEngine)
"""What the tests of a module are run with."""


def engine_for(*addresses: str, connections: int = 4, **settings: float) -> ClamdEngine:
    return ENGINE.get()(ClamdSettings(address=addresses, **settings), connections)  # type: ignore[arg-type]


async def scan(engine: ClamdEngine, data: bytes = b"hello", seconds: float = SECONDS, kind: str = "bytes") -> Report:
    """One scan; the outer guard only keeps a broken engine from hanging the test."""
    part = make_part(data, kind, path="p")
    try:
        return await asyncio.wait_for(engine.scan(part, seconds), SECONDS)
    finally:
        part.store.close()


def reasons(report: Report) -> list[str]:
    return [item.reason.value for item in report.unscanned]
