"""Two Exim and icapscan between them, by the files of ``docs/examples/exim-sandwich``."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.peers.dovecot import run_dovecot
from tests.peers.examples import EXAMPLES, SmtpExample, example, run_smtp_example
from tests.peers.exim import Exim, run_exim
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import MailSink, run_swaks
from tests.peers.origin import EICAR
from tests.peers.processes import free_port

FOLDER = "exim-sandwich"
USERS = {"anna@example.com": "blue-Anchor 7"}
FAR = "far@world.test"
SINK = """driver = smtp
  allow_localhost
  hosts_try_chunking =
  hosts = 127.0.0.1
  port = {port}
"""


class Sandwich(Struct, frozen=True):
    """From outside to inside. ``inbox``: the mailboxes of example.com; ``world``: everybody else's."""

    relay: Exim
    proxy: SmtpExample
    server: IcapscanServer
    delivery: Exim
    inbox: MailSink
    world: MailSink


@contextlib.contextmanager
def sandwich(folder: Path) -> Iterator[Sandwich]:
    outer, scan, inner = free_port(), free_port(), free_port()
    files = {"mailboxes": (EXAMPLES / FOLDER / "mailboxes").read_text()}
    with contextlib.ExitStack() as stack:
        inbox, world = stack.enter_context(MailSink()), stack.enter_context(MailSink())
        dovecot = stack.enter_context(run_dovecot(folder / "dovecot", USERS))
        server = stack.enter_context(run_icapscan(folder / "server"))
        delivery = example(
            f"{FOLDER}/delivery.conf",
            {
                "[127.0.0.1]:1025": f"[127.0.0.1]:{inner}",
                "/etc/exim4/mailboxes": "{home}/mailboxes",
                "driver = lmtp\n  socket = /run/dovecot/lmtp\n": SINK.format(port=inbox.port),
                "driver = dnslookup\n": "driver = accept\n",
                "driver = smtp\n\nbegin retry": SINK.format(port=world.port) + "\nbegin retry",
            },
        )
        changes = {"127.0.0.1:3000": f"127.0.0.1:{scan}", "127.0.0.1:1344": f"127.0.0.1:{server.icap_port}",
                   "127.0.0.1:1025": f"127.0.0.1:{inner}"}  # fmt: skip
        relay = example(
            f"{FOLDER}/relay.conf",
            {
                "[0.0.0.0]:25": f"[127.0.0.1]:{outer}",
                "127.0.0.1::3000": f"127.0.0.1::{scan}",
                "/etc/exim4/mailboxes": "{home}/mailboxes",
                "/run/dovecot/auth-client": str(dovecot.socket),
            },
        )
        yield Sandwich(
            delivery=stack.enter_context(
                run_exim(folder / "delivery", delivery, port=inner, name="delivery", files=files)
            ),
            proxy=stack.enter_context(
                run_smtp_example(folder / "proxy", example(f"{FOLDER}/icapscan.toml", changes))
            ),
            relay=stack.enter_context(run_exim(folder / "relay", relay, port=outer, name="relay", files=files)),
            server=server, inbox=inbox, world=world,
        )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandwich]:
    with sandwich(tmp_path_factory.mktemp("exim")) as made:
        yield made


def test_clean_mail_arrives_byte_identical_below_the_added_fields(site: Sandwich) -> None:
    sent = mails.clean("identical")
    assert mails.send(site.relay.port, sent, mail_options=["BODY=8BITMIME"]).startswith("250")
    got = site.inbox.wait_for_subject("identical")
    assert mails.without_fields(got.data) == sent
    assert (got.sender, got.recipients) == (mails.SENDER, (mails.ANNA,))
    assert b"(icapscan)" in got.data.partition(b"From: ")[0]


def test_eicar_is_refused_and_the_relay_bounces(site: Sandwich) -> None:
    assert mails.send(site.relay.port, mails.nested("bad"), sender="ben@example.com").startswith("250")
    bounce = site.inbox.wait_for_text(b"Subject: bad")
    assert (bounce.sender, bounce.recipients) == ("", ("ben@example.com",))
    assert b"554 5.7.1 Message refused" in bounce.data
    assert base64.encodebytes(EICAR)[:40] not in bounce.data
    site.relay.wait_empty()


def test_smtputf8_and_dsn_parameters_are_kept(site: Sandwich) -> None:
    reply = mails.send(
        site.relay.port, mails.message("Grüße", [mails.text()]), sender="anna@example.com", to=["größe@welt.test"],
        mail_options=["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"],
        rcpt_options=["NOTIFY=SUCCESS,FAILURE"],
    )  # fmt: skip
    assert reply.startswith("250"), reply
    got = site.world.wait_for_subject("Grüße")
    assert got.recipients == ("größe@welt.test",)
    assert {"SMTPUTF8", "RET=HDRS", "ENVID=QQ314159"} <= set(got.sender_parameters)
    assert "NOTIFY=SUCCESS,FAILURE" in got.recipient_parameters[0]
    assert (
        mails.without_fields(got.data).partition(b"\r\n\r\n")[2]
        == mails.message("x", [mails.text()]).partition(b"\r\n\r\n")[2]
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_who_may_relay_is_decided_by_the_relay(site: Sandwich, mechanism: str) -> None:
    outsider = ("--local-interface", "127.0.0.2")
    assert "550 relay not permitted" in run_swaks(site.relay.port, *outsider, to=FAR).text
    log_in = (*outsider, "--auth", mechanism, "--auth-user", "anna@example.com", "--auth-password")
    assert "535" in run_swaks(site.relay.port, *log_in, "wrong", to=FAR).text
    sent = run_swaks(site.relay.port, *log_in, USERS["anna@example.com"], "--h-Subject", f"by {mechanism}", to=FAR)
    assert sent.ok, sent.text
    assert site.world.wait_for_subject(f"by {mechanism}").recipients == (FAR,)


def test_the_inner_port_takes_nothing_without_the_scanners_proxy_header(site: Sandwich) -> None:
    assert not run_swaks(site.delivery.port, to=FAR).ok
    assert "550 no such mailbox here" in run_swaks(site.proxy.port, to="nobody@example.com").text


def test_while_nothing_can_be_scanned_mail_waits_at_the_relay(tmp_path: Path) -> None:
    with sandwich(tmp_path) as site:
        site.server.stop()
        assert mails.send(site.relay.port, mails.clean("waits")).startswith("250")
        site.relay.wait_for_log(r"== anna@example\.com .*451 4\.7\.1 ")
        assert site.relay.queued() == 1
        with run_icapscan(tmp_path / "again", {"server.listen": [f"127.0.0.1:{site.server.icap_port}"]}):
            site.relay.flush_until(lambda: site.inbox.with_subject("waits") != [], "the mail after the scanner is back")
            assert mails.without_fields(site.inbox.wait_for_subject("waits").data) == mails.clean("waits")
