"""Heads of answers: Date, ISTag, Encapsulated last, OPTIONS."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest

from icapscan.servers.settings import ServiceSettings
from icapscan.servers.stationery import Stationery, http_date, options_fields, sections_of
from icapscan.wire.encapsulated import NO_BODY, BodyKind, Encapsulated
from icapscan.wire.fields import Fields, parse_fields
from icapscan.wire.icap_events import HttpHeads


@pytest.mark.parametrize("seconds", [0, 951782400, 1799999999, 4102444800.5])
def test_s83_dates_are_read_back_as_the_same_second(seconds: float) -> None:
    assert int(parsedate_to_datetime(http_date(seconds).decode()).timestamp()) == int(seconds)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("heads", [HttpHeads(), HttpHeads(None, b"x" * 20), HttpHeads(b"x" * 20)])
@pytest.mark.parametrize("body", [False, True])
def test_s80_s84_s85_every_head_has_an_istag_and_encapsulated_last(close: bool, heads: HttpHeads, body: bool) -> None:
    if body and heads == HttpHeads():
        return  # an answer with a body always has a head
    stationery = Stationery("abc-1")
    for _ in range(2):
        head = stationery.head(200, b"X-A: 1\r\n", heads, body, close)
        fields = parse_fields(head.fields.raw, 20)
        assert fields.get(b"istag") == b'"abc-1"'
        assert fields.get(b"connection") == (b"close" if close else b"keep-alive")
        names = [name for name, _ in fields.items()]
        assert names[-2:] == [b"X-A", b"Encapsulated"]
        assert fields.get(b"encapsulated") == sections_of(heads, body).encode()


def test_the_date_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stationery = Stationery("t")
    dates = set()
    for now in (1_800_000_000.2, 1_800_000_000.9, 1_800_000_001.1):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        dates.add(stationery.head(204, b"", HttpHeads(), False, False).fields.get(b"date"))
        service = ServiceSettings()
        dates.add(stationery.options("avscan", service, 10, close=False).fields.get(b"date"))
    assert dates == {http_date(1_800_000_000), http_date(1_800_000_001)}


def test_s112_s124_options_fields() -> None:
    service = ServiceSettings(methods=("RESPMOD",), preview=1024, options_ttl=60.0)
    fields = Fields(options_fields("avscan", service, 77))
    assert fields.get(b"methods") == b"RESPMOD"
    assert fields.get(b"allow") == b"204"
    assert fields.get(b"preview") == b"1024"
    assert fields.get(b"transfer-preview") == b"*"
    assert fields.get(b"max-connections") == b"77"
    assert fields.get(b"options-ttl") == b"60"
    names = [name.lower() for name, _ in fields.items()]
    assert len(names) == len(set(names)), "all values of a field stand on one line"


def test_s113_both_methods_are_announced() -> None:
    assert Fields(options_fields("a", ServiceSettings(), 1)).get(b"methods") == b"RESPMOD, REQMOD"


def test_s87_s88_sections_follow_the_heads() -> None:
    assert sections_of(HttpHeads(), False) is NO_BODY
    assert sections_of(HttpHeads(None, b"x" * 9), True) == Encapsulated(None, 9, BodyKind.RESPONSE)
    assert sections_of(HttpHeads(None, b"x" * 9), False) == Encapsulated(None, 9, BodyKind.NULL)
    assert sections_of(HttpHeads(b"x" * 9), True) == Encapsulated(9, None, BodyKind.REQUEST)
    assert sections_of(HttpHeads(b"x" * 9), False) == Encapsulated(9, None, BodyKind.NULL)
