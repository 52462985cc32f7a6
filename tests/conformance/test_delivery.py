"""Large and slow downloads: trickled, cut, and told of on the next try; a page with a bar that ends in the download."""

from __future__ import annotations

import hashlib
import io
import re
import select
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from icapscan.policy.settings import PolicySettings, TrafficSettings
from icapscan.servers import delivery, pacing
from icapscan.servers.settings import DeliverySettings, ServiceSettings
from icapscan.store import Purse
from tests.conformance.fakes import Fails, FindsEicar
from tests.conformance.live import Answer, Live, Peer, with_server
from tests.conformance.test_sanitize import Finds
from tests.wire.samples import EICAR, GET, LAST, chunk, chunked, reqmod, respmod

HOLD = 2048
SLOW = 1000
"""Bytes in one unit of pace, which is short here."""
TRICKLE = DeliverySettings(kind="trickle", start=0.02, rate=SLOW * 50, hold=HOLD)
PROGRESS = DeliverySettings(kind="progress", start=0.02)
BODY = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(1000))
BROWSER = GET[:-2] + b"Accept: text/html,*/*;q=0.8\r\nSec-Fetch-Dest: document\r\n\r\n"
TRAILERS = b"Allow: 204, trailers\r\n"


def head(length: int | None = None, more: bytes = b"") -> bytes:
    size = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n%s%s\r\n" % (size, more)


def service(way: DeliverySettings) -> dict[str, ServiceSettings]:
    return {"avscan": ServiceSettings(delivery=way), "upload": ServiceSettings(delivery=way)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "EVERY_SECONDS", 0.02)


@pytest.fixture
def trickling() -> Iterator[Live]:
    with Live(FindsEicar(), services=service(TRICKLE)) as live:
        yield live


@pytest.fixture
def showing(tmp_path: Path) -> Iterator[Live]:
    with Live(FindsEicar(), services=service(PROGRESS), downloads=str(tmp_path)) as live:
        yield live


def begin(peer: Peer, body: bytes, fields: bytes = b"Allow: 204\r\n", req_hdr: bytes = GET, more: bytes = b"") -> bytes:
    """Send a download without its end, and read until an answer has begun; returns what came."""
    whole = respmod(chunk(body), fields, req_hdr=req_hdr, res_hdr=more or head(len(body)))
    peer.send(whole)
    while not peer.pending:
        peer._more()
    return peer.pending


def wait_for(peer: Peer, size: int) -> None:
    """Until ``size`` bytes of the answer are there."""
    while len(peer.pending) < size:
        peer._more()


def bad_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("good.bin", BODY)
        archive.writestr("bad.com", EICAR)
    return out.getvalue()


def assert_cleaned(answer: Answer) -> None:
    assert answer.body is not None
    assert b"Content-Length: %d\r\n" % len(answer.body) in answer.sections["res-hdr"]
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.read("good.bin") == BODY and "bad.com" not in archive.namelist()


# Trickle


def test_a_clean_body_is_trickled_and_then_sent_whole(trickling: Live) -> None:
    with trickling.connect() as peer:
        began = begin(peer, BODY)
        assert began.startswith(b"ICAP/1.0 200 OK\r\n")
        wait_for(peer, 3 * SLOW)
        peer.send(LAST)
        answer = peer.answer()
        assert answer.body == BODY
        assert b"Content-Length: %d\r\n" % len(BODY) in answer.sections["res-hdr"]
        assert not answer.closes
        assert peer.ask(respmod(chunked(b"next"))).status == 204
    record = trickling.wait_records(1)[0]
    assert (record.reply, record.status, record.decision) == ("200 trickle", 200, "allow")


def body_in(pending: bytes) -> bytes:
    """The bytes of the body in the beginning of an answer."""
    rest = pending.partition(b"\r\n\r\n")[2].partition(b"\r\n\r\n")[2]
    body = b""
    while found := re.match(rb"([0-9a-f]+)\r\n", rest):
        size = int(found[1], 16)
        body += rest[found.end() : found.end() + size]
        rest = rest[found.end() + size + 2 :]
    return body


def test_no_more_than_the_rate_leaves_and_never_the_last_part(trickling: Live) -> None:
    with trickling.connect() as peer:
        began = time.monotonic()
        begin(peer, BODY)
        while len(body_in(peer.pending)) < len(BODY) - HOLD:
            peer._more()
            assert len(body_in(peer.pending)) <= SLOW * 50 * (time.monotonic() - began) + SLOW
        assert not select.select([peer.socket], [], [], 0.3)[0]
        assert body_in(peer.pending) == BODY[:-HOLD]
        peer.send(LAST)
        assert peer.answer().body == BODY


@pytest.mark.parametrize("size", [1, HOLD])
def test_what_is_not_longer_than_the_held_part_waits_for_its_verdict(trickling: Live, size: int) -> None:
    with trickling.connect() as peer:
        peer.send(respmod(chunk(BODY[:size]), res_hdr=head(size)))
        assert peer.silent(0.3)
        peer.send(LAST)
        assert peer.answer().status == 204


def test_an_infected_body_is_cut_and_the_next_try_gets_the_page(trickling: Live) -> None:
    infected = BODY + EICAR
    with trickling.connect() as peer:
        begin(peer, infected)
        peer.send(LAST)
        with pytest.raises(ConnectionResetError):
            peer.rest()
        got = peer.pending
    assert b"\r\n0\r\n\r\n" not in got and EICAR not in got
    first = trickling.wait_records(1)[0]
    assert (first.reply, first.decision) == ("200 cut", "block") and first.verdict is not None
    assert "cut after" in first.detail
    with trickling.connect() as peer:
        peer.send(respmod(chunk(BODY[:100]), res_hdr=head(len(infected))))
        page = peer.answer()
    assert page.status == 200 and b" 403 " in page.sections["res-hdr"]
    assert page.get("X-Infection-Found") == b"Type=0; Resolution=2; Threat=Eicar-Test;"
    again = trickling.wait_records(2)[1]
    assert again.reply == "200 block" and again.reference == first.reference != ""
    assert again.reference.encode() in (page.body or b"")


def test_the_page_is_for_the_same_client_at_the_same_url_and_istag(trickling: Live) -> None:
    with trickling.connect() as peer:
        begin(peer, BODY + EICAR, b"X-Client-IP: 192.0.2.1\r\n")
        peer.send(LAST)
        peer.rest_or_reset()
    trickling.wait_records(1)
    one = b"X-Client-IP: 192.0.2.1\r\nAllow: 204\r\n"
    assert trickling.ask(respmod(chunked(b"x"), one)).status == 200
    assert trickling.ask(respmod(chunked(b"x"), b"X-Client-IP: 192.0.2.2\r\nAllow: 204\r\n")).status == 204
    other = GET.replace(b"file.bin", b"other.bin")
    assert trickling.ask(respmod(chunked(b"x"), one, req_hdr=other)).status == 204
    trickling.call(lambda: setattr(trickling.shared, "generation", trickling.generation("test-2")))
    assert trickling.ask(respmod(chunked(b"x"), one)).status == 204


def test_a_body_that_is_sanitized_is_cut_and_the_next_try_waits_for_it() -> None:
    policy = PolicySettings(web=TrafficSettings(infected="sanitize"))
    body = bad_zip()
    form = head(len(body)).replace(b"octet-stream", b"zip")
    with Live(Finds(), services=service(TRICKLE), policy=policy) as live:
        with live.connect() as peer:
            begin(peer, body, more=form)
            peer.send(LAST)
            peer.rest_or_reset()
            assert EICAR not in peer.pending
        assert live.wait_records(1)[0].reply == "200 cut"
        with live.connect() as peer:
            peer.send(respmod(chunk(body), res_hdr=form))
            assert peer.silent(0.3)
            peer.send_what_goes(LAST)
            answer = peer.answer()
        assert_cleaned(answer)


@pytest.mark.parametrize("engine", [Fails()])
def test_what_could_not_be_scanned_is_cut_and_scanned_on_the_next_try(engine: Fails) -> None:
    with Live(engine, services=service(TRICKLE)) as live:
        with live.connect() as peer:
            begin(peer, BODY)
            peer.send(LAST)
            peer.rest_or_reset()
            assert not peer.pending.endswith(b"0\r\n\r\n")
        assert live.wait_records(1)[0].reply == "200 cut"
        assert live.ask(respmod(chunked(b"x"))).status == 500


def test_no_room_for_the_body_cuts(trickling: Live) -> None:
    with Live(FindsEicar(), services=service(TRICKLE), purse=Purse(40_000, 0)) as live:
        with live.connect() as peer:
            begin(peer, BODY[:20_000])
            peer.send_what_goes(chunk(BODY * 2))
            peer.rest_or_reset()
            assert not peer.pending.endswith(b"0\r\n\r\n")
        record = live.wait_records(1)[0]
        assert record.reply == "200 cut" and "no room" in record.detail


def test_a_client_that_stops_sending_after_the_beginning_gets_no_end() -> None:
    with Live(FindsEicar(), services=service(TRICKLE), server=with_server(body_timeout=2.0)) as live:
        with live.connect() as peer:
            begin(peer, BODY)
            peer.rest_or_reset()
            assert not peer.pending.endswith(b"0\r\n\r\n")
        assert live.wait_records(1)[0].status == 408


def test_a_client_that_leaves_frees_everything(trickling: Live) -> None:
    before = trickling.purse.memory_left
    with trickling.connect() as peer:
        begin(peer, BODY)
        peer.reset()
    record = trickling.wait_records(1)[0]
    assert record.detail == "The client went away."
    trickling.wait(lambda: trickling.purse.memory_left == before, "the memory is back")


def test_nothing_is_sent_within_a_preview(trickling: Live) -> None:
    with trickling.connect() as peer:
        peer.send(respmod(chunk(BODY[:4096]), b"Preview: 4096\r\nAllow: 204\r\n", res_hdr=head(len(BODY))))
        assert peer.silent(0.3)
        peer.send(LAST)
        peer.hundred()
        peer.send(chunk(BODY[4096:]))
        while not peer.pending:
            peer._more()
        peer.send(LAST)
        assert peer.answer().body == BODY


def test_uploads_and_other_statuses_wait(trickling: Live) -> None:
    for request in (
        reqmod(chunk(BODY)),
        respmod(chunk(BODY), res_hdr=head(len(BODY)).replace(b"200 OK", b"404 Not Found")),
    ):
        with trickling.connect() as peer:
            peer.send(request)
            assert peer.silent(0.3)
            peer.send(LAST)
            assert peer.answer().status == 204


# S109: trailers with the late verdict


def trickled(live: Live, body: bytes, fields: bytes, more: bytes = b"") -> tuple[Answer, bytes]:
    with live.connect() as peer:
        begin(peer, body, fields, more=more)
        peer.send(LAST)
        answer = peer.answer()
        trailer = (
            b""
            if answer.get("Trailer") is None
            else peer._until(b"\r\n\r\n" if peer.pending[:2] != b"\r\n" else b"\r\n")
        )
        return answer, trailer


def test_s109_a_late_word_on_a_passed_body_stands_in_the_trailer() -> None:
    policy = PolicySettings(rules=({"name": "mark", "action": "tag", "tag": "seen"},))
    with Live(FindsEicar(), services=service(TRICKLE), policy=policy) as live:
        answer, trailer = trickled(live, BODY, TRAILERS)
        assert answer.get("Allow") == b"trailers"
        assert b"X-Icapscan-Tag" in (answer.get("Trailer") or b"")
        assert answer.body == BODY and trailer == b"X-Icapscan-Tag: seen\r\n\r\n"
        plain, nothing = trickled(live, BODY, b"Allow: 204\r\n")
        assert plain.get("Trailer") is None and nothing == b"" and plain.body == BODY


def test_s109_a_late_hit_is_cut_unless_the_service_says_so_in_a_trailer() -> None:
    infected = BODY + EICAR
    with Live(FindsEicar(), services=service(TRICKLE)) as live, live.connect() as peer:
        begin(peer, infected, TRAILERS)
        peer.send(LAST)
        with pytest.raises(ConnectionResetError):
            peer.rest()
    way = DeliverySettings(kind="trickle", start=0.02, rate=SLOW * 50, hold=HOLD, late="trailers")
    with Live(FindsEicar(), services=service(way)) as live:
        answer, trailer = trickled(live, infected, TRAILERS)
        assert answer.body is not None and len(answer.body) < len(infected) and EICAR not in answer.body
        assert b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;\r\n" in trailer
        other = GET.replace(b"file", b"unknown-length")
        with live.connect() as peer:  # nobody would see that this one is not the whole
            begin(peer, infected, TRAILERS, other, more=head())
            peer.send(LAST)
            with pytest.raises(ConnectionResetError):
                peer.rest()


# Progress


def place_of(answer: Answer) -> bytes:
    found = re.search(rb'id="save" href="([^"]+)"', answer.body or b"")
    assert found is not None, answer.body
    return found[1].replace(b"&amp;", b"&")


def watched(live: Live, body: bytes, req_hdr: bytes = BROWSER, more: bytes = b"", fields: bytes = b"") -> Answer:
    with live.connect() as peer:
        begin(peer, body[:10_000], fields, req_hdr, more or head(len(body)))
        peer.send(chunk(body[10_000:]))
        peer.send(LAST)
        return peer.answer()


def test_a_browser_gets_a_page_that_ends_in_the_download(showing: Live) -> None:
    page = watched(showing, BODY, more=head(len(BODY), b'Content-Disposition: attachment; filename="a<b>.bin"\r\n'))
    said = page.body or b""
    assert b"text/html; charset=utf-8" in page.sections["res-hdr"] and b"no-store" in page.sections["res-hdr"]
    assert b"Content-Length" not in page.sections["res-hdr"]
    assert b"10.0 KB of 32.0 KB have arrived" in said
    assert b"<b>" not in said and b"a&lt;b&gt;.bin" in said
    assert BODY[:32] not in said and b"no virus was found" in said
    place = place_of(page)
    assert place.startswith(b"http://www.example.org/file.bin?icapscan-download=")
    # by RESPMOD, whatever the origin said to that odd address, and by REQMOD
    again = BROWSER.replace(b"http://www.example.org/file.bin", place)
    late = showing.ask(respmod(chunked(b"Not found"), req_hdr=again, res_hdr=head(9)))
    assert late.body == BODY and b"filename=" in late.sections["res-hdr"]
    late = showing.ask(reqmod(None, req_hdr=again))
    assert late.body == BODY and late.sections["res-hdr"].startswith(b"HTTP/1.1 200 OK")
    replies = [record.reply for record in showing.wait_records(3)]
    assert replies == ["200 progress", "200 fetched", "200 fetched"]


@pytest.mark.parametrize("preview", [b"Preview: 4096\r\nAllow: 204\r\n", b"Allow: 204\r\n"], ids=["preview", "whole"])
def test_a_large_download_is_fetched_while_another_body_comes(showing: Live, preview: bytes) -> None:
    large = BODY * 40
    place = place_of(watched(showing, large))
    again = BROWSER.replace(b"http://www.example.org/file.bin", place)
    with showing.connect() as peer:
        peer.send(
            respmod(chunk(BODY[:2000]) + chunk(BODY[2000:4096]), preview, req_hdr=again, res_hdr=head(len(large)))
        )
        if preview.startswith(b"Preview"):
            peer.send(LAST)
        else:
            peer.send_what_goes(chunk(BODY) + LAST)
        answer = peer.answer()
        assert answer.body == large
        if preview.startswith(b"Preview"):
            assert not answer.closes
            assert peer.ask(respmod(chunked(b"next"))).status == 204


def test_the_download_is_only_for_who_asked_for_it(showing: Live) -> None:
    mine = b"X-Client-IP: 192.0.2.1\r\nAllow: 204\r\n"
    place = place_of(watched(showing, BODY, fields=mine))
    again = BROWSER.replace(b"http://www.example.org/file.bin", place)
    assert showing.ask(respmod(chunked(b"x"), mine, req_hdr=again)).body == BODY
    assert showing.ask(respmod(chunked(b"x"), req_hdr=again)).status == 204
    assert showing.ask(respmod(chunked(b"x"), mine.replace(b".1", b".2"), req_hdr=again)).status == 204
    wrong = BROWSER.replace(b"http://www.example.org/file.bin", place[:-4] + b"../x")
    assert showing.ask(respmod(chunked(b"x"), mine, req_hdr=wrong)).status == 204
    showing.call(lambda: setattr(showing.shared, "generation", showing.generation("test-2")))
    assert showing.ask(respmod(chunked(b"x"), mine, req_hdr=again)).status == 204


def test_an_infected_download_ends_the_page_with_the_reason(showing: Live) -> None:
    page = watched(showing, BODY + EICAR)
    said = page.body or b""
    assert b"A virus was found" in said and b"Eicar-Test" in said and b"icapscan-download" not in said
    record = showing.wait_records(1)[0]
    assert record.decision == "block" and record.reference.encode() in said
    assert record.reply == "200 progress block"


def test_the_page_speaks_japanese(showing: Live) -> None:
    japanese = BROWSER.replace(b"Accept-Language: en", b"Accept-Language: ja")
    page = watched(showing, BODY, japanese)
    assert b"Content-Language: ja" in page.sections["res-hdr"]
    assert "検査が終わりました".encode() in (page.body or b"")
    stopped = watched(showing, BODY + EICAR, japanese)
    assert "ウイルスが見つかりました".encode() in (stopped.body or b"")


def test_what_could_not_be_scanned_is_not_offered(tmp_path: Path) -> None:
    with Live(Fails(), services=service(PROGRESS), downloads=str(tmp_path)) as live:
        said = watched(live, BODY).body or b""
        assert b"could not be checked just now" in said and b"icapscan-download" not in said
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_download_says_so(tmp_path: Path) -> None:
    with Live(FindsEicar(), services=service(PROGRESS), downloads=str(tmp_path), purse=Purse(1 << 20, 100)) as live:
        said = watched(live, BODY).body or b""
        assert b"could not be checked just now" in said and b"icapscan-download" not in said


@pytest.mark.parametrize(
    ("req_hdr", "more"),
    [
        (GET, b""),
        (BROWSER.replace(b"document", b"script"), b""),
        (BROWSER.replace(b"document", b"empty"), b""),
        (BROWSER, head(len(BODY)).replace(b"application/octet-stream", b"text/html")),
        (BROWSER, head(len(BODY)).replace(b"application/octet-stream", b"image/png")),
        (BROWSER, head(len(BODY)).replace(b"200 OK", b"206 Partial Content")),
    ],
    ids=["no-browser", "script", "fetch", "page", "picture", "range"],
)
def test_what_no_person_waits_for_has_no_page(showing: Live, req_hdr: bytes, more: bytes) -> None:
    with showing.connect() as peer:
        peer.send(respmod(chunk(BODY), req_hdr=req_hdr, res_hdr=more or head(len(BODY))))
        assert peer.silent(0.3)
        peer.send(LAST)
        peer.answer()


def test_a_sanitized_download_is_what_is_offered(tmp_path: Path) -> None:
    policy = PolicySettings(web=TrafficSettings(infected="sanitize"))
    body = bad_zip()
    form = head(len(body)).replace(b"octet-stream", b"zip")
    with Live(Finds(), services=service(PROGRESS), policy=policy, downloads=str(tmp_path)) as live:
        page = watched(live, body, more=form)
        again = BROWSER.replace(b"http://www.example.org/file.bin", place_of(page))
        late = live.ask(respmod(chunked(b"x"), req_hdr=again))
        assert_cleaned(late)
