"""``icapscan milter`` with a real Postfix and a real ``icapscan serve``, by the lines of docs/examples."""

from __future__ import annotations

import base64
import io
import os
import smtplib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from msgspec import Struct

from tests.clients.fakes import EICAR
from tests.peers import require
from tests.peers.icapscan_server import CHECKOUT, IcapscanServer, run_icapscan, toml
from tests.peers.postfix import EXAMPLES, Postfix, maildir_lines, run_postfix
from tests.peers.processes import Process, free_port

SENDER, READER = "a@outside.test", "reader@inside.test"


def mail(kind: str, content: bytes, name: str, subject: str = "a mail") -> bytes:
    """A mail with one attachment and a text in 8 bits."""
    head = (
        f"From: {SENDER}\r\nTo: {READER}\r\nSubject: {subject}\r\nX-Folded: one\r\n\ttwo\r\nX-Tight:value\r\n"
        "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@outside.test>\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="limit"\r\n\r\n--limit\r\n'
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "Gr\u00fc\u00dfe, \u3053\u3093\u306b\u3061\u306f\r\n.\r\n..\r\n\r\n"
        f'--limit\r\nContent-Type: {kind}; name="{name}"\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    ).encode()
    if kind == "message/rfc822":
        return head + b"\r\n" + content + b"\r\n--limit--\r\n"
    coded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + coded + b"--limit--\r\n"


def nested() -> bytes:
    """EICAR in a zip in a mail in a mail in a mail."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.com", EICAR)
    inner = mail("application/zip", file.getvalue(), "a.zip")
    return mail("message/rfc822", mail("message/rfc822", inner, "one.eml"), "two.eml")


CLEAN = mail("application/octet-stream", b"nothing bad " * 500, "a.bin")
INFECTED = mail("application/octet-stream", EICAR, "a.com")


class Site(Struct, frozen=True):
    """What a message goes through."""

    postfix: Postfix
    milter: Process
    port: int
    icapscan: IcapscanServer

    def send(self, message: bytes, recipient: str = READER) -> str:
        """The reply to the message, or to what was refused before it, as text."""
        with smtplib.SMTP("127.0.0.1", self.postfix.port, timeout=120) as client:
            return send(client, message, recipient)

    def arrived(self, number: int) -> list[bytes]:
        """What is in the reader's folder, once so many messages are."""
        self.postfix.wait_until(lambda: len(self.postfix.maildir()) >= number, f"{number} messages")
        self.postfix.wait_empty()
        return self.postfix.maildir()


def send(client: smtplib.SMTP, message: bytes, recipient: str = READER) -> str:
    try:
        refused = client.sendmail(SENDER, [recipient], message, mail_options=["BODY=8BITMIME"])
    except smtplib.SMTPResponseException as error:
        return f"{error.smtp_code} {error.smtp_error!r}"
    except smtplib.SMTPRecipientsRefused as error:
        return str(error.recipients)
    assert not refused
    return "250"


def run_milter(folder: Path, port: int, icap_port: int, settings: dict[str, object] | None = None) -> Process:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "milter.toml").write_text(toml(settings or {}))
    command = [
        sys.executable, "-m", "icapscan", "milter", "--config", str(folder / "milter.toml"),
        "--listen", f"inet:{port}@127.0.0.1", "--icap", f"icap://127.0.0.1:{icap_port}/avscan",
    ]  # fmt: skip
    milter = Process("milter", command, folder, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        milter.wait_for_log("icapscan milter listens on")
    except BaseException:
        milter.end()
        raise
    return milter


def example_lines(port: int) -> str:
    return (EXAMPLES / "postfix-milter.cf").read_text().replace("inet:127.0.0.1:8891", f"inet:127.0.0.1:{port}")


@contextmanager
def site(
    folder: Path,
    *,
    server: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
    main: str = "",
) -> Iterator[Site]:
    require("postfix", "postfix")
    port = free_port()
    with (
        run_icapscan(folder / "icapscan", server) as icapscan,
        run_milter(folder / "milter", port, icapscan.icap_port, settings) as milter,
        run_postfix(folder / "postfix", main=maildir_lines() + example_lines(port) + main) as postfix,
    ):
        yield Site(postfix, milter, port, icapscan)


LARGE = "message_size_limit = 100000000\nsmtpd_relay_restrictions = reject_unauth_destination\n"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("milter"), main=LARGE) as one:
        yield one


@pytest.fixture(scope="module")
def sanitizing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    server: dict[str, object] = {"policy.mail.infected": "sanitize"}
    with site(tmp_path_factory.mktemp("milter"), server=server) as one:
        yield one


def as_stored(message: bytes) -> tuple[bytes, bytes]:
    """Header section and body with LF line ends; what delivery adds on top is cut off."""
    head, _, body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    return head[head.index(b"From: a@outside.test") :], body


def test_clean_mail_arrives_as_it_was(plain: Site) -> None:
    before = len(plain.postfix.maildir())
    assert plain.send(CLEAN) == "250"
    arrived = plain.arrived(before + 1)
    head, body = as_stored(arrived[-1])
    sent_head, sent_body = as_stored(CLEAN)
    assert body == sent_body
    assert head.startswith(sent_head + b"\nX-Virus-Scanned: icapscan at ")
    plain.milter.wait_for_log("pass id=[0-9A-Za-z]+ from=<a@outside.test> recipients=1 client=127.0.0.1")


@pytest.mark.parametrize("message", [INFECTED, nested()], ids=["base64", "zip in a mail in a mail"])
def test_eicar_is_refused_in_the_session(plain: Site, message: bytes) -> None:
    before = len(plain.postfix.maildir())
    reply = plain.send(message)
    assert reply.startswith("554 b'5.7.1 This message was refused: ")
    assert "eicar" in reply.lower()
    reference = reply.rpartition("reference ")[2].partition(")")[0]
    plain.icapscan.wait_for_log(f"reference={reference}")
    plain.postfix.wait_until(lambda: plain.postfix.queued() == 0, "an empty queue")
    assert len(plain.postfix.maildir()) == before


def test_a_mail_of_30_mb(plain: Site) -> None:
    before = len(plain.postfix.maildir())
    message = mail("application/octet-stream", os.urandom(1 << 20) * 22, "a.bin")
    assert len(message) > 30_000_000
    assert plain.send(message) == "250"
    assert as_stored(plain.arrived(before + 1)[-1])[1] == as_stored(message)[1]


def test_several_messages_in_one_session_refused_and_given_up_ones_between(plain: Site) -> None:
    before = len(plain.postfix.maildir())
    with smtplib.SMTP("127.0.0.1", plain.postfix.port, timeout=120) as client:
        for round_ in range(3):
            assert send(client, mail("text/plain", b"fine", "a.txt", f"round {round_}")) == "250"
            assert send(client, INFECTED).startswith("554")
            client.mail(SENDER)
            client.rcpt(READER)
            client.rset()
            client.ehlo("again")
            assert "554" in send(client, CLEAN, "nobody@elsewhere.test")
    arrived = plain.arrived(before + 3)[before:]
    assert sorted(b"Subject: round %d\n" % number in one for number in range(3) for one in arrived).count(True) == 3


def test_mail_by_the_sendmail_command_is_scanned_too(plain: Site) -> None:
    before = len(plain.postfix.maildir())
    for message in (INFECTED, mail("text/plain", b"fine", "a.txt", "by command")):
        command = [require("sendmail", "postfix"), "-i", "-C", str(plain.postfix.config), "-f", SENDER, READER]
        subprocess.run(command, input=message.replace(b"\r\n", b"\n"), check=True, timeout=60)
    arrived = plain.arrived(before + 1)[before:]
    assert len(arrived) == 1
    assert b"Subject: by command\n" in arrived[0]
    assert b"X-Virus-Scanned" in arrived[0]


def test_sanitised_where_policy_says_so(sanitizing: Site) -> None:
    assert sanitizing.send(INFECTED) == "250"
    [arrived] = sanitizing.arrived(1)
    assert base64.encodebytes(EICAR)[:60] not in arrived
    assert "Gr\u00fc\u00dfe".encode() in arrived
    assert b"Subject: a mail\n" in arrived
    assert b"X-Folded: one\n\ttwo\n" in arrived
    assert b"X-Virus-Scanned" in arrived
    sanitizing.milter.wait_for_log("replace id=")


def test_quarantine_holds_the_message(tmp_path: Path) -> None:
    with site(tmp_path, settings={"milter.refused": "quarantine"}) as one:
        assert one.send(INFECTED) == "250"
        one.postfix.wait_until(lambda: any((one.postfix.home / "queue" / "hold").iterdir()), "a held message")
        assert one.send(mail("text/plain", b"fine", "a.txt")) == "250"
        one.postfix.wait_until(lambda: len(one.postfix.maildir()) == 1, "the other message")
        one.postfix.wait_until(lambda: one.postfix.queued() == 1, "nothing else in the queue")


@pytest.mark.parametrize("version", [2, 3, 4])
def test_older_versions_of_the_protocol(tmp_path: Path, version: int) -> None:
    with site(tmp_path, main=f"milter_protocol = {version}\n") as one:
        assert one.send(CLEAN) == "250"
        assert as_stored(one.arrived(1)[0])[1] == as_stored(CLEAN)[1]
        assert one.send(INFECTED).startswith("554 b'5.7.1 ")


def test_client_and_user_are_told_and_sigterm_ends_it_well(tmp_path: Path) -> None:
    with site(tmp_path, main="smtpd_authorized_xclient_hosts = 127.0.0.1\n") as one:
        with smtplib.SMTP("127.0.0.1", one.postfix.port, timeout=120) as client:
            client.ehlo("front")
            assert client.docmd("XCLIENT", "ADDR=192.0.2.7 NAME=client.test LOGIN=joe")[0] == 220
            client.ehlo("client")
            assert send(client, CLEAN) == "250"
        one.icapscan.wait_for_log("client_ip=192.0.2.7")
        one.icapscan.wait_for_log("user=(Local://)?joe")
        one.milter.signal(SIGTERM)
        assert one.milter.wait() == 0


def test_without_icap_service_or_filter_mail_is_told_to_come_again(tmp_path: Path) -> None:
    with site(tmp_path) as one:
        one.icapscan.stop()
        assert one.send(CLEAN).startswith("451 b'4.7.1 The message cannot be scanned now")
        os.kill(one.milter.pid, SIGKILL)
        one.milter.wait()
        assert "451" in one.send(CLEAN)
        assert one.postfix.queued() == 0
        assert not one.postfix.maildir()


def test_a_filter_that_is_killed_in_the_middle_of_a_message_lets_nothing_pass(tmp_path: Path) -> None:
    with site(tmp_path) as one:
        with smtplib.SMTP("127.0.0.1", one.postfix.port, timeout=120) as client:
            client.ehlo("client")
            client.mail(SENDER)
            client.rcpt(READER)
            code, _ = client.docmd("DATA")
            assert code == 354
            assert client.sock is not None
            client.sock.sendall(INFECTED[:700])
            os.kill(one.milter.pid, SIGKILL)
            one.milter.wait()
            client.sock.sendall(INFECTED[700:] + b".\r\n")
            code, _ = client.getreply()
            assert code == 451
        assert one.postfix.queued() == 0
        assert not one.postfix.maildir()
