"""The notifier as a whole, with a relay and a receiver that are real sockets."""

from __future__ import annotations

import email
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from icapscan.notify.contract import Channel, Notice, Outcome
from icapscan.notify.notifier import Notifier
from icapscan.notify.settings import RuleNotifySettings
from tests.notify.made import ADMIN, MAIL, PATIENCE, SECRET_TEXT, Clock, HttpSink, notice, settings, wait
from tests.quarantine.smtp_server import Behaviour, SmtpServer

SOON = (0.0, 0.0, 0.0)
ALL = ("administrator", "sender", "recipient")


def notifier(relay: SmtpServer | None = None, hook: HttpSink | None = None, /, **changes: Any) -> Notifier:
    given: dict[str, Any] = {key: changes.pop(key) for key in ("now", "share", "retries") if key in changes}
    if relay is not None:
        changes["relay"] = relay.address
    if hook is not None:
        changes |= {"webhook": hook.url, "webhook_secret": SECRET_TEXT}
    return Notifier(settings(**changes), contact="helpdesk", **{"retries": SOON, **given})


def texts(relay: SmtpServer) -> list[str]:
    found = []
    for mail in relay.mails:
        payload = email.message_from_bytes(mail.data).get_payload(decode=True)
        assert isinstance(payload, bytes)
        found.append(payload.decode("utf-8"))
    return found


def test_one_notice_is_one_mail_to_each_and_one_call() -> None:
    with SmtpServer() as relay, HttpSink() as hook:
        one = notifier(relay, hook, to=ALL)
        assert one.notify(MAIL) is True
        one.close(PATIENCE)
    assert [(mail.sender, mail.recipients) for mail in relay.mails] == [
        ("", [ADMIN]),
        ("", ["jane@example.org"]),
        ("", ["bob@example.org"]),
    ]
    assert len(hook.posted) == 1 and b'"reference":"0123abcd"' in hook.posted[0].body
    assert one.tally.count(Channel.MAIL, Outcome.SENT) == 3 and one.tally.count(Channel.WEBHOOK, Outcome.SENT) == 1


def test_a_greylisting_relay_and_a_receiver_that_restarts_get_it_in_the_end() -> None:
    with SmtpServer(Behaviour(rcpt=((ADMIN, "450 greylisted"),))) as relay, HttpSink(503, 502) as hook:
        one = notifier(relay, hook, retries=[0.01] * 6000)
        one.notify(MAIL)
        wait(lambda: any(line.startswith("rcpt") for line in relay.lines), "the first try")
        relay.behaviour = Behaviour()
        wait(lambda: relay.mails and len(hook.posted) == 3, "both have it")
        one.close(PATIENCE)
    assert len(relay.mails) == 1
    names = {posted.fields["webhook-id"] for posted in hook.posted}
    assert len(names) == 1 and len({posted.body for posted in hook.posted}) == 1


def test_the_next_mail_tells_what_the_rate_held_back(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with SmtpServer() as relay, HttpSink() as hook, caplog.at_level(logging.DEBUG, "icapscan"):
        one = notifier(relay, hook, rate_each=2, now=clock)
        assert all(one.notify(notice(reference=f"r{number}")) for number in range(7))
        clock.now += 30
        assert one.notify(notice(reference="last"))
        one.close(PATIENCE)
    said = texts(relay)
    assert len(said) == 3 and "held back" not in said[0] + said[1] and "5 more for you were held back" in said[2]
    assert len(hook.posted) == 8, "the webhook has all of them"
    assert one.tally.count(Channel.MAIL, Outcome.HELD) == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"notify: mails to {ADMIN} are held back by the rate, from that of r2 on."
    ]


def test_processes_share_the_rate() -> None:
    with SmtpServer() as relay:
        one = notifier(relay, rate_each=8, share=4)
        for _ in range(10):
            one.notify(MAIL)
        one.close(PATIENCE)
    assert len(relay.mails) == 2


def test_a_hanging_relay_blocks_neither_notify_nor_the_webhook_nor_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, HttpSink() as hook:
        one = notifier(None, hook, relay=f"127.0.0.1:{silent.getsockname()[1]}", timeout=PATIENCE)
        done = threading.Event()

        def work() -> None:
            for _ in range(5):
                one.notify(MAIL)
            wait(lambda: len(hook.posted) == 5, "the webhook is called meanwhile")
            one.close(0.05)
            done.set()

        threading.Thread(target=work, daemon=True).start()
        assert done.wait(PATIENCE / 2), "well before the relay's own timeout"
    assert one.tally.count(Channel.MAIL, Outcome.DROPPED) == 5
    assert one.tally.count(Channel.WEBHOOK, Outcome.SENT) == 5


def test_a_full_queue_is_told_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = notifier(None, relay=f"127.0.0.1:{silent.getsockname()[1]}", queue=2)
        assert one.notify(MAIL)
        silent.accept()[0].detach()  # the first one is being tried, and gets no greeting
        assert [one.notify(notice(reference=f"r{number}")) for number in range(4)] == [True, True, False, False]
        said = [record.getMessage() for record in caplog.records]
        assert ["queue is full" in one for one in said] == [True, True] and "reference=r2" in said[0]
        one.close(0.0)


def test_a_mail_that_does_not_arrive_leaves_its_count_for_the_next_one() -> None:
    clock = Clock()
    with SmtpServer() as relay:
        one = notifier(relay, rate_each=1, now=clock)
        for _ in range(4):
            one.notify(MAIL)
        wait(lambda: relay.mails, "the first one")
        relay.behaviour = Behaviour(end="554 no")
        clock.now += 60
        one.notify(MAIL)
        wait(lambda: one.tally.count(Channel.MAIL, Outcome.FAILED), "the refused one")
        relay.behaviour = Behaviour()
        clock.now += 60
        one.notify(MAIL)
        one.close(PATIENCE)
    assert len(relay.mails) == 2 and "3 more for you were held back" in texts(relay)[1]


def test_a_rule_of_its_own() -> None:
    rules = {"quiet": RuleNotifySettings(to=()), "mails only": RuleNotifySettings(webhook=False)}
    with SmtpServer() as relay, HttpSink() as hook:
        one = notifier(relay, hook, rules=rules)
        one.notify(notice(rules=("quiet",)))
        one.notify(notice(rules=("mails only",)))
        one.close(PATIENCE)
    assert len(relay.mails) == len(hook.posted) == 1


def test_a_mistake_of_ours_never_reaches_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Notice) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("icapscan.notify.webhook.payload", broken)
    with SmtpServer() as relay, HttpSink() as hook:
        one = notifier(relay, hook)
        assert one.notify(MAIL) is False
        one.close(PATIENCE)
    assert "0123abcd cannot be queued" in caplog.text


def test_a_secret_that_went_away_fails_the_call_and_not_the_mail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SmtpServer() as relay, HttpSink() as hook:
        one = notifier(relay, webhook=hook.url, webhook_secret_file=str(tmp_path / "gone"))
        assert one.notify(MAIL) is False
        one.close(PATIENCE)
    assert len(relay.mails) == 1 and hook.posted == [] and "no secret" in caplog.text
    assert one.tally.rows() == [("webhook", "failed", 1), ("mail", "sent", 1)]


def test_after_close_nothing_is_taken() -> None:
    one = notifier()
    one.close(PATIENCE)
    assert one.notify(MAIL) is False
