"""The mail programs that other tests start do what those tests think they do, without icapscan."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers.dovecot import USERS, run_dovecot
from tests.peers.exim import run_exim
from tests.peers.mail import CLOSE, MailSink, run_swaks
from tests.peers.postfix import maildir_lines, run_postfix
from tests.peers.tcpserver import QmailStandIn, cdb_dump, run_tcpserver, tcprules, tcprulescheck

MAIL = b"From: a@client.test\nSubject: hello\n\n.one dot\n..two dots\nend\n"
WIRE = MAIL.replace(b"\n", b"\r\n")


def test_the_sink_keeps_the_very_bytes_and_the_parameters(tmp_path: Path) -> None:
    with MailSink() as sink:
        sent = run_swaks(
            sink.port, sender="a@client.test", to="b@inside.test,c@inside.test", data=MAIL, folder=tmp_path
        )
        assert sent.ok
        assert sent.verdict == "250 2.0.0 taken"
        [mail] = sink.wait_for(1)
    assert mail.data.rstrip(b"\r\n") == WIRE.rstrip(b"\r\n")
    assert (mail.sender, mail.recipients) == ("a@client.test", ("b@inside.test", "c@inside.test"))
    assert mail.field("subject") == "hello"
    assert mail.body.startswith(b".one dot\r\n..two dots\r\n")


@pytest.mark.parametrize(
    ("place", "reply"),
    [("MAIL", "451 4.3.0 later"), ("RCPT", "550 5.1.1 nobody"), (".", "554 5.7.1 no"), ("DATA", CLOSE)],
)
def test_the_sink_does_as_it_is_told(tmp_path: Path, place: str, reply: str) -> None:
    with MailSink() as sink:
        sink.replies[place] = reply
        assert not run_swaks(sink.port, data=MAIL, folder=tmp_path).ok
        assert sink.mails == []
        del sink.replies[place]
        sink.stop()
        assert not run_swaks(sink.port, data=MAIL, folder=tmp_path).ok
        sink.start()
        assert run_swaks(sink.port, data=MAIL, folder=tmp_path).ok
        assert len(sink.wait_for(1)) == 1


def test_postfix_relays_queues_and_delivers_after_kill_9(tmp_path: Path) -> None:
    with MailSink() as sink:
        main = f"mynetworks = 127.0.0.0/8\nrelayhost = [127.0.0.1]:{sink.port}\n"
        postfix = run_postfix(tmp_path / "postfix", main=main)
        try:
            assert run_swaks(postfix.port, data=MAIL, folder=tmp_path).ok
            [first] = sink.wait_for(1)
            assert first.body.rstrip() == WIRE.partition(b"\r\n\r\n")[2].rstrip()
            assert "Postfix" in (first.field("Received") or "")
            postfix.wait_empty()
            sink.stop()
            assert run_swaks(postfix.port, data=MAIL, folder=tmp_path).ok
            assert postfix.queued() == 1
            postfix.kill()
            postfix = postfix.start_again()
            assert postfix.queued() == 1
            sink.start()
            postfix.flush()
            sink.wait_for(2)
        finally:
            postfix.end()
    assert "status=sent" in postfix.log_text()


def test_postfix_delivers_to_a_maildir_and_asks_dovecot(tmp_path: Path) -> None:
    with run_dovecot(tmp_path / "dovecot") as dovecot:
        main = (
            maildir_lines() + "mynetworks =\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n"
            f"smtpd_sasl_path = {dovecot.socket}\nrelayhost = [127.0.0.1]:1\n"
        )
        with run_postfix(tmp_path / "postfix", main=main) as postfix:
            assert run_swaks(postfix.port, data=MAIL, folder=tmp_path).ok
            postfix.wait_until(lambda: len(postfix.maildir()) == 1, "the mail in the Maildir")
            assert postfix.maildir()[0].rstrip().endswith(MAIL.partition(b"\n\n")[2].rstrip())
            refused = run_swaks(postfix.port, "--quit-after", "RCPT", to="x@far.test")
            assert "454 4.7.1" in refused.text or "554 5.7.1" in refused.text
            user, password = next(iter(USERS.items()))
            for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
                log_in = ("--auth", mechanism, "--auth-user", user, "--auth-password")
                assert run_swaks(postfix.port, *log_in, password, "--quit-after", "RCPT", to="x@far.test").ok
                assert "535 5.7.8" in run_swaks(postfix.port, *log_in, "wrong", "--quit-after", "RCPT").text


def test_exim_relays_and_queues(tmp_path: Path) -> None:
    with MailSink() as sink:
        config = f"""
acl_smtp_rcpt = accept
begin routers
all:
  driver = manualroute
  route_list = * 127.0.0.1::{sink.port}
  transport = out
  self = send
begin transports
out:
  driver = smtp
  allow_localhost
begin retry
* * F,1h,1s
"""
        with run_exim(tmp_path / "exim", config) as exim:
            assert run_swaks(exim.port, data=MAIL, folder=tmp_path).ok
            assert b".one dot\r\n..two dots" in sink.wait_for(1)[0].body
            exim.wait_empty()
            sink.stop()
            assert run_swaks(exim.port, data=MAIL, folder=tmp_path).ok
            exim.wait_for_log("Connection refused")
            assert exim.queued() == 1
            sink.start()
            exim.flush()
            sink.wait_for(2)


def test_tcpserver_obeys_rules_that_are_replaced_while_it_runs(tmp_path: Path) -> None:
    qmail, rules = QmailStandIn(tmp_path / "qmail"), tmp_path / "tcp.smtp.cdb"
    tcprules(rules, ':allow\n127.0.0.2:allow,RELAYCLIENT=""\n')
    assert cdb_dump(rules) == {b"": b"", b"127.0.0.2": b"+RELAYCLIENT=\0"}
    assert "RELAYCLIENT" in tcprulescheck(rules, "127.0.0.2")
    with run_tcpserver(tmp_path, qmail.command, rules=rules) as server:
        assert run_swaks(server.port, data=MAIL, folder=tmp_path).ok
        assert "553 sorry" in run_swaks(server.port, to="x@far.test").text
        assert run_swaks(server.port, "--local-interface", "127.0.0.2", to="x@far.test").ok
        tcprules(rules, '127.:allow,RELAYCLIENT=""\n127.0.0.2:deny\n:deny\n')
        assert run_swaks(server.port, to="x@far.test").ok
        assert not run_swaks(server.port, "--local-interface", "127.0.0.2").ok
    senders = [(sender, recipients) for sender, recipients, _ in qmail.mails()]
    assert senders == [("sender@client.test", [to]) for to in ("reader@inside.test", "x@far.test", "x@far.test")]
    assert b"\n.one dot\n..two dots\nend\n" in qmail.mails()[0][2]
