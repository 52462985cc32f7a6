"""Handing a mail to the relay."""

from __future__ import annotations

import socket

import pytest

from icapscan.errors import NotDelivered
from icapscan.notify.mail import send
from tests.notify.made import ADMIN, settings
from tests.quarantine.smtp_server import Behaviour, SmtpServer

MESSAGE = b"Subject: x\r\n\r\n.one\r\n..\r\n.\r\nend\r\n"


def test_the_mail_arrives_with_the_null_reverse_path() -> None:
    with SmtpServer() as relay:
        send(settings(relay=relay.address, helo="scanner.example.org"), ADMIN, MESSAGE)
    (mail,) = relay.mails
    assert (mail.sender, mail.recipients, mail.data) == ("", [ADMIN], MESSAGE)
    assert relay.lines[0].lower() == "ehlo scanner.example.org" and relay.lines[-1].upper() == "QUIT"


@pytest.mark.parametrize(
    ("behaviour", "retry", "words"),
    [
        (Behaviour(banner="421 busy"), True, "does not take mails (421 busy)"),
        (Behaviour(banner="554 no"), False, "does not take mails (554 no)"),
        (Behaviour(mail="451 later"), True, "null sender (451 later)"),
        (Behaviour(rcpt=((ADMIN, "450 4.2.0 greylisted"),)), True, "recipient (450 4.2.0 greylisted)"),
        (Behaviour(rcpt=((ADMIN, "550 5.1.1 who?"),)), False, "recipient (550 5.1.1 who?)"),
        (Behaviour(data="451 not now"), True, "data (451 not now)"),
        (Behaviour(data="554 never"), False, "data (554 never)"),
        (Behaviour(end="452 full"), True, "does not take the mail (452 full)"),
        (Behaviour(end="554 5.7.1 spam\x1b[31m"), False, "does not take the mail (554 5.7.1 spam\\x1b[31m)"),
        (Behaviour(cut="MAIL"), True, "broke off"),
        (Behaviour(cut="end"), True, "broke off"),
    ],
)
def test_what_goes_wrong_says_who_refused_and_whether_to_try_again(
    behaviour: Behaviour, retry: bool, words: str
) -> None:
    with SmtpServer(behaviour) as relay, pytest.raises(NotDelivered) as caught:
        send(settings(relay=relay.address), ADMIN, MESSAGE)
    assert relay.mails == [] and caught.value.retry is retry and words in str(caught.value)


def test_a_relay_that_is_not_there_is_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NotDelivered, match="cannot be reached") as caught:
        send(settings(relay=f"127.0.0.1:{port}"), ADMIN, MESSAGE)
    assert caught.value.retry


def test_a_relay_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotDelivered) as caught:
        send(settings(relay=f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.1), ADMIN, MESSAGE)
    assert caught.value.retry
