"""Who the client is, and where its mail goes: relay rules, AUTH, STARTTLS, PROXY, XCLIENT, XFORWARD."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest

from icapscan.wire.proxy_protocol import Proxied, encode_v1, encode_v2
from tests.adapters.smtp_parts import EHLO, Client, ScriptedHop, proxying, run
from tests.adapters.test_dovecot import fake
from tests.adapters.test_relay_rules import written
from tests.clients.fakes import NO_CONTENT
from tests.conformance.test_server_tls import make_certificate

MAIL = b"Subject: x\r\n\r\nhello"
AUTH = EHLO.replace(b"250-DSN", b"250-AUTH PLAIN LOGIN\r\n250-DSN")
PLAIN = base64.b64encode(b"\0anna\0secret")


async def second_hop(ehlo: bytes = EHLO, says: Any = None) -> ScriptedHop:
    hop = ScriptedHop(says, ehlo)
    await hop.start()
    return hop


# Rules


def test_relay_clients_go_to_the_relay_hop_and_the_denied_nowhere(tmp_path: Path) -> None:
    rules = tmp_path / "tcp.smtp.cdb"
    written(rules, {b"": b""})

    async def main() -> None:
        relay = await second_hop()
        hop = {"relay": relay.address}
        async with proxying(NO_CONTENT, hop=hop, relay_rules=str(rules)) as all_of_it:

            async def sent() -> str:
                client = await all_of_it.connect()
                await client.hello()
                said = await client.mail(MAIL, rcpt=b"x@far.example")
                client.close()
                return said

            assert (await sent()).startswith("250") and len(all_of_it.hop.mails) == 1 and not relay.mails
            written(rules, {b"127.0.0.1": b"+RELAYCLIENT=\0", b"": b""})
            assert (await sent()).startswith("250") and len(relay.mails) == 1 and len(all_of_it.hop.mails) == 1
            written(rules, {b"127.": b"+RELAYCLIENT=@fix.me\0+DATABYTES=10\0"})
            assert (await sent()).startswith("552 5.3.4")
            assert b"RCPT TO:<x@far.example@fix.me>" in relay.lines
            written(rules, {b"": b""})
            assert (await sent()).startswith("250") and len(relay.mails) == 1 and len(all_of_it.hop.mails) == 2
            written(rules, {b"127.0.0.1": b"D\0", b"": b"+RELAYCLIENT=\0"})
            client = await all_of_it.connect()
            assert (await client.reply()).startswith("554 5.7.1 ") and await client.at_end()
            rules.write_bytes(b"broken")
            client = await all_of_it.connect()
            assert (await client.reply()).startswith("421 4.3.5 ") and await client.at_end()
            assert (len(relay.mails), len(all_of_it.hop.mails)) == (1, 2)
        await relay.stop()

    run(main)


TRICKS = [
    b"x%far.example@hop.example", b'"x@far.example"', b"@hop.example:x@far.example", b"x@far.example", b"far.example!x",
    b"x@[192.0.2.1]", b'"x%far.example"@hop.example', b"x@far.example@hop.example", b"<x@far.example>",
    b"x@far.example\x00@hop.example",
]  # fmt: skip


@pytest.mark.parametrize("address", TRICKS)
@pytest.mark.parametrize("sender", [b"", b"a@hop.example", b"postmaster@[127.0.0.1]"])
def test_the_answer_of_the_inbound_hop_holds_for_every_trick(address: bytes, sender: bytes) -> None:
    async def main() -> None:
        relay = await second_hop()
        hop = {"relay": relay.address, "authenticated": relay.address}
        async with proxying(NO_CONTENT, says={"RCPT": b"550 5.7.1 no relaying\r\n"}, hop=hop) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            await client.ask(b"MAIL FROM:<%s>" % sender)
            assert (await client.ask(b"RCPT TO:<%s>" % address))[:3] in ("550", "501", "500")
            assert (await client.ask(b"DATA")).startswith("503 ")
            client.send(b"BDAT 5 LAST\r\nhello")
            assert (await client.reply()).startswith("503 ")
            assert not relay.mails and not all_of_it.hop.mails
            assert not any(line.startswith((b"MAIL", b"RCPT")) for line in relay.lines)
            assert not any(line.startswith((b"DATA", b"BDAT")) for line in all_of_it.hop.lines)
        await relay.stop()

    run(main)


# AUTH


def test_auth_passes_through_and_the_service_learns_who_it_is() -> None:
    async def main() -> None:
        says = {"AUTH": b"235 2.7.0 welcome\r\n"}
        async with proxying(NO_CONTENT, ehlo=AUTH, says=says) as all_of_it:
            client = await all_of_it.connect()
            assert "AUTH PLAIN LOGIN" in await client.hello()
            assert await client.ask(b"AUTH PLAIN " + PLAIN) == "235 2.7.0 welcome"
            assert (await client.ask(b"AUTH PLAIN " + PLAIN)).startswith("503 ")
            assert (await client.mail(MAIL)).startswith("250 ")
            seen = all_of_it.icap.scans[0]
            assert base64.b64decode(seen["X-Authenticated-User"]) == b"Local://anna"
            assert b"with ESMTPA id" in seen.body and "user=anna" in all_of_it.log[-1]
            assert "secret" not in "".join(all_of_it.log)

    run(main)


def test_an_exchange_of_several_lines_passes_through() -> None:
    async def main() -> None:
        says = {"AUTH": b"334 VXNlcg==\r\n", "YW5UYQ==": b"334 UGFzcw==\r\n", "C2VJCMV0": b"235 2.7.0 in\r\n"}
        hop = ScriptedHop(says, AUTH)  # which takes every line for a command
        await hop.start()
        async with proxying(NO_CONTENT, hop={"authenticated": hop.address}) as all_of_it:
            client = await all_of_it.connect()
            assert "AUTH PLAIN LOGIN" in await client.hello()
            assert await client.ask(b"AUTH LOGIN") == "334 VXNlcg=="
            assert await client.ask(b"YW5uYQ==") == "334 UGFzcw=="
            assert await client.ask(b"c2VjcmV0") == "235 2.7.0 in"
            assert (await client.mail(MAIL)).startswith("250 ")
            assert len(hop.mails) == 1 and not all_of_it.hop.mails
            assert "user=anna" in all_of_it.log[-1]
        await hop.stop()

    run(main)


def test_who_fails_to_authenticate_stays_with_the_inbound_hop() -> None:
    async def main() -> None:
        users = await second_hop(AUTH, {"AUTH": b"535 5.7.8 no\r\n"})
        async with proxying(NO_CONTENT, hop={"authenticated": users.address}) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert await client.ask(b"AUTH PLAIN " + PLAIN) == "535 5.7.8 no"
            assert (await client.mail(MAIL)).startswith("250 ")
            assert len(all_of_it.hop.mails) == 1 and not users.mails
            assert "X-Authenticated-User" not in all_of_it.icap.scans[0]
        await users.stop()

    run(main)


@pytest.mark.parametrize("how", ["off", "needs-tls"])
def test_auth_that_is_not_wanted_is_not_offered_and_not_taken(how: str) -> None:
    async def main() -> None:
        given: dict[str, Any] = {"auth": "off"} if how == "off" else {"auth_needs_tls": True}
        async with proxying(NO_CONTENT, ehlo=AUTH, **given) as all_of_it:
            client = await all_of_it.connect()
            assert "AUTH" not in await client.hello()
            assert (await client.ask(b"AUTH PLAIN " + PLAIN))[:3] == ("502" if how == "off" else "538")
            assert not any(b"AUTH" in line for line in all_of_it.hop.lines)

    run(main)


@pytest.mark.parametrize(
    ("line", "said", "code"),
    [
        (b"AUTH PLAIN " + PLAIN, b"OK\t1\tuser=anna\n", "235"),
        (b"AUTH PLAIN " + PLAIN, b"FAIL\t1\tuser=anna\n", "535"),
        (b"AUTH PLAIN " + PLAIN, b"FAIL\t1\ttemp\n", "454"),
        (b"AUTH PLAIN " + PLAIN, b"nonsense\n", "454"),
        (b"AUTH PLAIN not base64", b"OK\t1\tuser=anna\n", "501"),
        (b"AUTH GSSAPI", b"OK\t1\tuser=anna\n", "504"),
        (b"AUTH CRAM-MD5", b"OK\t1\tuser=anna\n", "504"),
        (b"AUTH", b"OK\t1\tuser=anna\n", "501"),
    ],
)
def test_auth_checked_here(tmp_path: Path, line: bytes, said: bytes, code: str) -> None:
    async def main() -> None:
        users = await second_hop()
        async with (
            fake(tmp_path, said) as (path, _),
            proxying(NO_CONTENT, hop={"authenticated": users.address}, auth="dovecot", dovecot=path) as all_of_it,
        ):
            client = await all_of_it.connect()
            assert "AUTH PLAIN LOGIN" in await client.hello()
            assert (await client.ask(line))[:3] == code
            assert (await client.mail(MAIL)).startswith("250 ")
            assert len(users.mails) == (code == "235") and len(all_of_it.hop.mails) == (code != "235")
            assert ("X-Authenticated-User" in all_of_it.icap.scans[0]) is (code == "235")
        await users.stop()

    run(main)


@pytest.mark.parametrize(("line", "code"), [(b"*", "501"), (b"!!", "501"), (PLAIN, "235")])
def test_a_challenge_and_what_the_client_makes_of_it(tmp_path: Path, line: bytes, code: str) -> None:
    async def main() -> None:
        async with (
            fake(tmp_path, b"CONT\t1\t\n", b"OK\t1\tuser=anna\n") as (path, _),
            proxying(NO_CONTENT, auth="dovecot", dovecot=path) as all_of_it,
        ):
            client = await all_of_it.connect()
            await client.hello()
            assert await client.ask(b"AUTH PLAIN") == "334 "
            assert (await client.ask(line))[:3] == code
            assert (await client.ask(b"NOOP")).startswith("250 ")

    run(main)


def test_without_dovecot_no_mechanism_is_offered(tmp_path: Path) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, auth="dovecot", dovecot=str(tmp_path / "none")) as all_of_it:
            client = await all_of_it.connect()
            assert "AUTH" not in await client.hello()
            assert (await client.ask(b"AUTH PLAIN " + PLAIN)).startswith("454 ")

    run(main)


# TLS


async def secured(client: Client) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await client.writer.start_tls(context)


def test_what_is_sent_before_the_handshake_is_forgotten(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path, "proxy.example")

    async def main() -> None:
        async with proxying(NO_CONTENT, tls="must", tls_certificate=chain, tls_key=key) as all_of_it:
            client = await all_of_it.connect()
            assert "STARTTLS" in await client.hello()
            assert (await client.ask(b"MAIL FROM:<a>")).startswith("530 5.7.0 ")
            client.send(b"STARTTLS\r\nMAIL FROM:<injected@x>\r\nRCPT TO:<injected@x>\r\n")
            assert (await client.reply()).startswith("220 ")
            await secured(client)
            assert "STARTTLS" not in await client.ask(b"EHLO again.example")
            assert (await client.ask(b"STARTTLS")).startswith("503 ")
            assert (await client.mail(MAIL)).startswith("250 ")
            assert not any(b"injected" in line for line in all_of_it.hop.lines)
            assert b"with ESMTPS id" in all_of_it.hop.mails[0].data

    run(main)


def test_after_tls_nothing_of_before_holds(tmp_path: Path) -> None:
    chain, key = make_certificate(tmp_path, "proxy.example")

    async def main() -> None:
        async with proxying(NO_CONTENT, tls="may", tls_certificate=chain, tls_key=key) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert (await client.ask(b"STARTTLS now")).startswith("503 ")
            assert (await client.ask(b"STARTTLS")).startswith("220 ")
            await secured(client)
            assert (await client.ask(b"MAIL FROM:<a>")).startswith("503 ")

    run(main)


@pytest.mark.parametrize(("how", "works"), [("may", True), ("must", False), ("verify", False)])
def test_a_hop_without_tls(how: str, works: bool) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, hop={"tls": how}) as all_of_it:
            client = await all_of_it.connect()
            assert (await client.reply())[:3] == ("220" if works else "421")

    run(main)


@pytest.mark.parametrize(("how", "works"), [("may", True), ("must", True), ("verify", False)])
def test_tls_to_the_hop(tmp_path: Path, how: str, works: bool) -> None:
    """A second proxy that speaks TLS is the hop of the first; its certificate is nobody's."""
    chain, key = make_certificate(tmp_path, "proxy.example")

    async def main() -> None:
        async with (
            proxying(NO_CONTENT, tls="must", tls_certificate=chain, tls_key=key) as inner,
            proxying(NO_CONTENT, hop={"tls": how, "inbound": inner.proxy.addresses[0]}) as outer,
        ):
            client = await outer.connect()
            greeting = await client.reply()
            assert greeting[:3] == ("220" if works else "421")
            if works:
                await client.ask(b"EHLO client.example")
                assert (await client.mail(MAIL)).startswith("250 ")
                assert b"with ESMTPS id" in inner.hop.mails[0].data

    run(main)


# PROXY, XCLIENT, XFORWARD

REAL = Proxied("192.0.2.77", 4242, "192.0.2.2", 25)


@pytest.mark.parametrize("header", [encode_v1(REAL), encode_v2(REAL)])
@pytest.mark.parametrize("tell", ["proxy-v1", "proxy-v2", "xclient", "xforward", "none"])
def test_the_real_client_is_learned_and_told(header: bytes, tell: str) -> None:
    async def main() -> None:
        ehlo = EHLO.replace(
            b"250-DSN", b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n250-XFORWARD NAME ADDR PORT HELO\r\n250-DSN"
        )
        given: dict[str, Any] = {"proxy_from": ("127.0.0.0/8",)}
        sizes = {"proxy-v1": len(encode_v1(REAL)), "proxy-v2": len(encode_v2(REAL))}
        async with proxying(NO_CONTENT, ehlo=ehlo, hop={"tell": tell}, **given) as all_of_it:
            all_of_it.hop.preamble = sizes.get(tell, 0)
            client = await all_of_it.connect()
            client.send(header)
            said = await client.hello()
            assert said.startswith("250") and "XCLIENT" not in said and "XFORWARD" not in said
            assert (await client.mail(MAIL)).startswith("250 ")
            assert all_of_it.icap.scans[0]["X-Client-IP"] == "192.0.2.77"
            assert b"Received: from client.example ([192.0.2.77])" in all_of_it.hop.mails[0].data
            told = {"proxy-v1": encode_v1(REAL), "proxy-v2": encode_v2(REAL)}
            assert all_of_it.hop.raw == told.get(tell, b"")
            lines = [line for line in all_of_it.hop.lines if line.startswith(tell.upper().encode())]
            if tell in ("xclient", "xforward"):
                assert b"ADDR=192.0.2.77" in lines[0] and b"HELO=client.example" in lines[0]

    run(main)


def test_a_trusted_server_in_front_tells_who_its_client_is() -> None:
    async def main() -> None:
        ehlo = EHLO.replace(b"250-DSN", b"250-XFORWARD NAME ADDR PORT PROTO HELO SOURCE\r\n250-DSN")
        hop = {"tell": "xforward"}
        async with proxying(NO_CONTENT, ehlo=ehlo, hop=hop, xforward_from=("127.0.0.0/8",)) as all_of_it:
            client = await all_of_it.connect()
            assert "XFORWARD NAME ADDR" in await client.hello()
            for bad in (b"XFORWARD ADDR=x", b"XFORWARD BAD=1", b"XFORWARD HELO=a+0D+0Ab", b"XFORWARD PORT=x"):
                assert (await client.ask(bad)).startswith("501 ")
            told = b"XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7 PORT=99 HELO=real+20client SOURCE=REMOTE"
            assert (await client.ask(told)).startswith("250 ")
            assert (await client.mail(MAIL)).startswith("250 ")
            assert all_of_it.icap.scans[0]["X-Client-IP"] == "2001:db8::7"
            assert b"Received: from client.example ([127.0.0.1])" in all_of_it.hop.mails[0].data
            (line,) = [line for line in all_of_it.hop.lines if line.startswith(b"XFORWARD")]
            assert b"ADDR=IPV6:2001:db8::7" in line and b"HELO=real+20client" in line and b"PORT=99" in line
            await client.ask(b"MAIL FROM:<a>")
            assert (await client.ask(told)).startswith("503 ")

    run(main)


@pytest.mark.parametrize("first", [b"EHLO x\r\n", b"PROXY TCP4 x y 1 2\r\n", b"\r\n\r\nxxxx"])
def test_a_connection_that_owes_a_proxy_header_gets_nothing_without(first: bytes) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, proxy_from=("127.0.0.0/8",)) as all_of_it:
            client = await all_of_it.connect()
            client.send(first)
            assert await client.at_end() and all_of_it.hop.connections == 0

    run(main)


def test_a_proxy_header_of_a_stranger_is_a_mistake() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, proxy_from=("192.0.2.0/24",)) as all_of_it:
            client = await all_of_it.connect()
            await client.reply()
            assert (await client.ask(encode_v1(REAL).strip())).startswith("502 ")

    run(main)


def test_a_hop_that_would_take_the_proxy_for_the_client_gets_nothing() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, hop={"tell": "xclient"}) as all_of_it:
            client = await all_of_it.connect()
            assert (await client.reply()).startswith("220 ")
            assert (await client.ask(b"EHLO x")).startswith("421 4.4.2 ")

    run(main)


def test_a_value_cannot_become_another_attribute() -> None:
    async def main() -> None:
        ehlo = EHLO.replace(b"250-DSN", b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n250-DSN")
        async with proxying(NO_CONTENT, ehlo=ehlo, hop={"tell": "xclient"}) as all_of_it:
            client = await all_of_it.connect()
            await client.reply()
            await client.ask(b"EHLO x ADDR=192.0.2.99")
            (line,) = [line for line in all_of_it.hop.lines if line.startswith(b"XCLIENT")]
            assert b"HELO=x+20ADDR+3D192.0.2.99" in line and line.count(b"ADDR=") == 1

    run(main)
