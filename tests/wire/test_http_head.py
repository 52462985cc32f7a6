"""Encapsulated HTTP heads: looked into as best as can be, sent on byte for byte where they are heads at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.wire.http_head import (
    adapted_request_head,
    adapted_response_head,
    file_name,
    look,
    media_type,
    method_and_url,
)

VIA = b"ICAP/1.0 h (icapscan)"
RES = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"


def test_fields_are_found_in_any_spelling_and_joined() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-ENCODING : gzip\r\nX: y\r\nContent-Encoding:\r\n br\r\n"
    head += b"Content-Type: A/B; c=d\r\n\r\n"
    fields = look(head)
    assert fields == {b"content-encoding": b"gzip,br", b"content-type": b"A/B; c=d"}
    assert media_type(fields[b"content-type"]) == "a/b"
    assert look(None) == {}


@pytest.mark.parametrize(
    ("disposition", "url", "name"),
    [
        (b'attachment; filename="a b.exe"', b"http://h/c", "a b.exe"),
        (b"attachment; filename=a.exe; x=y", b"", "a.exe"),
        (b"attachment; filename*=UTF-8''a%20b", b"", "a%20b"),
        (None, b"http://h/p/file.zip?q=1#f", "file.zip"),
        (None, b"http://h/", ""),
        (None, b"", ""),
    ],
)
def test_the_declared_name(disposition: bytes | None, url: bytes, name: str) -> None:
    assert file_name(disposition, url) == name


def test_d105_names_are_capped() -> None:
    assert len(file_name(None, b"http://h/" + b"a" * 70_000)) <= 255


def test_the_request_line() -> None:
    assert method_and_url(b"GET http://h/x HTTP/1.1\r\n\r\n") == (b"GET", b"http://h/x")
    assert method_and_url(b"nonsense\r\n\r\n") == (b"", b"")
    assert method_and_url(None) == (b"", b"")


def test_s91_s92_a_head_is_sent_on_as_it_came_with_via() -> None:
    assert adapted_response_head(RES, VIA, 5) == RES[:-2] + b"Via: " + VIA + b"\r\n\r\n"
    with_via = RES.replace(b"Server: x", b"vIa: 1.1 proxy")
    assert adapted_response_head(with_via, VIA, 5) == with_via.replace(b"proxy", b"proxy, " + VIA)
    request = b"POST http://h/ HTTP/1.1\r\nHost: h\r\n\r\n"
    assert adapted_request_head(request, VIA, None) == request[:-2] + b"Via: " + VIA + b"\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        None,
        b"\r\n",
        b"Content-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\n\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"GET http://localhost/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HTTP/9",
        b"\x00\xff" * 50,
    ],
)
def test_s51_s90_d62_a_broken_head_becomes_a_minimal_one(head: bytes | None) -> None:
    made = adapted_response_head(head, VIA, 3)
    assert made.startswith(b"HTTP/1.1 200 OK\r\n")
    assert made.endswith(b"\r\n\r\n") and made.count(b"\r\n\r\n") == 1
    assert made.lower().count(b"content-length: 3\r\n") == 1


@given(st.binary(max_size=200))
def test_s93_a_head_of_ours_has_no_hop_by_hop_field(noise: bytes) -> None:
    head = b"Connection: close\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 5\r\nX: y\r\n" + noise
    for made in (adapted_response_head(head, VIA, 3), adapted_request_head(head, VIA, 3)):
        names = [line.partition(b":")[0].lower() for line in made.split(b"\r\n")[1:]]
        assert not {b"connection", b"transfer-encoding", b"keep-alive"} & set(names)
        assert b"x" in names
