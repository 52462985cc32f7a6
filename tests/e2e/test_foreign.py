"""Foreign servers for our client (pyicap, c-icap) and a foreign client for our server (icapclient3)."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from icapscan.clients.errors import ServerRefused
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Mode, Outcome, ScanResult
from icapscan.clients.settings import ClientSettings
from tests.e2e.programs import run_program
from tests.peers import require_module
from tests.peers.cicap import run_cicap
from tests.peers.clamd import run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR, body
from tests.peers.pyicap_server import run_pyicap

SIZES = (0, 1, 1023, 1024, 1025, 70_000, 3_000_000)


@pytest.fixture(scope="module", params=["pyicap", "c-icap"])
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a scanning service of somebody else's."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "pyicap":
        with run_pyicap(folder) as pyicap:
            yield f"icap://127.0.0.1:{pyicap.icap_port}/scan"
        return
    with run_clamd(folder / "clamd") as clamd, run_cicap(folder / "c-icap", clamd.unix_address) as cicap:
        yield f"icap://127.0.0.1:{cicap.icap_port}/avscan"


def _scan(url: str, content: bytes, mode: Mode = Mode.RESPMOD, settings: ClientSettings | None = None) -> ScanResult:
    async def ask() -> ScanResult:
        async with IcapClient(url, settings=settings) as client:
            return await client.scan(content, name="file.bin", mode=mode)

    return asyncio.run(ask())


@pytest.mark.parametrize("mode", [Mode.RESPMOD, Mode.REQMOD])
@pytest.mark.parametrize("size", SIZES)
def test_our_client_finds_clean_clean(foreign: str, size: int, mode: Mode) -> None:
    result = _scan(foreign, b"".join(body(size, "foreign")), mode)
    assert result.outcome is Outcome.CLEAN
    assert result.threats == ()


@pytest.mark.parametrize("mode", [Mode.RESPMOD, Mode.REQMOD])
@pytest.mark.parametrize("options", ["use", "never"])
def test_our_client_finds_eicar(foreign: str, mode: Mode, options: str) -> None:
    settings = ClientSettings(options="never" if options == "never" else "use")
    result = _scan(foreign, EICAR, mode, settings)
    assert result.outcome is Outcome.INFECTED
    assert result.threat is not None
    assert "eicar" in result.threat.lower()


def test_our_client_uses_one_connection_for_many(foreign: str) -> None:
    async def ask() -> list[Outcome]:
        async with IcapClient(foreign, settings=ClientSettings(cache_entries=0)) as client:
            found = []
            for number in range(20):
                found.append((await client.scan(EICAR if number % 2 else b"clean %d" % number)).outcome)
            return found

    assert asyncio.run(ask()) == [Outcome.CLEAN, Outcome.INFECTED] * 10


def test_our_client_reads_from_a_file(foreign: str) -> None:
    async def ask() -> ScanResult:
        async with IcapClient(foreign) as client:
            return await client.scan(io.BytesIO(b"".join(body(200_000, "file"))))

    assert asyncio.run(ask()).outcome is Outcome.CLEAN


def test_a_foreign_500_is_never_clean(tmp_path: Path) -> None:
    with run_pyicap(tmp_path) as pyicap, pytest.raises(ServerRefused):
        _scan(f"icap://127.0.0.1:{pyicap.icap_port}/broken", b"anything")


# icapclient3 is a C extension over c-icap's client library. It runs in a process of its own, so that its mistakes end
# there. With a body that does not fit into the preview it hangs, against c-icap's own server too: it signals the
# end of its file by 0 where libicapapi 0.5 waits for CI_EOF. So what it sends here fits.

ICAPCLIENT = """
import icapclient, sys
connection = icapclient.ICAPConnection("127.0.0.1", port=int(sys.argv[1]))
for method in sys.argv[3:]:
    connection.request(method, sys.argv[2], service="avscan")
    answer = connection.getresponse()
    print(answer.icap_status, answer.http_resp_line, answer.get_icap_header("X-Infection-Found"))
connection.close()
"""


@pytest.fixture(scope="module")
def icapscan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IcapscanServer]:
    require_module("icapclient", "icapclient3", " (it is built against Debian's libicapapi-dev)")
    with run_icapscan(tmp_path_factory.mktemp("icapscan")) as server:
        yield server


def _icapclient(server: IcapscanServer, path: Path, *methods: str) -> list[str]:
    said = run_program([sys.executable, "-c", ICAPCLIENT, str(server.icap_port), str(path), *methods])
    assert said.exit_code == 0, said.text
    return said.text.splitlines()


def test_icapclient3_clean(icapscan: IcapscanServer, tmp_path: Path) -> None:
    path = tmp_path / "clean.txt"
    path.write_bytes(b"hello " * 100)
    methods = ("RESPMOD", "REQMOD", "REQMOD", "RESPMOD")  # one connection for all
    assert _icapclient(icapscan, path, *methods) == ["204 None None"] * 4


def test_icapclient3_eicar(icapscan: IcapscanServer, tmp_path: Path) -> None:
    path = tmp_path / "eicar.com"
    path.write_bytes(EICAR)
    for line in _icapclient(icapscan, path, "RESPMOD", "REQMOD", "RESPMOD"):
        assert line.startswith("200 HTTP/1.1 403 Forbidden Type=0; Resolution=2; Threat=")
