"""Who is told through the real server: once it is clear what was done, and never in the way of the answer."""

from __future__ import annotations

import email
import email.policy
import json
import re
import socket
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from icapscan.notify.notifier import Notifier
from icapscan.notify.settings import NotifySettings, RuleNotifySettings
from icapscan.policy.settings import PolicySettings
from icapscan.quarantine.vault import Quarantine
from icapscan.servers.notifying import Notifiers
from tests.conformance.live import Live
from tests.conformance.test_sanitize import CLEAN, SERVICES, Finds, mail, put
from tests.notify.made import ADMIN, PATIENCE, SECRET_TEXT, HttpSink, settings, wait
from tests.quarantine.made import settings as quarantine_settings
from tests.quarantine.smtp_server import SmtpServer
from tests.wire.samples import EICAR, chunked, reqmod, respmod

BLOCK: dict[str, Any] = {"name": "viruses", "when": {"verdict": "infected"}, "action": ["block", "notify"]}
KEEP: dict[str, Any] = {**BLOCK, "action": ["block", "quarantine", "notify"]}
SANITIZE: dict[str, Any] = {**BLOCK, "action": ["sanitize", "notify"]}
ENVELOPE = (
    b"Allow: 204\r\nX-Client-IP: 10.1.2.3\r\nX-SMTP-From: <jane@example.org>\r\n"
    b"X-SMTP-To: <bob@example.org>, eve@elsewhere.test\r\n"
)
ALL = ("administrator", "sender", "recipient")


def server(notify: NotifySettings, *rules: dict[str, Any], **more: Any) -> Live:
    return Live(Finds(), policy=PolicySettings(rules=rules), services=SERVICES, notify=notify, **more)


def notifier(live: Live) -> Notifier:
    found = live.shared.generation.notifier
    assert found is not None
    return found


def told(relay: SmtpServer) -> list[tuple[list[str], EmailMessage]]:
    """The mails that the relay has."""
    found = []
    for one in relay.mails:
        message = email.message_from_bytes(one.data, policy=email.policy.default)
        assert isinstance(message, EmailMessage) and one.sender == ""
        found.append((one.recipients, message))
    return found


def finish(live: Live) -> None:
    notifier(live).close(PATIENCE)


def test_an_infected_download_is_one_mail_and_one_call_with_the_reference_of_the_page() -> None:
    with SmtpServer() as relay, HttpSink() as hook:
        notify = settings(relay=relay.address, webhook=hook.url, webhook_secret=SECRET_TEXT)
        with server(notify, BLOCK) as live:
            head = b'HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename="bad.exe"\r\n\r\n'
            answer = live.ask(respmod(chunked(EICAR), res_hdr=head))
            record = live.last()
            finish(live)
    assert b" 403 " in answer.sections["res-hdr"][:20] and record.reference.encode() in (answer.body or b"")
    ((recipients, message),) = told(relay)
    assert recipients == [ADMIN] and record.reference in message["Subject"]
    said = message.get_content()
    for words in (
        "in a download", "blocked and not passed on", "Found: Eicar-Test", "File name: bad.exe", "Rule: viruses",
        "Address: http[:]//www.example.org/file.bin", f"Reference: {record.reference}",
    ):  # fmt: skip
        assert words in said, words
    assert EICAR not in relay.mails[0].data and EICAR not in hook.posted[0].body
    data = json.loads(hook.posted[0].body)["data"]
    assert (data["reference"], data["decision"], data["rule"], data["rules"]) == (
        record.reference, "block", "viruses", ["viruses"],
    )  # fmt: skip
    assert len(hook.posted) == 1 and data["findings"][0]["name"] == "Eicar-Test" and data["names"] == ["bad.exe"]


def test_what_is_clean_tells_nobody() -> None:
    with SmtpServer() as relay, server(settings(relay=relay.address), BLOCK) as live:
        assert live.ask(respmod(chunked(b"clean"))).status == 204
        assert live.last().reference == ""
        finish(live)
    assert relay.mails == []


@pytest.mark.parametrize("hangs", [False, True])
def test_the_answer_comes_also_when_the_relay_is_down_or_hangs(hangs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not hangs:
            listener.close()
        with server(settings(relay=f"127.0.0.1:{port}"), BLOCK) as live:
            for _ in range(3):
                assert b" 403 " in live.ask(respmod(chunked(EICAR))).sections["res-hdr"][:20]
            notifier(live).close(0.0)


def test_the_answer_does_not_depend_on_mistakes_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("icapscan.servers.notifying.notice_of", broken)
    with server(settings(), BLOCK) as live:
        assert b" 403 " in live.ask(respmod(chunked(EICAR))).sections["res-hdr"][:20]
        assert f"there is no notice of {live.last().reference}" in caplog.text


def test_a_mail_is_told_to_its_people_with_the_id_of_the_kept_item(tmp_path: Path) -> None:
    quarantine = Quarantine(quarantine_settings(tmp_path))
    body = b"Message-ID: <7@example.org>\r\n" + mail(("bad.exe", EICAR), ("good.bin", CLEAN))
    with SmtpServer() as relay:
        notify = settings(relay=relay.address, to=ALL)
        with server(notify, KEEP, quarantine=quarantine.settings) as live:
            live.ask(put(body, ENVELOPE))
            finish(live)
    (entry,) = quarantine.list()
    mails = told(relay)
    assert [recipients for recipients, _ in mails] == [[ADMIN], ["jane@example.org"], ["bob@example.org"]]
    for _, message in mails:
        said = message.get_content()
        assert f"Quarantine: {entry.id}" in said and "File name: bad.exe" in said and "Subject: x" in said
        assert f"Reference: {entry.reference}" in said and "good.bin" not in said
    assert "From: jane@example.org" in mails[0][1].get_content() and mails[1][1]["In-Reply-To"] == "<7@example.org>"


def test_a_quarantine_that_is_full_is_told(tmp_path: Path) -> None:
    small = Quarantine(quarantine_settings(tmp_path, max_size=1000))
    with SmtpServer() as relay, server(settings(relay=relay.address), KEEP, quarantine=small.settings) as live:
        live.ask(put(mail(("bad.exe", EICAR), ("good.bin", CLEAN)), ENVELOPE))
        finish(live)
    said = told(relay)[0][1].get_content()
    assert "to be kept in the quarantine, and could not be" in said and "Note: It could not be kept" in said


def test_what_was_really_done_is_told_and_not_what_was_planned() -> None:
    """The rule says sanitize; a download that cannot be cleaned is blocked."""
    with SmtpServer() as relay, server(settings(relay=relay.address), SANITIZE) as live:
        assert live.ask(put(mail(("bad.exe", EICAR), ("good.bin", CLEAN)), ENVELOPE)).status == 200
        assert live.last().decision == "sanitize"
        live.ask(respmod(chunked(EICAR)))
        assert live.last().decision == "block"
        finish(live)
    sanitized, blocked = (message.get_content() for _, message in told(relay))
    assert "taken out of it, and the rest was passed on" in sanitized and "Note: Sanitized: 1 replaced." in sanitized
    assert "blocked and not passed on" in blocked and "Note: It was to be sanitized." in blocked


@pytest.mark.parametrize(
    ("header", "envelope"),
    [
        (b"Auto-Submitted: auto-replied\r\n", ENVELOPE),
        (b"X-Icapscan-Notice: 0123abcd\r\n", ENVELOPE),
        (b"", ENVELOPE.replace(b"<jane@example.org>", b"<>")),
        (b"", b"Allow: 204\r\nX-Client-IP: 10.1.2.3\r\nX-SMTP-To: <bob@example.org>\r\n"),
        (b"X-Long: " + b"x" * 70_000 + b"\r\nAuto-Submitted: auto-replied\r\n", ENVELOPE),
    ],
)
def test_the_guard_against_loops(header: bytes, envelope: bytes) -> None:
    with SmtpServer() as relay, server(settings(relay=relay.address, to=ALL), BLOCK) as live:
        live.ask(put(header + mail(("bad.exe", EICAR)), envelope))
        finish(live)
    assert [recipients for recipients, _ in told(relay)] == [[ADMIN]]


def test_our_own_notice_meets_the_scanner_and_makes_no_other_one() -> None:
    everything: dict[str, Any] = {"name": "all mail", "when": {"direction": "mail"}, "action": "notify"}
    with SmtpServer() as relay, server(settings(relay=relay.address), everything) as live:
        live.ask(put(mail(), ENVELOPE))
        wait(lambda: relay.mails, "the notice")
        to = b"Allow: 204\r\nX-SMTP-From: <>\r\nX-SMTP-To: <%s>\r\n" % ADMIN.encode()
        assert live.ask(put(relay.mails[0].data, to)).status == 204
        finish(live)
    assert len(relay.mails) == 1


def test_an_envelope_that_only_the_http_head_of_an_upload_claims_writes_to_nobody() -> None:
    """Whoever uploads could have strangers written to."""
    head = (
        b"PUT http://www.example.org/x HTTP/1.1\r\nHost: www.example.org\r\nContent-Type: message/rfc822\r\n"
        b"X-SMTP-From: <jane@example.org>\r\nX-SMTP-To: <bob@example.org>\r\n\r\n"
    )
    with SmtpServer() as relay, server(settings(relay=relay.address, to=ALL), BLOCK) as live:
        live.ask(reqmod(chunked(mail(("bad.exe", EICAR))), b"X-Client-IP: 10.1.2.3\r\n", req_hdr=head))
        finish(live)
    assert [recipients for recipients, _ in told(relay)] == [[ADMIN]]


def test_hostile_names_in_a_mail_stay_text() -> None:
    body = mail(('a\\"b\u202e.exe', EICAR)).replace(
        b"Subject: x\r\n", b"Subject: =?utf-8?q?x=0D=0ABcc:_victim@example.org=0D=0A=0D=0AClick?=\r\n"
    )
    with SmtpServer() as relay, server(settings(relay=relay.address, to=ALL), BLOCK) as live:
        live.ask(put(body, ENVELOPE))
        finish(live)
    for _, message in told(relay):
        assert message["Bcc"] is None and not message.defects
        said = message.get_content()
        assert "\u202e" not in said and "Subject: xBcc: victim@example.org" in said


def test_a_request_without_a_body_can_be_told_too() -> None:
    rule: dict[str, Any] = {"name": "host", "when": {"host": "www.example.org"}, "action": ["block", "notify"]}
    with SmtpServer() as relay, server(settings(relay=relay.address), rule) as live:
        answer = live.ask(respmod(None))
        finish(live)
    assert b" 403 " in answer.sections["res-hdr"][:20]
    said = told(relay)[0][1].get_content()
    assert "No virus was found" in said and "blocked and not passed on" in said and "Rule: host" in said


def test_a_hit_in_the_preview_waits_for_the_whole_body_and_is_told_once() -> None:
    body = EICAR + CLEAN
    with SmtpServer() as relay, server(settings(relay=relay.address), BLOCK) as live:
        with live.connect() as peer:
            first, rest = body[:1024], body[1024:]
            peer.send(respmod(b"%x\r\n%s\r\n0\r\n\r\n" % (len(first), first), b"Preview: 1024\r\n"))
            peer.hundred()
            peer.ask(chunked(rest))
        finish(live)
    assert len(relay.mails) == 1


def test_rules_that_add_and_one_that_decides_tell_together() -> None:
    watch: dict[str, Any] = {"name": "watch", "when": {"direction": "web"}, "action": "notify"}
    tried: dict[str, Any] = {"name": "tried", "action": "notify", "monitor": True}
    rules = {"watch": RuleNotifySettings(administrators=("team@example.org",))}
    with SmtpServer() as relay, server(settings(relay=relay.address, rules=rules), tried, watch, BLOCK) as live:
        live.ask(respmod(chunked(EICAR)))
        live.ask(respmod(chunked(b"clean")))
        assert re.fullmatch("[0-9a-f]{8}", live.last().reference)
        finish(live)
    assert [recipients for recipients, _ in told(relay)] == [["team@example.org"], [ADMIN], ["team@example.org"]]
    assert "Notice by: watch, viruses" in told(relay)[0][1].get_content()
    assert "It was passed on." in told(relay)[2][1].get_content()


def test_a_notifier_is_kept_over_a_reload_that_does_not_change_it() -> None:
    with server(settings(), BLOCK) as live:
        first, same = live.shared.generation, live.generation("test-2")
        assert first.notifier is not None and same.notifier is first.notifier
        notifiers, before = Notifiers(1), live.settings
        one = notifiers.get(before)
        assert one is not None and notifiers.get(replace(before, server=replace(before.server, workers=7))) is one
        assert notifiers.get(replace(before, notify=settings(rate=3))) is not one
        assert notifiers.get(replace(before, policy=PolicySettings())) is None
        finish(live)
