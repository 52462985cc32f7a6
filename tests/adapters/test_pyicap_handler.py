"""A real pyicap server with our handler, asked by our client and by bare sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from icapscan.adapters.pyicap_scanner import BATCH, ScannerClosed, ScannerThread
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Mode, Outcome
from icapscan.clients.settings import ClientSettings
from icapscan.config import load
from icapscan.engines.contract import Engine
from icapscan.engines.fanout import Fanout
from icapscan.errors import ConfigError, StoreFull
from icapscan.findings import Level, Reason
from icapscan.pipeline import Subject
from icapscan.servers.record import TransactionRecord
from tests.conformance.fakes import Fails, Fake, FindsEicar, Hangs, Raises, Waits
from tests.conformance.live import PATIENCE, Peer
from tests.peers.icapscan_server import CHECKOUT, eicar_anywhere, toml
from tests.peers.processes import Process, free_port, wait_until
from tests.peers.pyicap_scanner import listening, run_pyicap_scanner
from tests.wire.samples import EICAR, GET, IEOF, LAST, OK, URI, chunk, chunked, options, raw, reqmod, respmod

MAIL = (
    b"From: a@icapscan.test\r\nTo: b@icapscan.test\r\nSubject: see attachment\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\n'
    b'Content-Type: application/octet-stream; name="a.bin"\r\nContent-Transfer-Encoding: base64\r\n\r\n%s\r\n--b--\r\n'
)
PUT_MAIL = b"PUT / HTTP/1.1\r\nHost: mail.icapscan.test\r\nContent-Type: message/rfc822\r\n\r\n"
NO_204 = b""


class Site:
    """A scanner, a pyicap server that serves, and what was observed."""

    def __init__(self, folder: Path, *sets: str) -> None:
        config = folder / "icapscan.toml"
        config.write_text(toml({"engines.clamd.enabled": False, **eicar_anywhere(folder)}))
        self.records: list[TransactionRecord] = []
        self.scanner = ScannerThread(load(str(config), sets, {}), self.records.append)
        self.server = listening(self.scanner)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"icap://127.0.0.1:{self.server.server_address[1]}/avscan"

    def use(self, *engines: Engine) -> None:
        """Scan with these from now on."""
        self.scanner.generation.scanner.engines = Fanout(engines)

    def connect(self) -> Peer:
        return Peer(socket.create_connection(self.server.server_address, PATIENCE))

    def end(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        self.scanner.close()


@contextmanager
def site_in(folder: Path, *sets: str) -> Iterator[Site]:
    site = Site(folder, *sets)
    try:
        yield site
    finally:
        site.end()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_in(tmp_path) as site:
        yield site


def body_of(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


# By our client


@pytest.mark.parametrize("how", ["as announced", "no preview", "no 204"])
@pytest.mark.parametrize("mode", list(Mode))
def test_clean_and_infected_by_our_client(site: Site, mode: Mode, how: str) -> None:
    given = {"as announced": {}, "no preview": {"preview": "never"}, "no 204": {"preview": "never", "allow_204": False}}

    async def ask() -> None:
        async with IcapClient(site.url, settings=ClientSettings(**given[how])) as client:  # type: ignore[arg-type]
            for size in (0, 1, 4095, 4096, 4097, BATCH - 1, BATCH, BATCH + 1, 3_000_000):
                result = await client.scan(body_of(size), name="a.bin", mode=mode)
                assert result.outcome is Outcome.CLEAN, size
                assert result.istag == site.scanner.istag
                for place in {0, size}:
                    bad = body_of(place) + EICAR + body_of(size - place)
                    result = await client.scan(bad, name="a.bin", mode=mode)
                    assert (result.outcome, result.http_status) == (Outcome.INFECTED, 403), (size, place)
            assert client.idle == 1  # all of it on one connection

    asyncio.run(ask())


def test_many_clients_at_once_get_each_its_own_answer(site: Site) -> None:
    def ask(number: int) -> None:
        with site.connect() as peer:
            for turn in range(20):
                data = body_of((number + 1) * turn * 700)
                answer = peer.ask(respmod(chunked(data), NO_204))
                assert (answer.status, answer.body) == (200, data)
                assert peer.ask(respmod(chunked(data + EICAR))).sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
                assert peer.ask(reqmod(chunked(data + b"%d" % number))).status == 204

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))


# By bare sockets


def test_options_are_those_of_our_server(site: Site) -> None:
    with site.connect() as peer:
        for name in (b"avscan", b"srv_clamav", b"echo", b"av/respmod", b""):
            answer = peer.ask(options(b"icap://127.0.0.1/" + name))
            assert answer.status == 200
            assert answer.get("Methods") == b"RESPMOD, REQMOD"
            assert (answer.get("Allow"), answer.get("Preview")) == (b"204", b"4096")
            assert answer.istag.decode() == site.scanner.istag


@pytest.mark.parametrize("size", [0, 10, BATCH, 5_000_000], ids=str)
def test_without_204_the_copy_is_identical_heads_and_all(site: Site, size: int) -> None:
    data = body_of(size)
    head = b"HTTP/1.1 200 Fine\r\nx-Odd:   Spelling \r\nX-B: 2\r\nX-A: 1\r\nX-B: 3\r\n\r\n"
    with site.connect() as peer:
        answer = peer.ask(respmod(chunked(data, 1000), NO_204, res_hdr=head))
        assert answer.status == 200
        assert answer.body == data
        assert answer.sections["res-hdr"].startswith(head[:-2])
        assert peer.ask(respmod()).status == 204


def test_a_blocked_answer_says_what_ours_says(site: Site) -> None:
    with site.connect() as peer:
        answer = peer.ask(respmod(chunked(EICAR)))
        assert answer.get("X-Infection-Found") == b"Type=0; Resolution=2; Threat=Eicar_Anywhere;"
        assert answer.get("X-Virus-ID") == b"Eicar_Anywhere"
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
        assert b"Eicar_Anywhere" in (answer.body or b"")
        record = site.records[-1]
        assert (record.decision, record.reply, record.size) == ("block", "200 block", len(EICAR))
        assert (answer.get("X-Icapscan-Reference") or b"").decode() == record.reference != ""


def test_a_mail_with_an_infected_attachment_is_blocked(site: Site) -> None:
    with site.connect() as peer:
        bad = MAIL % base64.encodebytes(b"MZ" + EICAR).replace(b"\n", b"\r\n")
        assert peer.ask(reqmod(chunked(bad, 700), req_hdr=PUT_MAIL)).sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
        good = MAIL % base64.encodebytes(b"MZ" + EICAR[::-1])
        assert peer.ask(reqmod(chunked(good, 700), req_hdr=PUT_MAIL)).status == 204


def test_no_body(site: Site) -> None:
    with site.connect() as peer:
        assert peer.ask(reqmod(None, req_hdr=GET)).status == 204
        answer = peer.ask(reqmod(None, NO_204, req_hdr=GET))
        assert (answer.status, answer.body) == (200, None)
        assert answer.sections["req-hdr"].startswith(GET[:-2])


def test_a_preview_that_is_all_is_answered_without_100(site: Site) -> None:
    with site.connect() as peer:
        assert peer.ask(respmod(chunked(b"small", last=IEOF), b"Preview: 1024\r\n")).status == 204
        bad = respmod(chunked(EICAR, last=IEOF), b"Preview: 1024\r\n")
        assert peer.ask(bad).sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
        assert peer.ask(respmod(IEOF, b"Preview: 0\r\n")).status == 204


@pytest.mark.parametrize("allowed", [True, False], ids=["204", "copy"])
def test_after_a_preview_the_rest_is_asked_for(site: Site, allowed: bool) -> None:
    data = body_of(300_000)
    fields = b"Preview: 1024\r\n" + (b"Allow: 204\r\n" if allowed else b"")
    with site.connect() as peer:
        for tail, clean in ((b"", True), (EICAR, False), (b"", True)):
            peer.send(respmod(chunked(data[:1024]), fields))
            peer.hundred()
            # "ieof" means something only in a preview: it must not turn the copy into a 204
            answer = peer.ask(chunked(data[1024:] + tail, 50_000, IEOF))
            if not clean:
                assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
            elif allowed:
                assert answer.status == 204
            else:
                assert (answer.status, answer.body) == (200, data)


def test_a_hit_in_the_preview_is_answered_at_once(site: Site) -> None:
    with site.connect() as peer:
        answer = peer.ask(respmod(chunked(EICAR + b" and on it goes"), b"Preview: 100\r\n"))
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
        assert peer.ask(respmod()).status == 204  # the rest never came, and the connection is as good as before


def test_trailers_of_a_body_come_back_with_the_copy(site: Site) -> None:
    with site.connect() as peer:
        answer = peer.ask(respmod(chunk(b"hello") + b"0\r\nX-Check: 1\r\n\r\n", NO_204))
        assert (answer.body, answer.trailers) == (b"hello", b"X-Check: 1\r\n")
        assert peer.ask(respmod()).status == 204


def test_a_body_in_a_coding_is_read_through_it(site: Site) -> None:
    import gzip

    head = OK[:-2] + b"Content-Encoding: gzip\r\n\r\n"
    with site.connect() as peer:
        assert peer.ask(respmod(chunked(gzip.compress(b"clean")), res_hdr=head)).status == 204
        answer = peer.ask(respmod(chunked(gzip.compress(EICAR)), res_hdr=head))
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 ")


# What goes wrong


@pytest.mark.parametrize("engine", [Fails(), Fails(Reason.TIMEOUT), Raises()], ids=["failed", "timeout", "raises"])
@pytest.mark.parametrize("size", [10, 1_000_000], ids=str)
def test_an_engine_that_fails_is_500_or_503(site: Site, engine: Fake, size: int) -> None:
    site.use(engine)
    with site.connect() as peer:
        for request in (respmod(chunked(body_of(size))), reqmod(chunked(body_of(size)), NO_204)):
            answer = peer.ask(request)
            assert answer.status in (500, 503)
            assert b"secret" not in answer.head
        site.use(FindsEicar())
        assert peer.ask(respmod(chunked(body_of(size)))).status == 204  # the connection is kept


def test_a_clamd_that_is_not_there_is_500(tmp_path: Path) -> None:
    sets = (
        f"engines.clamd.address=unix:{tmp_path}/no.sock",
        "engines.clamd.enabled=true",
        "engines.yara.enabled=false",
    )
    with site_in(tmp_path, *sets) as site:
        assert set(site.scanner.failed) == {"clamd"}
        with site.connect() as peer:
            assert peer.ask(respmod(chunked(b"clean"))).status == 500
            assert peer.ask(respmod(chunked(EICAR))).status == 500


def test_a_body_over_the_limit_is_blocked_and_not_read_on(tmp_path: Path) -> None:
    with site_in(tmp_path, "limits.body=1 MiB") as site, site.connect() as peer:
        assert peer.ask(respmod(chunked(body_of(1 << 20)))).status == 204
        peer.send_what_goes(respmod(chunked(body_of(3 << 20), 60_000)))
        answer = peer.answer()
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
        assert answer.closes
        assert site.records[-1].verdict is not None and site.records[-1].verdict.reason is Reason.OVER_LIMIT
        assert site.records[-1].size < 2 << 20


def test_no_room_for_a_body_is_503(tmp_path: Path) -> None:
    with site_in(tmp_path, "limits.memory=200 KB", "limits.disk=200 KB") as site:
        with site.connect() as peer:
            peer.send_what_goes(respmod(chunked(body_of(1_000_000), 60_000)))
            answer = peer.answer()
            assert (answer.status, answer.closes) == (503, True)
        with site.connect() as peer:
            assert peer.ask(respmod(chunked(body_of(100_000)))).status == 204  # what was kept is given back
            purse = site.scanner.generation.scanner.purse
            assert (purse.memory_left, purse.disk_left) == (200_000, 200_000)


def test_a_scan_that_runs_when_the_scanner_is_closed_is_503(site: Site) -> None:
    engine = Waits()
    site.use(engine)
    with site.connect() as peer, site.connect() as half:
        half.send(respmod(chunk(body_of(3 * BATCH))))  # and another one in the middle of its body
        peer.send(respmod(chunked(b"clean")))
        wait_until(lambda: engine.waiting == 1, "a scan that runs")
        site.scanner.close()
        assert (answer := peer.answer()).status == 503
        assert answer.closes
        half.send_what_goes(LAST)
        assert half.answer().status == 503
    with site.connect() as peer:
        assert peer.ask(respmod(chunked(b"clean"))).status == 503
    with pytest.raises(ScannerClosed):
        site.scanner.scan([b"clean"])


def test_a_copy_goes_on_when_the_scanner_is_closed(site: Site) -> None:
    data = body_of(30_000_000)
    with site.connect() as peer:
        peer.send(respmod(chunked(data), NO_204))
        peer.pending = peer.socket.recv(100)  # the verdict is there, and most of the body not yet sent
        assert peer.pending.startswith(b"ICAP/1.0 200 ")
        site.scanner.close()
        assert peer.answer().body == data


@pytest.mark.parametrize(
    "request_",
    [
        respmod(chunk(b"half a body")),
        respmod(b"10\r\nhalf"),
        respmod(chunk(b"first") + b"0\r\n"),
        respmod(chunked(b"x" * 20))[:-30],
        respmod(None)[:-3],
    ],
    ids=["between chunks", "in a chunk", "in the end", "in a chunk's data", "in a head"],
)
def test_a_body_that_is_cut_short_is_never_clean(site: Site, request_: bytes) -> None:
    with site.connect() as peer:
        peer.send(request_)
        peer.fin()
        assert peer.answer().status == 400
        assert peer.rest() == b""


@pytest.mark.parametrize(
    "request_",
    [
        respmod(b"-5\r\nhello\r\n" + LAST),
        respmod(b"0x5\r\nhello\r\n" + LAST),
        respmod(b"5 5\r\nhello\r\n" + LAST),
        respmod(b"5\nhello\r\n" + LAST),
        respmod(b"5\r\nhelloXX" + LAST),
        respmod(b"fffffffffffffffff\r\nhello\r\n" + LAST),
        # a blank that pyicap takes for the end of the head, and a body that is none behind it
        respmod(chunked(EICAR), res_hdr=b"HTTP/1.1 200 OK\r\n \r\n0\r\n\r\nX: y\r\n\r\n"),
        respmod(chunked(EICAR), res_hdr=b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
        raw(b"req-hdr=0, res-hdr=%d, res-body=%d" % (len(GET), len(GET) + 9), GET + OK + chunked(EICAR)),
        raw(b"res-hdr=0, req-body=%d" % len(OK), OK + chunked(EICAR)),
        raw(b"nonsense", chunked(EICAR)),
        raw(None, chunked(EICAR)),
        respmod(chunked(EICAR), b"X: %s\r\n" % (b"y" * 100_000)),
        b"RESPMOD %s ICAP/2.0\r\n\r\n" % URI,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=str,
)
def test_what_pyicap_reads_loosely_is_an_error(site: Site, request_: bytes) -> None:
    with site.connect() as peer:
        peer.send_what_goes(request_)
        answer = peer.answer()
        assert answer.status >= 400
        assert answer.closes
    with site.connect() as peer:
        assert peer.ask(respmod()).status == 204


def test_a_path_that_is_no_service_is_404(site: Site) -> None:
    with site.connect() as peer:
        assert peer.ask(respmod(uri=b"icap://127.0.0.1/nothing")).status == 404


def test_clients_that_vanish_leave_nothing_behind(site: Site) -> None:
    purse = site.scanner.generation.scanner.purse
    before = purse.memory_left, purse.disk_left
    for number in range(30):
        peer = site.connect()
        peer.send(respmod(chunk(body_of(number * 20_000)))[: -1 - number % 3])
        peer.reset()
    wait_until(lambda: (purse.memory_left, purse.disk_left) == before and not site.scanner.open, "everything freed")
    assert not [one for one in site.records if one.status == 204]


# Without ICAP


def test_scan_gives_the_verdict_on_pieces_of_any_size(site: Site) -> None:
    scanner = site.scanner
    for size in (1, 1000, BATCH, 10 * BATCH):
        data = body_of(400_000)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert scanner.scan(pieces).level is Level.CLEAN
        verdict = scanner.scan([*pieces, EICAR[:30], EICAR[30:]])
        assert (verdict.level, verdict.name) == (Level.INFECTED, "Eicar_Anywhere")
    assert scanner.scan(()).level is Level.CLEAN
    mail = MAIL % base64.encodebytes(EICAR)
    assert scanner.scan([mail], Subject(media_type="message/rfc822")).level is Level.INFECTED
    site.use(Fails())
    assert scanner.scan([b"clean"]).reason is Reason.ENGINE_FAILED


def test_scan_is_bounded(tmp_path: Path) -> None:
    with site_in(tmp_path, "limits.body=100 KB", "limits.memory=1 MB", "limits.disk=1 MB") as site:
        read = 0

        def endless() -> Iterator[bytes]:
            nonlocal read
            while True:
                read += 10_000
                yield bytes(10_000)

        assert site.scanner.scan(endless()).reason is Reason.OVER_LIMIT
        assert read < 400_000
    with site_in(tmp_path, "limits.memory=100 KB", "limits.disk=100 KB") as site, pytest.raises(StoreFull):
        site.scanner.scan(endless())


def test_scan_in_many_threads_while_it_is_closed_ends_everywhere(site: Site) -> None:
    site.use(Hangs())

    def ask(_: int) -> str:
        try:
            return site.scanner.scan([b"clean"]).level.word
        except ScannerClosed:
            return "closed"

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(ask, number) for number in range(8)]
        site.scanner.submit(lambda: asyncio.sleep(0.05)).result(PATIENCE)
        site.scanner.close()
        assert {one.result(PATIENCE) for one in running} == {"closed"}
    site.scanner.close()


def test_no_engine_at_all_is_refused_at_once() -> None:
    before = threading.active_count()
    with pytest.raises(ConfigError):
        ScannerThread(load(None, ("engines.yara.enabled=false", "engines.clamd.enabled=false"), {}))
    assert threading.active_count() == before


# As programs


def test_the_server_for_the_benchmark(tmp_path: Path) -> None:
    with run_pyicap_scanner(tmp_path, eicar_anywhere(tmp_path)) as server:
        with Peer(socket.create_connection(server.address, PATIENCE)) as peer:
            assert peer.ask(respmod()).status == 204
            assert peer.ask(respmod(chunked(EICAR))).sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
        assert server.end() == 0


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "icapscan.toml"
    config.write_text(toml({"server.listen": [f"127.0.0.1:{port}"], "engines.clamd.enabled": False}))
    program = CHECKOUT / "docs/examples/pyicap/server.py"
    code = program.read_text().partition('"""\n\n')[2]
    assert code in (CHECKOUT / "docs/pyicap.md").read_text()
    command: list[str | Path] = [sys.executable, program, config]
    paths = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    with Process("example", command, tmp_path, {"PYTHONPATH": paths}) as server:
        server.wait_for_port(port)
        with Peer(socket.create_connection(("127.0.0.1", port), PATIENCE)) as peer:
            assert peer.ask(respmod()).status == 204
            assert peer.ask(respmod(chunked(EICAR))).sections["res-hdr"].startswith(b"HTTP/1.1 403 ")
