"""Squid in front of an icapscan that trickles: a bounded rate, the whole at the end, a cut, then the page."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e.web import Browser
from tests.peers.icapscan_server import IcapscanServer, eicar_anywhere, run_icapscan
from tests.peers.origin import EICAR, Origin, digest
from tests.peers.squid import Squid, run_squid

RATE = 64 * 1024
START = 1
HOLD = 256 * 1024
READ_AHEAD = 512 * 1024
"""What lies in buffers on the way, at most."""
TRICKLE = f"""
[services.avscan.delivery]
kind = "trickle"
start = {START}
rate = {RATE}
hold = {HOLD}
"""
SETTINGS: dict[str, object] = {"server.workers": 2, "limits.body": 200_000_000}


class Chain(Struct):
    origin: Origin
    icapscan: IcapscanServer
    squid: Squid


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("squid-delivery")
    with (
        Origin() as origin,
        run_icapscan(folder / "icapscan", {**SETTINGS, **eicar_anywhere(folder)}, text=TRICKLE) as icapscan,
        run_squid(folder / "squid", icapscan.icap_port) as squid,
    ):
        yield Chain(origin, icapscan, squid)


class Seen(Struct):
    """What a client saw of one download."""

    status: int
    length: int
    body: bytearray
    early: list[tuple[float, int]]
    """Seconds, and bytes until then, of each read before the origin was done."""
    whole: bool


def download(chain: Chain, path: str, slow: float) -> Seen:
    connection = http.client.HTTPConnection("127.0.0.1", chain.squid.port, timeout=120)
    began = time.monotonic()
    connection.request("GET", chain.origin.url(path))
    answer = connection.getresponse()
    seen = Seen(answer.status, int(answer.headers.get("Content-Length", -1)), bytearray(), [], False)
    try:
        while piece := answer.read1(1 << 16):
            seen.body += piece
            if time.monotonic() - began < slow:
                seen.early.append((time.monotonic() - began, len(seen.body)))
        seen.whole = len(seen.body) == seen.length
    except (TimeoutError, http.client.IncompleteRead, ConnectionError):
        pass
    connection.close()
    return seen


@pytest.mark.parametrize("size", [5_000_000, pytest.param(100_000_000, marks=pytest.mark.full)])
def test_a_slow_download_is_trickled_at_a_bounded_rate_and_arrives_whole(chain: Chain, size: int) -> None:
    seconds = 8
    seen = download(chain, f"/slow/{size}?{seconds}", seconds)
    assert seen.status == 200 and seen.whole
    assert hashlib.sha256(seen.body).hexdigest() == digest(size, "slow")
    assert seen.early, "nothing came before the origin was done"
    assert seen.early[0][0] > START
    for at, count in seen.early:
        assert count <= RATE * (at - START + 1) + 65536, (at, count)
    chain.icapscan.wait_for_log("200 trickle")


def test_an_infected_download_is_cut_and_the_next_try_gets_the_page(chain: Chain) -> None:
    size = 4_000_000
    path = f"/slow-eicar/{size}?4"
    seen = download(chain, path, 4)
    assert seen.status == 200 and not seen.whole
    assert 0 < len(seen.body) <= size - HOLD and EICAR not in seen.body
    requests = len(chain.origin.requests)
    for _ in range(4):  # whichever worker it meets
        browser = Browser(chain.squid.port)
        began = time.monotonic()
        page = browser.get(chain.origin.url(path))
        browser.close()
        assert page.status == 403 and b"A virus was found" in page.body
        assert time.monotonic() - began < 30
    assert len(chain.origin.requests) == requests + 4
    other = Browser(chain.squid.port)
    assert other.get(chain.origin.url("/size/1000")).status == 200
    other.close()


def test_what_could_not_be_scanned_is_cut(chain: Chain, tmp_path: Path) -> None:
    seen = download(chain, "/slow/210000000?4", 4)  # over the limit, which is known in the middle of it
    assert not seen.whole and len(seen.body) < 210_000_000
