"""Dovecot's authentication socket: a real one, and one that lies."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from icapscan.adapters.dovecot import AuthFailed, Verdict, dovecot
from tests.peers.dovecot import USERS, run_dovecot

GREETING = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nMECH\tGSSAPI\nSPID\t1\nDONE\n"


@asynccontextmanager
async def fake(folder: Path, *answers: bytes, greeting: bytes = GREETING) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A socket that greets, and answers the lines after the handshake in turn."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(greeting)
            heard.append(await reader.readline())
            heard.append(await reader.readline())
            for said in answers:
                heard.append(await reader.readline())
                writer.write(said)
            await reader.read()
        finally:
            writer.close()

    path = str(folder / "auth")
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield path, heard
    finally:
        server.close()


async def asked(path: str, mechanism: str = "PLAIN", initial: bytes | None = b"AGEAYg==") -> Verdict:
    async with dovecot(path, 5) as exchange, asyncio.timeout(5):
        return await exchange.start(mechanism, initial, client="192.0.2.1", server="192.0.2.2", tls=True)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def guarded() -> None:
        async with asyncio.timeout(60):
            await main()

    asyncio.run(guarded())


def test_what_is_said_and_what_is_heard(tmp_path: Path) -> None:
    async def main() -> None:
        async with fake(tmp_path, b"OK\t1\tuser=anna\x01tx\tsomething\n") as (path, heard):
            assert await asked(path) == Verdict(user="anna\tx")
        assert heard[0] == b"VERSION\t1\t1\n" and heard[1].startswith(b"CPID\t")
        line = b"AUTH\t1\tPLAIN\tservice=smtp\tlip=192.0.2.2\trip=192.0.2.1\tsecured\tresp=AGEAYg==\n"
        assert heard[2] == line

    run(main)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (b"FAIL\t1\tuser=a\n", Verdict()),
        (b"FAIL\t1\tuser=a\ttemp\n", Verdict(later=True)),
        (b"FAIL\t1\tcode=temp_fail\n", Verdict(later=True)),
        (b"CONT\t1\tVXNlcg==\n", Verdict(challenge=b"VXNlcg==")),
        (b"CONT\t1\t\n", Verdict(challenge=b"")),
        (b"OK\t2\tuser=other\nFAIL\t1\n", Verdict()),
    ],
)
def test_verdicts(tmp_path: Path, said: bytes, verdict: Verdict) -> None:
    async def main() -> None:
        async with fake(tmp_path, said) as (path, _):
            assert await asked(path) == verdict

    run(main)


@pytest.mark.parametrize(
    "said", [b"OK\t1\n", b"OK\t1\tuser=\n", b"HELLO\t1\n", b"CONT\t1\t!!\n", b"x" * 20000 + b"\n", b"MECH\tX\n" * 200]
)
def test_an_answer_that_makes_no_sense_authenticates_nobody(tmp_path: Path, said: bytes) -> None:
    async def main() -> None:
        async with fake(tmp_path, said) as (path, _):
            with pytest.raises(AuthFailed):
                await asked(path)

    run(main)


@pytest.mark.parametrize(
    "greeting", [b"VERSION\t2\t0\nDONE\n", b"MECH\tPLAIN\n" * 200, b"VERSION\t1\t1\nDONE\n", b"x" * 20000]
)
def test_a_greeting_that_makes_no_sense(tmp_path: Path, greeting: bytes) -> None:
    async def main() -> None:
        async with fake(tmp_path, b"OK\t1\tuser=a\n", greeting=greeting) as (path, _):
            with pytest.raises(AuthFailed):
                await asked(path)

    run(main)


@pytest.mark.parametrize("initial", [b"AGE\tlip=1", b"a\nOK", b"====", b"A" * 20000, b"\xff"])
def test_nothing_but_base64_goes_to_dovecot(tmp_path: Path, initial: bytes) -> None:
    async def main() -> None:
        async with fake(tmp_path, b"OK\t1\tuser=a\n") as (path, heard):
            with pytest.raises(AuthFailed):
                await asked(path, initial=initial)
            assert len(heard) == 2 or not any(line.startswith(b"AUTH") for line in heard)

    run(main)


def test_nobody_there(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(AuthFailed):
            await asked(str(tmp_path / "nothing"))

    run(main)


def test_a_real_dovecot(tmp_path: Path) -> None:
    (user, password), *_ = USERS.items()

    async def main(path: str) -> None:
        good = base64.b64encode(f"\0{user}\0{password}".encode())
        assert (await asked(path, initial=good)).user == user
        assert await asked(path, initial=base64.b64encode(f"\0{user}\0wrong".encode())) == Verdict()
        async with dovecot(path, 5) as exchange:
            assert exchange.mechanisms == ("PLAIN", "LOGIN", "CRAM-MD5")
            first = await exchange.start("LOGIN", None, client="127.0.0.1", server="127.0.0.1", tls=False)
            assert first.challenge is not None
            second = await exchange.go_on(base64.b64encode(user.encode()))
            assert second.challenge is not None
            assert (await exchange.go_on(base64.b64encode(password.encode()))).user == user

    with run_dovecot(tmp_path / "dovecot") as running:
        run(lambda: main(str(running.socket)))
