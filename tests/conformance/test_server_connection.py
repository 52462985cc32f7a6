"""Connections: how long they live, how they end, and that nothing is left of them (PROTOCOL A.1)."""

from __future__ import annotations

import os
import socket
import time

import pytest

from icapscan.servers import patience
from icapscan.servers.settings import ServerSettings
from tests.conformance.fakes import Waits
from tests.conformance.live import Live, Peer, with_server
from tests.wire.samples import EICAR, LAST, chunk, chunked, options, reqmod, respmod


def test_s1_default_port(peer: Peer) -> None:
    assert ServerSettings().listen == ("127.0.0.1:1344",)
    assert peer.ask(options()).status == 200


def test_s3_d116_upgrade_to_tls_is_ignored(live: Live) -> None:
    with live.bystander(), live.connect() as peer:
        answer = peer.ask(options(fields=b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n"))
        assert answer.status == 200
        assert answer.get("Upgrade") is None
        peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_s4_five_hundred_requests_on_one_connection(peer: Peer) -> None:
    for number in range(500):
        assert peer.ask(respmod(chunked(b"body %d" % number))).status == 204


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, CLOSE", b"close, keep-alive"])
def test_s5_d40_connection_close_is_honoured(live: Live, value: bytes) -> None:
    for request in (options(fields=b"Connection: %s\r\n" % value), respmod(fields=b"Connection: %s\r\n" % value)):
        with live.connect() as peer:
            answer = peer.ask(request)
            assert answer.status == 200
            assert answer.closes
            assert peer.rest() == b""


def test_s6_the_last_answer_says_that_it_is_the_last() -> None:
    with Live(server=with_server(max_requests=3)) as live, live.connect() as peer:
        closes = [peer.ask(respmod()).closes for _ in range(3)]
        assert closes == [False, False, True]
        assert peer.rest() == b""


def test_s7_keep_alive_is_announced(peer: Peer) -> None:
    for request in (options(), respmod(), respmod(fields=b""), reqmod(chunked(EICAR))):
        assert peer.ask(request).get("Connection") == b"keep-alive"


def test_s8_three_requests_in_one_segment(peer: Peer) -> None:
    peer.send(respmod(chunked(b"one"), b"") + respmod(chunked(EICAR)) + respmod(chunked(b"three"), b""))
    assert peer.answer().body == b"one"
    assert peer.answer().get("X-Infection-Found") is not None
    assert peer.answer().body == b"three"
    assert peer.silent()


def test_s8_answers_keep_their_order_while_scans_wait() -> None:
    engine = Waits()
    with Live(engine) as live, live.connect() as peer:
        peer.send(respmod(chunked(b"one"), b"") + options() + respmod(chunked(b"three"), b""))
        live.wait(lambda: engine.waiting == 1, "a scan began")
        assert peer.silent()
        live.call(engine.released.set)
        assert peer.answer().body == b"one"
        assert peer.answer().get("Methods") is not None
        assert peer.answer().body == b"three"


def test_s9_read_ahead_is_kept(peer: Peer) -> None:
    whole = respmod() + options()
    peer.send(whole[:-20])
    assert peer.answer().status == 204
    peer.send(whole[-20:])
    assert peer.answer().get("Methods") is not None


def test_s10_empty_lines_before_a_request(live: Live) -> None:
    assert live.ask(b"\r\n\r\n" + options()).status == 200
    with live.connect() as peer:
        answer = peer.ask(b"\r\n" * 9 + options())
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_d117_endless_empty_lines(live: Live) -> None:
    with live.bystander(), live.connect() as peer:
        peer.send_what_goes(b"\r\n" * 500_000)
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)


def test_s11_s105_s107_an_early_error_is_read_whole_by_a_client_that_writes_first(live: Live) -> None:
    body = chunked(bytes(20_000_000), 60_000)
    with live.bystander(), live.connect() as peer:
        answer = peer.ask(respmod(body, uri=b"icap://127.0.0.1/nope"))
        assert (answer.status, answer.closes) == (404, True)
        assert peer.rest() == b""


def test_d120_unknown_service_with_a_slow_body() -> None:
    with Live(server=with_server(linger_timeout=0.3)) as live, live.connect() as peer:
        answer = peer.ask(respmod(b"5\r\nhel", uri=b"icap://127.0.0.1/nope"))
        assert (answer.status, answer.closes) == (404, True)
        peer.send_what_goes(b"lo")
        assert peer.rest_or_reset() == b""
        live.wait(lambda: not live.shared.connections, "it is closed")


def test_d119_a_method_that_the_service_does_not_do_with_a_large_body() -> None:
    with Live(server=with_server(linger_bytes=3_000_000)) as live, live.bystander(), live.connect() as peer:
        answer = peer.ask(reqmod(chunk(b"x" * 1000), uri=b"icap://127.0.0.1/respmod-only"))
        assert (answer.status, answer.closes) == (405, True)
        sent = 0
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while sent < 100_000_000:
                peer.send(chunk(bytes(100_000)))
                sent += 100_000
        assert sent < 100_000_000


def test_s12_half_close_behind_a_request(live: Live) -> None:
    for request in (respmod(fields=b""), options(), respmod(chunked(EICAR))):
        with live.connect() as peer:
            peer.send(request)
            peer.fin()
            answer = peer.answer()
            assert answer.status == 200
            assert peer.rest() == b""


@pytest.mark.parametrize("count", [2, 33, 200])
def test_s12_half_close_behind_a_burst(live: Live, count: int) -> None:
    with live.connect() as peer:
        peer.send(options() * count)
        peer.fin()
        answers = [peer.answer() for _ in range(count)]
        assert {answer.status for answer in answers} == {200}
        assert peer.rest() == b""
    with live.connect() as peer:
        peer.send(options() * count + options()[:-1])
        peer.fin()
        assert {peer.answer().status for _ in range(count)} == {200}
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert peer.rest() == b""


def test_s12_half_close_while_the_scan_waits() -> None:
    engine = Waits()
    with Live(engine) as live, live.connect() as peer:
        peer.send(respmod(fields=b"") + respmod(chunked(EICAR)))
        peer.fin()
        live.wait(lambda: engine.waiting == 1, "a scan began")
        live.call(engine.released.set)
        assert peer.answer().body == b"hello"
        answer = peer.answer()
        assert answer.get("X-Infection-Found") is not None
        assert answer.closes
        assert peer.rest() == b""


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def test_s13_d80_a_thousand_clients_that_vanish_leave_nothing() -> None:
    with Live() as live:
        assert live.ask(respmod()).status == 204
        before = (live.purse.memory_left, live.purse.disk_left)
        live.wait(lambda: not live.shared.connections, "the first is gone")
        opened = descriptors()
        big = respmod(b"fffff\r\n" + bytes(100_000))
        starts = [b"", b"RESP", respmod()[:60], respmod(b"5\r\nhel"), big, respmod(chunked(b"x"), b"Preview: 1\r\n")]
        for number in range(1000):
            with live.connect() as peer:
                peer.send(starts[number % len(starts)])
                if number % 2:
                    peer.reset()
        live.wait(lambda: not live.shared.connections, "all are gone")
        live.wait(lambda: descriptors() <= opened, "no descriptor is left")
        assert live.call(lambda: (live.purse.memory_left, live.purse.disk_left)) == before
        assert all(record.status in (0, 204, 400) for record in live.records)
        assert not any(record.reply == "204" for record in live.records[1:])


def test_s13_clients_that_vanish_during_the_scan_or_the_answer() -> None:
    engine = Waits()
    with Live(engine) as live:
        for number in range(20):
            with live.connect() as peer:
                peer.send(respmod(chunked(bytes(200_000))))
                live.wait(lambda most=number: engine.waiting > most, "a scan began")  # type: ignore[misc]
                peer.reset()
        live.wait(lambda: not live.shared.connections, "all are gone")
        live.call(engine.released.set)
        for _ in range(20):
            with live.connect() as peer:
                peer.send(respmod(chunked(bytes(8_000_000), 60_000), b""))
                peer.socket.recv(1000)
                peer.reset()
        live.wait(lambda: not live.shared.connections, "all are gone")
        assert live.purse.memory_left == live.purse.disk_left == 1 << 30
        assert len(live.wait_records(40)) == 40


def test_s14_d1_idle_connections_are_closed_silently() -> None:
    with Live(server=with_server(idle_timeout=0.7)) as live:
        with live.connect() as peer:
            assert peer.rest() == b""
        with live.connect() as peer:
            assert peer.ask(respmod()).status == 204
            assert peer.rest() == b""
        with live.connect() as peer:
            peer.send(b"\r\n")
            assert peer.rest() == b""
        assert len(live.records) == 1


@pytest.mark.parametrize(
    "start", [b"R", b"RESPMOD icap://h/avscan ICAP/1.0\r\n", options()[:-2], respmod(None)[:-1], respmod(b"")[:-1]]
)
def test_s15_half_a_head_is_408(start: bytes) -> None:
    with Live(server=with_server(head_timeout=0.2)) as live, live.connect() as peer:
        answer = peer.ask(start)
        assert (answer.status, answer.closes) == (408, True)
        assert peer.rest() == b""


@pytest.mark.parametrize("body", [b"", b"5", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n", b"0\r\nX: y\r\n"])
def test_s15_d79_d84_half_a_body_is_408(body: bytes) -> None:
    with Live(server=with_server(body_timeout=0.2)) as live, live.connect() as peer:
        answer = peer.ask(respmod(body))
        assert (answer.status, answer.closes) == (408, True)
        assert peer.rest() == b""


def drip(peer: Peer, data: bytes) -> None:
    """Send byte after byte until there is an answer."""
    for at in range(len(data)):
        peer.send(data[at : at + 1])
        if not peer.silent(0.02):
            return
    raise AssertionError("the whole was sent without an answer")


def test_s16_d33_a_dripped_head_is_cut_by_the_total_time() -> None:
    with Live(server=with_server(head_timeout=0.3)) as live, live.bystander(), live.connect() as peer:
        drip(peer, options(fields=b"X: " + b"y" * 1000 + b"\r\n"))
        assert peer.answer().status == 408


def test_s16_d81_a_dripped_body_is_cut_by_the_total_time() -> None:
    with Live(server=with_server(body_timeout=5, body_total=0.3)) as live, live.connect() as peer:
        peer.send(respmod(b""))
        drip(peer, chunked(b"x" * 1000, 1))
        assert peer.answer().status == 408


def test_s16_a_body_below_the_minimum_rate_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_RATE_AFTER_SECONDS", 0.2)
    with Live(server=with_server(min_rate=100_000)) as live, live.connect() as peer:
        peer.send(respmod(b""))
        drip(peer, chunked(b"x" * 10_000, 1))
        assert peer.answer().status == 408


def test_s17_d34_the_surplus_gets_503_and_the_others_are_served() -> None:
    with Live(limit=3) as live:
        held = [live.connect() for _ in range(3)]
        for peer in held:
            assert peer.ask(options()).status == 200
        for _ in range(20):
            with live.connect() as surplus:
                answer = surplus.ask(options())
                assert (answer.status, answer.closes) == (503, True)
                assert surplus.rest() == b""
        for peer in held:
            assert peer.ask(respmod()).status == 204
        held.pop().__exit__()
        live.wait(lambda: len(live.shared.connections) == 2, "one has left")
        assert live.ask(respmod()).status == 204
        for peer in held:
            peer.__exit__()


def test_d34_a_thousand_half_open_connections() -> None:
    with Live(limit=300, server=with_server(head_timeout=0.5)) as live, live.bystander():
        peers = [live.connect() for _ in range(1000)]
        for peer in peers:
            peer.send_what_goes(b"OPTIONS icap://h")
        assert all(peer.rest_or_reset()[:13] in (b"ICAP/1.0 503 ", b"ICAP/1.0 408 ", b"") for peer in peers)
        for peer in peers:
            peer.__exit__()


def test_s18_a_short_answer_is_one_segment(live: Live) -> None:
    for request in (options(), respmod(), respmod(fields=b""), respmod(chunked(EICAR)), b"x\r\n\r\n"):
        with live.connect() as peer:
            peer.send(request)
            first = peer.socket.recv(1 << 20)
            peer.pending = first
            peer.answer()
            assert peer.pending == b""


def test_s18_no_delay_is_on(live: Live, peer: Peer) -> None:
    peer.ask(options())

    def flags() -> list[int]:
        sockets = [connection._transport.get_extra_info("socket") for connection in live.shared.connections]
        return [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets]

    assert live.call(flags) and all(live.call(flags))


def test_s19_running_transactions_end_and_idle_connections_close() -> None:
    engine = Waits()
    with Live(engine) as live, live.connect() as busy, live.connect() as idle, live.connect() as half:
        busy.send(respmod())
        half.send(respmod(b"5\r\nhel"))
        assert idle.ask(options()).status == 200
        live.wait(lambda: engine.waiting == 1 and len(live.shared.connections) == 3, "all are there")

        def drain() -> None:
            live.shared.draining = True
            for connection in tuple(live.shared.connections):
                connection.drain()

        live.call(drain)
        assert idle.rest() == b""
        live.call(engine.released.set)
        answer = busy.answer()
        assert (answer.status, answer.closes) == (204, True)
        assert busy.rest() == b""
        half.send(b"lo\r\n" + LAST)
        answer = half.answer()
        assert (answer.status, answer.closes) == (204, True)
        with live.connect() as late:
            answer = late.answer()
            assert (answer.status, answer.closes) == (503, True)


def test_d97_ten_thousand_pipelined_options(live: Live) -> None:
    with live.bystander(), live.connect() as peer:
        data = options() * 10_000
        sent = 0
        count = 0
        peer.socket.setblocking(False)
        until = time.monotonic() + 60
        while count < 10_000:
            assert time.monotonic() < until
            if sent < len(data):
                try:
                    sent += peer.socket.send(data[sent : sent + 65536])
                except BlockingIOError:
                    pass
            try:
                peer.pending += peer.socket.recv(1 << 20)
            except BlockingIOError:
                time.sleep(0.001)
            count = peer.pending.count(b"ICAP/1.0 200 OK\r\n")
        assert peer.pending.count(b"Methods: RESPMOD, REQMOD\r\n") == 10_000


def test_d97_others_are_served_in_the_middle_of_a_burst() -> None:
    burst = 600
    with Live() as live, live.connect() as peer, live.connect() as other:
        assert other.ask(options()).status == peer.ask(options()).status == 200

        def stall() -> None:
            peer.send(options() * burst)
            other.send(respmod())

        live.call(stall)  # both have arrived before the server looks
        assert other.answer().status == 204
        for _ in range(burst):
            assert peer.answer().status == 200
        methods = [record.method for record in live.wait_records(burst + 3)]
        assert methods.index("RESPMOD") < burst


def test_d97_a_client_that_does_not_read_is_cut_off_with_bounded_buffers() -> None:
    with Live(server=with_server(write_timeout=0.4)) as live, live.bystander(), live.connect() as peer:
        peer.socket.settimeout(5)
        data = options() * 200_000
        with pytest.raises((ConnectionResetError, BrokenPipeError, TimeoutError)):
            peer.socket.sendall(data)
        live.wait(lambda: len(live.shared.connections) == 1, "it is cut off")
        assert len(live.records) < 200_000


def test_d97_one_request_at_a_time_from_a_client_that_does_not_read() -> None:
    """Each request comes alone, so that nothing is read ahead; the answers must not pile up either."""
    request = respmod(chunked(bytes(30_000)), b"")
    with Live() as live, live.connect() as peer:

        def served() -> int:
            return len(live.records)

        for number in range(3000):
            peer.send(request)
            until = time.monotonic() + 1.0
            while live.call(served) <= number and time.monotonic() < until:
                pass
            if live.call(served) <= number:
                break
        assert number < 1500  # 45 MB; the socket buffers alone take a few
        while peer.answer().body == bytes(30_000) and live.call(served) <= number:
            pass  # reading again sets it going again
        assert live.call(served) > number


def test_d98_a_client_that_does_not_read_a_large_copy() -> None:
    with Live(server=with_server(write_timeout=0.3)) as live, live.bystander(), live.connect() as peer:
        peer.send(respmod(chunked(bytes(30_000_000), 60_000), b""))
        live.wait(lambda: len(live.records) == 1, "the transaction ended")
        assert live.records[0].status == 0
        assert live.records[0].detail
        live.wait(lambda: len(live.shared.connections) == 1, "it is cut off")
        data = peer.rest_or_reset()
        assert len(data) < 30_000_000
        assert not data.endswith(LAST)
