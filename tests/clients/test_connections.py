"""Connections: duplex, reuse, limits, patience, TLS (PROTOCOL C2, C19-C21, C39-C44, C58, C59, D129)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from icapscan.clients.address import parse_url
from icapscan.clients.errors import (
    ClientTimeout,
    ConnectFailed,
    ConnectionLost,
    Malformed,
    NotIcap,
    ServerRefused,
    Stage,
    TlsFailed,
)
from icapscan.clients.icap import IcapClient
from icapscan.clients.link import open_link
from icapscan.clients.pool import ConnectionPool
from icapscan.clients.result import Outcome
from icapscan.clients.settings import ClientSettings, Timeouts, TlsSettings
from tests.clients.fakes import (
    CONTINUE,
    HTTP_OK,
    NO_CONTENT,
    OPTIONS,
    PREVIEW_OPTIONS,
    QUICK,
    Fake,
    Peer,
    Seen,
    answer,
    read_rest,
    run,
    scan,
    script,
    settings,
    until,
)
from tests.conftest import missing

BIG = b"0123456789abcdef" * (50 << 16)
"""50 MiB."""
PATIENT = settings(options="never", timeouts=Timeouts(total=120))


def with_loop(name: str, main: Coroutine[Any, Any, None]) -> None:
    """Run in asyncio's own event loop, or in uvloop's."""
    if name == "asyncio":
        run(main)
        return
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


# Duplex


def test_c19_an_early_answer_is_used_at_once() -> None:
    async def early(peer: Peer, seen: Seen) -> None:
        await peer.reader.readexactly(1024)
        await peer.send(NO_CONTENT)
        await peer.reader.read()  # never reads the body: whoever wants to send it all first waits for ever

    async def main() -> None:
        async with Fake(early) as fake, IcapClient(fake.url, settings=PATIENT) as client:
            result = await client.scan(BIG)
            assert result.is_clean and not result.whole
            assert client.idle == 0  # C20: half a request was sent
            await until(lambda: fake.closed == 1)

    run(main())


def test_c19_a_copy_that_is_streamed_back_while_we_send() -> None:
    """Neither end may wait for the other to finish: the server reads only as fast as it writes."""

    async def echo(peer: Peer, seen: Seen) -> None:
        await peer.send(answer(res=HTTP_OK, body=b"")[: -len(b"0\r\n\r\n")])
        while True:
            line = await peer.reader.readuntil(b"\r\n")
            data = await peer.reader.readexactly(int(line, 16) + 2)
            await peer.send(line + data)
            if data == b"\r\n":
                return

    async def main() -> None:
        async with Fake(echo) as fake, IcapClient(fake.url, settings=PATIENT) as client:
            for _ in range(2):
                result = await client.scan(BIG)
                assert result.is_clean and result.whole and result.status == 200
            assert fake.connections == 1

    run(main())


@pytest.mark.parametrize("reply", [answer(b"404 Not found"), NO_CONTENT, answer(res=HTTP_OK, body=b"page")])
def test_c20_a_half_sent_request_is_never_followed_by_another(reply: bytes) -> None:
    async def main() -> None:
        async with Fake(reply) as fake, IcapClient(fake.url, settings=PATIENT) as client:

            async def early(peer: Peer, seen: Seen) -> None:
                await peer.send(reply)
                while await peer.reader.read(65536):
                    pass
                raise OSError("the client left")

            fake.replies = [early]
            for count in (1, 2):
                try:
                    await client.scan(BIG)
                except ServerRefused as error:
                    assert error.status == 404
                assert client.idle == 0
                await until(lambda count=count: fake.closed == count)  # type: ignore[misc]
            assert fake.connections == 2

    run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_c21_an_answer_before_a_reset_is_still_read(loop: str) -> None:
    """The server says 404 and closes without reading: our sending fails, but the 404 is what is reported."""

    async def rude(peer: Peer, seen: Seen) -> None:
        await peer.send(answer(b"404 Service not found", fields=b"Connection: close\r\n"))
        peer.writer.close()  # with unread bytes in its buffer: RST follows the answer
        raise OSError("closed")

    async def main() -> None:
        async with Fake(rude) as fake, IcapClient(fake.url, settings=PATIENT) as client:
            for _ in range(20):
                with pytest.raises(ServerRefused) as raised:
                    await client.scan(BIG)
                assert raised.value.status == 404

    with_loop(loop, main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_c21_what_was_said_before_a_failed_write_is_not_lost(loop: str) -> None:
    """Answer and reset are both in the kernel when we write: the write fails before anything was read."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = parse_url(f"icap://127.0.0.1:{server.getsockname()[1]}/x")
            link = await open_link(address, ClientSettings())
            link.write([b"something that is never read"])
            theirs, _ = server.accept()
            theirs.recv(1, socket.MSG_PEEK)  # it has arrived
            theirs.sendall(b"answer")
            theirs.close()
            link.write([b"more"])
            while not link.lost:
                await link.wait(10)
            assert b"".join(link.take()) == b"answer"
            link.abort()

    with_loop(loop, main())


# Reuse


def test_c39_c41_one_connection_carries_many_scans_one_at_a_time() -> None:
    async def main() -> None:
        async with Fake(options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url) as client:
            for size in (0, 1, 100, 101, 300_000) * 3:
                assert (await client.scan(b"x" * size)).is_clean
            assert fake.connections == 1 and client.idle == 1 and client.busy == 0

    run(main())


def test_c41_no_pipelining() -> None:
    async def main() -> None:
        async def watchful(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await asyncio.sleep(0.01)
            with pytest.raises(TimeoutError):  # nothing of a next request before this one is answered
                await asyncio.wait_for(peer.reader.readexactly(1), 0.01)
            await peer.send(NO_CONTENT)

        async with Fake(watchful) as fake, IcapClient(fake.url, settings=settings(connections=1)) as client:
            await asyncio.gather(*(client.scan(b"x") for _ in range(5)))
            assert fake.connections == 1

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        NO_CONTENT.replace(b"ISTag", b"Connection: close\r\nISTag"),
        NO_CONTENT.replace(b"ISTag", b"connection: foo, CLOSE\r\nISTag"),
        NO_CONTENT + b"\r\n",
        NO_CONTENT + b"0\r\n\r\n",
        NO_CONTENT + NO_CONTENT,
    ],
)
def test_c39_d123_a_connection_that_is_not_clean_is_not_reused(reply: bytes) -> None:
    async def main() -> None:
        async with Fake(reply) as fake, IcapClient(fake.url) as client:
            for count in (1, 2, 3):
                assert (await client.scan(b"x")).is_clean
                assert client.idle == 0 and fake.connections == count

    run(main())


@pytest.mark.parametrize("wait", [True, False])
def test_d129_an_answer_nobody_asked_for_is_never_taken_for_one(wait: bool) -> None:
    """A stray 204 arrives while the connection rests; the next body is infected and must not get it."""
    infected = answer(fields=b"X-Virus-ID: Eicar\r\n", res=HTTP_OK, body=b"page")

    async def main() -> None:
        sent = asyncio.Event()
        strays: list[asyncio.Task[None]] = []

        async def straying(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await peer.send(NO_CONTENT)

            async def stray() -> None:
                await asyncio.sleep(0.02)
                peer.writer.write(NO_CONTENT)
                sent.set()

            strays.append(asyncio.create_task(stray()))

        async with Fake(straying, infected) as fake, IcapClient(fake.url) as client:
            assert (await client.scan(b"good")).is_clean
            await sent.wait()
            if wait:
                await until(lambda: client.idle == 0)
            assert (await client.scan(b"bad")).outcome is Outcome.INFECTED

    run(main())


def test_d129_bytes_that_the_loop_has_not_seen_yet_count_too() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url) as client:
            assert (await client.scan(b"good")).is_clean
            (peer,) = fake._peers
            given = peer.writer.get_extra_info("socket")
            raw = socket.socket(fileno=os.dup(given.fileno()))
            raw.send(NO_CONTENT)  # straight into the kernel: no turn of the loop until the next scan begins
            raw.close()
            fake.replies = [answer(fields=b"X-Virus-ID: Eicar\r\n", res=HTTP_OK, body=b"page")]
            assert (await client.scan(b"bad")).outcome is Outcome.INFECTED
            assert fake.connections == 2

    run(main())


@pytest.mark.parametrize("ending", ["fin", "reset", "unseen"])
def test_c40_c59_a_connection_that_died_at_rest_is_replaced(ending: str) -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url) as client:
            assert (await client.scan(b"one")).is_clean
            (peer,) = fake._peers
            if ending == "reset":
                peer.reset()
            else:
                peer.writer.close()
            if ending != "unseen":
                await until(lambda: client.idle == 0)
            assert (await client.scan(b"two")).is_clean
            assert fake.connections == 2

    run(main())


def test_c40_a_stale_connection_is_retried_once_with_the_whole_body() -> None:
    """It dies exactly when the next request arrives on it: no answer byte, so the body is sent again."""

    async def main() -> None:
        body = b"abc" * 50_000
        for end in ("close", "reset"):
            async with Fake(NO_CONTENT, script(end), NO_CONTENT) as fake, IcapClient(fake.url) as client:
                assert (await client.scan(b"first")).is_clean
                assert (await client.scan(body)).is_clean
                assert fake.connections == 2 and fake.scans[-1].body == body
        # Only once, and never on a connection that was new, nor when an answer had begun
        async with Fake(NO_CONTENT, script("close")) as fake, IcapClient(fake.url) as client:
            assert (await client.scan(b"first")).is_clean
            with pytest.raises(ConnectionLost):
                await client.scan(body)
            assert len(fake.scans) == 3
        async with Fake(script("close")) as fake, IcapClient(fake.url, settings=PATIENT) as client:
            with pytest.raises(ConnectionLost):
                await client.scan(body)
            assert len(fake.scans) == 1
        async with Fake(NO_CONTENT, script("body", b"I", "close")) as fake, IcapClient(fake.url) as client:
            assert (await client.scan(b"first")).is_clean
            with pytest.raises(ConnectionLost):
                await client.scan(body)
            assert len(fake.scans) == 2

    run(main())


def test_c59_closing_after_a_full_answer_is_no_error() -> None:
    async def main() -> None:
        async with Fake(script("body", NO_CONTENT, "close")) as fake, IcapClient(fake.url) as client:
            for _ in range(3):
                assert (await client.scan(b"x")).is_clean

    run(main())


def test_c39_an_old_idle_connection_is_not_used_again() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url, settings=settings(keep_idle=0.01)) as client:
            assert (await client.scan(b"x")).is_clean
            await asyncio.sleep(0.05)
            assert (await client.scan(b"x")).is_clean
            assert fake.connections == 2

    run(main())


def test_c55_without_pooling_every_scan_has_its_own_connection() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url, settings=settings(keep_alive=False)) as client:
            for _ in range(3):
                assert (await client.scan(b"x")).is_clean
            assert fake.connections == 4 and all(seen["Connection"] == "close" for seen in fake.seen)

    run(main())


# Limits and patience


@pytest.mark.parametrize(("announced", "own", "most"), [(2, 10, 2), (50, 3, 3), (0, 4, 4), (None, 4, 4)])
def test_c42_max_connections_caps_the_pool(announced: int | None, own: int, most: int) -> None:
    line = b"" if announced is None else b"Max-Connections: %d\r\n" % announced
    options = OPTIONS.replace(b"Max-Connections: 100\r\n", line)

    async def main() -> None:
        gate = asyncio.Event()

        async def slow(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await gate.wait()
            await peer.send(NO_CONTENT)

        async with (
            Fake(slow, options=options) as fake,
            IcapClient(fake.url, settings=settings(connections=own)) as client,
        ):
            await client.options()
            scans = [asyncio.create_task(client.scan(b"x")) for _ in range(most + 5)]
            await until(lambda: len(fake.scans) == most)
            await asyncio.sleep(0.05)
            assert client.busy == most == fake.most_open
            gate.set()
            assert all(result.is_clean for result in await asyncio.gather(*scans))
            assert fake.most_open == most and client.busy == 0

    run(main())


def test_c42_c43_queueing_has_a_deadline_and_the_place_is_not_lost() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def slow(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await gate.wait()
            await peer.send(NO_CONTENT)

        how = settings(connections=1, options="never", timeouts=Timeouts(queue=0.1))
        async with Fake(slow) as fake, IcapClient(fake.url, settings=how) as client:
            first = asyncio.create_task(client.scan(b"x"))
            await until(lambda: len(fake.scans) == 1)
            with pytest.raises(ClientTimeout) as raised:
                await client.scan(b"y")
            assert raised.value.stage is Stage.QUEUE and raised.value.retry
            waiting = asyncio.create_task(client.scan(b"z"))
            await asyncio.sleep(0)
            waiting.cancel()
            gate.set()
            assert (await first).is_clean
            assert (await client.scan(b"y")).is_clean and client.busy == 0

    run(main())


def test_c42_a_place_that_comes_too_late_goes_to_the_next() -> None:
    """The place is given and the one who gets it is cancelled in the same turn of the loop."""

    async def main() -> None:
        async with Fake() as fake:
            pool = ConnectionPool(parse_url(fake.url), settings(connections=1))
            link = await pool.acquire()
            late, next_one = (asyncio.create_task(pool.acquire()) for _ in range(2))
            await asyncio.sleep(0)
            pool.release(link, reusable=True)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            assert await next_one is link and pool.in_use == 1
            pool.release(link, reusable=True)
            assert pool.in_use == 0 and pool.idle == 1
            pool.close()

    run(main())


def quick(**changed: float) -> ClientSettings:
    """Long patience but for one thing."""
    return settings(options="never", preview=100, timeouts=Timeouts(**changed))


async def expect_timeout(fake: Fake, stage: Stage, how: ClientSettings, body: bytes = b"x" * 500) -> None:
    async with IcapClient(fake.url, settings=how) as client:
        with pytest.raises(ClientTimeout) as raised:
            await client.scan(body)
        assert raised.value.stage is stage and raised.value.retry
        assert client.busy == 0 and client.idle == 0


def test_c43_each_wait_has_its_own_limit() -> None:
    async def trickle(peer: Peer, seen: Seen) -> None:
        await read_rest(peer, seen)
        for byte in NO_CONTENT * 100:
            await peer.send(bytes((byte,)))
            await asyncio.sleep(0.02)

    async def main() -> None:
        async with Fake(script("hang")) as fake:
            await expect_timeout(fake, Stage.CONTINUE, quick(proceed=0.1))
        async with Fake(script("preview", CONTINUE, "hang")) as fake:
            await expect_timeout(fake, Stage.ANSWER, quick(answer=0.1))
        async with Fake(script("preview", CONTINUE, "hang")) as fake:
            await expect_timeout(fake, Stage.ANSWER, quick(answer=0.1), b"x" * 100)
        async with Fake(script("preview", CONTINUE, "rest", b"ICAP/1.0 2", "hang")) as fake:
            await expect_timeout(fake, Stage.IDLE, quick(idle=0.1))
        async with Fake(script("preview", CONTINUE, "rest", answer(res=HTTP_OK, body=b"y")[:-5], "hang")) as fake:
            await expect_timeout(fake, Stage.IDLE, quick(idle=0.1))
        async with Fake(trickle) as fake:
            await expect_timeout(fake, Stage.TOTAL, quick(total=0.5))

    run(main())


def test_c43_a_server_that_reads_nothing() -> None:
    async def deaf(peer: Peer, seen: Seen) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with Fake(deaf) as fake:
            how = settings(options="never", timeouts=Timeouts(idle=0.2))
            await expect_timeout(fake, Stage.IDLE, how, BIG)

    run(main())


def test_c43_connecting_and_tls_have_their_own_limits() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:  # accepts in the kernel, and says nothing
            port = server.getsockname()[1]
            client = IcapClient(f"icaps://127.0.0.1:{port}/x", settings=settings(options="never", timeouts=QUICK))
            with pytest.raises(ClientTimeout) as raised:
                await client.scan(b"x")
            assert raised.value.stage is Stage.TLS
            await client.aclose()
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(8)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            client = IcapClient(f"icap://127.0.0.1:{port}/x", settings=settings(options="never", timeouts=QUICK))
            with pytest.raises(ClientTimeout) as raised:
                await client.scan(b"x")
            assert raised.value.stage is Stage.CONNECT
            await client.aclose()
            for filler in fillers:
                filler.close()

    run(main())


def test_c43_nobody_listens() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for url in (f"icap://127.0.0.1:{port}/x", f"icap://[::1]:{port}/x", "icap://no-such-host.invalid/x"):
            async with IcapClient(url) as client:
                with pytest.raises(ConnectFailed) as raised:
                    await client.scan(b"x")
                assert raised.value.retry and client.busy == 0

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        b"ICAP/1.0 204 " + b"x" * 9000 + b"\r\n\r\n",
        b"ICAP/1.0 204 No\r\nX-A: " + b"x" * 70_000 + b"\r\n\r\n",
        b"ICAP/1.0 204 No\r\n" + b"X-A: 1\r\n" * 201 + b"\r\n",
        answer(res=b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 70_000 + b"\r\n\r\n", body=b"hello"),
        answer(res=HTTP_OK, body=b"hello", last=b"0" * 5000 + b"\r\n\r\n"),
        answer(res=HTTP_OK, body=b"hello", last=b"0\r\nX-T: " + b"x" * 17_000 + b"\r\n\r\n"),
    ],
)
def test_c44_bounds_on_what_is_read(reply: bytes) -> None:
    async def main() -> None:
        async with Fake(reply) as fake, IcapClient(fake.url) as client:
            with pytest.raises(Malformed) as raised:
                await client.scan(b"hello")
            assert not raised.value.retry and client.idle == 0

    run(main())


# Ending


@pytest.mark.parametrize("steps", [("hang",), ("body", b"ICAP/1.0 200", "hang"), ("preview", CONTINUE, "hang")])
def test_c58_cancelling_closes_the_connection(steps: tuple[bytes | str, ...]) -> None:
    async def main() -> None:
        async with Fake(script(*steps), options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url) as client:
            task = asyncio.create_task(client.scan(b"x" * 500_000))
            await until(lambda: len(fake.scans) == 1)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: fake.closed == 1)
            assert client.busy == 0 and client.idle == 0
            fake.replies = [NO_CONTENT]
            assert (await client.scan(b"x")).is_clean and fake.connections == 2

    run(main())


def test_c58_a_timeout_closes_the_connection() -> None:
    async def main() -> None:
        async with Fake(script("hang")) as fake, IcapClient(fake.url, settings=quick(proceed=0.1)) as client:
            with pytest.raises(ClientTimeout):
                await client.scan(b"x" * 500)
            await until(lambda: fake.closed == 1)

    run(main())


def test_c58_no_descriptor_is_left_behind() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        async with Fake(script("body", answer(res=HTTP_OK, body=b"y" * 200_000)[:-5], "hang")) as fake:
            before = descriptors()
            how = settings(options="never", timeouts=Timeouts(idle=0.02))
            async with IcapClient(fake.url, settings=how) as client:
                for _ in range(30):
                    with pytest.raises(ClientTimeout):
                        await client.scan(b"x" * 100_000, adapt=True)
            await until(lambda: not fake._peers)
            assert descriptors() <= before

    run(main())


def test_closing_the_client_ends_those_who_wait() -> None:
    async def main() -> None:
        how = settings(connections=1, options="never")
        async with Fake(script("hang")) as fake:
            client = IcapClient(fake.url, settings=how)
            first = asyncio.create_task(client.scan(b"x"))
            second = asyncio.create_task(client.scan(b"x"))
            await until(lambda: len(fake.scans) == 1)
            await client.aclose()
            with pytest.raises(ConnectionLost):
                await second
            first.cancel()
            with pytest.raises(ConnectionLost):
                await client.scan(b"x")

    run(main())


# TLS


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and 127.0.0.1, signed by itself, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl is needed to make a certificate (Debian: openssl)")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(command, check=True, capture_output=True)
    with open(path, "ab") as file:
        file.write(path.with_suffix(".crt").read_bytes())
    return path


def server_context(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_c2_tls_with_a_trusted_certificate(pem: Path, loop: str) -> None:
    async def main() -> None:
        trusting = settings(tls=TlsSettings(ca=str(pem)))
        async with Fake(tls=server_context(pem)) as fake, IcapClient(fake.url, settings=trusting) as client:
            for size in (0, 5, 3_000_000, 5):
                result = await client.scan(b"x" * size)
                assert result.is_clean
            assert fake.connections == 1 and fake.scans[0].line.startswith("RESPMOD icaps://127.0.0.1:")
            (peer,) = fake._peers
            peer.writer.close()
            assert (await client.scan(b"x")).is_clean and fake.connections == 2

    with_loop(loop, main())


def test_c2_a_certificate_that_is_not_trusted_or_not_theirs_is_an_error(pem: Path) -> None:
    async def main() -> None:
        async with Fake(tls=server_context(pem)) as fake:
            wrong_name = TlsSettings(ca=str(pem), server_name="other.example")
            no_file = TlsSettings(ca="/nonexistent.pem")
            for tls in (TlsSettings(), wrong_name, no_file):
                async with IcapClient(fake.url, settings=settings(tls=tls)) as client:
                    with pytest.raises(TlsFailed):
                        await client.scan(b"x")
                    assert client.busy == 0
            assert not fake.seen
            assert (await scan(fake, how=settings(tls=TlsSettings(verify=False)))).is_clean

    run(main())


def test_c2_the_server_name_is_sent(pem: Path) -> None:
    names: list[str | None] = []
    context = server_context(pem)
    context.sni_callback = lambda _, name, __: names.append(name)

    async def main() -> None:
        how = settings(tls=TlsSettings(ca=str(pem), server_name="localhost"))
        async with Fake(tls=context) as fake:
            assert (await scan(fake, how=how)).is_clean

    run(main())
    assert set(names) == {"localhost"}


def test_c2_c46_tls_and_plain_mixed_up(pem: Path) -> None:
    async def main() -> None:
        async with Fake() as plain:
            how = settings(options="never", timeouts=QUICK)
            async with IcapClient(plain.url.replace("icap:", "icaps:"), settings=how) as client:
                with pytest.raises((TlsFailed, ClientTimeout)):
                    await client.scan(b"x")
            plain.errors.clear()
        async with Fake(tls=server_context(pem)) as fake:
            how = settings(options="never")
            async with IcapClient(fake.url.replace("icaps:", "icap:"), settings=how) as client:
                with pytest.raises((NotIcap, ConnectionLost)):
                    await client.scan(b"x")

    run(main())


def test_c60_tls_cut_in_mid_answer(pem: Path) -> None:
    async def main() -> None:
        how = settings(tls=TlsSettings(ca=str(pem)), options="never")
        async with Fake(script("body", NO_CONTENT[:30], "close"), tls=server_context(pem)) as fake:
            with pytest.raises(ConnectionLost):
                await scan(fake, how=how)

    run(main())
