"""The sandwich: a Postfix that relays, `icapscan smtp`, a Postfix that delivers; all real, all on one host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.clients.fakes import EICAR
from tests.e2e.test_smtp_proxy import HEAD, attached, forwarded, icap, zipped
from tests.peers.dovecot import USERS, run_dovecot
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import MailSink, Sent, run_swaks
from tests.peers.postfix import Postfix, maildir_lines, run_postfix
from tests.peers.smtp_proxy import SmtpProxyProcess, run_smtp_proxy
from tests.peers.tcpserver import tcprules

# The delivery side trusts the proxy to say who the client is, and nothing else.
DELIVERY = "mynetworks =\nsmtpd_authorized_xclient_hosts = 127.0.0.0/8\nmessage_size_limit = 100000000\n"
BOUNCED = re.compile(r"status=bounced .*554 5\.7\.1 Message refused: .*(?i:eicar)")
NO_RELAYING = re.compile(r"[45]54 [45]\.7\.1 ")


class Sandwich(Struct):
    """All that is between a client and the mailbox."""

    relay: Postfix
    proxy: SmtpProxyProcess
    delivery: Postfix
    server: IcapscanServer

    def send(self, mail: bytes, folder: Path, *arguments: str) -> Sent:
        return run_swaks(self.relay.port, *arguments, data=mail, folder=folder)


@pytest.fixture(scope="module")
def sandwich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandwich]:
    folder = tmp_path_factory.mktemp("sandwich")
    with (
        run_icapscan(folder / "server") as server,
        run_postfix(folder / "delivery", name="delivery", main=maildir_lines() + DELIVERY) as delivery,
        run_smtp_proxy(folder / "proxy", [icap(server)], delivery.port, {"hop.tell": "xclient"}) as proxy,
        run_postfix(
            folder / "relay",
            name="relay",
            hostname="relay.inside.test",
            main=f"relayhost = [127.0.0.1]:{proxy.port}\nmynetworks = 127.0.0.0/8\nmessage_size_limit = 100000000\n",
        ) as relay,
    ):
        yield Sandwich(relay, proxy, delivery, server)


def arrived(delivery: Postfix, subject: bytes) -> bytes:
    """The mail with that subject in the mailbox, once it is there."""

    def those() -> list[bytes]:
        return [mail for mail in delivery.maildir() if b"\nSubject: " + subject + b"\n" in mail]

    delivery.wait_until(lambda: bool(those()), f"a mail {subject!r}")
    (mail,) = those()
    return mail


def test_clean_mail_arrives_unchanged_below_the_fields(sandwich: Sandwich, tmp_path: Path) -> None:
    body = b".dot\n..two\n\n" + "öü".encode() + b" \nFrom here\nend\n"
    mail = HEAD % b"through" + b"Content-Type: text/plain; charset=utf-8\n\n" + body
    assert sandwich.send(mail, tmp_path).ok
    got = arrived(sandwich.delivery, b"through")
    assert got.endswith((mail + b"\n", mail))
    assert b"(icapscan) with ESMTP id" in got and b"X-Virus-Scanned: by icapscan at" in got
    # XCLIENT: the delivery side knows the relay by its own name, not the proxy
    assert b"from relay.inside.test" in got.partition(b"Received: ")[2].partition(b"\n")[0]


@pytest.mark.parametrize(
    "mail",
    [attached(EICAR, "eicar.com"), forwarded(forwarded(attached(zipped(EICAR), "eicar.zip")))],
    ids=["base64", "zip in a mail in a mail"],
)
def test_eicar_bounces_at_the_sender(sandwich: Sandwich, tmp_path: Path, mail: bytes) -> None:
    before = len(sandwich.relay.log_text())
    assert sandwich.send(mail, tmp_path).ok
    sandwich.relay.wait_until(lambda: BOUNCED.search(sandwich.relay.log_text()[before:]) is not None, "the bounce")
    assert not any(EICAR[:30] in got for got in sandwich.delivery.maildir())


def test_a_mail_of_30_megabytes(sandwich: Sandwich, tmp_path: Path) -> None:
    mail = attached(bytes(range(256)) * 90_000, "large.bin", b"sandwich-large")
    assert sandwich.send(mail, tmp_path).ok
    got = arrived(sandwich.delivery, b"sandwich-large")
    assert got.rstrip(b"\n").endswith(mail.rstrip(b"\n"))


def test_no_open_relay_with_the_classic_tricks(sandwich: Sandwich) -> None:
    tricks = [
        "x@far.test", "x%far.test@inside.test", '"x@far.test"', '"x@far.test"@inside.test', "@inside.test:x@far.test",
        "far.test!x", "x@far.test@inside.test", "x@[192.0.2.1]", "x%far.test@[127.0.0.1]",
    ]  # fmt: skip
    for sender in ("<>", "reader@inside.test", "postmaster@[127.0.0.1]"):
        for trick in tricks:
            said = run_swaks(sandwich.proxy.port, "--quit-after", "RCPT", sender=sender, to=trick)
            local = trick.endswith("@inside.test") and "@far.test@" not in trick
            if said.ok:  # an odd address of its own domain: that goes to its own mailbox, and nowhere else
                assert local, (sender, trick, said.text)
    assert sandwich.delivery.queued() == 0


# Who may relay


def test_pop_before_smtp_by_rules_that_are_replaced_while_it_runs(tmp_path: Path) -> None:
    rules = tmp_path / "tcp.smtp.cdb"
    tcprules(rules, ":allow\n")
    with (
        MailSink() as submission,
        run_icapscan(tmp_path / "server") as server,
        run_postfix(tmp_path / "inbound", name="inbound", main=maildir_lines() + DELIVERY) as inbound,
        run_smtp_proxy(
            tmp_path / "proxy", [icap(server)], inbound.port,
            {"hop.tell": "xclient", "relay_rules": str(rules), "hop.relay": f"127.0.0.1:{submission.port}"},
        ) as proxy,
    ):  # fmt: skip
        submission.extensions = (*submission.extensions, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN")

        def out(address: str) -> str:
            return run_swaks(proxy.port, "--local-interface", address, "--quit-after", "RCPT", to="x@far.test").text

        assert NO_RELAYING.search(out("127.0.0.9"))
        inbound.wait_for_log(r"NOQUEUE: reject: RCPT from \S*\[127\.0\.0\.9\]")  # by XCLIENT it knows the real client
        tcprules(rules, '127.0.0.9:allow,RELAYCLIENT=""\n127.0.0.66:deny\n:allow\n')
        assert not NO_RELAYING.search(out("127.0.0.9")) and "250 2.1.5 fine" in out("127.0.0.9")
        assert NO_RELAYING.search(out("127.0.0.8"))
        assert "554 5.7.1 You may not send mail here" in out("127.0.0.66")
        tcprules(rules, ":allow\n")
        assert NO_RELAYING.search(out("127.0.0.9"))


@pytest.mark.parametrize("how", ["pass", "dovecot"])
def test_auth_against_dovecot_at_the_delivery_side_and_at_the_proxy(how: str, tmp_path: Path) -> None:
    with run_dovecot(tmp_path / "dovecot") as dovecot, MailSink() as far, run_icapscan(tmp_path / "server") as server:
        main = (
            f"{DELIVERY}relayhost = [127.0.0.1]:{far.port}\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"
            f"smtpd_sasl_path = {dovecot.socket}\nsmtpd_tls_auth_only = no\n"
            "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\n"
        )
        settings = {"auth": how, "dovecot": str(dovecot.socket), "hop.tell": "xclient" if how == "dovecot" else "none"}
        with (
            run_postfix(tmp_path / "delivery", name="delivery", main=maildir_lines() + main) as delivery,
            run_smtp_proxy(tmp_path / "proxy", [icap(server)], delivery.port, settings) as proxy,
        ):
            assert NO_RELAYING.search(run_swaks(proxy.port, "--quit-after", "RCPT", to="x@far.test").text)
            for number, (user, password) in enumerate(USERS.items()):
                for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                    if mechanism == "CRAM-MD5" and not password.isascii():
                        continue  # swaks encodes it in another way
                    log_in = ("--auth", mechanism, "--auth-user", user, "--auth-password")
                    subject = f"{mechanism} {number}"
                    mail = HEAD % subject.encode() + b"\nhello\n"
                    sent = run_swaks(proxy.port, *log_in, password, to="x@far.test", data=mail, folder=tmp_path)
                    assert sent.ok, sent.text
                    assert user in proxy.wait_for_log(f"user={re.escape(user)} .*")
                    assert far.wait_for_subject(subject).recipients == ("x@far.test",)
                    refused = run_swaks(proxy.port, *log_in, "wrong", "--quit-after", "RCPT", to="x@far.test")
                    assert "535 5.7.8" in refused.text and not refused.ok
