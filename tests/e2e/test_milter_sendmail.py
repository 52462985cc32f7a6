"""``icapscan milter`` with a real Sendmail, by the line of ``docs/examples/sendmail-milter.mc``."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.e2e.test_milter_postfix import run_milter
from tests.peers.examples import example
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import MailSink
from tests.peers.origin import EICAR
from tests.peers.processes import Process, free_port
from tests.peers.sendmail import Sendmail, run_sendmail

pytestmark = pytest.mark.full


class Site(Struct, frozen=True):
    sendmail: Sendmail
    milter: Process
    server: IcapscanServer
    sink: MailSink


@contextlib.contextmanager
def site(
    folder: Path, server: dict[str, object] | None = None, settings: dict[str, object] | None = None
) -> Iterator[Site]:
    port = free_port()
    lines = example("sendmail-milter.mc", {"inet:8891@127.0.0.1": f"inet:{port}@127.0.0.1"})
    with (
        MailSink() as sink,
        run_icapscan(folder / "server", server) as scanner,
        run_milter(folder / "milter", port, scanner.icap_port, settings) as milter,
        run_sendmail(folder / "sendmail", sink.port, lines) as sendmail,
    ):
        yield Site(sendmail, milter, scanner, sink)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("sendmail")) as made:
        yield made


def test_clean_mail_arrives_as_it_was(plain: Site) -> None:
    sent = mails.clean("identical")
    assert mails.send(plain.sendmail.port, sent, mail_options=["BODY=8BITMIME"]).startswith("250")
    got = plain.sink.wait_for_subject("identical")
    assert got.body == sent.partition(b"\r\n\r\n")[2]
    assert b"X-Folded: one\r\n\ttwo\r\n" in got.data
    assert got.field("X-Virus-Scanned") is not None
    plain.milter.wait_for_log("pass id=.* from=<sender@client.test> recipients=1 client=127.0.0.1")


@pytest.mark.parametrize("kind", ["infected", "nested"])
def test_eicar_is_refused_in_the_session(plain: Site, kind: str) -> None:
    before = len(plain.sink.mails)
    reply = mails.send(plain.sendmail.port, getattr(mails, kind)("bad"))
    assert reply.startswith("554 5.7.1 This message was refused: ")
    assert "eicar" in reply.lower()
    assert plain.sendmail.queued() == 0
    assert len(plain.sink.mails) == before


def test_a_mail_of_30_mb(plain: Site) -> None:
    sent = mails.large("thirty")
    assert mails.send(plain.sendmail.port, sent).startswith("250")
    assert plain.sink.wait_for_subject("thirty", 150).body == sent.partition(b"\r\n\r\n")[2]


def test_sanitised_where_policy_says_so(tmp_path: Path) -> None:
    with site(tmp_path, {"policy.mail.infected": "sanitize", "services.avscan.traffic": "mail"}) as here:
        assert mails.send(here.sendmail.port, mails.infected("cleaned"), mail_options=["BODY=8BITMIME"]).startswith(
            "250"
        )
        got = here.sink.wait_for_subject("cleaned")
        assert base64.encodebytes(EICAR)[:40] not in got.data
        assert "Grüße".encode() in got.data


def test_quarantine_and_try_later(tmp_path: Path) -> None:
    with site(tmp_path, settings={"milter.refused": "quarantine"}) as here:
        assert mails.send(here.sendmail.port, mails.infected("held")).startswith("250")
        here.sendmail.wait_until(lambda: here.sendmail.queued() == 1, "a message in quarantine")
        here.server.stop()
        assert mails.send(here.sendmail.port, mails.clean("later")).startswith("451 4.7.1 ")
        here.milter.end()
        assert mails.send(here.sendmail.port, mails.clean("no filter")).startswith("451 ")
        assert here.sink.mails == []
