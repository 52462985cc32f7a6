"""The client with servers that others wrote: c-icap (echo, and virus_scan with clamd) and pyicap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from icapscan.clients.errors import ServerRefused
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Mode, Outcome
from icapscan.clients.settings import ClientSettings
from tests.clients.fakes import EICAR, run, settings
from tests.peers.cicap import CicapServer, run_cicap
from tests.peers.clamd import run_clamd
from tests.peers.pyicap_server import PyicapServer, run_pyicap

SIZES = (0, 1, 1023, 1024, 1025, 70_000, 3_000_000)
HOW = {
    "as announced": settings(),
    "no preview": settings(preview="never"),
    "no 204": settings(preview="never", allow_204=False),
    "206": settings(offer_206=True, offer_trailers=True),
}


@pytest.fixture(scope="module")
def cicap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CicapServer]:
    folder = tmp_path_factory.mktemp("cicap")
    with run_clamd(folder / "clamd") as clamd:
        server = run_cicap(folder / "cicap", clamd.unix_address, processes=1, threads=20)
        yield server
        server.end()


@pytest.fixture(scope="module")
def pyicap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PyicapServer]:
    server = run_pyicap(tmp_path_factory.mktemp("pyicap"))
    yield server
    server.end()


async def clean_and_infected(url: str, how: ClientSettings) -> None:
    async with IcapClient(url, settings=how) as client:
        for mode in Mode:
            for size in SIZES:
                assert (await client.scan(bytes(size), name="a.bin", mode=mode)).is_clean, (mode, size)
                assert client.idle == 1
            result = await client.scan(EICAR, name="eicar.com", mode=mode)
            assert result.outcome is Outcome.INFECTED and "eicar" in str(result.threat).lower()
            assert result.http_status == 403


@pytest.mark.parametrize("how", HOW)
def test_c13_c17_c34_c_icap_with_clamd(cicap: CicapServer, how: str) -> None:
    run(clean_and_infected(f"icap://127.0.0.1:{cicap.icap_port}/avscan", HOW[how]))


@pytest.mark.parametrize("how", HOW)
def test_c13_c17_c34_pyicap(pyicap: PyicapServer, how: str) -> None:
    run(clean_and_infected(f"icap://127.0.0.1:{pyicap.icap_port}/scan", HOW[how]))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", list(Mode))
def test_c34_echo_of_c_icap_is_a_copy(cicap: CicapServer, how: str, mode: Mode) -> None:
    async def main() -> None:
        async with IcapClient(f"icap://127.0.0.1:{cicap.icap_port}/echo", settings=HOW[how]) as client:
            for size in (*SIZES, 20_000_000):
                assert (await client.scan(bytes(size), mode=mode)).is_clean

    run(main())


def test_c34_echo_of_pyicap_is_a_copy(pyicap: PyicapServer) -> None:
    async def main() -> None:
        async with IcapClient(f"icap://127.0.0.1:{pyicap.icap_port}/echo") as client:
            for size in SIZES:
                result = await client.scan(bytes(size))
                assert result.is_clean and result.status == 200

    run(main())


def test_c37_errors_of_real_servers(cicap: CicapServer, pyicap: PyicapServer) -> None:
    async def main() -> None:
        for url, status in (
            (f"icap://127.0.0.1:{cicap.icap_port}/nothing-here", 404),
            (f"icap://127.0.0.1:{pyicap.icap_port}/broken", 500),
        ):
            async with IcapClient(url) as client:
                for size in (10, 20_000_000):
                    with pytest.raises(ServerRefused) as raised:
                        await client.scan(bytes(size))
                    assert raised.value.status == status

    run(main())


def test_c19_a_mebibyte_each_from_many_tasks(cicap: CicapServer) -> None:
    async def main() -> None:
        how = settings(connections=8, preview="never", allow_204=False)
        async with IcapClient(f"icap://127.0.0.1:{cicap.icap_port}/avscan", settings=how) as client:
            bodies = [b"%d" % number * 300_000 for number in range(30)]
            results = await asyncio.gather(*(client.scan(body, name="a") for body in [*bodies, EICAR]))
            assert [result.outcome for result in results] == [Outcome.CLEAN] * 30 + [Outcome.INFECTED]
            assert client.idle <= 8 and client.busy == 0

    run(main())
