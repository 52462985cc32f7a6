"""``icapscan milter`` between a scripted ICAP server and an MTA that speaks the protocol by the same codec."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from icapscan.adapters.milter_changes import header_changes, read_fields, read_message
from icapscan.adapters.milter_server import MilterServer
from icapscan.adapters.milter_settings import MilterSettings, MilterTimeouts
from icapscan.cli.milter import overrides
from icapscan.config import load_every
from icapscan.errors import ConfigError
from icapscan.store import PartStore
from icapscan.wire import milter_events as ev
from icapscan.wire.milter_codes import Actions
from tests.clients.fakes import HTTP_403, NO_CONTENT, Fake, Peer, Reply, Seen, answer
from tests.peers.milter_mta import Mail, Mta, applied
from tests.peers.processes import free_port

MESSAGE = (
    b"Received: from x\r\n\tby y\r\nReceived: from w\r\nFrom: a@icapscan.test\r\nTo:b@icapscan.test\r\n"
    b"Subject:  two\r\nX-Empty:\r\n\r\nLine one\r\n.\r\n\r\nlast\r\n"
)
MAIL = Mail.of(MESSAGE)
INFECTED = b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar%dTest;\r\nX-Request-ID: abc12345\r\n"
BLOCKED = answer(fields=INFECTED, res=HTTP_403, body=b"no")
REQUEST = b"PUT / HTTP/1.1\r\nHost: scan.invalid\r\nContent-Type: message/rfc822\r\n\r\n"
CLEANED = (
    b"Received: from x\r\n\tby y\r\nFrom: a@icapscan.test\r\nTo: c@icapscan.test\r\nSubject:  two\r\nX-Empty:\r\n"
    b"X-New: 1\r\nContent-Type: text/plain\r\n\r\nnothing left\r\n"
)
REPLACED = answer(fields=INFECTED, req=REQUEST, body=CLEANED)
REFUSAL = ev.Reply(b"554 5.7.1 This message was refused: Eicar%%dTest (reference abc12345)")
LATER = ev.Reply(b"451 4.7.1 The message cannot be scanned now, try again later")
SCANNED = ev.AddHeader(b"X-Virus-Scanned", b" icapscan at mx.icapscan.test")
SETTINGS = MilterSettings(listen=("inet:0@127.0.0.1",), hostname="mx.icapscan.test")


class World:
    """A filter that runs, and the ICAP server that it asks."""

    def __init__(self, milter: MilterServer, icap: Fake) -> None:
        self.milter, self.icap = milter, icap

    @property
    def port(self) -> int:
        return int(self.milter.addresses[0].partition("@")[0].partition(":")[2])

    async def mta(self, **offer: Any) -> Mta:
        return Mta(*await asyncio.open_connection("127.0.0.1", self.port), **offer)


@asynccontextmanager
async def world(*replies: Reply, settings: MilterSettings = SETTINGS) -> AsyncIterator[World]:
    async with Fake(*replies) as icap, MilterServer(replace(settings, icap=(icap.url,))) as milter:
        yield World(milter, icap)


def run(use: Callable[[World], Awaitable[None]], *replies: Reply, settings: MilterSettings = SETTINGS) -> None:
    async def main() -> None:
        async with world(*replies, settings=settings) as one:
            await use(one)

    asyncio.run(main())


def one(*replies: Reply, mail: Mail = MAIL, settings: MilterSettings = SETTINGS, **offer: Any) -> list[ev.Event]:
    """The answers to one message."""
    answers: list[ev.Event] = []

    async def use(world: World) -> None:
        async with await world.mta(**offer) as mta:
            await mta.connect()
            answers.extend(await mta.send(mail))

    run(use, *replies, settings=settings)
    return answers


# What the service is asked, and what the MTA is answered


@pytest.mark.parametrize("version", [2, 3, 4, 6])
@pytest.mark.parametrize("piece", [1 << 16, 7])
def test_the_service_gets_the_message_as_it_was_with_envelope_client_and_user(version: int, piece: int) -> None:
    async def use(world: World) -> None:
        async with await world.mta(version=version) as mta:
            await mta.connect()
            await mta.start(b"", [b"b@icapscan.test", b"c@icapscan.test"], b"joe")
            await mta.content(MAIL, min(piece, 65535))
            answers = await mta.say(ev.EndOfBody(b"the end"))
            assert isinstance(answers[-1], ev.Continue)
        [seen] = world.icap.scans
        expected = MESSAGE + b"the end"
        if version < 6:  # without LEADING_SPACE an MTA does not tell whether there was one
            expected = expected.replace(b"To:b", b"To: b").replace(b"X-Empty:\r", b"X-Empty: \r")
        assert seen.body == expected
        heads = seen.heads.decode().split("\r\n")
        assert heads[0] == "PUT / HTTP/1.1"
        told = {"X-SMTP-From: <>", "X-SMTP-To: b@icapscan.test", "X-SMTP-To: c@icapscan.test"}
        assert told <= set(heads)
        assert seen["X-Client-IP"] == "192.0.2.7"
        assert base64.b64decode(seen["X-Authenticated-User"]) == b"Local://joe"

    run(use, NO_CONTENT)


def test_clean_refused_and_deferred() -> None:
    assert one(NO_CONTENT) == [SCANNED, ev.Continue()]
    assert one(NO_CONTENT, settings=replace(SETTINGS, scanned_field=False)) == [ev.Continue()]
    assert one(BLOCKED) == [REFUSAL]
    for reply in (
        b"ICAP/1.0 500 Server error\r\nEncapsulated: null-body=0\r\n\r\n",
        answer(res=b"HTTP/1.1 503 Service Unavailable\r\n\r\n", body=b"later"),
        b"HTTP/1.1 200 OK\r\n\r\n",
        REPLACED[:-9],
    ):

        async def say(peer: Peer, seen: Seen, data: bytes = reply) -> None:
            await peer.chunks(seen)
            await peer.send(data)
            raise OSError("gone")

        assert one(say) == [LATER]


def test_no_service_is_deferred() -> None:
    async def main() -> None:
        settings = replace(SETTINGS, icap=(f"icap://127.0.0.1:{free_port()}/avscan",))
        async with MilterServer(settings) as milter, await World(milter, Fake()).mta() as mta:
            await mta.connect()
            assert await mta.send(MAIL) == [LATER]
            assert await mta.send(MAIL) == [LATER]

    asyncio.run(main())


def test_quarantine_where_the_mta_can_and_reject_where_not() -> None:
    settings = replace(SETTINGS, refused="quarantine")
    assert one(BLOCKED, settings=settings) == [
        ev.Quarantine(b"icapscan: Eicar%dTest (reference abc12345)"), ev.Continue(),
    ]  # fmt: skip
    assert one(BLOCKED, settings=settings, actions=Actions.ADD_HEADERS) == [REFUSAL]


@pytest.mark.parametrize("version", [2, 6])
def test_a_sanitised_message_is_changes_of_the_header_and_a_new_body(version: int) -> None:
    answers = one(REPLACED, version=version)
    assert isinstance(answers[-1], ev.Continue)
    kinds = [type(event) for event in answers[:-1]]
    assert kinds.index(ev.ReplaceBody) == len(kinds) - kinds.count(ev.ReplaceBody)  # Postfix: the body comes last
    changed = applied(MAIL, answers, spaced=version == 6)
    wanted = Mail.of(CLEANED)
    assert changed.body == wanted.body
    assert [field for field in changed.fields if field[0] != b"X-Virus-Scanned"] == list(wanted.fields)


def test_a_sanitised_message_that_the_mta_cannot_take_is_deferred() -> None:
    few = Actions.ADD_HEADERS | Actions.CHANGE_HEADERS
    assert one(REPLACED, actions=few) == [LATER]
    no_field = answer(fields=INFECTED, req=REQUEST, body=b"no field here\r\nA: b\r\n\r\nx")
    assert one(no_field) == [LATER]
    assert one(answer(fields=INFECTED, req=REQUEST, body=b"A: b\r\nwithout an end")) == [LATER]


def test_a_large_sanitised_body_goes_in_pieces() -> None:
    body = bytes(range(1, 256)) * 1000
    answers = one(answer(fields=INFECTED, req=REQUEST, body=b"A: b\r\n\r\n" + body))
    assert applied(MAIL, answers, spaced=True).body == body
    assert sum(isinstance(event, ev.ReplaceBody) for event in answers) == 4
    assert applied(MAIL, one(answer(fields=INFECTED, req=REQUEST, body=b"A: b\r\n\r\n")), spaced=True).body == b""


def test_a_message_that_is_too_large_is_552_and_the_next_one_is_scanned() -> None:
    async def use(world: World) -> None:
        async with await world.mta() as mta:
            await mta.connect()
            assert await mta.send(replace(MAIL, body=b"x" * 500_000)) == [
                ev.Reply(b"552 5.3.4 The message is too large to be scanned")
            ]
            assert await mta.send(MAIL) == [SCANNED, ev.Continue()]

    run(use, NO_CONTENT, settings=replace(SETTINGS, max_size=100_000))


def test_a_header_section_that_is_too_long_is_552() -> None:
    mail = replace(MAIL, fields=((b"X", b" " + b"x" * 90_000),) * 50)
    assert one(NO_CONTENT, mail=mail) == [ev.Reply(b"552 5.3.4 The message is too large to be scanned")]


def test_no_room_for_the_message_is_deferred() -> None:
    assert one(
        NO_CONTENT, mail=replace(MAIL, body=b"x" * 500_000), settings=replace(SETTINGS, memory=0, disk=1000)
    ) == [LATER]


# Sessions


def test_several_messages_and_clients_on_one_connection() -> None:
    async def use(world: World) -> None:
        async with await world.mta() as mta:
            await mta.connect()
            assert await mta.send(MAIL, user=b"joe") == [SCANNED, ev.Continue()]
            assert await mta.send(MAIL) == [REFUSAL]
            await mta.start(b"given@up.test", [b"b@icapscan.test"])
            await mta.say(ev.Abort())
            await mta.start(b"given@up.test", [b"b@icapscan.test"])
            await mta.content(MAIL)
            await mta.say(ev.Abort())
            assert await mta.send(MAIL, sender=b"c@icapscan.test") == [SCANNED, ev.Continue()]
            await mta.say(ev.Quit(again=True))
            await mta.connect(b"192.0.2.9")
            assert await mta.send(MAIL) == [SCANNED, ev.Continue()]
            await mta.say(ev.Quit())
        done = [seen for seen in world.icap.scans if seen.body == MESSAGE and b"given@up" not in seen.heads]
        assert [("X-Authenticated-User" in seen, seen["X-Client-IP"]) for seen in done] == [
            (True, "192.0.2.7"), (False, "192.0.2.7"), (False, "192.0.2.7"), (False, "192.0.2.9"),
        ]  # fmt: skip

    async def by_sender(peer: Peer, seen: Seen) -> None:
        await peer.chunks(seen)
        number.append(seen)
        await peer.send(BLOCKED if len(number) == 2 else NO_CONTENT)

    number: list[Seen] = []
    run(use, by_sender)


def test_many_sessions_at_once_keep_their_messages_apart() -> None:
    async def by_body(peer: Peer, seen: Seen) -> None:
        await peer.chunks(seen)
        await peer.send(BLOCKED if b"bad" in seen.body else NO_CONTENT)

    async def session(world: World, number: int) -> None:
        async with await world.mta() as mta:
            await mta.connect()
            for turn in range(4):
                bad = (number + turn) % 3 == 0
                mail = replace(MAIL, body=b"%d %d %s" % (number, turn, b"bad" if bad else b"good") * 5000)
                assert (await mta.send(mail))[-1] == (REFUSAL if bad else ev.Continue())

    async def use(world: World) -> None:
        await asyncio.gather(*(session(world, number) for number in range(40)))
        assert len(world.icap.scans) == 160

    run(use, by_body)


def test_the_message_is_sent_on_while_it_comes() -> None:
    async def use(world: World) -> None:
        async with await world.mta() as mta:
            await mta.connect()
            await mta.start(b"a@icapscan.test", [b"b@icapscan.test"])
            await mta.content(replace(MAIL, body=b"x" * 100_000))
            await asyncio.wait_for(began.wait(), 60)
            assert await mta.say(ev.EndOfBody()) == [SCANNED, ev.Continue()]

    began = asyncio.Event()

    async def early(peer: Peer, seen: Seen) -> None:
        assert await peer.reader.readexactly(5)
        began.set()
        data = b""
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += await peer.reader.read(1 << 16)
        await peer.send(NO_CONTENT)

    run(use, early)


def test_the_mta_is_told_that_a_long_scan_goes_on() -> None:
    async def slow(peer: Peer, seen: Seen) -> None:
        await peer.chunks(seen)
        await asyncio.sleep(0.5)
        await peer.send(NO_CONTENT)

    async def use(world: World) -> None:
        async with await world.mta() as mta:
            await mta.connect()
            assert await mta.send(MAIL) == [SCANNED, ev.Continue()]
            assert mta.progress >= 2

    run(use, slow, settings=replace(SETTINGS, timeouts=MilterTimeouts(progress=0.1)))


def test_a_service_that_hangs_is_deferred_in_time() -> None:
    async def hang(peer: Peer, seen: Seen) -> None:
        await peer.reader.read()

    assert one(hang, settings=replace(SETTINGS, timeouts=MilterTimeouts(scan=0.5, progress=0.1))) == [LATER]


def test_an_mta_that_goes_away_cuts_the_scan() -> None:
    async def use(world: World) -> None:
        for stage in ("content", "end"):
            async with await world.mta() as mta:
                await mta.connect()
                await mta.start(b"a@icapscan.test", [b"b@icapscan.test"])
                await mta.content(replace(MAIL, body=b"x" * 100_000))
                if stage == "end":
                    mta.writer.write(mta.codec.send(ev.EndOfBody()))
                await asyncio.wait_for(asked.get(), 60)
            await asyncio.wait_for(cut.get(), 60)

    asked: asyncio.Queue[None] = asyncio.Queue()
    cut: asyncio.Queue[None] = asyncio.Queue()

    async def hang(peer: Peer, seen: Seen) -> None:
        asked.put_nowait(None)
        while await peer.reader.read(1 << 16):
            pass
        cut.put_nowait(None)
        raise OSError("gone")

    run(use, hang)


def test_nonsense_ends_the_connection_without_an_answer() -> None:
    async def use(world: World) -> None:
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\0", b"\0\0\0\1T", b"\0\0\0\x02Mx"):
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write(data)
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()

    run(use, NO_CONTENT)


def test_one_connection_too_many_is_closed() -> None:
    async def use(world: World) -> None:
        async with await world.mta() as mta:
            with pytest.raises((ConnectionError, AssertionError)):
                async with await world.mta():
                    pass
            await mta.connect()
            assert await mta.send(MAIL) == [SCANNED, ev.Continue()]

    run(use, NO_CONTENT, settings=replace(SETTINGS, max_connections=1))


def test_the_end_of_the_program_waits_for_a_message() -> None:
    async def main() -> None:
        async with Fake(slow) as icap:
            milter = MilterServer(replace(SETTINGS, icap=(icap.url,)))
            async with milter:
                mta = await World(milter, icap).mta()
                await mta.__aenter__()
                await mta.connect()
                sending = asyncio.create_task(mta.send(MAIL))
                await asyncio.wait_for(began.wait(), 60)
            assert await sending == [SCANNED, ev.Continue()]
            mta.writer.close()

    began = asyncio.Event()

    async def slow(peer: Peer, seen: Seen) -> None:
        await peer.chunks(seen)
        began.set()
        await asyncio.sleep(0.3)
        await peer.send(NO_CONTENT)

    asyncio.run(main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_unix_sockets(tmp_path: Path, loop: str) -> None:
    path = tmp_path / "milter.sock"

    async def main() -> None:
        settings = replace(SETTINGS, listen=(f"unix:{path}",), socket_mode="600")
        for _ in range(2):
            async with Fake(NO_CONTENT) as icap, MilterServer(replace(settings, icap=(icap.url,))):
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
                async with Mta(*await asyncio.open_unix_connection(path)) as mta:
                    await mta.connect()
                    assert await mta.send(MAIL) == [SCANNED, ev.Continue()]
                with pytest.raises(ConfigError):
                    async with MilterServer(settings):
                        pass
        path.unlink(missing_ok=True)
        path.write_text("a file of somebody")
        with pytest.raises(ConfigError):
            async with MilterServer(settings):
                pass
        assert path.read_text() == "a file of somebody"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(main())


def test_the_command_line_and_the_configuration_say_the_same() -> None:
    sets = overrides(["inet:1@127.0.0.1", "unix:/run/x"], ["icap://one/avscan"])
    found = load_every(None, sets, {"ICAPSCAN_MILTER__TIMEOUTS__SCAN": "90 s"}).milter
    assert found == MilterSettings(
        listen=("inet:1@127.0.0.1", "unix:/run/x"), icap=("icap://one/avscan",), timeouts=MilterTimeouts(scan=90.0)
    )
    assert overrides([], []) == []
    for listen in ("nonsense", "inet:x@h", "unix:relative", "inet:1@[::1]"):
        with pytest.raises(ConfigError, match='expected a list of "inet:port@host" or "unix:/path"'):
            load_every(None, overrides([listen], []), {})


# Changes of a header section

NAMES = st.sampled_from([b"A", b"a", b"B", b"Subject"])
VALUES = st.sampled_from([b" 1", b" 2", b"3", b"", b"  x", b"\tz", b" two\n lines"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=7).map(tuple)


@given(FIELDS, FIELDS, st.booleans())
def test_any_header_section_becomes_any_other(
    before: tuple[tuple[bytes, bytes], ...], after: tuple[tuple[bytes, bytes], ...], spaced: bool
) -> None:
    changed = applied(Mail(before, b""), header_changes(before, after, leading_space=spaced), spaced=spaced).fields
    for name in (b"a", b"b", b"subject"):
        values = [value.strip() for given, value in changed if given.lower() == name]
        assert values == [value.strip() for given, value in after if given.lower() == name]
    assert header_changes(before, before, leading_space=spaced) == []


@given(FIELDS.filter(bool), st.sampled_from([b"\r\n", b"\n"]), st.binary(max_size=20))
def test_a_message_is_read_whatever_its_line_ends(
    fields: tuple[tuple[bytes, bytes], ...], end: bytes, body: bytes
) -> None:
    head = b"".join(name + b":" + value.replace(b"\n", end) + end for name, value in fields)
    read = read_message(PartStore.of(head + end + body))
    assert read == (list(fields), len(head + end))


def test_what_is_no_header_section_is_not_guessed_at() -> None:
    for head in (b"no colon\r\n", b" begins with a fold\r\n", b"A: b\r\nc d: e\r\n", b"A: \0\r\n", b": x\r\n"):
        assert read_fields(head) is None
        assert read_message(PartStore.of(head + b"\r\nbody")) is None
    assert read_message(PartStore.of(b"\r\nonly a body")) == ([], 2)
    assert read_message(PartStore.of(b"")) is None
