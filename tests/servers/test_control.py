"""Messages between supervisor and worker survive the way, and a dead other end is noticed."""

from __future__ import annotations

import asyncio
import socket

import pytest

from icapscan.findings import Anomaly, Finding, Level, Reason, Unscanned, Verdict
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.servers.control import (
    Configure,
    Drain,
    FromWorker,
    Ready,
    Reopen,
    SetTag,
    Stats,
    ToWorker,
    open_channel,
)
from icapscan.servers.late import Asker, Cut
from icapscan.servers.settings import DEFAULT_SERVICES, Settings

VERDICT = Verdict(
    Level.INFECTED,
    Reason.MALFORMED,
    (Finding("yara", "name", "1/a"),),
    (Unscanned(Reason.MALFORMED),),
    (Anomaly("odd"),),
)
CUT = Cut(
    Asker(b"http://www.example.org/\xff", b"192.0.2.1", b"user"),
    "tag",
    12.5,
    Decision(Action.BLOCK, Cause.INFECTED, rule="rule", parts=("1/a",)),
    VERDICT,
    "reference",
)
TO_WORKER: list[ToWorker] = [
    Configure(3, Settings(services={**DEFAULT_SERVICES}), None, ("unix:/run/x",), "tag", "/run/downloads"),
    CUT,
    SetTag("tag"),
    Drain(),
    Reopen(),
]
FROM_WORKER: list[FromWorker] = [
    CUT,
    Cut(Asker(b""), "tag", 0.5),
    Ready(3, {"clamd": "It is down."}),
    Stats({"requests": [["a", "b", 1]]}, 1, 2, 3),
]


def test_every_message_arrives_as_it_was_sent() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        supervisor = await open_channel(ours, FromWorker)
        worker = await open_channel(theirs, ToWorker)
        for message in TO_WORKER:
            supervisor.send(message)
            assert await worker.receive() == message
        for reply in FROM_WORKER:
            worker.send(reply)
            assert await supervisor.receive() == reply
        worker.close()
        assert await supervisor.receive() is None
        supervisor.close()

    asyncio.run(run())


@pytest.mark.parametrize("cut", [b"", b'{"type":"drain"}', b'{"type":"dr'])
def test_an_end_without_a_whole_message_is_the_end(cut: bytes) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        worker = await open_channel(theirs, ToWorker)
        ours.sendall(cut)
        ours.close()
        assert await worker.receive() is None
        worker.close()

    asyncio.run(run())
