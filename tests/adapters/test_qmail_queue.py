"""``icapscan-qmail-queue`` as its caller sees it, with a scripted ICAP server and a stand-in for qmail-queue."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from icapscan.adapters.qmail_queue_settings import QueueSettings, load_settings
from icapscan.errors import ConfigError
from icapscan.wire.qmail_queue import encode_envelope
from tests.clients.fakes import HTTP_403, NO_CONTENT, Fake, Peer, Reply, Seen, answer
from tests.peers import require
from tests.peers.processes import free_port, wait_until
from tests.peers.qmail_queue import Called, Caller, StandIn, call

MAIL = b"Received: by mx\nFrom: a@icapscan.test\nSubject: hello\n\nLine one\n.\n\nlast without an end"
ENVELOPE = encode_envelope(b"a@icapscan.test", [b"b@icapscan.test", b"c@icapscan.test"])
INFECTED = b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;\r\n"
BLOCKED = answer(fields=INFECTED + b"X-Request-ID: abc12345\r\n", res=HTTP_403, body=b"no")
DEFERRED = answer(res=b"HTTP/1.1 503 Service Unavailable\r\n\r\n", body=b"later")
REQUEST = b"PUT / HTTP/1.1\r\nHost: scan.invalid\r\nContent-Type: message/rfc822\r\n\r\n"
FAILED = b"ICAP/1.0 500 Server error\r\nEncapsulated: null-body=0\r\n\r\n"


@pytest.fixture
def queue(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "queue")


def environment(queue: StandIn, *urls: str, **more: str) -> dict[str, str]:
    given = {"ICAPSCAN_QUEUE": str(queue.path), "ICAPSCAN_ICAP": " ".join(urls), "ICAPSCAN_TIMEOUT": "30"}
    return given | {"ICAPSCAN_CONFIG": "/dev/null"} | more


def through(
    queue: StandIn,
    *replies: Reply,
    mail: bytes = MAIL,
    envelope: bytes = ENVELOPE,
    text: bool = True,
    more: dict[str, str] | None = None,
) -> tuple[Called, list[Seen]]:
    """One message past one server that answers so."""

    async def run() -> tuple[Called, list[Seen]]:
        async with Fake(*replies) as server:
            given = environment(queue, server.url, **(more or {}))
            return await asyncio.to_thread(call, given, mail, envelope, text=text), server.seen

    return asyncio.run(run())


# What becomes of a message


@pytest.mark.parametrize("mail", [MAIL, b"", b"x" * 70_000, b"\0\xff\r\n" * 3_000_000], ids=["mail", "0", "70K", "12M"])
def test_a_clean_message_is_queued_byte_for_byte_with_its_envelope(queue: StandIn, mail: bytes) -> None:
    called, seen = through(queue, NO_CONTENT, mail=mail)
    assert (called.code, called.text, called.log) == (0, b"", "")
    assert [(one.message, one.envelope) for one in queue.queued()] == [(mail, ENVELOPE)]
    assert [one.method for one in seen] == ["REQMOD"]
    assert seen[0].body == mail


def test_the_server_is_told_who_and_whom(queue: StandIn) -> None:
    more = {"TCPREMOTEIP": "192.0.2.7", "SMTPAUTHUSER": "joe"}
    _, seen = through(
        queue, NO_CONTENT, envelope=encode_envelope(b"", [b"b@icapscan.test", b"c\r\nX: y@test"]), more=more
    )
    heads = seen[0].heads.decode().split("\r\n")
    assert heads[0] == "PUT / HTTP/1.1"
    assert {"Content-Type: message/rfc822", "X-SMTP-From: <>", "X-SMTP-To: b@icapscan.test"} <= set(heads)
    assert "X-SMTP-To: c??X: y@test" in heads
    assert seen[0]["X-Client-IP"] == "192.0.2.7"
    assert seen[0]["X-Transformed-From"] == "SMTP"
    assert base64.b64decode(seen[0]["X-Authenticated-User"]) == b"Local://joe"
    assert "Preview" not in seen[0]


def test_a_thousand_recipients_all_get_the_mail_and_the_head_stays_small(queue: StandIn) -> None:
    envelope = encode_envelope(b"a@icapscan.test", [b"user%d@icapscan.test" % number for number in range(1000)])
    called, seen = through(queue, NO_CONTENT, envelope=envelope)
    assert called.code == 0
    assert queue.queued()[0].envelope == envelope
    assert seen[0].heads.count(b"X-SMTP-To:") == 100


def test_a_refused_message_is_31_and_never_queued(queue: StandIn) -> None:
    called, _ = through(queue, BLOCKED)
    assert (called.code, called.text, queue.starts) == (31, b"", 0)
    assert "threat=Eicar-Test" in called.log
    assert "reference=abc12345" in called.log


def test_the_reason_goes_to_descriptor_6_only_where_the_caller_reads_it(queue: StandIn) -> None:
    called, _ = through(queue, BLOCKED, more={"ICAPSCAN_CUSTOM_ERROR": "1"})
    assert called.code == 82
    assert called.text == b"Dthis message was refused: Eicar-Test (reference abc12345) (#5.7.1)"
    called, _ = through(queue, BLOCKED, text=False, more={"ICAPSCAN_CUSTOM_ERROR": "1"})
    assert (called.code, queue.starts) == (31, 0)


def test_a_sanitised_message_is_queued_in_place_of_the_original(queue: StandIn) -> None:
    called, _ = through(queue, answer(fields=INFECTED, req=REQUEST, body=b"Subject: clean\n\nnothing\n"))
    assert called.code == 0
    assert [(one.message, one.envelope) for one in queue.queued()] == [(b"Subject: clean\n\nnothing\n", ENVELOPE)]


@pytest.mark.parametrize(
    "reply",
    [
        DEFERRED,
        FAILED,
        b"ICAP/1.0 404 Not found\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"220 smtp.icapscan.test\r\n",
        answer(fields=INFECTED),
        answer(req=REQUEST, body=b""),
        answer(req=REQUEST.replace(b"message/rfc822", b"text/html"), body=b"<p>"),
        answer(res=b"HTTP/1.1 200 OK\r\n\r\n", body=MAIL).replace(b"res-hdr", b"req-hdr"),
    ],
)
def test_every_other_answer_queues_nothing(queue: StandIn, reply: bytes) -> None:
    called, _ = through(queue, reply)
    assert called.code in (71, 31)
    assert called.code == 71 or b"Infection" in reply
    assert queue.starts == 0


def test_an_answer_cut_anywhere_queues_nothing(queue: StandIn) -> None:
    for reply in (NO_CONTENT, answer(fields=INFECTED, req=REQUEST, body=b"Subject: clean\n\nnothing\n")):
        for stop in range(0, len(reply), 19):

            async def cut(peer: Peer, seen: Seen, data: bytes = reply[:stop]) -> None:
                await peer.chunks(seen)
                await peer.send(data)
                raise OSError("gone")

            called, _ = through(queue, cut)
            assert called.code == 71
    assert queue.starts == 0


def test_clean_before_the_end_was_seen_queues_nothing(queue: StandIn) -> None:
    async def early(peer: Peer, seen: Seen) -> None:
        await peer.send(NO_CONTENT)
        await peer.reader.read(1 << 20)
        raise OSError("gone")

    called, _ = through(queue, early, mail=b"x" * 30_000_000)
    assert (called.code, queue.starts) == (71, 0)


# Services


def test_the_next_service_is_asked_when_one_fails_or_is_not_there(queue: StandIn) -> None:
    async def run() -> list[int]:
        async with Fake(FAILED) as broken, Fake(NO_CONTENT) as good:
            given = environment(queue, f"icap://127.0.0.1:{free_port()}/avscan", broken.url, good.url)
            called = await asyncio.to_thread(call, given, MAIL, ENVELOPE)
            return [called.code, len(broken.seen), len(good.seen)]

    assert asyncio.run(run()) == [0, 1, 1]
    assert len(queue.queued()) == 1


def test_no_service_at_all_is_71(queue: StandIn) -> None:
    urls = [f"icap://127.0.0.1:{free_port()}/avscan" for _ in range(2)]
    called = call(environment(queue, *urls), MAIL, ENVELOPE)
    assert (called.code, queue.starts) == (71, 0)
    assert "Connection refused" in called.log


def test_a_service_that_hangs_is_52_within_its_time_and_leaves_time_for_the_next(queue: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # nobody accepts
        hanging = f"icap://127.0.0.1:{listener.getsockname()[1]}/avscan"
        called = call(environment(queue, hanging, ICAPSCAN_TIMEOUT="1"), MAIL, ENVELOPE)
        assert (called.code, queue.starts) == (52, 0)

        async def run() -> int:
            async with Fake(NO_CONTENT) as good:
                given = environment(queue, hanging, good.url, ICAPSCAN_TIMEOUT="6")
                return (await asyncio.to_thread(call, given, MAIL, ENVELOPE)).code

        assert asyncio.run(run()) == 0
    assert len(queue.queued()) == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_icaps_is_asked_where_its_certificate_is_trusted_and_nowhere_else(
    queue: StandIn, tmp_path: Path, trusted: bool
) -> None:
    pem, mail = _certificate(tmp_path / "server.pem"), MAIL * 40_000
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def run() -> int:
        async with Fake(NO_CONTENT, tls=context) as server:
            given = environment(queue, server.url) | ({"ICAPSCAN_CA": str(pem)} if trusted else {})
            return (await asyncio.to_thread(call, given, mail, ENVELOPE)).code

    assert asyncio.run(run()) == (0 if trusted else 71)
    assert [one.message for one in queue.queued()] == ([mail] if trusted else [])


def _certificate(path: Path) -> Path:
    """For 127.0.0.1, signed by itself, with its key in the same file."""
    command = [
        require("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-keyout", str(path), "-out", str(path) + ".crt", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=IP:127.0.0.1",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + ".crt").read_text())
    return path


# The caller


@pytest.mark.parametrize(
    ("mail", "envelope", "code"),
    [
        (MAIL, b"", 54),
        (MAIL, ENVELOPE[:-1], 54),
        (MAIL, b"Xa@b\0\0", 91),
        (MAIL, b"Fa@b\0Xc@d\0\0", 91),
        (MAIL, b"F" + b"a" * 1100 + b"\0\0", 11),
        (None, ENVELOPE, 54),
        (MAIL, None, 54),
    ],
)
def test_a_bad_message_or_envelope_is_not_even_scanned(
    queue: StandIn, mail: bytes | None, envelope: bytes | None, code: int
) -> None:
    async def run() -> tuple[int, int]:
        async with Fake(NO_CONTENT) as server:
            called = await asyncio.to_thread(call, environment(queue, server.url), mail, envelope)
            return called.code, len(server.seen)

    assert asyncio.run(run()) == (code, 0)
    assert queue.starts == 0


def test_a_message_that_cannot_be_kept_is_53(queue: StandIn, tmp_path: Path) -> None:
    called, seen = through(queue, NO_CONTENT, mail=b"x" * 2000, more={"ICAPSCAN_MOST": "1000"})
    assert (called.code, seen) == (53, [])
    called, seen = through(queue, NO_CONTENT, mail=b"x" * 9_000_000, more={"ICAPSCAN_SPOOL": str(tmp_path / "absent")})
    assert (called.code, seen, queue.starts) == (53, [], 0)


# The real queue


@pytest.mark.parametrize("code", [0, 1, 11, 31, 51, 53, 54, 62, 71, 81, 91, 120])
def test_the_exit_code_of_the_queue_is_ours(queue: StandIn, code: int) -> None:
    queue.mode(f"exit {code}")
    called, _ = through(queue, NO_CONTENT)
    assert (called.code, queue.starts) == (code, 1)


def test_the_text_of_the_queue_reaches_the_caller(queue: StandIn) -> None:
    queue.mode("exit 82 Dno more mail today (#5.7.1)")
    called, _ = through(queue, NO_CONTENT)
    assert (called.code, called.text) == (82, b"Dno more mail today (#5.7.1)")


def test_a_queue_that_crashes_is_a_crash_for_the_caller(queue: StandIn) -> None:
    queue.mode("crash")
    called, _ = through(queue, NO_CONTENT)
    assert called.code < 0
    assert not queue.queued()


@pytest.mark.parametrize("kind", ["absent", "not a program", "a folder", "relative"])
def test_a_queue_that_cannot_be_run_is_55(queue: StandIn, kind: str) -> None:
    path = {"absent": queue.folder / "none", "not a program": queue.folder / "mode", "a folder": queue.folder}
    called, _ = through(queue, NO_CONTENT, more={"ICAPSCAN_QUEUE": str(path.get(kind, "bin/qmail-queue"))})
    assert (called.code, queue.starts) == (55, 0)


def _stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_kill_9_while_the_scan_runs_queues_nothing(queue: StandIn) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"icap://127.0.0.1:{listener.getsockname()[1]}/avscan"
        with Caller(environment(queue, url), MAIL, ENVELOPE) as caller:
            peer, _ = listener.accept()
            with peer:
                assert peer.recv(100)
                caller.kill()
                assert caller.wait().code == -9
    assert queue.starts == 0


def test_kill_9_while_the_queue_runs_kills_the_queue_itself(queue: StandIn) -> None:
    queue.mode("hang")

    async def run() -> int:
        async with Fake(NO_CONTENT) as server:
            with Caller(environment(queue, server.url), MAIL, ENVELOPE) as caller:
                await asyncio.to_thread(wait_until, lambda: queue.starts == 1, "the queue")
                command = Path(f"/proc/{caller.pid}/cmdline").read_bytes()
                assert str(queue.path).encode() in command  # it is this very process: no other one goes on
                caller.kill()
                return (await asyncio.to_thread(caller.wait)).code

    assert asyncio.run(run()) == -9
    assert not queue.queued()


def test_kill_9_before_the_message_is_complete_queues_nothing(queue: StandIn) -> None:
    with Caller(environment(queue, "icap://127.0.0.1:1/avscan"), MAIL, ENVELOPE[:-1], close=False) as caller:
        wait_until(lambda: _stat(caller.pid) == "S", "a program that waits")
        caller.kill()
        assert caller.wait().code == -9
    assert queue.starts == 0


def test_kill_9_at_any_moment_queues_at_most_once_and_only_what_was_scanned(queue: StandIn) -> None:
    async def run() -> list[tuple[int, int]]:
        found = []
        async with Fake(NO_CONTENT, BLOCKED, *[NO_CONTENT, BLOCKED] * 20) as server:
            for delay in range(0, 160, 5):
                before = len(queue.queued())
                with Caller(environment(queue, server.url), MAIL, ENVELOPE) as caller:
                    await asyncio.sleep(delay / 1000)
                    caller.kill()
                    code = (await asyncio.to_thread(caller.wait)).code
                found.append((code, len(queue.queued()) - before))
            scanned = len(server.scans)
        assert len(queue.queued()) <= (scanned + 1) // 2  # every other one is refused
        return found

    for code, queued in asyncio.run(run()):
        assert (code, queued) in ((-9, 0), (-9, 1), (0, 1), (31, 0))


# Settings


def test_the_file_holds_what_the_environment_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_text(
        "# comment\n\nICAPSCAN_ICAP=icap://one/avscan, icap://two/avscan\nQUEUE='/a b/qmail-queue'\n"
        "export ICAPSCAN_TIMEOUT=12.5\nCUSTOM_ERROR=yes\nUSER_FROM=A B\n"
    )
    found = load_settings({"ICAPSCAN_CONFIG": str(path), "ICAPSCAN_TIMEOUT": "7", "ICAPSCAN_SERVER__LISTEN": "x"})
    assert found == QueueSettings(
        icap=("icap://one/avscan", "icap://two/avscan"), queue="/a b/qmail-queue", timeout=7.0, custom_error=True,
        user_from=("A", "B"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    ["NONSENSE=1", "TIMEOUT=0", "TIMEOUT=-1", "TIMEOUT=soon", "ICAP=", "QUEUE=qmail-queue", "LOG=x", "MOST=1k", "hm"],
)
def test_a_line_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "conf"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError, match="conf"):
        load_settings({"ICAPSCAN_CONFIG": str(path)})


@pytest.mark.parametrize(
    "more", [{"ICAPSCAN_CONFIG": "/nonexistent"}, {"ICAPSCAN_TIMEOUT": "x"}, {"ICAPSCAN_ICAP": "http://x/"}]
)
def test_a_bad_setting_is_55(queue: StandIn, more: dict[str, str]) -> None:
    called, seen = through(queue, NO_CONTENT, more=more)
    assert (called.code, seen, queue.starts) == (55, [], 0)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, icapscan.adapters.qmail_queue, icapscan.adapters.qmail_queue_scan;"
        "import icapscan.adapters.qmail_queue_settings, icapscan.adapters.qmail_queue_verdict;"
        "print(*sorted({'asyncio', 'typer', 'importlib.metadata', 'logging', 'subprocess', 'ssl'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""
