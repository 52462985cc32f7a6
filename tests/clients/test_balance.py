"""Several servers as one (PROTOCOL C57)."""

from __future__ import annotations

import asyncio

import pytest

from icapscan.clients.balance import IcapPool
from icapscan.clients.errors import (
    ClientTimeout,
    ConnectionLost,
    InvalidArgument,
    NoServer,
    ServerBusy,
    ServerRefused,
    Stage,
)
from icapscan.clients.result import Outcome
from icapscan.clients.settings import Timeouts
from tests.clients.fakes import (
    HTTP_OK,
    NO_CONTENT,
    Fake,
    Peer,
    Reply,
    Seen,
    answer,
    read_rest,
    run,
    script,
    settings,
    until,
)

BUSY = answer(b"503 Busy")
INFECTED = answer(fields=b"X-Virus-ID: Eicar\r\n", res=HTTP_OK, body=b"page")


def test_c57_scans_are_shared_out() -> None:
    async def main() -> None:
        async with Fake() as one, Fake() as two, Fake() as three, IcapPool([one.url, two.url, three.url]) as pool:
            for _ in range(9):
                assert (await pool.scan(b"x", name="a")).is_clean
            assert [len(fake.scans) for fake in (one, two, three)] == [3, 3, 3]

    run(main())


def test_c57_the_least_busy_is_asked() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def slow(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await gate.wait()
            await peer.send(NO_CONTENT)

        async with Fake(slow) as one, Fake() as two, IcapPool([one.url, two.url]) as pool:
            held = asyncio.create_task(pool.scan(b"x"))
            await until(lambda: len(one.scans) == 1)
            for _ in range(5):
                assert (await pool.scan(b"x")).server == two.url
            gate.set()
            assert (await held).server == one.url

    run(main())


@pytest.mark.parametrize("bad", [BUSY, answer(b"404 x"), answer(b"500 x"), script("close"), b"HTTP/1.1 200 OK\r\n\r\n"])
def test_c57_another_server_is_asked_when_one_fails(bad: Reply) -> None:
    async def main() -> None:
        async with Fake(bad) as one, Fake(INFECTED) as two, IcapPool([one.url, two.url]) as pool:
            for _ in range(6):
                assert (await pool.scan(b"bad")).outcome is Outcome.INFECTED
            assert len(two.scans) == 6 and pool.suspended == [one.url]
            seen = len(one.scans)
            assert (await pool.scan(b"bad")).server == two.url and len(one.scans) == seen

    run(main())


def test_c57_all_failing_raises_the_last_error_and_then_no_server() -> None:
    async def main() -> None:
        how = settings(failures=2)
        async with (
            Fake(BUSY) as one,
            Fake(script("close")) as two,
            IcapPool([one.url, two.url], settings=how) as pool,
        ):
            for _ in range(2):
                with pytest.raises((ServerBusy, ConnectionLost)):
                    await pool.scan(b"x")
            with pytest.raises(NoServer) as raised:
                await pool.scan(b"x")
            assert raised.value.retry and len(pool.suspended) == 2

    run(main())


def test_c57_a_suspended_server_is_probed_by_options_and_comes_back() -> None:
    async def main() -> None:
        how = settings(failures=1, suspend=0.05)
        async with Fake(answer(b"500 x"), options=answer(b"503 x")) as fake, IcapPool([fake.url], settings=how) as pool:
            with pytest.raises(ServerRefused):
                await pool.scan(b"x")
            asked = fake.asked_options
            await asyncio.sleep(0.1)
            with pytest.raises(NoServer):  # the probe fails: no scan goes there
                await pool.scan(b"x")
            assert fake.asked_options == asked + 1 and len(fake.scans) == 1
            fake.options = NO_OPTIONS
            fake.replies = [NO_CONTENT]
            await asyncio.sleep(0.1)
            assert (await pool.scan(b"x")).is_clean
            assert fake.asked_options == asked + 2 and pool.suspended == []
            fake.replies = [answer(b"500 x")]
            with pytest.raises(ServerRefused):
                await pool.scan(b"x")
            assert pool.suspended == [fake.url]

    run(main())


NO_OPTIONS = b'ICAP/1.0 200 OK\r\nISTag: "t1"\r\nMethods: RESPMOD\r\nEncapsulated: null-body=0\r\n\r\n'


def test_c57_one_probe_at_a_time_and_nobody_waits_for_it_where_another_server_works() -> None:
    async def main() -> None:
        how = settings(failures=1, suspend=0.05, timeouts=Timeouts(options=5))
        async with Fake(answer(b"500 x")) as one, Fake() as two, IcapPool([one.url, two.url], settings=how) as pool:
            assert (await pool.scan(b"x")).server == two.url
            one.options = script("hang")
            asked = one.asked_options
            await asyncio.sleep(0.1)
            results = await asyncio.gather(*(pool.scan(b"x") for _ in range(10)))
            assert {result.server for result in results} == {two.url}
            await until(lambda: one.asked_options == asked + 1)
            assert (await pool.scan(b"x")).server == two.url and one.asked_options == asked + 1

    run(main())


def test_c57_a_body_that_a_server_does_not_like_does_not_suspend_it() -> None:
    async def main() -> None:
        how = settings(failures=1)
        async with (
            Fake(answer(b"400 Bad")) as one,
            Fake(answer(b"413 Big")) as two,
            IcapPool([one.url, two.url], settings=how) as pool,
        ):
            for _ in range(3):
                with pytest.raises(ServerRefused):
                    await pool.scan(b"x")
            assert pool.suspended == [] and len(one.scans) == len(two.scans) == 3

    run(main())


def test_c57_what_the_caller_did_wrong_is_asked_of_nobody() -> None:
    async def main() -> None:
        async with Fake() as one, IcapPool([one.url], settings=settings(failures=1)) as pool:
            with pytest.raises(InvalidArgument):
                await pool.scan(b"x", media_type="a\r\nb")
            assert pool.suspended == []
        with pytest.raises(InvalidArgument):
            IcapPool([])

    run(main())


def test_c57_c43_the_total_time_covers_all_servers() -> None:
    async def main() -> None:
        how = settings(options="never", timeouts=Timeouts(total=0.3))
        async with (
            Fake(script("hang")) as one,
            Fake(script("hang")) as two,
            IcapPool([one.url, two.url], settings=how) as pool,
        ):
            with pytest.raises(ClientTimeout) as raised:
                await pool.scan(b"x")
            assert raised.value.stage is Stage.TOTAL
            assert len(one.scans) + len(two.scans) == 1

    run(main())
