"""clamd dead, hung or back again, as the only engine: nothing is called clean that was not scanned."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e.raw import Answer, Connection, scan
from tests.peers.clamd import ClamdPeer, run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR
from tests.peers.processes import wait_until

SECONDS = 3
"""The deadline of a scan (`limits.seconds`) in these tests."""
CLEAN = b"nothing bad in these bytes"
GUARD = 60.0
"""An answer that takes longer was not bound by that deadline but by nothing."""


class Pair(Struct, frozen=True):
    clamd: ClamdPeer
    icapscan: IcapscanServer


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    with run_clamd(tmp_path / "clamd", tcp=request.param == "tcp") as clamd:
        address = clamd.tcp_address if request.param == "tcp" else clamd.unix_address
        settings = {
            "server.workers": 2,
            "engines.yara.enabled": False,
            "engines.clamd.address": [address],
            "limits.seconds": SECONDS,
            "cache.enabled": False,
        }
        with run_icapscan(tmp_path / "icapscan", settings) as icapscan:
            yield Pair(clamd, icapscan)


class Load:
    """Threads that scan without a pause; every answer is kept with what was sent."""

    def __init__(self, server: IcapscanServer, threads: int = 8) -> None:
        self.infected: list[Answer] = []
        self.clean: list[Answer] = []
        self._server = server
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            # both small and large enough to be kept in a memfd
            tail = b"%d %d " % (number, turn) * (1 if turn % 3 else 20_000)
            if turn % 2:
                self.infected.append(scan(self._server.address, EICAR, seconds=GUARD))
            else:
                self.clean.append(scan(self._server.address, tail, seconds=GUARD))

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_clamd_killed_under_load_never_calls_eicar_clean(pair: Pair) -> None:
    load = Load(pair.icapscan)
    try:
        wait_until(lambda: sum(answer.blocked for answer in load.infected) > 50, "50 blocked")
        pair.clamd.kill()
        pair.icapscan.wait_not_ready()
        wait_until(lambda: sum(answer.status in (500, 503) for answer in load.infected[:]) > 20, "20 failures")
        pair.clamd.restart()
        pair.icapscan.wait_ready()
        before = len(load.infected)
        wait_until(lambda: sum(answer.blocked for answer in load.infected[before + 8 :]) > 50, "50 blocked again")
    finally:
        load.end()
    assert [answer for answer in load.infected if answer.passed] == []
    assert {answer.status for answer in load.infected} <= {200, 500, 503}  # and every one was answered
    assert [answer for answer in load.clean if answer.blocked] == []
    assert any(answer.passed for answer in load.clean)


def test_clamd_gone_means_not_ready_and_back_by_itself(pair: Pair) -> None:
    for _ in range(2):
        pair.clamd.kill()
        pair.icapscan.wait_not_ready()
        assert "clamd" in pair.icapscan.admin("/readyz")[1]
        assert scan(pair.icapscan.address, EICAR).status in (500, 503)
        assert scan(pair.icapscan.address, b"clean").status in (500, 503)
        pair.clamd.start()
        pair.icapscan.wait_ready()
        assert scan(pair.icapscan.address, EICAR).blocked
        assert scan(pair.icapscan.address, b"clean").status == 204


def test_what_is_known_stays_known_while_clamd_is_down_and_nothing_else(tmp_path: Path) -> None:
    """With the cache: an answer that clamd gave is the truth about those bytes as long as its signatures are."""
    with run_clamd(tmp_path / "clamd") as clamd:
        settings = {
            "server.workers": 1,
            "engines.yara.enabled": False,
            "engines.clamd.address": [clamd.unix_address],
            "limits.seconds": SECONDS,
        }
        with run_icapscan(tmp_path / "icapscan", settings) as server:
            for _ in range(3):
                assert scan(server.address, EICAR).blocked
                assert scan(server.address, CLEAN).status == 204
            server.wait_until(
                lambda: 'icapscan_reports_total{source="cache"} 2.0' in server.admin("/metrics")[1], "hits"
            )
            clamd.kill()
            server.wait_not_ready()
            assert scan(server.address, EICAR).blocked
            assert scan(server.address, CLEAN).status == 204
            for _ in range(3):
                assert scan(server.address, b"other").status in (500, 503)
                assert scan(server.address, b"x" + EICAR).status in (500, 503)
            (clamd.database / "new.ndb").write_text(f"New.Signature:0:*:{CLEAN.hex()}\n")
            clamd.start()
            server.wait_ready()
            server.wait_until(lambda: scan(server.address, CLEAN).blocked, "the new signatures")
            assert scan(server.address, b"other").status == 204


def test_clamd_hung_every_request_is_answered_within_its_deadline(pair: Pair) -> None:
    assert scan(pair.icapscan.address, EICAR).blocked
    pair.clamd.stop()
    answers: list[tuple[float, Answer]] = []

    def ask(number: int) -> None:
        begun = time.monotonic()
        content = EICAR if number % 2 else b"clean %d" % number * (1 if number % 4 else 40_000)
        answer = scan(pair.icapscan.address, content, seconds=GUARD)
        answers.append((time.monotonic() - begun, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pair.icapscan.wait_not_ready()
    finally:
        pair.clamd.cont()
    assert len(answers) == 60
    assert {answer.status for _, answer in answers} <= {500, 503}
    # the deadline is 3 s; without it the client would have waited for clamd's own 60 s
    assert max(seconds for seconds, _ in answers) < GUARD / 2
    pair.icapscan.wait_ready()
    assert scan(pair.icapscan.address, EICAR).blocked
    assert scan(pair.icapscan.address, b"clean").status == 204


def test_a_connection_outlives_an_engine_failure(pair: Pair) -> None:
    with Connection(pair.icapscan.address) as connection:
        assert connection.scan(EICAR).blocked
        pair.clamd.kill()
        failed = connection.scan(EICAR)
        assert failed.status in (500, 503)
        pair.clamd.start()
        pair.icapscan.wait_ready()
        if failed.fields.get("connection") == "close":
            assert connection.at_end()
        else:
            assert connection.scan(EICAR).blocked


def test_no_clamd_at_start_means_not_ready_until_it_comes(tmp_path: Path) -> None:
    with run_clamd(tmp_path / "clamd") as clamd:
        clamd.kill()
        settings = {
            "engines.yara.enabled": False,
            "engines.clamd.address": [clamd.unix_address],
            "limits.seconds": SECONDS,
        }
        with run_icapscan(tmp_path / "icapscan", settings, ready=False) as icapscan:
            icapscan.wait_not_ready()
            icapscan.wait_for_port(icapscan.icap_port)
            assert scan(icapscan.address, EICAR).status in (500, 503)
            clamd.start()
            icapscan.wait_ready()
            assert scan(icapscan.address, EICAR).blocked
