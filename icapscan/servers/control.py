"""The messages between the supervisor and a worker: JSON lines over a socket pair."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from icapscan.servers.late import Cut
from icapscan.servers.settings import Settings

_LONGEST = 16 * 1024 * 1024


class Configure(Struct, frozen=True, tag="configure"):
    """To a worker: use this from the next transaction on."""

    number: int
    """Counts configurations; the worker says it back in `Ready`."""
    settings: Settings
    rules_file: str | None
    """Compiled YARA rules, or None when YARA is off."""
    clamd: tuple[str, ...]
    istag: str
    downloads: str
    """Folder of finished downloads that wait to be fetched; all workers share it."""


class SetTag(Struct, frozen=True, tag="set-tag"):
    """To a worker: the engines changed by themselves."""

    istag: str


class Drain(Struct, frozen=True, tag="drain"):
    """To a worker: accept no more, finish what runs, end."""


class Reopen(Struct, frozen=True, tag="reopen"):
    """To a worker: open the log file again."""


class Ready(Struct, frozen=True, tag="ready"):
    """From a worker: configuration ``number`` is in force. ``failed``: engine and sentence of each failed self-test."""

    number: int
    failed: dict[str, str]


class Stats(Struct, frozen=True, tag="stats"):
    """From a worker, about once a second."""

    counters: dict[str, Any]
    connections: int
    memory_left: int
    disk_left: int


ToWorker = Configure | SetTag | Drain | Reopen | Cut
FromWorker = Ready | Stats | Cut
"""`Cut` goes from the worker that cut a download to the others, by way of the supervisor."""
Received = TypeVar("Received")


class Channel(Generic[Received]):
    """One end of the socket pair; receives messages of the given union."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, receives: msgspec.json.Decoder[Received]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = receives

    def send(self, message: ToWorker | FromWorker) -> None:
        """Queue a message; a dead other end is noticed by `receive`."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> Received | None:
        """The next message; None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        return self._decoder.decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


async def open_channel(descriptor: Any, receives: Any) -> Channel[Any]:
    """A channel over one socket of the pair."""
    reader, writer = await asyncio.open_unix_connection(sock=descriptor, limit=_LONGEST)
    return Channel(reader, writer, msgspec.json.Decoder(receives))
