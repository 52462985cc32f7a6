"""A worker as its supervisor sees it: a child process, a channel, and what it last said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from icapscan.servers.control import Channel, Configure, FromWorker, Ready, Stats, open_channel
from icapscan.servers.late import Cut


class WorkerProcess:
    """One child. `run` returns its exit code when it ended."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Channel[FromWorker]) -> None:
        self._process = process
        self.channel = channel
        self.ready_number = 0
        """The configuration that it has in force; 0 = none yet."""
        self.failed: dict[str, str] = {}
        self.stats: Stats | None = None
        self._asked: list[int] = []

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def asked(self) -> frozenset[int]:
        """The configurations that it was sent and has not in force yet: it may still read their rules."""
        return frozenset(self._asked)

    def configure(self, message: Configure) -> None:
        """Send it a configuration."""
        self._asked.append(message.number)
        self.channel.send(message)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        plain: Sequence[socket.socket],
        tls: Sequence[socket.socket],
        loads: int,
        slot: int,
        workers: int,
    ) -> WorkerProcess:
        """Start ``command`` for one slot, with the control socket, the shared loads and the listening sockets."""
        ours, theirs = socket.socketpair()
        sockets = [str(one.fileno()) for one in plain], [str(one.fileno()) for one in tls]
        numbers = (str(number) for number in (theirs.fileno(), loads, slot, workers))
        arguments = (*numbers, ",".join(sockets[0]), ",".join(sockets[1]))
        descriptors = [theirs.fileno(), loads, *(one.fileno() for one in (*plain, *tls))]
        try:
            # A session of its own: Ctrl-C at a terminal goes to the supervisor alone, which then drains the workers.
            process = await asyncio.create_subprocess_exec(
                *command, *arguments, pass_fds=descriptors, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
        finally:
            theirs.close()
        return cls(process, await open_channel(ours, FromWorker))

    async def run(self, on_cut: Callable[[Cut], None]) -> int:
        """Listen to it until it is gone. ``on_cut``: it cut a download."""
        while (message := await self.channel.receive()) is not None:
            if isinstance(message, Ready):
                self.ready_number = message.number
                self.failed = message.failed
                self._asked = [number for number in self._asked if number > message.number]
            elif isinstance(message, Cut):
                on_cut(message)
            else:
                self.stats = message
        code = await self._process.wait()
        self.channel.close()
        return code

    def kill(self) -> None:
        """SIGKILL."""
        if self._process.returncode is None:
            self._process.kill()
