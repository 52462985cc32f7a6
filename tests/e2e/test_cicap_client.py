"""c-icap-client and c-icap-stretch, the clients everyone tries first, against icapscan with YARA and clamd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.cicap import cicap_client, cicap_stretch
from tests.peers.clamd import run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR, body


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IcapscanServer]:
    folder = tmp_path_factory.mktemp("cicap-client")
    with (
        run_clamd(folder / "clamd") as clamd,
        run_icapscan(
            folder / "icapscan", {"engines.clamd.address": [clamd.unix_address], "server.workers": 2}
        ) as server,
    ):
        yield server


@pytest.fixture
def eicar(tmp_path: Path) -> Path:
    path = tmp_path / "eicar.com"
    path.write_bytes(EICAR)
    return path


def _file(folder: Path, size: int) -> Path:
    path = folder / f"clean-{size}.bin"
    with path.open("wb") as file:
        for piece in body(size, "c-icap-client"):
            file.write(piece)
    return path


def test_options(server: IcapscanServer) -> None:
    said = cicap_client(server.icap_port, "avscan")
    assert "ICAP/1.0 200 OK" in said.text
    assert "Allow 204: Yes" in said.text
    assert "Preview: 4096" in said.text
    assert "Keep alive: Yes" in said.text


@pytest.mark.parametrize(
    "options", [(), ("-nopreview",), ("-no204",), ("-no204", "-nopreview"), ("-206",), ("-w", "0")]
)
@pytest.mark.parametrize("method", ["RESPMOD", "REQMOD"])
def test_eicar_is_403_with_x_infection_found(
    server: IcapscanServer, eicar: Path, tmp_path: Path, method: str, options: tuple[str, ...]
) -> None:
    way = ("-req", "http://origin.icapscan.test/eicar.com") if method == "REQMOD" else ()
    said = cicap_client(server.icap_port, "avscan", eicar, *way, *options, output=tmp_path / "out")
    assert "ICAP/1.0 200 " in said.text
    assert "X-Infection-Found: Type=0; Resolution=2; Threat=" in said.text
    assert "403 Forbidden" in said.text
    assert said.body
    assert EICAR not in said.body


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 100_000, 2_000_000])
@pytest.mark.parametrize("method", ["RESPMOD", "REQMOD"])
def test_clean_is_204(server: IcapscanServer, tmp_path: Path, method: str, size: int) -> None:
    way = ("-req", "http://origin.icapscan.test/file") if method == "REQMOD" else ()
    said = cicap_client(server.icap_port, "avscan", _file(tmp_path, size), *way)
    assert "ICAP/1.0 204 " in said.text
    assert "X-Infection-Found" not in said.text


@pytest.mark.parametrize("size", [1, 4096, 5000, 100_000, 20_000_000])
def test_clean_without_204_comes_back_unchanged(server: IcapscanServer, tmp_path: Path, size: int) -> None:
    path = _file(tmp_path, size)
    said = cicap_client(server.icap_port, "avscan", path, "-no204", "-nopreview", output=tmp_path / "out")
    assert "ICAP/1.0 200 " in said.text
    assert said.body == path.read_bytes()


def test_empty_file(server: IcapscanServer, tmp_path: Path) -> None:
    said = cicap_client(server.icap_port, "avscan", _file(tmp_path, 0))
    assert "ICAP/1.0 204 " in said.text


@pytest.mark.parametrize("alias", ["srv_clamav", "virus_scan", "squidclamav"])
def test_usual_service_names(server: IcapscanServer, eicar: Path, tmp_path: Path, alias: str) -> None:
    said = cicap_client(server.icap_port, alias, eicar, output=tmp_path / "out")
    assert "X-Infection-Found" in said.text


def test_unknown_service_is_404(server: IcapscanServer, eicar: Path) -> None:
    assert "404" in cicap_client(server.icap_port, "nothing-here", eicar).text


def test_stretch_serves_every_request(server: IcapscanServer, tmp_path: Path, eicar: Path) -> None:
    files = [_file(tmp_path, size) for size in (10, 4096, 70_000)] + [eicar]
    said = cicap_stretch(server.icap_port, "avscan", files, requests=400, threads=60)
    assert said.failed == 0, said.text[-2000:]
    assert said.requests >= 400
    assert server.ready()
