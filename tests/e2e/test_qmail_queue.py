"""The QMAILQUEUE way with a real ``icapscan serve``: caller, ``icapscan-qmail-queue``, and a stand-in for the queue."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from icapscan.wire.qmail_queue import encode_envelope
from tests.clients.fakes import EICAR
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.processes import free_port
from tests.peers.qmail_queue import Called, StandIn, call

ENVELOPE = encode_envelope(b"a@icapscan.test", [b"b@icapscan.test"])


def mail(kind: str, content: bytes, name: str) -> bytes:
    """A mail with one attachment, in lines as qmail has them."""
    head = (
        "From: a@icapscan.test\nTo: b@icapscan.test\nSubject: a mail\nMIME-Version: 1.0\n"
        'Content-Type: multipart/mixed; boundary="limit"\n\n--limit\nContent-Type: text/plain\n\nHello.\n\n'
        f'--limit\nContent-Type: {kind}; name="{name}"\nContent-Disposition: attachment; filename="{name}"\n'
    )
    if kind == "message/rfc822":
        return head.encode() + b"\n" + content + b"\n--limit--\n"
    return head.encode() + b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(content) + b"--limit--\n"


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.com", content)
    return file.getvalue()


INFECTED = mail("application/octet-stream", EICAR, "a.com")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IcapscanServer]:
    with run_icapscan(tmp_path_factory.mktemp("icapscan")) as server:
        yield server


@pytest.fixture
def queue(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path / "queue")


def send(queue: StandIn, port: int, message: bytes, **more: str) -> Called:
    given = {
        "ICAPSCAN_QUEUE": str(queue.path),
        "ICAPSCAN_ICAP": f"icap://127.0.0.1:{port}/avscan",
        "ICAPSCAN_CONFIG": "/dev/null",
        "TCPREMOTEIP": "192.0.2.7",
        **more,
    }
    return call(given, message, ENVELOPE)


def test_clean_mail_arrives_byte_for_byte(server: IcapscanServer, queue: StandIn) -> None:
    message = mail("application/octet-stream", b"nothing bad " * 1000, "a.bin")
    assert send(queue, server.icap_port, message).code == 0
    assert [(one.message, one.envelope) for one in queue.queued()] == [(message, ENVELOPE)]


def test_a_mail_of_30_mb_arrives_byte_for_byte(server: IcapscanServer, queue: StandIn) -> None:
    message = mail("application/octet-stream", bytes(range(256)) * 90_000, "a.bin")
    assert len(message) > 30_000_000
    assert send(queue, server.icap_port, message).code == 0
    assert [one.message for one in queue.queued()] == [message]


@pytest.mark.parametrize("way", ["base64", "zip in a mail in a mail"])
def test_eicar_is_refused_with_its_name(server: IcapscanServer, queue: StandIn, way: str) -> None:
    message = INFECTED
    if way != "base64":
        message = mail("application/zip", zipped(EICAR), "a.zip")
        message = mail("message/rfc822", mail("message/rfc822", message, "one.eml"), "two.eml")
    assert send(queue, server.icap_port, message).code == 31
    called = send(queue, server.icap_port, message, ICAPSCAN_CUSTOM_ERROR="1")
    assert called.code == 82
    assert called.text.startswith(b"Dthis message was refused: ")
    assert b"eicar" in called.text.lower()
    assert called.text.endswith(b"(#5.7.1)")
    assert queue.starts == 0
    reference = called.log.partition("reference=")[2].split()[0]
    server.wait_for_log(f"reference={reference}")


def test_icap_down_is_71(queue: StandIn) -> None:
    assert send(queue, free_port(), INFECTED).code == 71
    assert queue.starts == 0


def test_sanitised_where_policy_says_so_and_in_lines_as_qmail_has_them(queue: StandIn, tmp_path: Path) -> None:
    settings = {"policy.mail.infected": "sanitize"}
    with run_icapscan(tmp_path / "icapscan", settings) as server:
        assert send(queue, server.icap_port, INFECTED).code == 0
        [queued] = queue.queued()
    assert queued.envelope == ENVELOPE
    assert b"Subject: a mail\n" in queued.message
    assert b"Hello." in queued.message
    assert base64.encodebytes(EICAR)[:60] not in queued.message
    assert b"\r" not in queued.message


def test_a_server_that_hangs_is_52_and_nothing_is_queued(queue: StandIn, tmp_path: Path) -> None:
    with run_icapscan(tmp_path / "icapscan") as server:
        pids = [server.pid, *server.worker_pids()]
        for pid in pids:
            os.kill(pid, SIGSTOP)
        try:
            assert send(queue, server.icap_port, INFECTED, ICAPSCAN_TIMEOUT="2").code == 52
        finally:
            for pid in pids:
                os.kill(pid, SIGCONT)
        assert queue.starts == 0
        assert send(queue, server.icap_port, mail("text/plain", b"fine", "a.txt")).code == 0


def test_a_bad_envelope_is_91(server: IcapscanServer, queue: StandIn) -> None:
    given = {"ICAPSCAN_QUEUE": str(queue.path), "ICAPSCAN_ICAP": f"icap://127.0.0.1:{server.icap_port}/avscan"}
    assert call(given, INFECTED, b"a@icapscan.test\0\0").code == 91
