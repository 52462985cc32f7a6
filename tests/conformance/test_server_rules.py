"""Rules of the configuration on the wire: what they see of a request, what they answer, and when."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any

import pytest

from icapscan.findings import Level, Reason
from icapscan.limits import Limits
from icapscan.policy.settings import PolicySettings
from icapscan.servers.settings import ServiceSettings
from tests.conformance.fakes import Fails, FindsEicar
from tests.conformance.live import SERVICES, Answer, Live
from tests.wire import samples
from tests.wire.samples import EICAR, LAST, chunk, chunked

ALLOW = b"Allow: 204\r\n"
PREVIEW = b"Preview: 4\r\nAllow: 204\r\n"
GET = b"GET http://www.example.com/files/report.zip HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
EXE = b"MZ" + bytes(58) + b"\x40\0\0\0" + b"PE\0\0" + bytes(200)
MAIL = (
    b"From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n"
    b'--x\r\nContent-Type: application/octet-stream; name="a.exe"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    + base64.encodebytes(EXE) + b"--x--\r\n"
)  # fmt: skip


def respmod(body: bytes, fields: bytes = b"", request: bytes = GET, response: bytes = samples.OK) -> bytes:
    return samples.respmod(body, fields, req_hdr=request, res_hdr=response)


def reqmod(body: bytes | None, fields: bytes = b"", request: bytes = GET) -> bytes:
    return samples.reqmod(body, fields, req_hdr=request)


def server(*rules: dict[str, Any], engine: Any = None, settings: dict[str, Any] | None = None, **more: Any) -> Live:
    policy = PolicySettings(rules=rules, **(settings or {}))
    return Live(engine or FindsEicar(), policy=policy, **more)


def zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
    return out.getvalue()


def blocked(answer: Answer) -> bool:
    if answer.status == 204:
        return False
    assert answer.status == 200
    head = answer.sections.get("res-hdr", b"")
    return head.startswith(b"HTTP/1.1 403")


RULE = {"name": "no programs", "when": {"kind": "program"}, "action": "block"}


def test_s94_s96_a_body_that_a_rule_blocks_gets_a_page_that_says_so_and_no_name_of_a_virus() -> None:
    with server(RULE) as live:
        answer = live.ask(respmod(chunked(EXE), ALLOW))
        assert blocked(answer)
        assert answer.get("X-Infection-Found") == b"Type=1; Resolution=2; Threat=Policy.no_programs;"
        assert answer.get("X-Virus-ID") is None and answer.get("X-Response-Info") == b"Blocked"
        assert answer.body is not None and b"not allowed here" in answer.body and b"no programs" in answer.body
        record = live.wait_records(1)[0]
        assert (record.decision, record.rule, record.reply) == ("block", "no programs", "200 block")
        assert record.verdict is not None and record.verdict.level is Level.CLEAN
        assert live.ask(respmod(chunked(b"hello"), ALLOW)).status == 204


def test_programs_in_archives_and_in_mails_too() -> None:
    with server(RULE) as live:
        assert blocked(live.ask(respmod(chunked(zipped("x.txt", zipped("y.txt", EXE))), ALLOW)))
        head = b"PUT / HTTP/1.1\r\nContent-Type: message/rfc822\r\n\r\n"
        assert blocked(live.ask(reqmod(chunked(MAIL), ALLOW, head)))


@pytest.mark.parametrize(
    ("when", "matches"),
    [
        ({"service": "avscan"}, True),
        ({"service": "other"}, False),
        ({"icap-method": "RESPMOD", "method": "GET", "direction": "download"}, True),
        ({"direction": ["upload", "mail"]}, False),
        ({"client": "192.0.2.0/24"}, True),
        ({"client": "127.0.0.0/8"}, False),
        ({"icap-client": "127.0.0.0/8"}, True),
        ({"user": "bob"}, True),
        ({"user": "alice"}, False),
        ({"group": "Sales"}, True),
        ({"group": "staff"}, False),
        ({"host": ".example.com"}, True),
        ({"path": "/files/*"}, True),
        ({"url": "http://www.example.com/*"}, True),
        ({"file-name": "*.zip"}, True),
        ({"file-name": "*.exe"}, False),
        ({"declared-type": "application/zip"}, True),
        ({"media-type": "text/plain"}, True),
        ({"size": "= 5"}, True),
        ({"verdict": "clean"}, True),
    ],
)
def test_what_a_rule_sees(when: dict[str, Any], matches: bool) -> None:
    fields = (
        ALLOW + b"X-Client-IP: 192.0.2.7\r\nX-Authenticated-User: " + base64.b64encode(b"LDAP://dc/CN=bob,OU=x")
        + b"\r\nX-Authenticated-Groups: Local://Sales,Local://People\r\n"
    )  # fmt: skip
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n\r\n"
    with server({"when": when, "action": "block"}) as live:
        assert blocked(live.ask(respmod(chunked(b"hello"), fields, GET, response))) is matches


@pytest.mark.parametrize(
    "disposition",
    [
        b"attachment; filename=a.exe", b'attachment; filename="a.txt"; filename*=UTF-8\'\'a%2Eexe',
        b"attachment; filename=\"=?utf-8?B?YS5leGU=?=\"", b"inline; filename=a.exe.",
    ],
)  # fmt: skip
def test_every_name_of_a_download_is_looked_at(disposition: bytes) -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Disposition: %s\r\n\r\n" % disposition
    with server({"when": {"file-name": "*.exe"}, "action": "block"}) as live:
        assert blocked(live.ask(respmod(chunked(b"hello"), ALLOW, GET, response)))
        assert not blocked(live.ask(respmod(chunked(b"hello"), ALLOW, GET)))
        url = b"GET http://www.example.com/a%2Eexe?x HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
        assert blocked(live.ask(respmod(chunked(b"hello"), ALLOW, url)))


def test_a_request_without_a_body_is_decided_too() -> None:
    with server({"name": "site", "when": {"host": ".example.com"}, "action": "block"}) as live:
        assert blocked(live.ask(reqmod(None, ALLOW, GET)))
        other = GET.replace(b"www.example.com", b"www.example.org")
        assert live.ask(reqmod(None, ALLOW, other)).status == 204


# Never clean by accident


def test_s104_no_rule_makes_a_failure_or_a_virus_pass_by_not_naming_it() -> None:
    rules = [{"when": {"icap-client": "127.0.0.1"}, "action": "allow"}]
    with server(*rules) as live:
        assert blocked(live.ask(respmod(chunked(EICAR), ALLOW)))
    with server(*rules, engine=Fails()) as live:
        assert live.ask(respmod(chunked(b"hello"), ALLOW)).status == 500
    with server(*rules, engine=Fails(Reason.TIMEOUT)) as live:
        assert live.ask(respmod(chunked(b"hello"), ALLOW)).status == 503
    with server(*rules, engine=Fails(Reason.ENCRYPTED)) as live:
        assert live.ask(respmod(chunked(b"hello"), ALLOW)).status == 204


def test_infected_passes_by_name_and_says_what_it_is() -> None:
    rule = {
        "name": "lab",
        "when": {"verdict": "infected", "threat": "Eicar*"},
        "action": ["allow", "tag"],
        "tag": "lab, test",
    }
    with server(rule) as live:
        answer = live.ask(respmod(chunked(EICAR), ALLOW))
        assert answer.status == 204
        assert answer.get("X-Icapscan-Verdict") == b"infected; name=Eicar-Test"
        assert answer.get("X-Icapscan-Tag") == b"lab, test" and answer.get("X-Infection-Found") is None
        assert live.wait_records(1)[0].rule == "lab"
    with server(rule, engine=FindsEicar("Win.Bad")) as live:
        assert blocked(live.ask(respmod(chunked(EICAR), ALLOW)))


def test_a_tag_of_a_clean_body_stands_in_the_icap_head_of_a_204_and_of_a_copy() -> None:
    with server({"when": {"size": "< 1 KB"}, "action": "tag", "tag": "small\N{SNOWMAN}"}) as live:
        assert live.ask(respmod(chunked(b"hello"), ALLOW)).get("X-Icapscan-Tag") == b"small???"
        copy = live.ask(respmod(chunked(b"hello")))
        assert (copy.status, copy.body) == (200, b"hello") and copy.get("X-Icapscan-Tag") == b"small???"
        assert b"Icapscan" not in copy.sections["res-hdr"]


def test_a_rule_that_watches_is_in_the_log_and_nowhere_else() -> None:
    with server({**RULE, "monitor": True}) as live:
        answer = live.ask(respmod(chunked(EXE), ALLOW))
        assert answer.status == 204 and b"Icapscan" not in answer.head
        record = live.wait_records(1)[0]
        assert (record.decision, record.rule, record.monitored) == ("allow", "", ("no programs=block",))


# Deferred


def test_s95_a_deferred_body_is_a_503_page_and_no_error_of_the_service() -> None:
    with server({"name": "not now", "when": {"verdict": "suspicious"}, "action": "defer"},
                engine=FindsEicar("Odd", Level.SUSPICIOUS)) as live:  # fmt: skip
        for _ in range(12):
            answer = live.ask(respmod(chunked(EICAR), ALLOW))
            assert answer.status == 200 and not answer.closes
        head = answer.sections["res-hdr"]
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n") and b"\r\nRetry-After: 300\r\n" in head
        assert answer.get("X-Response-Info") == b"Deferred"
        assert answer.get("X-Infection-Found") == b"Type=1; Resolution=2; Threat=Odd;", (
            "never clean for who reads no more"
        )
        assert answer.body is not None and b"cannot be passed on just now" in answer.body
        assert live.last().decision == "defer" and live.last().reply == "200 defer"


# Web and mail


def test_mail_has_its_own_answers() -> None:
    services = {**SERVICES, "mail": ServiceSettings(traffic="mail"), "web": ServiceSettings(traffic="web")}
    settings = {"mail": PolicySettings().mail.__class__(encrypted="allow")}
    smtp = b"PUT / HTTP/1.1\r\nContent-Type: message/rfc822\r\nX-SMTP-From: a@example.org\r\n\r\n"

    def passes(live: Live, service: bytes, fields: bytes = b"", head: bytes = GET) -> bool:
        request = reqmod(chunked(b"hello"), ALLOW + fields, head).replace(b"/avscan ", b"/%s " % service)
        return not blocked(live.ask(request))

    with server(engine=Fails(Reason.ENCRYPTED), settings=settings, services=services) as live:
        assert passes(live, b"mail") and not passes(live, b"web")
        assert not passes(live, b"avscan")
        assert passes(live, b"avscan", b"X-Transformed-From: SMTP\r\n")
        assert passes(live, b"avscan", b"User-Agent: Rspamd\r\n")
        assert not passes(live, b"avscan", head=smtp), "anybody can write a head of HTTP"
        assert not passes(live, b"web", b"X-Transformed-From: SMTP\r\n", smtp)


# Before the end


def test_s76_what_a_rule_stops_whatever_comes_is_answered_in_the_preview() -> None:
    with server({"name": "site", "when": {"host": ".example.com"}, "action": "block"}) as live, live.connect() as peer:
        peer.send(respmod(chunk(b"hell") + LAST, PREVIEW, GET))
        assert blocked(peer.answer())
        record = live.wait_records(1)[0]
        assert record.verdict is None and record.rule == "site", "nothing was scanned"


@pytest.mark.parametrize(
    "rule",
    [
        {"when": {"host": "other.example"}, "action": "block"},
        {"when": {"host": ".example.com", "size": "> 1 MB"}, "action": "block"},
        {"when": {"file-name": "*.exe"}, "action": "block"},
        {"when": {"verdict": "clean"}, "action": "block"},
        {"when": {"host": ".example.com"}, "unless": {"threat": "Good"}, "action": "block"},
        {"when": {"host": ".example.com"}, "action": "allow"},
    ],
)
def test_s75_where_a_rule_depends_on_what_comes_the_rest_is_asked_for(rule: dict[str, Any]) -> None:
    with server(rule) as live, live.connect() as peer:
        peer.send(respmod(chunk(b"hell") + LAST, PREVIEW, GET))
        peer.hundred()
        assert blocked(peer.ask(chunked(EICAR)))


def test_a_hit_in_the_preview_waits_for_a_rule_that_may_excuse_it() -> None:
    excuses = {"when": {"verdict": "infected", "size": "> 100"}, "action": "allow"}
    with server(excuses) as live, live.connect() as peer:
        peer.send(respmod(chunk(EICAR) + LAST, b"Preview: 100\r\nAllow: 204\r\n", GET))
        peer.hundred()
        assert peer.ask(chunked(bytes(200))).status == 204
    with server({"when": {"verdict": "suspicious"}, "action": "allow"}) as live, live.connect() as peer:
        peer.send(respmod(chunk(EICAR) + LAST, b"Preview: 100\r\nAllow: 204\r\n", GET))
        assert blocked(peer.answer())


def test_d108_at_the_size_limit_the_rest_is_read_only_where_it_may_matter() -> None:
    limits = Limits(body=1000)
    with server({"when": {"host": ".other"}, "action": "allow"}, limits=limits) as live, live.connect() as peer:
        peer.send_what_goes(respmod(chunked(bytes(5000), 500)[:-5], ALLOW, GET))
        assert blocked(peer.answer())
    allows = {"when": {"reason": "over-limit", "host": ".example.com"}, "action": "allow"}
    with server(allows, limits=limits) as live:
        answer = live.ask(respmod(chunked(bytes(5000), 500), b"", GET))
        assert (answer.status, answer.body) == (200, bytes(5000))
        assert answer.get("X-Icapscan-Verdict") == b"unscanned; reason=over-limit"


def test_with_rules_on_parts_a_hit_does_not_hide_the_other_parts() -> None:
    body = MAIL.replace(b"hello\r\n", EICAR + b"\r\n")
    head = b"PUT / HTTP/1.1\r\nContent-Type: message/rfc822\r\n\r\n"
    rule = {"when": {"verdict": "infected", "threat": "Eicar*"}, "unless": {"kind": "program"}, "action": "allow"}
    with server(rule) as live:
        assert blocked(live.ask(reqmod(chunked(body), ALLOW, head))), (
            "the program in it is seen although the text was hit"
        )
        assert (
            live.ask(
                reqmod(
                    chunked(body.replace(b'name="a.exe"', b"").replace(base64.encodebytes(EXE), b"aGVsbG8=\r\n")),
                    ALLOW,
                    head,
                )
            ).status
            == 204
        )
