"""One Postfix with icapscan in its middle: before its queue and behind it, by the files of ``docs/examples``."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.peers.dovecot import run_dovecot
from tests.peers.examples import EXAMPLES, SmtpExample, example, run_smtp_example
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import MailSink, run_swaks
from tests.peers.origin import EICAR
from tests.peers.postfix import Postfix, run_postfix
from tests.peers.processes import free_port

FAR = "far@world.test"


class Site(Struct, frozen=True):
    """``inner``: the port behind the scanner."""

    postfix: Postfix
    proxy: SmtpExample
    server: IcapscanServer
    inner: int
    inbox: MailSink
    world: MailSink


@contextlib.contextmanager
def site(folder: Path, name: str, settings: Mapping[str, object] | None = None) -> Iterator[Site]:
    outer, scan, inner = free_port(), free_port(), free_port()
    with contextlib.ExitStack() as stack:
        inbox, world = stack.enter_context(MailSink()), stack.enter_context(MailSink())
        dovecot = stack.enter_context(run_dovecot(folder / "dovecot"))
        server = stack.enter_context(run_icapscan(folder / "server", settings))
        changes = {"127.0.0.1:3000": f"127.0.0.1:{scan}", "127.0.0.1:1344": f"127.0.0.1:{server.icap_port}",
                   "127.0.0.1:1025": f"127.0.0.1:{inner}"}  # fmt: skip
        proxy = stack.enter_context(run_smtp_example(folder / "proxy", example(f"{name}/icapscan.toml", changes)))
        main = {
            "hash:/etc/postfix/mailboxes": "hash:{config}/mailboxes",
            "lmtp:unix:private/dovecot-lmtp": f"smtp:[127.0.0.1]:{inbox.port}",
            "/run/dovecot/auth-client": str(dovecot.socket),
        }
        master = {"smtp      inet": f"127.0.0.1:{outer} inet", "127.0.0.1:1025": f"127.0.0.1:{inner}"}
        if name == "postfix-after-queue":
            main["[127.0.0.1]:3000"] = f"[127.0.0.1]:{scan}"
        else:
            master["127.0.0.1:3000"] = f"127.0.0.1:{scan}"
        postfix = run_postfix(
            folder / "postfix",
            main=example(f"{name}/main.cf", main) + f"\ndefault_transport = smtp:[127.0.0.1]:{world.port}\n",
            master=example(f"{name}/master.cf", master), port=outer, smtpd=False,
            files={"mailboxes": (EXAMPLES / name / "mailboxes").read_text()},
        )  # fmt: skip
        stack.enter_context(postfix)
        yield Site(postfix, proxy, server, inner, inbox, world)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("before"), "postfix-before-queue") as made:
        yield made


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("after"), "postfix-after-queue") as made:
        yield made


@pytest.mark.parametrize("way", ["before", "after"])
def test_clean_mail_arrives_as_it_was_and_only_once(request: pytest.FixtureRequest, way: str) -> None:
    here: Site = request.getfixturevalue(way)
    sent = mails.clean("identical")
    reply = mails.send(here.postfix.port, sent, mail_options=["BODY=8BITMIME"], source="127.0.0.2")
    assert reply.startswith("250"), reply
    got = here.inbox.wait_for_subject("identical")
    here.proxy.wait_for_log("client=127.0.0.2 .*action=pass")  # by XFORWARD
    here.postfix.wait_for_log(r"postfix/scanned/smtpd.*client=\S*\[127\.0\.0\.2\]")
    assert mails.without_fields(got.data) == sent
    assert b"(icapscan)" in got.data.partition(b"From: ")[0]
    here.postfix.wait_empty()
    assert len(here.inbox.with_subject("identical")) == 1


@pytest.mark.parametrize("way", ["before", "after"])
def test_the_inner_port_is_for_the_scanner_alone(request: pytest.FixtureRequest, way: str) -> None:
    here: Site = request.getfixturevalue(way)
    for to in (FAR, mails.ANNA):
        said = run_swaks(here.inner, "--local-interface", "127.0.0.2", to=to)
        assert not said.ok
        assert "554 5.7.1" in said.text
    outsider = run_swaks(here.postfix.port, "--local-interface", "127.0.0.2", to=FAR)
    assert "554 5.7.1" in outsider.text
    assert here.world.mails == []


@pytest.mark.parametrize("way", ["before", "after"])
def test_smtputf8_and_dsn_parameters_are_kept(request: pytest.FixtureRequest, way: str) -> None:
    here: Site = request.getfixturevalue(way)
    reply = mails.send(
        here.postfix.port, mails.message("Grüße", [mails.text()]), sender="jörg@client.test", to=["größe@welt.test"],
        mail_options=["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"], rcpt_options=["NOTIFY=FAILURE"],
    )  # fmt: skip
    assert reply.startswith("250"), reply
    got = here.world.wait_for_subject("Grüße")
    here.world.mails.clear()
    assert (got.sender, got.recipients) == ("jörg@client.test", ("größe@welt.test",))
    assert {"SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"} <= set(got.sender_parameters)
    assert "NOTIFY=FAILURE" in got.recipient_parameters[0]


def test_before_the_queue_the_client_is_told(before: Site) -> None:
    kept = len(before.inbox.mails)
    for kind in (mails.infected, mails.nested):
        assert mails.send(before.postfix.port, kind("bad")).startswith("554 5.7.1 Message refused")
    before.postfix.wait_empty()
    assert len(before.inbox.mails) == kept


def test_behind_the_queue_the_sender_gets_a_bounce_without_the_virus(after: Site) -> None:
    assert mails.send(after.postfix.port, mails.nested("bad one"), sender="ben@example.com").startswith("250")
    bounce = after.inbox.wait_for_text(b"Subject: bad one")
    assert (bounce.sender, bounce.recipients) == ("", ("ben@example.com",))
    assert b"554 5.7.1 Message refused" in bounce.data
    assert base64.encodebytes(EICAR)[:40] not in bounce.data


@pytest.mark.parametrize("way", ["postfix-before-queue", "postfix-after-queue"])
def test_without_a_scanner_nothing_passes_and_nothing_is_lost(tmp_path: Path, way: str) -> None:
    with site(tmp_path, way) as here:
        here.server.stop()
        reply = mails.send(here.postfix.port, mails.clean("waits"))
        if way == "postfix-before-queue":
            assert reply.startswith("451 4.7.1 ")
            here.postfix.wait_empty()
        else:
            assert reply.startswith("250")
            here.postfix.wait_for_log(r"status=deferred.*451 4\.7\.1 ")
        with run_icapscan(tmp_path / "again", {"server.listen": [f"127.0.0.1:{here.server.icap_port}"]}):
            if way == "postfix-before-queue":
                assert mails.send(here.postfix.port, mails.clean("waits")).startswith("250")
            else:
                here.postfix.flush_until(
                    lambda: here.inbox.with_subject("waits") != [], "the mail after the scanner is back"
                )
            here.inbox.wait_for_subject("waits")
            here.postfix.wait_empty()
        assert len(here.inbox.mails) == 1


@pytest.mark.full
@pytest.mark.parametrize("way", ["postfix-before-queue", "postfix-after-queue"])
def test_sanitised_where_policy_says_so(tmp_path: Path, way: str) -> None:
    with site(tmp_path, way, {"policy.mail.infected": "sanitize", "services.avscan.traffic": "mail"}) as here:
        assert mails.send(here.postfix.port, mails.infected("cleaned"), mail_options=["BODY=8BITMIME"]).startswith(
            "250"
        )
        got = here.inbox.wait_for_subject("cleaned")
        assert base64.encodebytes(EICAR)[:40] not in got.data
        assert "Grüße".encode() in got.data
