"""icapscan in front of one Exim, by the files of ``docs/examples/exim-front``: who may relay, and who may not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.e2e.test_sandwich_exim import SINK
from tests.peers.dovecot import run_dovecot
from tests.peers.examples import EXAMPLES, SmtpExample, example, run_smtp_example
from tests.peers.exim import Exim, run_exim
from tests.peers.icapscan_server import run_icapscan
from tests.peers.mail import MailSink, run_swaks
from tests.peers.processes import free_port
from tests.peers.tcpserver import tcprules

FOLDER = "exim-front"
USERS = {"anna@example.com": "blue-Anchor 7"}
FAR = "far@world.test"


class Front(Struct, frozen=True):
    proxy: SmtpExample
    exim: Exim
    inbox: MailSink
    world: MailSink
    rules: Path


def rules_text(more: str = "") -> str:
    return more + (EXAMPLES / FOLDER / "tcp.smtp").read_text()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    inbound, relay, submission, port_25, port_587 = (free_port() for _ in range(5))
    rules = folder / "tcp.smtp.cdb"
    tcprules(rules, rules_text())
    with contextlib.ExitStack() as stack:
        inbox, world = stack.enter_context(MailSink()), stack.enter_context(MailSink())
        dovecot = stack.enter_context(run_dovecot(folder / "dovecot", USERS))
        server = stack.enter_context(run_icapscan(folder / "server"))
        config = example(
            f"{FOLDER}/exim.conf",
            {
                "1025": str(inbound), "1026": str(relay), "1587": str(submission),
                "/etc/exim4/mailboxes": "{home}/mailboxes", "/run/dovecot/auth-client": str(dovecot.socket),
                "driver = lmtp\n  socket = /run/dovecot/lmtp\n": SINK.format(port=inbox.port),
                "driver = dnslookup\n": "driver = accept\n",
                "driver = smtp\n\nbegin retry": SINK.format(port=world.port) + "\nbegin retry",
            },
        )  # fmt: skip
        files = {"mailboxes": (EXAMPLES / FOLDER / "mailboxes").read_text()}
        exim = stack.enter_context(run_exim(folder / "exim", config, port=inbound, files=files))
        text = example(
            f"{FOLDER}/icapscan.toml",
            {
                "127.0.0.1:1025": f"127.0.0.1:{inbound}", "127.0.0.1:1026": f"127.0.0.1:{relay}",
                "127.0.0.1:1587": f"127.0.0.1:{submission}", "127.0.0.1:1344": f"127.0.0.1:{server.icap_port}",
                "0.0.0.0:25": f"127.0.0.1:{port_25}", "0.0.0.0:587": f"127.0.0.1:{port_587}",
                "/etc/tcp.smtp.cdb": str(rules),
            },
        )  # fmt: skip
        proxy = stack.enter_context(run_smtp_example(folder / "proxy", text))
        yield Front(proxy, exim, inbox, world, rules)


def relays(front: Front, source: str = "127.0.0.2") -> str:
    return mails.send(front.proxy.port, mails.clean("to the world"), to=[FAR], source=source)


def test_mail_from_anybody_for_us_with_the_real_address(front: Front) -> None:
    sent = mails.clean("for us")
    assert mails.send(front.proxy.port, sent, source="127.0.0.2", mail_options=["BODY=8BITMIME"]).startswith("250")
    got = front.inbox.wait_for_subject("for us")
    assert mails.without_fields(got.data) == sent
    assert "from [127.0.0.2] (helo=client.test)" in str(got.field("Received"))
    assert mails.send(front.proxy.port, mails.nested("bad"), source="127.0.0.2").startswith("554 5.7.1 ")


def test_pop_before_smtp_while_it_runs(front: Front) -> None:
    assert relays(front) == "550 relay not permitted"
    assert relays(front, "127.0.0.1").startswith("250")
    tcprules(front.rules, rules_text('127.0.0.2:allow,RELAYCLIENT=""\n'))
    assert relays(front).startswith("250")
    tcprules(front.rules, rules_text())
    assert relays(front) == "550 relay not permitted"
    assert len(front.world.wait_for(2)) == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_auth_passes_through_to_exim_and_dovecot(front: Front, mechanism: str) -> None:
    user, password = next(iter(USERS.items()))
    log_in = ("--local-interface", "127.0.0.2", "--auth", mechanism, "--auth-user", user, "--auth-password")
    assert "535" in run_swaks(front.proxy.ports[1], *log_in, "wrong", to=FAR).text
    sent = run_swaks(front.proxy.ports[1], *log_in, password, "--h-Subject", f"by {mechanism}", to=FAR)
    assert sent.ok, sent.text
    assert front.world.wait_for_subject(f"by {mechanism}").recipients == (FAR,)
