"""`icapscan smtp` with a real `icapscan serve` behind it, swaks before it and a sink as the next hop."""

from __future__ import annotations

import base64
import io
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.clients.fakes import EICAR
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import Mail, MailSink, run_swaks
from tests.peers.processes import free_port
from tests.peers.smtp_proxy import SmtpProxyProcess, run_smtp_proxy

HEAD = (
    b"From: sender@client.test\nTo: reader@inside.test\nSubject: %s\nMessage-ID: <1@client.test>\n"
    b"Date: Tue, 24 Nov 2026 10:00:00 +0000\nMIME-Version: 1.0\n"
)
ADDED = re.compile(rb"\AReceived: from [^\r\n]+\r\n\t[^\r\n]+\r\n\t[^\r\n]+\r\nX-Virus-Scanned: [^\r\n]+\r\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IcapscanServer]:
    with run_icapscan(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def sink() -> Iterator[MailSink]:
    with MailSink() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(
    server: IcapscanServer, sink: MailSink, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SmtpProxyProcess]:
    with run_smtp_proxy(tmp_path_factory.mktemp("proxy"), [icap(server)], sink.port) as running:
        yield running


def icap(server: IcapscanServer) -> str:
    return f"icap://127.0.0.1:{server.icap_port}/avscan"


def attached(data: bytes, name: str, subject: bytes = b"x") -> bytes:
    """A mail with one attachment in base64."""
    return (
        HEAD % subject + b'Content-Type: multipart/mixed; boundary="cut"\n\n--cut\nContent-Type: text/plain\n\nhello\n'
        b"--cut\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
        b'Content-Disposition: attachment; filename="%s"\n\n%s--cut--\n' % (name.encode(), base64.encodebytes(data))
    )


def zipped(data: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("eicar.com", data)
    return memory.getvalue()


def forwarded(mail: bytes) -> bytes:
    """A mail that has ``mail`` in it."""
    return (
        HEAD % b"fwd" + b'Content-Type: multipart/mixed; boundary="out"\n\n--out\nContent-Type: message/rfc822\n\n'
        + mail + b"\n--out--\n"
    )  # fmt: skip


def same_below_our_fields(mail: Mail, sent: bytes) -> bool:
    """``sent`` has LF at its line ends; swaks adds one more."""
    below, count = ADDED.subn(b"", mail.data)
    return count == 1 and below == sent.replace(b"\n", b"\r\n") + b"\r\n"


def test_clean_mail_arrives_byte_identical_below_the_added_fields(
    proxy: SmtpProxyProcess, sink: MailSink, tmp_path: Path
) -> None:
    body = b".dot\n..two\n\n" + bytes(range(128, 256)) + b"\nFrom here\n \nend\n"
    mail = HEAD % b"identical" + b"Content-Type: text/plain; charset=iso-8859-1\n\n" + body
    sent = run_swaks(proxy.port, data=mail, folder=tmp_path)
    assert sent.ok and sent.verdict == "250 2.0.0 taken"
    [got] = sink.with_subject("identical")
    assert same_below_our_fields(got, mail)
    assert got.field("Received") is not None and "127.0.0.1" in str(got.field("Received"))
    proxy.wait_for_log(r"smtp id=\w+ client=127.0.0.1 .*action=pass ")


@pytest.mark.parametrize(
    "mail",
    [
        attached(EICAR, "eicar.com"),
        attached(zipped(EICAR), "eicar.zip"),
        forwarded(attached(zipped(EICAR), "eicar.zip")),
        forwarded(forwarded(attached(EICAR, "eicar.com"))),
    ],
    ids=["base64", "zip", "zip in a mail in a mail", "in a mail in a mail in a mail"],
)
def test_eicar_is_refused_in_the_session(proxy: SmtpProxyProcess, sink: MailSink, tmp_path: Path, mail: bytes) -> None:
    before = len(sink.mails)
    sent = run_swaks(proxy.port, data=mail, folder=tmp_path)
    assert not sent.ok and re.fullmatch(r"554 5\.7\.1 Message refused: \S*(?i:eicar)\S* \(id [0-9a-f]+\)", sent.verdict)
    assert len(sink.mails) == before and not sink.refused
    proxy.wait_for_log(r"action=refuse threat=\S*(?i:eicar)")


def test_the_id_in_the_refusal_is_in_the_log_of_the_server(
    proxy: SmtpProxyProcess, server: IcapscanServer, tmp_path: Path
) -> None:
    sent = run_swaks(proxy.port, data=attached(EICAR, "x.com"), folder=tmp_path)
    found = re.search(r"\(id ([0-9a-f]+)\)", sent.verdict)
    assert found is not None
    server.wait_for_log(f"reference={found[1]}")


def test_dsn_size_smtputf8_and_8bitmime_go_on(proxy: SmtpProxyProcess, sink: MailSink) -> None:
    mail = "Subject: grüße parameters\nFrom: ä@client.test\n\nöüß\n".encode()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=60) as connection:
        reader = connection.makefile("rb")

        def ask(line: str) -> bytes:
            connection.sendall(line.encode() + b"\r\n")
            said = reader.readline()
            while said[3:4] == b"-":
                said = reader.readline()
            return said

        reader.readline()
        ask("EHLO client.test")
        assert ask("MAIL FROM:<ä@client.test> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159 SIZE=200")[:3] == b"250"
        assert ask("RCPT TO:<ö@inside.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@inside.test")[:3] == b"250"
        assert ask("DATA")[:3] == b"354"
        connection.sendall(mail.replace(b"\n", b"\r\n") + b".\r\n")
        assert reader.readline()[:3] == b"250"
    got = sink.mails[-1]
    assert (got.sender, got.recipients) == ("ä@client.test", ("ö@inside.test",))
    assert set(got.sender_parameters) == {"BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=QQ314159", "SIZE=200"}
    assert set(got.recipient_parameters[0]) == {"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;o@inside.test"}
    assert got.data.endswith("\r\n\r\nöüß\r\n".encode()) and "with UTF8SMTP " in str(got.field("Received"))


def test_a_mail_of_30_megabytes(proxy: SmtpProxyProcess, sink: MailSink, tmp_path: Path) -> None:
    mail = attached(bytes(range(256)) * 90_000, "large.bin", b"large")
    assert len(mail) > 30_000_000
    sent = run_swaks(proxy.port, data=mail, folder=tmp_path)
    assert sent.ok, sent.text[-2000:]
    [got] = sink.with_subject("large")
    assert ADDED.sub(b"", got.data).rstrip(b"\r\n") == mail.replace(b"\n", b"\r\n").rstrip(b"\r\n")


def test_without_the_icap_service_mail_is_for_later_and_then_goes(sink: MailSink, tmp_path: Path) -> None:
    port = free_port()
    url = f"icap://127.0.0.1:{port}/avscan"
    with run_smtp_proxy(tmp_path / "proxy", [url], sink.port) as lonely:
        before = len(sink.mails)
        sent = run_swaks(lonely.port, data=HEAD % b"later" + b"\nhello\n", folder=tmp_path)
        assert sent.verdict.startswith("451 4.7.1 ") and len(sink.mails) == before
        with run_icapscan(tmp_path / "server", {"server.listen": [f"127.0.0.1:{port}"]}):
            assert run_swaks(lonely.port, data=HEAD % b"later" + b"\nhello\n", folder=tmp_path).ok
        assert len(sink.mails) == before + 1


def test_a_pool_goes_on_when_one_service_is_killed(server: IcapscanServer, sink: MailSink, tmp_path: Path) -> None:
    with (
        run_icapscan(tmp_path / "second") as second,
        run_smtp_proxy(tmp_path / "proxy", [icap(second), icap(server)], sink.port) as pooled,
    ):
        assert run_swaks(pooled.port, data=HEAD % b"pool" + b"\nhello\n", folder=tmp_path).ok
        second.end()
        for _ in range(6):
            assert run_swaks(pooled.port, data=HEAD % b"pool" + b"\nhello\n", folder=tmp_path).ok
        sent = run_swaks(pooled.port, data=attached(EICAR, "eicar.com"), folder=tmp_path)
        assert sent.verdict.startswith("554 5.7.1 ")


def test_infected_mail_is_cleaned_where_policy_says_so(sink: MailSink, tmp_path: Path) -> None:
    with (
        run_icapscan(tmp_path / "server", {"policy.mail.infected": "sanitize"}) as cleaning,
        run_smtp_proxy(tmp_path / "proxy", [icap(cleaning)], sink.port) as proxy,
    ):
        sent = run_swaks(proxy.port, data=attached(EICAR, "eicar.com", b"cleaned"), folder=tmp_path)
        assert sent.ok, sent.text
        [got] = sink.with_subject("cleaned")
        assert b"hello" in got.data and base64.b64encode(EICAR)[:40] not in got.data and EICAR not in got.data
        proxy.wait_for_log("action=replace threat=")


def test_a_killed_proxy_has_told_nobody_yes(server: IcapscanServer, tmp_path: Path) -> None:
    with MailSink() as own, run_smtp_proxy(tmp_path / "proxy", [icap(server)], own.port) as proxy:
        own.replies["DATA"] = "hang"
        said: list[str] = []
        sending = threading.Thread(
            target=lambda: said.append(
                run_swaks(proxy.port, data=HEAD % b"killed" + b"\nhello\n", folder=tmp_path / "mail").text
            )
        )
        sending.start()
        proxy.wait_until(lambda: own.connections > 0, "the next hop's connection")
        proxy.signal(SIGKILL)
        sending.join(60)
        assert said and "250 2.0.0 taken" not in said[0] and not own.mails


def test_sigterm_ends_it_orderly(server: IcapscanServer, sink: MailSink, tmp_path: Path) -> None:
    with run_smtp_proxy(tmp_path / "proxy", [icap(server)], sink.port) as proxy:
        assert run_swaks(proxy.port, data=HEAD % b"term" + b"\nhello\n", folder=tmp_path).ok
        assert proxy.end() == 0
