"""The OPTIONS answer (PROTOCOL A.7)."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

import pytest

from icapscan.servers import stationery
from icapscan.servers.settings import ServiceSettings
from tests.conformance.live import SERVICES, Answer, Live, Peer, with_server
from tests.wire.samples import options, reqmod, respmod


def fields(answer: Answer) -> dict[bytes, bytes]:
    """Lower-case names and values; S124: no name twice, every value on one line."""
    assert all(b"\r" not in value and b"\n" not in value for _, value in answer.lines)
    assert len({name.lower() for name, _ in answer.lines}) == len(answer.lines)
    return {name.lower(): value for name, value in answer.lines}


@pytest.mark.parametrize("request_fields", [b"", b"Encapsulated: null-body=0\r\n", b"Allow: 204, 206, trailers\r\n"])
def test_s112_s114_s115_s116_s117_s118_s119_s120_s121_s124_options(peer: Peer, request_fields: bytes) -> None:
    answer = peer.ask(options(fields=request_fields))
    given = fields(answer)
    assert answer.status == 200
    assert given[b"methods"] == b"RESPMOD, REQMOD"
    assert answer.istag == b"test-1"
    assert answer.lines[-1] == (b"Encapsulated", b"null-body=0")
    assert given[b"allow"].split(b", ")[0] == b"204"
    assert all(item.isdigit() for item in given[b"allow"].split(b", "))
    assert given[b"preview"] == b"4096"
    transfers = {name: value for name, value in given.items() if name.startswith(b"transfer-")}
    assert transfers == {b"transfer-preview": b"*"}
    assert int(given[b"options-ttl"]) > 0
    date = parsedate_to_datetime(given[b"date"].decode()).timestamp()
    assert time.time() - 60 < date < time.time() + 60 and date + int(given[b"options-ttl"]) > time.time()
    assert int(given[b"max-connections"]) == peer_limit()
    assert given[b"service"]
    assert re.fullmatch(rb"[A-Za-z0-9.-]+", given[b"service-id"])
    assert {b"X-Client-IP", b"X-Authenticated-User"} <= set(given[b"x-include"].split(b", "))
    assert b"opt-body-type" not in given and answer.body is None
    assert peer.silent(0.05)


def peer_limit() -> int:
    """The configured number of connections."""
    return with_server().max_connections


def test_s112_only_the_methods_that_a_service_does(peer: Peer) -> None:
    assert peer.ask(options(b"icap://h/respmod-only")).get("Methods") == b"RESPMOD"
    assert peer.ask(options(b"icap://h/reqmod-only")).get("Methods") == b"REQMOD"


def test_s113_both_methods_on_one_uri_and_one_uri_each(peer: Peer) -> None:
    assert peer.ask(respmod(uri=b"icap://h/avscan")).status == 204
    assert peer.ask(reqmod(uri=b"icap://h/avscan")).status == 204
    for path in (b"respmod", b"RESPMOD", b"av/respmod", b"SYMCScanResp-AV", b"wwrespmod"):
        assert peer.ask(respmod(uri=b"icap://h/" + path)).status == 204
    for path in (b"reqmod", b"av/reqmod", b"SYMCScanReq-AV", b"wwreqmod"):
        assert peer.ask(reqmod(uri=b"icap://h/" + path)).status == 204


def test_s27_paths_that_clients_use_by_default(peer: Peer) -> None:
    names = (
        b"avscan srv_clamav virus_scan squidclamav scan respmod reqmod RESPMOD req resp av/respmod av/reqmod wwreqmod "
        b"wwrespmod interscan sandblast SYMCScanResp-AV SYMCScanReq-AV AVSCANRESP AVSCANREQ OMSScanReq-AV "
        b"OMSScanResp-AV echo"
    )
    for path in [*names.split(), b""]:
        assert peer.ask(options(b"icap://h/" + path)).status == 200


def test_s116_a_preview_of_nothing_is_announced_with_its_transfer_list() -> None:
    services = {**SERVICES, "avscan": ServiceSettings(preview=0, options_ttl=60.0)}
    with Live(services=services) as live:
        given = fields(live.ask(options()))
        assert given[b"preview"] == b"0"
        assert given[b"transfer-preview"] == b"*"
        assert given[b"options-ttl"] == b"60"


def test_s117_g3_would_understand_it(peer: Peer) -> None:
    """g3 wants numbers in Allow, an ISTag, methods exactly, and no opt-body."""
    given = fields(peer.ask(options(fields=b"Allow: 204, 206\r\n")))
    assert {int(item) for item in given[b"allow"].split(b",")} <= {204, 206}
    assert [item.strip() for item in given[b"methods"].split(b",")] == [b"RESPMOD", b"REQMOD"]


def test_s119_max_connections_is_the_real_limit() -> None:
    with Live(server=with_server(max_connections=7)) as live:
        assert live.ask(options()).get("Max-Connections") == b"7"


def test_s122_the_connection_goes_on(peer: Peer) -> None:
    for _ in range(5):
        assert not peer.ask(options()).closes
        assert peer.ask(respmod()).status == 204


def test_s123_options_answers_are_made_once_a_second(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = stationery.options_fields

    def counted(name: str, service: ServiceSettings, connections: int, *, partial: bool = False) -> bytes:
        made.append(name)
        return real(name, service, connections, partial=partial)

    monkeypatch.setattr(stationery, "options_fields", counted)
    with live.connect() as peer:
        started = int(time.time())
        dates = {peer.ask(options()).get("Date") for _ in range(500)}
        seconds = int(time.time()) - started + 1
    assert len(dates) <= seconds
    assert len(made) <= 2 * seconds
