"""The load generator against servers that behave well and badly: what is wrong has to be counted as wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.bodies import Bodies, Body
from benchmarks.histogram import middle_ns
from benchmarks.load import MARKER, Load, Pace, run_load
from tests.benchmarks.fake_icap import BLOCKED, NO_CONTENT, REFUSED, Request, copied, fake_icap
from tests.peers.clamd import run_clamd

PACE = Pace(0.3, 0.0, connections=3)


def scanned(request: Request) -> bytes:
    return BLOCKED if MARKER.encode() in request.body else NO_CONTENT


def load(port: int, *words: str, pace: Pace = PACE) -> Load:
    return run_load(["--port", str(port), "--service", "avscan", *words], pace)


MARKED = ("--size", "3000", "--chunk", "1000", "--allow204", "--marker", MARKER, "--every", "3")


def test_right_answers_are_counted_and_bodies_are_unique() -> None:
    bodies: list[bytes] = []

    def answer(request: Request) -> bytes:
        bodies.append(request.body)
        return scanned(request)

    with fake_icap(answer) as port:
        found = load(port, *MARKED)
    assert found.errors == 0 and found.requests > 10
    assert found.caught == found.marked > 3
    assert found.latency.count == found.requests
    assert len(set(bodies)) == len(bodies)
    assert {len(body) for body in bodies} == {3000}


@pytest.mark.parametrize("different", [1, 4])
def test_repeated_bodies(different: int) -> None:
    bodies = set()

    def answer(request: Request) -> bytes:
        bodies.add(request.body)
        return NO_CONTENT

    with fake_icap(answer) as port:
        found = load(port, "--size", "500", "--allow204", f"--repeated={different}")
    assert found.errors == 0 and found.requests > 10
    assert len(bodies) == different


def test_a_server_that_does_not_scan_is_an_error() -> None:
    with fake_icap(lambda request: NO_CONTENT) as port:
        found = load(port, *MARKED)
    assert found.error_kinds["marker-missed"] > 3
    assert found.caught == 0


def test_a_server_that_blocks_everything_is_an_error() -> None:
    with fake_icap(lambda request: BLOCKED) as port:
        assert load(port, *MARKED).error_kinds["clean-blocked"] > 3


def test_a_body_that_came_back_is_compared() -> None:
    with fake_icap(lambda request: copied(request.body)) as port:
        found = load(port, "--size", "50000")
        assert found.errors == 0 and found.requests > 10

    def changed(request: Request) -> bytes:
        return copied(request.body[:-1] + bytes([request.body[-1] ^ 1]))

    with fake_icap(changed) as port:
        assert load(port, "--size", "50000").error_kinds["body-differs"] > 3
    with fake_icap(lambda request: copied(request.body[:-1])) as port:
        assert load(port, "--size", "50000").error_kinds["body-differs"] > 3


def test_204_that_was_not_allowed_is_an_error() -> None:
    with fake_icap(lambda request: NO_CONTENT) as port:
        assert load(port, "--size", "500").error_kinds["status"] > 3


def test_bytes_behind_an_answer_are_an_error() -> None:
    with fake_icap(lambda request: NO_CONTENT + b"x") as port:
        assert load(port, "--size", "500", "--allow204").error_kinds["framing"] > 3


def test_a_closed_connection_is_an_error() -> None:
    def answer(request: Request) -> bytes:
        raise ConnectionResetError

    with fake_icap(answer) as port:
        found = load(port, "--size", "500", "--allow204")
    assert found.error_kinds["closed"] > 3 and found.requests == 0


def test_503_is_an_error_or_a_refusal() -> None:
    with fake_icap(lambda request: REFUSED) as port:
        found = load(port, "--size", "500", "--allow204")
        assert found.error_kinds["status"] > 3 and found.refused == 0
        found = load(port, "--size", "500", "--allow204", pace=Pace(0.3, 0.0, refusals=True))
    assert found.errors == 0 and found.requests == 0
    assert found.refused == found.refusal_latency.count > 3
    assert found.latency.count == 0


def test_open_loop_keeps_its_rate_and_counts_from_when_requests_were_due() -> None:
    stalled: list[float] = []

    def answer(request: Request) -> bytes:
        if not stalled:
            stalled.append(time.monotonic())
            time.sleep(0.4)
        return NO_CONTENT

    with fake_icap(answer) as port:
        pace = Pace(1.0, 0.0, connections=1, rate=100.0)
        found = load(port, "--size", "500", "--allow204", pace=pace)
    assert found.errors == 0
    assert found.latency.count == 100  # also those that waited for the only connection
    late = sum(count for bucket, count in found.latency.buckets if middle_ns(bucket) > 100e6)
    assert 25 <= late <= 100  # one stall, and some 30 requests that it made wait for more than 100 ms
    assert found.latency.max_ns > 390_000_000


def test_open_loop_counts_what_it_could_not_send() -> None:
    def answer(request: Request) -> bytes:
        time.sleep(0.1)
        return NO_CONTENT

    with fake_icap(answer) as port:
        found = load(port, "--size", "500", "--allow204", pace=Pace(1.0, 0.0, connections=2, rate=200.0))
    assert found.unsent > 100
    assert found.latency.count == 200
    assert found.requests < 50
    assert found.unsent + found.status_204 <= 200 and found.unanswered == 0


def test_options() -> None:
    heads = []

    def answer(request: Request) -> bytes:
        heads.append(request.head)
        return b"ICAP/1.0 200 OK\r\nISTag: x\r\nEncapsulated: null-body=0\r\n\r\n"

    with fake_icap(answer) as port:
        found = load(port, "--mode", "options")
    assert found.errors == 0 and found.requests > 10
    assert heads[0].startswith(b"OPTIONS icap://127.0.0.1")


def test_mails_go_as_reqmod_and_differ(tmp_path: Path) -> None:
    requests = []

    def answer(request: Request) -> bytes:
        requests.append(request)
        return NO_CONTENT

    words = Bodies(tmp_path).arguments(Body(attachments=(5000,)), 0)
    with fake_icap(answer) as port:
        found = load(port, "--mode", "reqmod", "--allow204", *words)
    assert found.errors == 0 and found.requests > 10
    assert b"PUT http://" in requests[0].head and b"Content-Type: message/rfc822\r\n" in requests[0].head
    assert len({request.body for request in requests}) == len(requests)


@pytest.mark.parametrize("mode", ["fildes", "instream"])
@pytest.mark.parametrize("size", [300, 2_000_000])
def test_clamd_itself(tmp_path: Path, mode: str, size: int) -> None:
    database = tmp_path / "clamd" / "database"
    database.mkdir(parents=True)
    (database / "marker.ndb").write_text(f"Test.Marker:0:*:{MARKER.encode().hex()}\n")
    with run_clamd(tmp_path / "clamd") as clamd:
        words = ["--mode", mode, "--unix", str(clamd.socket), "--size", str(size), "--marker", MARKER, "--every", "3"]
        found = run_load(words, Pace(1.0, 0.0, connections=3))
        assert found.errors == 0, found.first_error
        assert found.caught == found.marked > 0
        assert found.requests > found.marked


def test_wrong_arguments_are_said() -> None:
    with pytest.raises(RuntimeError, match="--body needs --nonce"):
        load(1, "--body", __file__)
    with pytest.raises(RuntimeError, match="--nonce: offsets"):
        load(1, "--size", "100", "--nonce", "80")
