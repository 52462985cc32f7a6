"""A body that is sent while it arrives: nothing of it is guessed, and nothing short of its end is a verdict."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from icapscan.clients.balance import IcapPool
from icapscan.clients.errors import BodyAborted, ClientTimeout, ConnectionLost, Stage
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Mode, Outcome, ScanResult
from icapscan.clients.settings import ClientSettings, Timeouts
from icapscan.clients.source import GrowingBody
from icapscan.limits import KIB, MIB, Limits
from icapscan.store import PartStore, Purse
from tests.clients.fakes import (
    NO_CONTENT,
    PREVIEW_OPTIONS,
    QUICK,
    Fake,
    Peer,
    Seen,
    answer,
    run,
    script,
    settings,
    until,
)

MAIL = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 8192


def growing() -> GrowingBody:
    return GrowingBody(PartStore(Purse(64 * MIB, 64 * MIB), Limits()))


def begin(client: IcapClient | IcapPool, body: GrowingBody, **given: bool) -> asyncio.Task[ScanResult]:
    return asyncio.get_running_loop().create_task(
        client.scan(body, mode=Mode.REQMOD, media_type="message/rfc822", mail_from="a@b", **given)  # type: ignore[arg-type]
    )


def test_the_body_is_sent_while_it_arrives() -> None:
    async def main() -> None:
        arrived: list[bytes] = []

        async def take(peer: Peer, seen: Seen) -> None:
            while True:
                size = int(await peer.reader.readuntil(b"\r\n"), 16)
                arrived.append((await peer.reader.readexactly(size + 2))[:-2])
                if not size:
                    break
            await peer.send(NO_CONTENT)

        async with Fake(take) as fake, IcapClient(fake.url) as client:
            body = growing()
            task = begin(client, body)
            for at in range(0, len(MAIL), 10_000):
                body.append(MAIL[at : at + 10_000])
                await until(lambda: b"".join(arrived) == bytes(body.read(0, body.size)))
            body.end()
            result = await task
            assert result.outcome is Outcome.CLEAN and result.whole
            assert b"".join(arrived) == MAIL
            assert b"Content-Length" not in fake.scans[0].heads and "Preview" not in fake.scans[0]

    run(main())


@pytest.mark.parametrize("first", [0, 1, 99, 100, 101, 5000])
def test_a_preview_waits_for_its_bytes(first: int) -> None:
    async def main() -> None:
        async with Fake(NO_CONTENT, options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url) as client:
            body = growing()
            task = begin(client, body)
            if first:
                body.append(MAIL[:first])
            for _ in range(20):
                await asyncio.sleep(0)
            body.append(MAIL[first:])
            body.end()
            assert (await task).whole
            seen = fake.scans[0]
            assert seen["Preview"] == "100" and seen.preview == MAIL[:100] and not seen.ieof
            assert seen.body == MAIL

    run(main())


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_body_that_ends_within_its_preview(size: int) -> None:
    async def main() -> None:
        async with Fake(NO_CONTENT, options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url) as client:
            body = growing()
            if size:
                body.append(MAIL[:size])
            body.end()
            result = await begin(client, body)
            assert result.is_clean and result.whole
            assert fake.scans[0].ieof is (size > 0) and fake.scans[0].body == MAIL[:size]
            assert fake.scans[0].has_body is (size > 0)

    run(main())


def test_an_empty_body_that_ends_late_has_one_end() -> None:
    async def main() -> None:
        async with Fake(NO_CONTENT) as fake, IcapClient(fake.url) as client:
            body = growing()
            task = begin(client, body)
            await until(lambda: len(fake.scans) == 1)
            body.end()
            assert (await task).whole and fake.scans[0].body == b""

    run(main())


def test_a_clean_answer_before_the_end_is_not_for_the_whole() -> None:
    async def main() -> None:
        async with Fake(script(NO_CONTENT, "hang")) as fake, IcapClient(fake.url) as client:
            body = growing()
            body.append(MAIL)
            result = await begin(client, body)
            assert result.outcome is Outcome.CLEAN and not result.whole
            body.end()
            assert not result.whole and client.idle == 0

    run(main())


def test_a_copy_of_what_came_so_far_is_not_the_whole() -> None:
    async def main() -> None:
        put = b"PUT / HTTP/1.1\r\nHost: scan.invalid\r\nContent-Type: message/rfc822\r\n\r\n"
        early = answer(req=put, body=MAIL)
        async with Fake(script(early, "hang")) as fake, IcapClient(fake.url) as client:
            body = growing()
            body.append(MAIL)
            result = await begin(client, body, adapt=True)
            assert not result.whole

    run(main())


def test_giving_up_cuts_the_connection() -> None:
    async def main() -> None:
        async with Fake(script("body")) as fake, IcapClient(fake.url) as client:
            body = growing()
            body.append(MAIL)
            task = begin(client, body)
            await until(lambda: len(fake.scans) == 1)
            body.abort()
            with pytest.raises(BodyAborted):
                await task
            await until(lambda: fake.closed == 2 or fake.connections == fake.closed)
            assert client.idle == client.busy == 0

    run(main())


def test_giving_up_before_the_preview_is_there() -> None:
    async def main() -> None:
        async with Fake(NO_CONTENT, options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url) as client:
            body = growing()
            task = begin(client, body)
            await until(lambda: fake.asked_options == 1)
            body.abort()
            with pytest.raises(BodyAborted):
                await task
            assert not fake.scans

    run(main())


def test_a_dead_reused_connection_is_replaced_while_the_body_grows() -> None:
    async def main() -> None:
        async def leave(peer: Peer, seen: Seen) -> None:
            peer.reset()
            raise OSError("gone")

        async with Fake(NO_CONTENT, leave, NO_CONTENT) as fake, IcapClient(fake.url) as client:
            await client.scan(b"first")
            assert client.idle == 1
            body = growing()
            body.append(MAIL[:500])
            task = begin(client, body)
            await until(lambda: len(fake.scans) == 3)
            body.append(MAIL[500:])
            body.end()
            assert (await task).whole
            assert fake.scans[2].body == MAIL and fake.connections == 2

    run(main())


def test_another_server_gets_everything_from_the_start() -> None:
    async def main() -> None:
        async with (
            Fake(script("reset")) as dead,
            Fake(NO_CONTENT) as good,
            IcapPool([dead.url, good.url]) as pool,
        ):
            body = growing()
            body.append(MAIL[:70_000])
            task = begin(pool, body)
            await until(lambda: len(good.scans) == 1)
            body.append(MAIL[70_000:])
            body.end()
            result = await task
            assert result.whole and result.server == good.url and good.scans[0].body == MAIL

    run(main())


def test_a_server_that_dies_in_the_middle_is_an_error_at_once() -> None:
    async def main() -> None:
        async with Fake(script("reset")) as fake, IcapClient(fake.url) as client:
            body = growing()
            body.append(MAIL)
            with pytest.raises(ConnectionLost):
                await begin(client, body)
            assert not body.ended

    run(main())


def test_patience_with_the_sender_is_not_that_with_the_server() -> None:
    async def main() -> None:
        patience = Timeouts(queue=0.2, connect=5, tls=5, options=5, proceed=0.1, answer=30, idle=0.1, total=0.3)
        async with (
            Fake(NO_CONTENT, script("body", "hang")) as fake,
            IcapClient(fake.url, settings=settings(timeouts=patience)) as client,
        ):
            body = growing()
            body.append(b"a")
            task = begin(client, body)
            await asyncio.sleep(0.6)  # longer than any patience above
            assert not task.done()
            body.append(b"b")
            body.end()
            assert (await task).whole
            hanging = growing()
            hanging.append(b"a")
            hanging.end()
            with pytest.raises(ClientTimeout) as caught:
                await begin(client, hanging)
            assert caught.value.stage is Stage.TOTAL

    run(main())


def test_a_server_that_reads_nothing_is_waited_for_within_bounds() -> None:
    async def main() -> None:
        async def deaf(peer: Peer, seen: Seen) -> None:
            await asyncio.Event().wait()

        async with (
            Fake(deaf) as fake,
            IcapClient(fake.url, settings=ClientSettings(timeouts=QUICK)) as client,
        ):
            body = growing()
            for _ in range(30):
                body.append(bytes(1 * MIB))
            with pytest.raises(ClientTimeout) as caught:
                await begin(client, body)
            assert caught.value.stage is Stage.IDLE

    run(main())


def test_a_slow_server_slows_the_sender() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def slow(peer: Peer, seen: Seen) -> None:
            await go.wait()
            await peer.chunks(seen)
            await peer.send(NO_CONTENT)

        async with Fake(slow) as fake, IcapClient(fake.url) as client:
            body = growing()
            task = begin(client, body)
            await until(lambda: len(fake.scans) == 1)
            piece = bytes(64 * KIB)
            while body.size < 40 * MIB:
                body.append(piece)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await body.room()
                        continue
                break
            assert body.size < 40 * MIB, "the sender was never told to wait"
            go.set()
            await body.room()
            body.end()
            assert (await task).whole and len(fake.scans[0].body) == body.size

    run(main())


def test_nobody_who_scans_leaves_nobody_waiting() -> None:
    async def main() -> None:
        async with Fake(script("reset")) as fake, IcapClient(fake.url) as client:
            body = growing()
            body.append(bytes(30 * MIB))
            task = begin(client, body)
            await asyncio.sleep(0)
            await body.room()
            with pytest.raises(ConnectionLost):
                await task
            await body.room()

    run(main())
