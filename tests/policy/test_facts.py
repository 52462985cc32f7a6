"""Who and what: users, groups, hosts and paths as ICAP clients write them."""

from __future__ import annotations

import base64
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.policy.facts import address, group_names, host_and_path, identity, user_names


def coded(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Local://bob", {"Local://bob", "bob"}),
        (coded("Local://bob"), {"Local://bob", "bob"}),
        (coded("bob"), {"bob"}),
        (b"bob", {"bob"}),
        (b"EXAMPLE\\bob", {"EXAMPLE\\bob", "bob"}),
        (coded("WinNT://EXAMPLE/bob"), {"WinNT://EXAMPLE/bob", "EXAMPLE/bob", "bob"}),
        (
            coded("LDAP://ldap.example.com/CN=Bob Smith,OU=Sales,DC=example"),
            {
                "LDAP://ldap.example.com/CN=Bob Smith,OU=Sales,DC=example",
                "ldap.example.com/CN=Bob Smith,OU=Sales,DC=example", "CN=Bob Smith,OU=Sales,DC=example", "Bob Smith",
            },
        ),
        ("Local://田中".encode(), {"Local://田中", "田中"}),
        (coded("Local://田中"), {"Local://田中", "田中"}),
        (b"", set()),
        (None, set()),
    ],
)  # fmt: skip
def test_users(field: bytes | None, expected: set[str]) -> None:
    assert set(user_names(field)) == expected


def test_a_client_username_is_taken_as_it_is() -> None:
    assert user_names(None, b"YWRtaW4=") == ("YWRtaW4=",)
    assert set(user_names(coded("Local://bob"), b"robert")) == {"Local://bob", "bob", "robert"}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (b"Administrators", {"Administrators"}),
        (b"Administrators, Sales", {"Administrators", "Sales"}),
        (coded("Administrators,Sales"), {"Administrators", "Sales"}),
        (coded("Administrators") + b", " + coded("Sales"), {"Administrators", "Sales"}),
        (b"Local://Administrators,Local://Sales", {"Administrators", "Sales"}),
        (
            coded("LDAP://dc/CN=Sales,OU=x,DC=y, LDAP://dc/CN=Domain Admins,DC=y"),
            {"CN=Sales,OU=x,DC=y", "Sales", "CN=Domain Admins,DC=y", "Domain Admins"},
        ),
        (b"", set()),
    ],
)
def test_groups(field: bytes, expected: set[str]) -> None:
    found = set(group_names(field))
    assert expected <= found
    assert all("://" in name or "/" in name or name in expected for name in found)


@given(st.binary(max_size=400))
def test_no_field_breaks_it(field: bytes) -> None:
    user_names(field, field)
    group_names(field)
    address(field)
    host_and_path(field, field)
    assert isinstance(identity(field), str)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:40000", "192.0.2.7"),
        ("[2001:db8::7]:40000", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        (b" 192.0.2.7 ", "192.0.2.7"),
    ],
)
def test_addresses(text: str | bytes, expected: str) -> None:
    assert address(text) == ip_address(expected)


@pytest.mark.parametrize("text", ["", "local", "a:b", "192.0.2", "999.0.0.1", ";rm -rf", b"\xff\xfe"])
def test_what_is_no_address_is_not_known(text: str | bytes) -> None:
    assert address(text) is None


@pytest.mark.parametrize(
    ("url", "field", "expected"),
    [
        (b"http://WWW.Example.com/a/b.exe?x=1#y", None, ("www.example.com", "/a/b.exe")),
        (b"http://www.example.com:8080/a%2Eexe", None, ("www.example.com", "/a.exe")),
        (b"http://user:word@www.example.com/a", b"other.example", ("www.example.com", "/a")),
        (b"/a/b.exe?c", b"www.example.com:80", ("www.example.com", "/a/b.exe")),
        (b"/a", b"[2001:db8::1]:80", ("2001:db8::1", "/a")),
        (b"http://[2001:db8::1]/a", None, ("2001:db8::1", "/a")),
        (b"http://www.example.com./a", None, ("www.example.com", "/a")),
        (b"www.example.com:443", None, ("www.example.com", "")),
        (b"", None, ("", "")),
        (b"http://[bad/a", b"www.example.com", ("www.example.com", "http://[bad/a")),
    ],
)
def test_hosts_and_paths(url: bytes, field: bytes | None, expected: tuple[str, str]) -> None:
    assert host_and_path(url, field) == expected
