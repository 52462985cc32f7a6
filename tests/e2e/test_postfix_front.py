"""icapscan in front of Postfix, by the files of ``docs/examples/postfix-front``: who may relay, and who may not."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.peers import require
from tests.peers.dovecot import run_dovecot
from tests.peers.examples import EXAMPLES, SmtpExample, example, run_smtp_example
from tests.peers.icapscan_server import run_icapscan
from tests.peers.mail import MailSink, run_swaks
from tests.peers.postfix import Postfix, run_postfix
from tests.peers.processes import free_port
from tests.peers.tcpserver import tcprules

FOLDER = "postfix-front"
USERS = {"anna@example.com": "blue-Anchor 7"}
FAR = "far@world.test"
FROM_2 = ("--local-interface", "127.0.0.2")
"""A client that no rule names."""


class Front(Struct, frozen=True):
    """``inbox``: the mailboxes of example.com; ``world``: everybody else's. ``rules``: tcp.smtp.cdb."""

    proxy: SmtpExample
    postfix: Postfix
    inbox: MailSink
    world: MailSink
    rules: Path


def rules_text(more: str = "") -> str:
    return more + (EXAMPLES / FOLDER / "tcp.smtp").read_text()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with run_front(tmp_path_factory.mktemp("front")) as made:
        yield made


@contextlib.contextmanager
def run_front(folder: Path, config: Mapping[str, str] | None = None, main_more: str = "") -> Iterator[Front]:
    """``config``: further changes of icapscan.toml; ``main_more``: further lines of main.cf."""
    inbound, relay, submission, port_25, port_587 = (free_port() for _ in range(5))
    hops = {"127.0.0.1:1025": f"127.0.0.1:{inbound}", "127.0.0.1:1026": f"127.0.0.1:{relay}",
            "127.0.0.1:1587": f"127.0.0.1:{submission}"}  # fmt: skip
    rules = folder / "tcp.smtp.cdb"
    tcprules(rules, rules_text())
    with contextlib.ExitStack() as stack:
        inbox, world = stack.enter_context(MailSink()), stack.enter_context(MailSink())
        dovecot = stack.enter_context(run_dovecot(folder / "dovecot", USERS))
        server = stack.enter_context(run_icapscan(folder / "server"))
        main = example(
            f"{FOLDER}/main.cf",
            {
                "hash:/etc/postfix/mailboxes": "hash:{config}/mailboxes",
                "lmtp:unix:private/dovecot-lmtp": f"smtp:[127.0.0.1]:{inbox.port}",
                "/run/dovecot/auth-client": str(dovecot.socket),
            },
        )
        postfix = run_postfix(
            folder / "postfix", main=f"{main}\ndefault_transport = smtp:[127.0.0.1]:{world.port}\n{main_more}",
            master=example(f"{FOLDER}/master.cf", hops), port=inbound, smtpd=False,
            files={"mailboxes": (EXAMPLES / FOLDER / "mailboxes").read_text()},
        )  # fmt: skip
        stack.enter_context(postfix)
        changes = {**hops, "0.0.0.0:25": f"127.0.0.1:{port_25}", "0.0.0.0:587": f"127.0.0.1:{port_587}",
                   "127.0.0.1:1344": f"127.0.0.1:{server.icap_port}", "/etc/tcp.smtp.cdb": str(rules)}  # fmt: skip
        text = example(f"{FOLDER}/icapscan.toml", {**changes, **(config or {})})
        proxy = stack.enter_context(run_smtp_example(folder / "proxy", text))
        yield Front(proxy, postfix, inbox, world, rules)


def test_mail_from_anybody_for_us(front: Front) -> None:
    sent = mails.clean("for us")
    assert mails.send(front.proxy.port, sent, source="127.0.0.2", mail_options=["BODY=8BITMIME"]).startswith("250")
    got = front.inbox.wait_for_subject("for us")
    assert mails.without_fields(got.data) == sent
    # XCLIENT: Postfix writes who the client really is
    assert "from client.test (unknown [127.0.0.2])" in str(got.field("Received"))
    front.postfix.wait_for_log(r"postfix/inbound/smtpd.*client=\S*\[127\.0\.0\.2\]")


def test_an_infected_mail_is_refused_before_anybody_took_it(front: Front) -> None:
    before = len(front.inbox.mails)
    assert mails.send(front.proxy.port, mails.nested("bad")).startswith("554 5.7.1 Message refused")
    front.postfix.wait_empty()
    assert len(front.inbox.mails) == before


def test_a_relay_client_by_its_address_and_nobody_else(front: Front) -> None:
    assert mails.send(front.proxy.port, mails.clean("by address"), to=[FAR]).startswith("250")
    assert front.world.wait_for_subject("by address").recipients == (FAR,)
    front.postfix.wait_for_log("postfix/relay/smtpd")
    assert mails.send(front.proxy.port, mails.clean("outsider"), to=[FAR], source="127.0.0.2").startswith("554 5.7.1 ")


def test_pop_before_smtp_while_it_runs(front: Front) -> None:
    """What a POP server's helper does after a log-in, and when its time is over."""

    def relays() -> str:
        return mails.send(front.proxy.port, mails.clean("after POP"), to=[FAR], source="127.0.0.2")

    assert relays().startswith("554 5.7.1 ")
    tcprules(front.rules, rules_text('127.0.0.2:allow,RELAYCLIENT=""\n'))
    assert relays().startswith("250")
    assert front.world.wait_for_subject("after POP").recipients == (FAR,)
    tcprules(front.rules, rules_text())
    assert relays().startswith("554 5.7.1 ")
    tcprules(front.rules, rules_text("127.0.0.2:deny\n"))
    assert "554 5.7.1" in run_swaks(front.proxy.port, *FROM_2, to="anna@example.com").text
    tcprules(front.rules, rules_text())
    assert run_swaks(front.proxy.port, *FROM_2, to="anna@example.com").ok


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_auth_passes_through_to_postfix_and_dovecot(front: Front, mechanism: str) -> None:
    user, password = next(iter(USERS.items()))
    port = front.proxy.ports[1]
    log_in = (*FROM_2, "--auth", mechanism, "--auth-user", user, "--h-Subject", f"by {mechanism}", "--auth-password")
    refused = run_swaks(port, *log_in, "wrong", to=FAR)
    assert not refused.ok
    assert "535 5.7.8" in refused.text
    sent = run_swaks(port, *log_in, password, to=FAR)
    assert sent.ok, sent.text
    assert front.world.wait_for_subject(f"by {mechanism}").recipients == (FAR,)
    front.postfix.wait_for_log(f"postfix/submission/smtpd.*sasl_method={mechanism}, sasl_username={user}")
    front.proxy.wait_for_log(f"user={user} ")


@pytest.mark.parametrize(
    "recipient",
    [
        FAR, "far%world.test@example.com", "far%world.test", '"far@world.test"@example.com', '"far%world.test"',
        "@example.com:far@world.test", "world.test!far@example.com", "world.test!far", "far@[192.0.2.1]",
        "far@world.test@example.com", "<far@world.test>", "far@world.test,anna@example.com",
    ],
)  # fmt: skip
@pytest.mark.parametrize("sender", ["", "anna@example.com", "postmaster@[127.0.0.1]", "root"])
def test_no_open_relay(front: Front, sender: str, recipient: str) -> None:
    before = len(front.world.mails)
    reply = mails.send(front.proxy.port, mails.clean("spam"), sender=sender, to=[recipient], source="127.0.0.2")
    assert reply[:1] in "45", reply
    front.postfix.wait_empty()
    assert len(front.world.mails) == before


@pytest.mark.parametrize(
    "claim",
    [
        b"XCLIENT ADDR=127.0.0.1 LOGIN=anna@example.com", b"XFORWARD ADDR=127.0.0.1 SOURCE=LOCAL",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 25", b"AUTH PLAIN AGFubmFAZXhhbXBsZS5jb20Ad3Jvbmc=",
        b"AUTH EXTERNAL YW5uYQ==",
        b"AUTH PLAIN =", b"EHLO 127.0.0.1", b"STARTTLS", b"NOOP\rXCLIENT ADDR=127.0.0.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("greeted", [False, True])
def test_no_client_can_claim_to_be_somebody_else(front: Front, claim: bytes, greeted: bool) -> None:
    before = len(front.world.mails)
    lines = ([b"EHLO client.test"] if greeted else []) + [claim, b"EHLO client.test", b"MAIL FROM:<anna@example.com>"]
    source = socket.create_connection(("127.0.0.1", front.proxy.port), 60, ("127.0.0.2", 0))
    with source as connection, connection.makefile("rb") as reader:
        reader.readline()
        reply = b"250 "
        for line in [*lines, b"RCPT TO:<far@world.test>"]:
            connection.sendall(line + b"\r\n")
            while (reply := reader.readline())[3:4] == b"-":
                pass
            if not reply:
                break  # it wants no more of this
        assert reply[:1] in (b"", b"4", b"5"), reply
    assert len(front.world.mails) == before


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n\0.\r\n", b"\n\n.\r\n",
        b"\r\n.\r\r\n", b"\r\n.\0\r\n", b"\r\n .\r\n", b"\r\n..\r\n",
    ],
)  # fmt: skip
def test_one_message_in_is_never_two_messages_out(front: Front, end: bytes) -> None:
    """``end`` looks like the end of a message to some servers; behind it stands what they would take for commands."""
    before = len(front.inbox.mails)
    inner = b"MAIL FROM:<ceo@example.com>\r\nRCPT TO:<ben@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"
    with socket.create_connection(("127.0.0.1", front.proxy.port), timeout=60) as connection:
        reader = connection.makefile("rb")
        reader.readline()
        for line in (b"HELO client.test", b"MAIL FROM:<a@client.test>", b"RCPT TO:<anna@example.com>", b"DATA"):
            connection.sendall(line + b"\r\n")
            assert reader.readline()[:1] in b"23"
        # the inner message has an end of its own: it is the end of the outer one, and nothing may follow
        connection.sendall(b"Subject: outer\r\n\r\ntext" + end + inner)
        replies = [reader.readline()]
        connection.shutdown(socket.SHUT_WR)
        replies += reader.readlines()
    assert replies[0][:3] in (b"250", b"550", b"500", b"554"), replies
    assert [reply for reply in replies[1:] if reply[:1] in b"23"] == []
    front.postfix.wait_empty()
    arrived = front.inbox.mails[before:]
    assert len(arrived) == (replies[0][:3] == b"250")
    assert all(mail.field("Subject") == "outer" and mail.recipients == ("anna@example.com",) for mail in arrived)


@pytest.mark.parametrize("tell", ["proxy-v1", "proxy-v2"])
def test_who_the_client_is_by_a_proxy_header(tmp_path: Path, tell: str) -> None:
    haproxy = "smtpd_upstream_proxy_protocol = haproxy\n"
    with run_front(tmp_path, {'tell = "xclient"': f'tell = "{tell}"'}, haproxy) as here:
        assert mails.send(here.proxy.port, mails.clean("for us"), source="127.0.0.2").startswith("250")
        assert "(unknown [127.0.0.2])" in str(here.inbox.wait_for_subject("for us").field("Received"))
        assert mails.send(here.proxy.port, mails.clean("spam"), to=[FAR], source="127.0.0.2").startswith("554 5.7.1 ")
        assert mails.send(here.proxy.port, mails.clean("by address"), to=[FAR]).startswith("250")


def test_auth_after_starttls_only(tmp_path: Path) -> None:
    pem = tmp_path / "mx.pem"
    subprocess.run(
        [require("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", pem,
         "-out", tmp_path / "certificate.pem", "-subj", "/CN=mx.example.com"],
        check=True, capture_output=True,
    )  # fmt: skip
    pem.write_text(pem.read_text() + (tmp_path / "certificate.pem").read_text())
    user, password = next(iter(USERS.items()))
    lines = f'auth = "pass"\nauth_needs_tls = true\ntls = "may"\ntls_certificate = "{pem}"\n#'
    context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    context.check_hostname = False
    with run_front(tmp_path, {'auth = "pass"': lines}) as here:
        with smtplib.SMTP("127.0.0.1", here.proxy.ports[1], local_hostname="client.test", timeout=60) as client:
            client.ehlo()
            assert not client.has_extn("auth")
            assert client.docmd("AUTH", "PLAIN AGFubmEAYg==")[0] == 538
            client.starttls(context=context)
            client.ehlo()
            assert client.has_extn("auth")
            client.login(user, password)
            assert client.sendmail(user, [FAR], mails.clean("over TLS")) == {}
        got = here.world.wait_for_subject("over TLS")
    assert got.recipients == (FAR,)
    assert b"with ESMTPSA id" in got.data
