"""Listening sockets: addresses as people write them, and errors that name the key."""

from __future__ import annotations

import socket

import pytest

from icapscan.errors import ConfigError
from icapscan.servers.listen import bind, name_of, split_address, tls_context
from icapscan.servers.settings import ServerSettings


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:1344", ("127.0.0.1", 1344)), ("[::1]:0", ("::1", 0)), (":1344", ("", 1344)), ("h:1", ("h", 1))],
)
def test_addresses_are_split(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
def test_s1_a_bound_socket_listens_where_it_says(address: str) -> None:
    with bind(address, "server.listen") as listening:
        host, port = split_address(name_of(listening))
        socket.create_connection((host, port), timeout=10).close()


def test_an_address_in_use_is_named_with_its_key() -> None:
    with (
        bind("127.0.0.1:0", "server.listen") as listening,
        pytest.raises(ConfigError, match=r"server\.listen.*expected"),
    ):
        bind(name_of(listening), "server.listen")


def test_tls_needs_files_that_can_be_read() -> None:
    assert tls_context(ServerSettings()) is None
    broken = ServerSettings(
        tls_listen=("127.0.0.1:0",), tls_certificate="/nowhere/cert.pem", tls_key="/nowhere/key.pem"
    )
    with pytest.raises(ConfigError, match=r"server\.tls_certificate"):
        tls_context(broken)
