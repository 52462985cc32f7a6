"""Sanitizing through the real server: what is bad goes, what is left is scanned again, and the rest is as it was."""

from __future__ import annotations

import email
import io
import re
import zipfile
from base64 import encodebytes
from collections.abc import Iterator

import pytest

from icapscan.engines.contract import Part, Report
from icapscan.findings import Finding, Level
from icapscan.policy.settings import PolicySettings, TrafficSettings
from icapscan.servers.settings import ServiceSettings
from tests.conformance.fakes import Fake
from tests.conformance.live import Answer, Live, Peer
from tests.wire.samples import EICAR, chunk, chunked, reqmod, respmod

ALLOW_206 = b"Allow: 204, 206\r\n"
MAIL_HEAD = b"PUT /mail HTTP/1.1\r\nHost: mx\r\nContent-Type: message/rfc822\r\nContent-Length: %d\r\n\r\n"
TEXT = b"the text that has to arrive as it is\r\n"
CLEAN = bytes(range(256)) * 800
POLICY = PolicySettings(
    web=TrafficSettings(infected="sanitize", encrypted="sanitize"),
    mail=TrafficSettings(infected="sanitize", uncleanable="defer", encrypted="sanitize"),
)


SERVICES = {
    "avscan": ServiceSettings(),
    "mailscan": ServiceSettings(traffic="mail"),
    "echo": ServiceSettings(kind="echo"),
}


class Finds(Fake):
    """Finds EICAR, and says in which part."""

    async def scan(self, part: Part, seconds: float) -> Report:
        data = bytes(part.store.view())
        found = EICAR in data
        return Report(self.name, (Finding(self.name, "Eicar-Test", part.path, Level.INFECTED),) if found else ())


@pytest.fixture
def server() -> Iterator[Live]:
    with Live(Finds(), policy=POLICY, services=SERVICES) as live:
        yield live


def mail(*attachments: tuple[str, bytes], text: bytes = TEXT) -> bytes:
    parts = [b"--b\r\nContent-Type: text/plain\r\n\r\n" + text + b"\r\n"]
    for name, data in attachments:
        coded = encodebytes(data).replace(b"\n", b"\r\n")
        parts.append(
            b"--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
            b'Content-Disposition: attachment; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), coded)
        )
    head = (
        b"From: a@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    )
    return head + b"".join(parts) + b"--b--\r\n"


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def put(body: bytes, fields: bytes = b"Allow: 204\r\n", service: bytes = b"mailscan") -> bytes:
    uri = b"icap://127.0.0.1/" + service
    return reqmod(chunked(body), fields, req_hdr=MAIL_HEAD % len(body), uri=uri)


def leaves(message: bytes) -> list[bytes]:
    parsed = email.message_from_bytes(message)
    return [part.get_payload(decode=True) for part in parsed.walk() if not part.is_multipart()]  # type: ignore[misc]


def length(answer: Answer, section: str) -> int:
    (found,) = re.findall(rb"(?im)^content-length: (\d+)\r$", answer.sections[section])
    return int(found)


def test_a_mail_loses_its_bad_attachment_and_nothing_else(server: Live) -> None:
    body = mail(("good.bin", CLEAN), ("bad.exe", EICAR), ("more.bin", CLEAN[::-1]))
    answer = server.ask(put(body))
    assert answer.status == 200 and answer.body is not None and length(answer, "req-hdr") == len(answer.body)
    assert answer.get("X-Infection-Found") == b"Type=0; Resolution=1; Threat=Eicar-Test;"
    assert answer.get("X-Virus-ID") == b"Eicar-Test"  # for clients that keep their own copy
    text, good, notice, more = leaves(answer.body)
    assert (text, good, more) == (TEXT, CLEAN, CLEAN[::-1])
    assert EICAR not in answer.body and b"bad.exe" in notice and b"Eicar-Test" in notice
    record = server.last()
    assert (record.decision, record.reply) == ("sanitize", "200 sanitize") and record.detail == "Sanitized: 1 replaced."
    assert record.reference.encode() in notice


def test_the_bad_member_of_a_zip_goes_and_the_others_stay(server: Live) -> None:
    packed = zipped(**{"a.txt": CLEAN, "b.exe": EICAR})
    answer = server.ask(put(mail(("files.zip", packed))))
    assert answer.body is not None and server.last().detail == "Sanitized: 1 cleaned."
    with zipfile.ZipFile(io.BytesIO(leaves(answer.body)[1])) as archive:
        assert archive.read("a.txt") == CLEAN and "b.exe" not in archive.namelist()


def test_s108_the_client_keeps_what_stands_behind_the_last_change(server: Live) -> None:
    body = mail(("bad.exe", EICAR), ("good.bin", CLEAN * 4))
    whole = server.ask(put(body)).body
    answer = server.ask(put(body, ALLOW_206))
    assert answer.status == 206 and answer.body is not None and whole is not None
    match = re.fullmatch(rb"0; use-original-body=(\d+)", answer.last)
    assert match is not None and len(answer.body) < len(body) // 20
    told = answer.body + body[int(match[1]) :]
    strip = re.compile(rb"(?m)reference=.*|^Reference.*$|\w+: [0-9a-f]{8}\b")
    assert len(told) == length(answer, "req-hdr") == len(whole) and leaves(told)[2] == CLEAN * 4
    assert strip.sub(b"", leaves(told)[1])[:40] == strip.sub(b"", leaves(whole)[1])[:40]


def test_s108_206_in_a_preview_and_not_where_it_was_not_offered(server: Live) -> None:
    body = mail(("bad.exe", EICAR), text=TEXT * 3)
    head = MAIL_HEAD % len(body)
    whole = chunk(body) + b"0; ieof\r\n\r\n"
    assert server.ask(reqmod(whole, b"Allow: 206\r\nPreview: 4096\r\n", req_hdr=head)).status == 206
    assert server.ask(reqmod(chunked(body), b"Allow: 206\r\n", req_hdr=head)).status == 200


def test_s117_206_is_announced_only_where_it_may_come(server: Live) -> None:
    options = b"OPTIONS icap://127.0.0.1/avscan ICAP/1.0\r\nHost: 127.0.0.1\r\n\r\n"
    assert server.ask(options).get("Allow") == b"204, 206"
    assert server.ask(options.replace(b"avscan", b"echo")).get("Allow") == b"204"
    with Live(Finds()) as plain:
        assert plain.ask(options).get("Allow") == b"204"


def test_what_cannot_be_made_good_is_not_passed(server: Live) -> None:
    program = respmod(chunked(b"MZ" + EICAR))
    blocked = server.ask(program)
    assert blocked.status == 200 and b" 403 " in blocked.sections["res-hdr"][:20] and EICAR not in (blocked.body or b"")
    record = server.last()
    assert record.decision == "block" and "sanitized" in record.detail
    torn = mail(("bad.exe", EICAR)).replace(b"boundary=b", b"boundary=c; boundary=b")
    deferred = server.ask(put(torn))
    assert b" 503 " in deferred.sections["res-hdr"][:20] and EICAR not in (deferred.body or b"")
    assert server.last().decision == "defer"
    strange = server.ask(put(torn, service=b"avscan"))  # anybody can say that this is mail: the graver answer
    assert b" 403 " in strange.sections["res-hdr"][:20]


def test_a_coded_response_is_not_rewritten(server: Live) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: application/zip\r\n\r\n"
    import gzip

    answer = server.ask(respmod(chunked(gzip.compress(zipped(**{"a.txt": CLEAN, "b.exe": EICAR}))), res_hdr=head))
    assert b" 403 " in answer.sections["res-hdr"][:20] and "content coding" in server.last().detail


def test_what_is_left_is_scanned_again() -> None:
    """The notice itself offends this engine: nothing that it finds may pass."""

    class Hates(Fake):
        async def scan(self, part: Part, seconds: float) -> Report:
            data = bytes(part.store.view())
            bad = EICAR in data or b"Reference" in data or b"reference" in data
            return Report(self.name, (Finding(self.name, "Bad", part.path, Level.INFECTED),) if bad else ())

    with Live(Hates(), policy=POLICY, services=SERVICES) as live:
        answer = live.ask(put(mail(("bad.exe", EICAR))))
        assert b" 503 " in answer.sections["res-hdr"][:20]
        assert "still offends" in live.last().detail


def test_a_download_is_cleaned_and_its_head_tells_of_what_it_is_now(server: Live) -> None:
    packed = zipped(**{"a.txt": CLEAN, "b.exe": EICAR})
    head = (
        b'HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-MD5: x==\r\nETag: "abc"\r\nDigest: sha-256=x\r\n'
        b"Accept-Ranges: bytes\r\nX-Other: stays\r\nContent-Length: %d\r\n\r\n" % len(packed)
    )
    answer = server.ask(respmod(chunked(packed), res_hdr=head))
    assert answer.body is not None and length(answer, "res-hdr") == len(answer.body) != len(packed)
    adapted = answer.sections["res-hdr"].lower()
    assert b"x-other: stays" in adapted
    assert not any(name in adapted for name in (b"content-md5", b"etag", b"digest", b"accept-ranges"))
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.read("a.txt") == CLEAN and EICAR not in answer.body


def test_a_rule_may_say_so_and_a_clean_body_passes() -> None:
    rule: dict[str, object] = {"name": "tidy", "when": {"verdict": "infected"}, "action": "sanitize"}
    with Live(Finds(), policy=PolicySettings(rules=(rule,)), services=SERVICES) as live:
        assert live.ask(put(mail(("good.bin", CLEAN)))).status == 204
        answer = live.ask(put(mail(("good.bin", CLEAN), ("bad.exe", EICAR))))
        assert answer.status == 200 and EICAR not in (answer.body or b"") and leaves(answer.body or b"")[1] == CLEAN
        assert live.last().rule == "tidy"
        assert live.ask(reqmod(None)).status == 204


def test_stores_are_free_again(server: Live) -> None:
    before = server.purse.memory_left, server.purse.disk_left
    with server.connect() as peer:
        for _ in range(3):
            for body in (mail(("bad.exe", EICAR), ("good.bin", CLEAN)), mail(("z.zip", zipped(e=EICAR)))):
                assert peer.ask(put(body, ALLOW_206)).status in (200, 206)
    _vanish(server)
    server.wait(lambda: not server.shared.connections, "every connection is gone")
    assert (server.purse.memory_left, server.purse.disk_left) == before


def _vanish(server: Live) -> None:
    """A client that goes away while its mail is being rewritten."""
    for _ in range(20):
        peer: Peer = server.connect()
        peer.send(put(mail(("bad.exe", EICAR), ("good.bin", CLEAN * 8))))
        peer.reset()
