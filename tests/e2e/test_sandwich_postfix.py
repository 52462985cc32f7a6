"""Two Postfix instances and icapscan between them, by the files of ``docs/examples/postfix-sandwich``."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.peers.dovecot import Dovecot, run_dovecot
from tests.peers.examples import EXAMPLES, SmtpExample, example, run_smtp_example
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import MailSink, run_swaks
from tests.peers.origin import EICAR
from tests.peers.postfix import Postfix, run_postfix
from tests.peers.processes import free_port

FOLDER = "postfix-sandwich"
USERS = {"anna@example.com": "blue-Anchor 7"}


class Sandwich(Struct, frozen=True):
    """From outside to inside. ``sink``: the mailboxes of example.com; ``world``: everybody else's."""

    relay: Postfix
    proxy: SmtpExample
    server: IcapscanServer
    delivery: Postfix
    sink: MailSink
    world: MailSink
    dovecot: Dovecot


@contextlib.contextmanager
def sandwich(folder: Path, settings: Mapping[str, object] | None = None) -> Iterator[Sandwich]:
    scan, inner = free_port(), free_port()
    boxes = {"mailboxes": (EXAMPLES / FOLDER / "mailboxes").read_text()}
    tables = {"hash:/etc/postfix/mailboxes": "hash:{config}/mailboxes"}
    with contextlib.ExitStack() as stack:
        sink, world = stack.enter_context(MailSink()), stack.enter_context(MailSink())
        dovecot = stack.enter_context(run_dovecot(folder / "dovecot", USERS))
        server = stack.enter_context(run_icapscan(folder / "server", settings))
        delivery_main = example(
            f"{FOLDER}/delivery-main.cf", {**tables, "lmtp:unix:private/dovecot-lmtp": f"smtp:[127.0.0.1]:{sink.port}"}
        )
        delivery = run_postfix(
            folder / "delivery",
            main=f"{delivery_main}\ndefault_transport = smtp:[127.0.0.1]:{world.port}\n",
            master=example(f"{FOLDER}/delivery-master.cf", {"127.0.0.1:1025": f"127.0.0.1:{inner}"}),
            port=inner, smtpd=False, name="delivery", files=boxes,
        )  # fmt: skip
        stack.enter_context(delivery)
        changes = {"127.0.0.1:3000": f"127.0.0.1:{scan}", "127.0.0.1:1344": f"127.0.0.1:{server.icap_port}",
                   "127.0.0.1:1025": f"127.0.0.1:{inner}"}  # fmt: skip
        proxy = stack.enter_context(run_smtp_example(folder / "proxy", example(f"{FOLDER}/icapscan.toml", changes)))
        outer = free_port()
        relay = run_postfix(
            folder / "relay",
            main=example(
                f"{FOLDER}/relay-main.cf",
                {**tables, "[127.0.0.1]:3000": f"[127.0.0.1]:{scan}", "/run/dovecot/auth-client": str(dovecot.socket)},
            ),
            master=example(f"{FOLDER}/relay-master.cf", {"smtp      inet": f"127.0.0.1:{outer} inet"}),
            port=outer, smtpd=False, name="relay", files=boxes,
        )  # fmt: skip
        stack.enter_context(relay)
        yield Sandwich(relay, proxy, server, delivery, sink, world, dovecot)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandwich]:
    with sandwich(tmp_path_factory.mktemp("sandwich")) as made:
        yield made


def test_clean_mail_arrives_byte_identical_below_the_added_fields(site: Sandwich) -> None:
    sent = mails.clean("identical")
    reply = mails.send(site.relay.port, sent, mail_options=["BODY=8BITMIME"], source="127.0.0.2")
    assert reply.startswith("250"), reply
    got = site.sink.wait_for_subject("identical")
    site.proxy.wait_for_log("client=127.0.0.2 .*action=pass")  # by XFORWARD
    assert mails.without_fields(got.data) == sent
    assert (got.sender, got.recipients) == (mails.SENDER, (mails.ANNA,))
    assert "BODY=8BITMIME" in got.sender_parameters
    added = got.data.partition(b"From: ")[0]
    assert added.count(b"Received: ") == 3
    assert b"by scan.example.com (icapscan) with ESMTP" in added
    assert b"X-Virus-Scanned: " in added


@pytest.mark.parametrize("kind", ["infected", "nested"])
def test_eicar_is_refused_in_the_session_and_the_senders_mta_bounces(site: Sandwich, kind: str) -> None:
    sent = getattr(mails, kind)(f"bad {kind}")
    assert mails.send(site.relay.port, sent, sender="ben@example.com").startswith("250")
    site.relay.wait_for_log(rf"to=<{mails.ANNA}>.*status=bounced.*554 5\.7\.1 Message refused: \S*(?i:eicar)")
    bounce = site.sink.wait_for_text(f"Subject: bad {kind}".encode())
    assert bounce.field("Subject") == "Undelivered Mail Returned to Sender"
    assert (bounce.sender, bounce.recipients) == ("", ("ben@example.com",))
    assert b"554 5.7.1 Message refused" in bounce.data
    assert base64.encodebytes(EICAR)[:40] not in bounce.data
    site.relay.wait_empty()
    site.delivery.wait_empty()
    assert not site.sink.with_subject(f"bad {kind}")


def test_a_mail_of_30_mb(site: Sandwich) -> None:
    sent = mails.large("thirty")
    assert mails.send(site.relay.port, sent, mail_options=["BODY=8BITMIME"]).startswith("250")
    assert mails.without_fields(site.sink.wait_for_subject("thirty", 150).data) == sent


def test_smtputf8_and_dsn_parameters_are_kept(site: Sandwich) -> None:
    sent = mails.message("Grüße überall", [mails.text()])
    reply = mails.send(
        site.relay.port, sent, sender="jörg@client.test", to=["größe@welt.test"],
        mail_options=["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"],
        rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=utf-8;größe@welt.test"],
    )  # fmt: skip
    assert reply.startswith("250"), reply
    got = site.world.wait_for_subject("Grüße")
    assert (got.sender, got.recipients) == ("jörg@client.test", ("größe@welt.test",))
    assert {"SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"} <= set(got.sender_parameters)
    assert any(one.startswith("NOTIFY=") and {"SUCCESS", "FAILURE"} == set(one[7:].split(",")) for one in
               got.recipient_parameters[0])  # fmt: skip
    assert any(one.startswith("ORCPT=utf-8;") for one in got.recipient_parameters[0])
    assert mails.without_fields(got.data) == sent


def test_a_refused_recipient_is_the_delivery_sides_answer(site: Sandwich) -> None:
    assert "550 5.1.1 <nobody@example.com>" in run_swaks(site.proxy.port, to="nobody@example.com").text


def test_who_may_relay_is_decided_by_the_relay(site: Sandwich) -> None:
    # an outsider may not: 127.0.0.2 is not in mynetworks
    outsider = ("--local-interface", "127.0.0.2", "--quit-after", "RCPT")
    assert "554 5.7.1" in run_swaks(site.relay.port, *outsider, to="far@world.test").text
    for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
        log_in = ("--local-interface", "127.0.0.2", "--auth", mechanism, "--auth-user", "anna@example.com")
        said = run_swaks(site.relay.port, *log_in, "--auth-password", "wrong", to="far@world.test")
        assert "535 5.7.8" in said.text
        assert run_swaks(
            site.relay.port, *log_in, "--auth-password", USERS["anna@example.com"], "--h-Subject", f"by {mechanism}",
            to="far@world.test",
        ).ok  # fmt: skip
        assert site.world.wait_for_subject(f"by {mechanism}").recipients == ("far@world.test",)


def test_the_inner_port_takes_no_client_but_the_scanner(site: Sandwich) -> None:
    said = run_swaks(site.delivery.port, "--local-interface", "127.0.0.2", to="far@world.test")
    assert not said.ok
    assert "554 5.7.1" in said.text


def test_while_nothing_can_be_scanned_mail_waits_at_the_relay(tmp_path: Path) -> None:
    with sandwich(tmp_path) as site:
        site.server.stop()
        assert mails.send(site.relay.port, mails.clean("waits")).startswith("250")
        site.relay.wait_for_log(r"status=deferred.*451 4\.7\.1 ")
        assert site.relay.queued() == 1
        with run_icapscan(tmp_path / "again", {"server.listen": [f"127.0.0.1:{site.server.icap_port}"]}):
            site.relay.flush_until(lambda: site.sink.with_subject("waits") != [], "the mail after the scanner is back")
            assert mails.without_fields(site.sink.wait_for_subject("waits").data) == mails.clean("waits")


def test_sanitised_where_policy_says_so(tmp_path: Path) -> None:
    with sandwich(tmp_path, {"policy.mail.infected": "sanitize", "services.avscan.traffic": "mail"}) as site:
        assert mails.send(site.relay.port, mails.infected("cleaned"), mail_options=["BODY=8BITMIME"]).startswith("250")
        got = site.sink.wait_for_subject("cleaned")
        assert base64.encodebytes(EICAR)[:40] not in got.data
        assert "Grüße".encode() in got.data
        assert b"X-Folded: one\r\n\ttwo\r\n" in got.data
        site.proxy.wait_for_log("action=replace threat=")
