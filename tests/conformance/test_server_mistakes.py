"""What a client gets when something of ours breaks: an error or a broken connection, never a clean verdict (S104)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from icapscan.limits import Limits
from icapscan.pipeline import Scan
from icapscan.servers.scan_exchange import ScanExchange
from icapscan.store import PartStore
from tests.conformance.fakes import CallsBack
from tests.conformance.live import Live, Peer
from tests.wire.samples import EICAR, IEOF, LAST, chunk, chunked, options, reqmod, respmod


class OurBug(Exception):
    """A mistake somewhere in the server."""


def fail(*_: object, **__: object) -> None:
    """Any function of ours that breaks."""
    raise OurBug("secret detail")


async def fail_later(*_: object, **__: object) -> None:
    """The same for one that is waited for."""
    raise OurBug("secret detail")


@pytest.fixture
def broken() -> Iterator[Live]:
    """A server that is expected to report mistakes."""
    with Live(mistakes_expected=True) as server:
        yield server
        assert server.mistakes and all(isinstance(error, OurBug) for _, error in server.mistakes)


def check_500(peer: Peer, request: bytes) -> None:
    """The request is answered with 500, without details, and the connection ends."""
    answer = peer.ask(request)
    assert answer.status == 500
    assert b"secret" not in answer.head and b"Bug" not in answer.head
    assert answer.get("X-Infection-Found") is None


@pytest.mark.parametrize("body", [b"harmless", EICAR])
@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "in pieces"])
def test_s104_a_scan_that_breaks_at_its_end(
    broken: Live, monkeypatch: pytest.MonkeyPatch, body: bytes, pieces: int
) -> None:
    monkeypatch.setattr(Scan, "finish", fail_later)
    with broken.connect() as peer:
        request = respmod(chunked(body))
        if pieces == 2:
            peer.send(request[:-9])
            request = request[-9:]
        check_500(peer, request)
    assert broken.ask(options()).status == 200


@pytest.mark.parametrize("name", ["_take", "_end", "whole"])
def test_s104_an_exchange_that_breaks(broken: Live, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(ScanExchange, name, fail)
    with broken.connect() as peer:
        request = reqmod(chunked(EICAR))
        if name != "whole":
            peer.send(request[:-9])
            request = request[-9:]
        answer = peer.ask(request)
        assert (answer.status, answer.closes) == (500, True)
        assert peer.rest() == b""


def test_s104_an_exchange_that_breaks_at_its_preview(broken: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScanExchange, "preview_end", fail)
    with broken.connect() as peer:
        answer = peer.ask(respmod(chunked(EICAR), b"Preview: 68\r\n"))
        assert (answer.status, answer.closes) == (500, True)


def test_s104_a_block_page_that_cannot_be_made(broken: Live) -> None:
    broken.call(lambda: setattr(broken.shared.generation, "render_page", fail))
    for request in (
        respmod(chunked(EICAR)),
        respmod(chunk(EICAR) + IEOF, b"Preview: 99\r\n"),
        reqmod(chunked(EICAR, 9)),
    ):
        with broken.connect() as peer:
            check_500(peer, request)
    assert broken.ask(respmod()).status == 204


def test_s104_a_copy_that_breaks_in_the_middle_is_never_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PartStore.pieces

    def short(self: PartStore, *arguments: int) -> Iterator[bytes | memoryview]:
        pieces = real(self, *arguments)
        yield next(pieces)
        raise OurBug("secret detail")

    with Live(mistakes_expected=True) as live:
        body = bytes(3_000_000)
        with live.connect() as peer:
            peer.send(respmod(chunked(body, 60_000)[:-5], b""))
            live.wait(lambda: live.purse.memory_left < (1 << 30) - 2_900_000, "the body arrives")
            monkeypatch.setattr(PartStore, "pieces", short)
            peer.send(LAST)
            data = peer.rest_or_reset()
        assert len(data) < len(body)
        assert not data.endswith(LAST)
        monkeypatch.undo()
        assert live.purse.memory_left == 1 << 30
        assert [str(error) for _, error in live.mistakes] == ["secret detail"]


def test_d96_garbage_while_a_copy_is_on_the_way() -> None:
    """It is the next request, and answered as such behind the copy."""
    with Live(limits=Limits(part_in_bytes=1000)) as live, live.connect() as peer:
        body = bytes(30_000_000)
        peer.send(respmod(chunked(body, 60_000), b""))
        live.wait(lambda: any(one._outbox.blocked for one in live.shared.connections), "the copy waits for its reader")
        peer.send(b"\x00garbage")
        answer = peer.answer()
        assert answer.body == body
        answer = peer.answer()
        assert (answer.status, answer.closes) == (400, True)


def test_s91_a_slow_reader_gets_the_whole_copy() -> None:
    with Live() as live, live.connect() as peer:
        body = bytes(range(256)) * 100_000
        peer.send(respmod(chunked(body, 60_000), b"") + respmod())
        live.wait(lambda: any(one._outbox.blocked for one in live.shared.connections), "the copy waits for its reader")
        answer = peer.answer()
        assert answer.body == body
        assert peer.answer().status == 204


def test_s46_echo_and_options_with_previews(live: Live) -> None:
    with live.connect() as peer:
        peer.send(respmod(chunked(b"hel"), b"Preview: 3\r\n", uri=b"icap://h/echo"))
        peer.hundred()
        assert peer.ask(chunked(b"lo")).body == b"hello"
        answer = peer.ask(respmod(chunk(EICAR) + IEOF, b"Preview: 99\r\nAllow: 204\r\n", uri=b"icap://h/echo"))
        assert answer.status == 200 and answer.body == EICAR  # echo scans nothing and says nothing
        assert answer.get("X-Infection-Found") is None


@pytest.mark.parametrize("name", ["_alone", "_sum_up"])
@pytest.mark.parametrize("body", [b"harmless", EICAR])
def test_s104_a_scan_without_a_task_that_breaks_at_its_end(
    monkeypatch: pytest.MonkeyPatch, name: str, body: bytes
) -> None:
    """What breaks behind the engine's call is answered too, and not left to the event loop."""
    engine = CallsBack()
    with Live(engine, mistakes_expected=True) as live:
        with live.connect() as peer:
            assert peer.ask(respmod(chunked(b"good"))).status == 204
            assert peer.ask(respmod(chunked(EICAR))).get("X-Infection-Found") is not None
        monkeypatch.setattr(Scan, name, fail)
        with live.connect() as peer:
            check_500(peer, respmod(chunked(body)))
        assert len(live.mistakes) == 1 and len(engine.scanned) == 3
