"""``tcp.smtp.cdb`` is read as tcpserver reads it, also while it is replaced."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cdblib
import pytest

from icapscan.adapters.relay_rules import RelayRules, RulesUnreadable, Standing, keys_of
from tests.peers.tcpserver import tcprules, tcprulescheck

RULES = """\
127.0.0.1:allow,RELAYCLIENT=""
10.0.:allow,RELAYCLIENT="@fix.me",DATABYTES="5000"
10.0.9.:deny
192.0.2.37-53:allow,RELAYCLIENT=""
=mail.example.org:allow,RELAYCLIENT="by name"
=.example.org:deny
=:allow,KNOWN="1"
:allow
"""


def written(path: Path, rules: dict[bytes, bytes]) -> None:
    """Replace ``path`` in one step, as tcprules does."""
    with open(f"{path}.tmp", "wb") as file:
        writer = cdblib.Writer(file)
        for key, value in rules.items():
            writer.put(key, value)
        writer.finalize()
    os.rename(f"{path}.tmp", path)


def test_the_order_in_which_rules_are_looked_for() -> None:
    assert list(keys_of("10.0.9.7")) == ["10.0.9.7", "10.0.9.", "10.0.", "10.", ""]
    assert list(keys_of("10.0.9.7", "a.b.c")) == [
        "10.0.9.7", "=a.b.c", "10.0.9.", "10.0.", "10.", "=.b.c", "=.c", "=", "",
    ]  # fmt: skip
    assert next(iter(keys_of("::ffff:10.0.9.7"))) == "10.0.9.7"
    assert list(keys_of("2001:db8::1"))[:2] == ["2001:db8::1", "2001:db8::"]
    assert list(keys_of("10.0.9.7", "evil\n:name")) == list(keys_of("10.0.9.7"))


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("127.0.0.1", "", Standing(variables={"RELAYCLIENT": ""})),
        ("127.0.0.2", "", Standing()),
        ("10.0.1.1", "", Standing(variables={"RELAYCLIENT": "@fix.me", "DATABYTES": "5000"})),
        ("10.0.9.1", "", Standing(deny=True)),
        ("192.0.2.40", "", Standing(variables={"RELAYCLIENT": ""})),
        ("192.0.2.54", "", Standing()),
        ("192.0.2.54", "mail.example.org", Standing(variables={"RELAYCLIENT": "by name"})),
        ("192.0.2.54", "other.example.org", Standing(deny=True)),
        ("192.0.2.54", "other.example.com", Standing(variables={"KNOWN": "1"})),
        ("2001:db8::1", "", Standing()),
    ],
)
def test_rules_that_tcprules_made(tmp_path: Path, address: str, host: str, expected: Standing) -> None:
    path = tmp_path / "tcp.smtp.cdb"
    tcprules(path, RULES)
    assert RelayRules(str(path)).standing(address, host) == expected
    if not host and ":" not in address:
        said = tcprulescheck(path, address)
        assert ("deny" in said) is expected.deny
        assert all(f"{name}={value}" in said for name, value in expected.variables.items())


def test_a_replaced_file_holds_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tcp.smtp.cdb"
    written(path, {b"": b""})
    rules = RelayRules(str(path))
    assert rules.standing("192.0.2.1").relay_client is None
    written(path, {b"192.0.2.1": b"+RELAYCLIENT=\0", b"": b""})
    assert rules.standing("192.0.2.1").relay_client == "" and rules.standing("192.0.2.2").relay_client is None
    written(path, {b"": b"D\0"})
    assert rules.standing("192.0.2.1") == Standing(deny=True)


def test_rules_that_cannot_be_read_say_nothing_about_anybody(tmp_path: Path) -> None:
    path = tmp_path / "tcp.smtp.cdb"
    rules = RelayRules(str(path))
    with pytest.raises(RulesUnreadable):
        rules.standing("127.0.0.1")
    written(path, {b"127.0.0.1": b"+RELAYCLIENT=\0"})
    whole = path.read_bytes()
    assert rules.standing("127.0.0.1").relay_client == ""
    for data in (b"", b"x" * 100, whole[:-1], whole[:2000], struct.pack("<LL", 0xFFFFFFFF, 7) * 256):
        path.write_bytes(data)
        with pytest.raises(RulesUnreadable):
            rules.standing("127.0.0.1")
    path.write_bytes(whole)
    assert rules.standing("127.0.0.1").relay_client == ""
    path.unlink()
    with pytest.raises(RulesUnreadable):
        rules.standing("127.0.0.1")


@pytest.mark.parametrize(("value", "size"), [("5000", 5000), ("", 0), ("x", 0), ("-1", 0), ("9" * 30, 0)])
def test_databytes(value: str, size: int) -> None:
    assert Standing(variables={"DATABYTES": value}).databytes == size
