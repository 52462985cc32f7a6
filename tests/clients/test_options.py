"""OPTIONS: when they are asked for, how they are read, and that a scan works without them (PROTOCOL C3-C7)."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from icapscan.clients.errors import ClientError, ClientTimeout, ConnectionLost, Malformed, NotOffered, ServerRefused
from icapscan.clients.icap import IcapClient
from icapscan.clients.options import ServerOptions, read_options
from icapscan.clients.result import Mode
from icapscan.clients.settings import Timeouts
from icapscan.wire.fields import Fields
from tests.clients.fakes import (
    HTTP_OK,
    NO_CONTENT,
    OPTIONS,
    PREVIEW_OPTIONS,
    Fake,
    Peer,
    Reply,
    Seen,
    answer,
    read_rest,
    run,
    scan,
    script,
    settings,
    until,
)


def read(*lines: bytes) -> ServerOptions:
    return read_options(Fields(b"".join(line + b"\r\n" for line in lines)))


def test_c3_asked_once_for_many_scans() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url) as client:
            await asyncio.gather(*(client.scan(b"x") for _ in range(30)))
            for _ in range(30):
                await client.scan(b"x")
            assert fake.asked_options == 1 and fake.seen[0].method == "OPTIONS"

    run(main())


def test_c3_renewed_in_the_background_when_the_ttl_is_over() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def slow(peer: Peer, seen: Seen) -> None:
            await gate.wait()
            await peer.send(PREVIEW_OPTIONS)

        async with Fake(options=OPTIONS.replace(b"TTL: 3600", b"TTL: 1")) as fake, IcapClient(fake.url) as client:
            await client.scan(b"x")
            fake.options = slow
            await asyncio.sleep(1.1)
            assert (await client.scan(b"x")).is_clean  # does not wait for the renewal
            await until(lambda: fake.asked_options == 2)
            assert (await client.scan(b"x")).is_clean and "Preview" not in fake.scans[-1]
            gate.set()
            await until(lambda: client.busy == 0)
            assert (await client.scan(b"x")).is_clean and "Preview" in fake.scans[-1]
            assert fake.asked_options == 2

    run(main())


def test_c3_without_a_ttl_until_the_istag_changes() -> None:
    async def main() -> None:
        options = OPTIONS.replace(b"Options-TTL: 3600\r\n", b"")
        how = settings(options_retry=0.01)
        async with Fake(options=options) as fake, IcapClient(fake.url, settings=how) as client:
            for _ in range(5):
                await client.scan(b"x")
            await asyncio.sleep(0.02)
            await client.scan(b"x")
            assert fake.asked_options == 1
            fake.replies = [NO_CONTENT.replace(b'"t1"', b'"t2"')]
            fake.options = options.replace(b'"t1"', b'"t2"')
            await client.scan(b"x")
            await client.scan(b"x")
            await until(lambda: fake.asked_options == 2 and client.busy == 0)
            for _ in range(5):
                await client.scan(b"x")
            assert fake.asked_options == 2

    run(main())


def test_c3_a_failed_connection_makes_them_old() -> None:
    async def main() -> None:
        how = settings(options_retry=0.01)
        async with Fake(script("close")) as fake, IcapClient(fake.url, settings=how) as client:
            with pytest.raises(ConnectionLost):
                await client.scan(b"x")
            assert fake.asked_options == 1
            fake.replies = [NO_CONTENT]
            await asyncio.sleep(0.02)
            assert (await client.scan(b"x")).is_clean  # with what is known
            await until(lambda: fake.asked_options == 2 and client.busy == 0)
            for _ in range(3):
                assert (await client.scan(b"x")).is_clean
            assert fake.asked_options == 2

    run(main())


@pytest.mark.parametrize("ttl", [b"", b"Options-TTL: 3600\r\n"])
def test_c3_not_per_scan_where_every_answer_has_another_istag(ttl: bytes) -> None:
    async def main() -> None:
        numbers = iter(range(1000))

        async def restless(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await peer.send(NO_CONTENT.replace(b"t1", b"t%d" % next(numbers)))

        options = OPTIONS.replace(b"Options-TTL: 3600\r\n", ttl)
        async with Fake(restless, options=options) as fake, IcapClient(fake.url) as client:
            for _ in range(20):
                assert (await client.scan(b"x")).is_clean
            assert fake.asked_options == 1 and fake.connections == 1

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        answer(b"404 Not found"),
        answer(b"500 Failed"),
        answer(b"204 No content"),
        script(b"HTTP/1.1 200 OK\r\n\r\n", "close"),
        script(b"garbage\r\n\r\n", "close"),
        script("close"),
        script("reset"),
        script("hang"),
        answer(b"200 OK", fields=b"Preview: none\r\nAllow: \r\nMax-Connections: many\r\nOptions-TTL: -1\r\n"),
        answer(b"200 OK", body=b"x" * 1000, kind=b"opt-body"),
        b"ICAP/1.0 200 OK\r\n\r\n",
    ],
)
def test_c5_a_failing_options_request_does_not_block_a_scan(options: Reply) -> None:
    async def main() -> None:
        how = settings(timeouts=Timeouts(options=0.2))
        async with Fake(options=options) as fake, IcapClient(fake.url, settings=how) as client:
            for _ in range(3):
                assert (await client.scan(b"x" * 500)).is_clean
            assert fake.asked_options == 1
            assert all("Preview" not in seen and seen["Allow"] == "204" for seen in fake.scans)

    run(main())


@pytest.mark.parametrize(
    ("options", "error"),
    [(answer(b"404 Not found"), ServerRefused), (script("close"), ConnectionLost), (script("hang"), ClientTimeout)],
)
def test_c5_unless_strict(options: Reply, error: type[ClientError]) -> None:
    async def main() -> None:
        how = settings(options="strict", timeouts=Timeouts(options=0.2))
        async with Fake(options=options) as fake, IcapClient(fake.url, settings=how) as client:
            for count in (1, 2):
                with pytest.raises(error):
                    await client.scan(b"x")
                assert fake.asked_options == count and not fake.scans
            fake.options = OPTIONS
            assert (await client.scan(b"x")).is_clean

    run(main())


def test_c5_failed_options_are_asked_for_again_later() -> None:
    async def main() -> None:
        how = settings(options_retry=0.05)
        async with Fake(options=answer(b"503 Busy")) as fake, IcapClient(fake.url, settings=how) as client:
            await client.scan(b"x")
            fake.options = OPTIONS
            await asyncio.sleep(0.1)
            await client.scan(b"x")
            await until(lambda: fake.asked_options == 2)

    run(main())


def test_c5_never_asked_where_that_is_set() -> None:
    async def main() -> None:
        async with Fake() as fake:
            assert (await scan(fake, how=settings(options="never"))).is_clean
            assert not fake.asked_options

    run(main())


@pytest.mark.parametrize(
    ("value", "methods"),
    [
        (b"RESPMOD, REQMOD", {"RESPMOD", "REQMOD"}),
        (b"respmod , LOG", {"RESPMOD"}),
        (b"RESPMOD REQMOD", {"RESPMOD", "REQMOD"}),
        (b",,reqMod,", {"REQMOD"}),
        (b"REQMOD\r\nMethods: RESPMOD", {"RESPMOD", "REQMOD"}),
        (b"FILEMOD", set()),
        (b"", set()),
    ],
)
def test_c6_methods(value: bytes, methods: set[str]) -> None:
    assert read(b"Methods: " + value).methods == methods


def test_c6_a_method_that_is_not_offered_is_a_clear_error() -> None:
    async def main() -> None:
        async with Fake(options=OPTIONS.replace(b"RESPMOD, REQMOD", b"respmod , LOG")) as fake:
            assert (await scan(fake)).is_clean
            with pytest.raises(NotOffered) as raised:
                await scan(fake, mode=Mode.REQMOD)
            assert "REQMOD" in str(raised.value) and not raised.value.retry

    run(main())


@pytest.mark.parametrize(
    "lines",
    [
        (b"Allow: trailers,206,204",),
        (b"Allow: 204",),
        (b"allow:204 , trailers",),
        (b"Allow: Trailers", b"Allow: 204"),
        (b"Allow:\t206 204",),
    ],
)
def test_c7_allow_in_any_form(lines: tuple[bytes, ...]) -> None:
    options = read(*lines)
    assert "204" in options.allow and options.allow <= {"204", "206", "trailers"}


def test_c7_other_fields_are_read_tolerantly() -> None:
    options = read(
        b"Preview: 4096", b"Transfer-Preview: EXE, .com", b"Transfer-Complete: *", b"Options-TTL: 60",
        b"Max-Connections: 7", b"X-Include: X-Client-IP, X-Authenticated-User", b"Service: Scanner 1.0",
    )  # fmt: skip
    assert options.known and options.preview == 4096 and options.ttl == 60.0 and options.max_connections == 7
    assert options.include == {"x-client-ip", "x-authenticated-user"} and options.service == "Scanner 1.0"
    assert (options.preview_for("a.exe"), options.preview_for("B.COM")) == (4096, 4096)
    assert (options.preview_for("a.txt"), options.preview_for("exe")) == (None, None)
    nothing = read(b"Preview: -1", b"Max-Connections: 1e3", b"Options-TTL: 0", b"Service:")
    assert (nothing.preview, nothing.max_connections, nothing.ttl) == (None, None, None)


def test_c8_206_is_offered_only_where_both_know_it() -> None:
    async def main() -> None:
        knows = OPTIONS.replace(b"Allow: 204", b"Allow: 206, 204")
        for options, offer, allow in ((knows, True, "204, 206"), (OPTIONS, True, "204"), (knows, False, "204")):
            async with Fake(options=options) as fake:
                await scan(fake, how=settings(offer_206=offer))
                assert fake.scans[0]["Allow"] == allow

    run(main())


def test_options_on_demand() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url) as client:
            options = await client.options()
            assert options.istag == "t1" and options.methods == {"RESPMOD", "REQMOD"} and options.max_connections == 100
            fake.options = answer(res=HTTP_OK, body=b"x")[:-5] + b"zz\r\n"
            with pytest.raises(Malformed):
                await client.options()

    run(main())


def test_closing_the_client_while_it_asks() -> None:
    async def main() -> None:
        async with Fake(options=script("hang")) as fake:
            client = IcapClient(fake.url)
            task = asyncio.create_task(client.scan(b"x"))
            await until(lambda: fake.asked_options == 1)
            await client.aclose()
            with pytest.raises(ConnectionLost):
                await task

    run(main())


def test_the_client_imports_no_heavy_library() -> None:
    """A mail adapter starts anew for each mail."""
    heavy = ("yara", "jinja2", "rich", "uvloop", "typer", "structlog", "starlette", "prometheus_client", "clamd")
    code = f"import sys, icapscan.clients.balance; print([name for name in {heavy!r} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
