"""What a rule keeps: the virgin body is in the quarantine before the answer says so, whatever else is done with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icapscan.policy.settings import PolicySettings
from icapscan.quarantine.item import Kind
from icapscan.quarantine.vault import Quarantine
from tests.conformance.live import Live
from tests.conformance.test_sanitize import CLEAN, SERVICES, Finds, leaves, mail, put
from tests.quarantine.made import settings as made_settings
from tests.wire.samples import EICAR, chunked, respmod

BLOCK: dict[str, Any] = {"name": "keep", "when": {"verdict": "infected"}, "action": ["block", "quarantine"]}
SANITIZE: dict[str, Any] = {"name": "keep", "when": {"verdict": "infected"}, "action": ["sanitize", "quarantine"]}
ALLOW: dict[str, Any] = {"name": "copy", "when": {"media-type": "text/*"}, "action": ["allow", "quarantine"]}


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    yield Quarantine(made_settings(tmp_path))


def server(quarantine: Quarantine, *rules: dict[str, Any]) -> Live:
    return Live(Finds(), policy=PolicySettings(rules=rules), services=SERVICES, quarantine=quarantine.settings)


def kept(quarantine: Quarantine, name: bytes | None) -> bytes:
    assert name is not None
    return b"".join(quarantine.read(name.decode()))


def test_a_blocked_mail_is_kept_whole_with_its_envelope(quarantine: Quarantine) -> None:
    body = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
        + mail(("bad.exe", EICAR), ("good.bin", CLEAN)).partition(b"\r\n")[2]
    )
    request = put(body).replace(
        b"Host: mx\r\n", b"Host: mx\r\nX-SMTP-From: <a@example.org>\r\nX-SMTP-To: <b@example.org>, c@example.org\r\n"
    )
    with server(quarantine, BLOCK) as live:
        head, _, rest = request.partition(b"Encapsulated: req-hdr=0, req-body=")
        size, _, rest = rest.partition(b"\r\n")
        grown = int(size) + len(request) - len(put(body))
        answer = live.ask(b"%sEncapsulated: req-hdr=0, req-body=%d\r\n%s" % (head, grown, rest))
        assert b" 403 " in answer.sections["res-hdr"][:20]
        assert kept(quarantine, answer.get("X-Icapscan-Quarantine")) == body
        record = live.last()
        (entry,) = quarantine.list()
        assert (entry.kind, entry.name, entry.sender) == (Kind.MAIL, "Grüße", "a@example.org")
        assert entry.recipients == ("b@example.org", "c@example.org")
        assert entry.rule == "keep" and entry.reference == record.reference and record.quarantine == entry.id
        assert entry.verdict == "infected" and entry.findings[0].name == "Eicar-Test"


def test_the_notice_names_the_item_and_the_original_is_kept(quarantine: Quarantine) -> None:
    body = mail(("bad.exe", EICAR), ("good.bin", CLEAN))
    with server(quarantine, SANITIZE) as live:
        answer = live.ask(put(body))
        name = answer.get("X-Icapscan-Quarantine")
        assert live.last().decision == "sanitize" and name is not None and name in leaves(answer.body or b"")[1]
        assert kept(quarantine, name) == body


def test_a_copy_of_what_is_passed(quarantine: Quarantine) -> None:
    with server(quarantine, ALLOW) as live:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        answer = live.ask(respmod(chunked(b"some text"), res_hdr=head))
        assert answer.status == 204 and kept(quarantine, answer.get("X-Icapscan-Quarantine")) == b"some text"
        assert quarantine.list()[0].kind is Kind.FILE


def test_where_it_cannot_be_kept_the_decision_stays_and_all_say_so(tmp_path: Path) -> None:
    small = Quarantine(made_settings(tmp_path, max_size=1000))
    for rule, decision in ((BLOCK, "block"), (SANITIZE, "sanitize")):
        with server(small, rule) as live:
            answer = live.ask(put(mail(("bad.exe", EICAR), ("good.bin", CLEAN))))
            assert answer.status == 200 and EICAR not in (answer.body or b"")
            assert answer.get("X-Icapscan-Quarantine") == b"failed"
            record = live.last()
            assert (record.decision, record.quarantine) == (decision, "failed")
            assert record.detail.startswith("It could not be kept in the quarantine. ")
    assert small.list() == []


def test_a_hit_in_the_preview_waits_for_the_whole_body(quarantine: Quarantine) -> None:
    body = EICAR + CLEAN
    with server(quarantine, BLOCK) as live, live.connect() as peer:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
        first, rest = body[:1024], body[1024:]
        peer.send(respmod(b"%x\r\n%s\r\n0\r\n\r\n" % (len(first), first), b"Preview: 1024\r\n", res_hdr=head))
        peer.hundred()
        answer = peer.ask(chunked(rest))
        assert kept(quarantine, answer.get("X-Icapscan-Quarantine")) == body
