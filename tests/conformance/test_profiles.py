"""Each vendor profile on the wire, read as the clients of that product read it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from icapscan.engines.contract import Part, Report
from icapscan.findings import Finding, Level, Reason, Unscanned
from icapscan.policy.settings import PolicySettings, TrafficSettings
from icapscan.servers.profiles import PROFILES
from icapscan.servers.settings import ServiceSettings
from tests.conformance.fakes import Fake
from tests.conformance.live import Answer, Live
from tests.conformance.vendor_clients import EVERYWHERE, READERS, Belief, Reader, e2guardian, squid, vscand
from tests.wire.samples import EICAR, IEOF, chunk, chunked, options, reqmod, respmod

ODD, LOCKED = b"(odd)", b"(locked)"
NAMES = sorted(PROFILES)
SERVICES = {name: ServiceSettings(profile=name) for name in NAMES}  # type: ignore[arg-type]
ZIP_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n"
    b'Content-Disposition: attachment; filename="X-Evil: a.zip"\r\n\r\n'
)
RULE: dict[str, object] = {"name": "no put", "when": {"method": "PUT"}, "action": "block"}


class Finds(Fake):
    """Knows three signs, and the part that each stands in."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """One part."""
        data = bytes(part.store.view())
        findings = [
            Finding(self.name, name, part.path, level)
            for sign, name, level in ((EICAR, "Eicar-Test", Level.INFECTED), (ODD, "Odd", Level.SUSPICIOUS))
            if sign in data
        ]
        unscanned = (Unscanned(Reason.ENCRYPTED, part.path, detail="Locked."),) if LOCKED in data else ()
        return Report(self.name, tuple(findings), unscanned)


def packed() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("good.txt", b"the part that stays")
        archive.writestr("bad.exe", EICAR)
    return out.getvalue()


POLICIES = {
    "block": PolicySettings(suspicious="block", rules=(RULE,)),
    "defer": PolicySettings(web=TrafficSettings(encrypted="defer", suspicious="defer")),
    "sanitize": PolicySettings(web=TrafficSettings(infected="sanitize"), mail=TrafficSettings(infected="sanitize")),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Live]]:
    """One server for each policy, with a service for each profile."""
    with ExitStack() as stack:
        yield {
            word: stack.enter_context(Live(Finds(), policy=policy, services=SERVICES))
            for word, policy in POLICIES.items()
        }


def uri(name: str) -> bytes:
    return b"icap://127.0.0.1/" + name.encode()


def stopped(servers: dict[str, Live], name: str) -> Iterator[tuple[str, Answer]]:
    """Answers to bodies that must not pass, by what they show."""
    put = b"PUT /x HTTP/1.1\r\nHost: h\r\n\r\n"
    block, defer = servers["block"], servers["defer"]
    for word, body in (("infected", EICAR), ("suspicious", ODD), ("unscanned", LOCKED)):
        for fields in (b"Allow: 204\r\n", b"", b"Allow: 204, 206\r\n"):
            yield word, block.ask(respmod(chunked(body), fields, uri=uri(name)))
            yield word, block.ask(reqmod(chunked(body), fields, uri=uri(name)))
        yield word, block.ask(respmod(chunk(body) + IEOF, b"Preview: 99\r\n", uri=uri(name)))
    yield "rule", block.ask(reqmod(chunked(b"harmless"), req_hdr=put, uri=uri(name)))
    for body in (LOCKED, ODD):
        answer = defer.ask(respmod(chunked(body), uri=uri(name)))
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 503 ")
        yield "deferred", answer
        yield "deferred", defer.ask(reqmod(chunked(body), uri=uri(name)))


def download(servers: dict[str, Live], name: str) -> Answer:
    """The answer to a zip file that is cleaned."""
    return servers["sanitize"].ask(respmod(chunked(packed()), res_hdr=ZIP_HEAD, uri=uri(name)))


def mail(servers: dict[str, Live], name: str, fields: bytes = b"Allow: 204\r\n") -> Answer:
    """The answer to a mail of which a part is replaced."""
    part = (
        b"--b\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=%s\r\n\r\n%s\r\n"
    )
    body = (
        b"From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        + part % (b"bad.exe", EICAR)
        + part % (b"good.bin", b"the part that stays\r\n" * 4000)
        + b"--b--\r\n"
    )
    head = b"PUT /mail HTTP/1.1\r\nHost: mx\r\nContent-Type: message/rfc822\r\n\r\n"
    return servers["sanitize"].ask(reqmod(chunked(body), fields, req_hdr=head, uri=uri(name)))


def readers(servers: dict[str, Live], name: str) -> dict[str, Reader]:
    told = servers["block"].ask(options(uri(name)))
    return {**EVERYWHERE, **READERS[name], "e2guardian": e2guardian(told)}


@pytest.mark.parametrize("name", NAMES)
def test_s103_nobody_takes_for_clean_what_does_not_pass(servers: dict[str, Live], name: str) -> None:
    read_by = readers(servers, name)
    seen = set()
    for word, answer in stopped(servers, name):
        seen.add(word)
        believed = {client: read(answer) for client, read in read_by.items()}
        passed = [client for client, belief in believed.items() if belief in (Belief.CLEAN, Belief.CLEANED)]
        assert passed == [], (name, word, answer.head)
        assert EICAR not in (answer.body or b"") and ODD not in (answer.body or b"")
    assert seen == {"infected", "suspicious", "unscanned", "rule", "deferred"}


@pytest.mark.parametrize("name", NAMES)
def test_s103_a_clean_body_is_clean_for_everybody_and_answered_alike(servers: dict[str, Live], name: str) -> None:
    for live in servers.values():
        for request in (respmod(uri=uri(name)), reqmod(uri=uri(name))):
            answer = live.ask(request)
            assert answer.status == 204
            names = [field for field, _ in answer.lines]
            assert names == [b"Date", b"Server", b"ISTag", b"Connection", b"Encapsulated"]
            believed = {read(answer) for client, read in readers(servers, name).items()}
            assert believed == {Belief.CLEAN}
        copy = live.ask(respmod(fields=b"", uri=uri(name)))
        assert (copy.status, copy.body) == (200, b"hello")
        assert [field for field, _ in copy.lines] == [b"Date", b"Server", b"ISTag", b"Connection", b"Encapsulated"]


@pytest.mark.parametrize("name", NAMES)
def test_a_cleaned_body_is_taken_or_the_file_is_stopped(servers: dict[str, Live], name: str) -> None:
    """A client that keeps its own copy of the file must not take it for clean: the virus is in that copy."""
    for make, kept in ((download, b"good.txt"), (mail, b"the part that stays")):
        answer = make(servers, name)
        assert (answer.status, answer.reason) == ((201, b"Created") if name == "symantec" else (200, b"OK"))
        assert servers["sanitize"].last().reply == ("201 sanitize" if name == "symantec" else "200 sanitize")
        assert answer.body is not None and EICAR not in answer.body and kept in answer.body
        believed = {client: read(answer) for client, read in readers(servers, name).items()}
        assert Belief.CLEAN not in believed.values(), believed
        assert squid(answer) is Belief.CLEANED
        if name in ("trend", "symantec", "kaspersky", "clearswift"):
            assert vscand(answer) is Belief.CLEANED


@pytest.mark.parametrize("name", NAMES)
def test_s108_206_stays_206_in_every_profile(servers: dict[str, Live], name: str) -> None:
    """Who offers it takes the body, and knows the status."""
    answer = mail(servers, name, b"Allow: 204, 206\r\n")
    assert answer.status == 206 and b"use-original-body" in answer.last
    fields = [field for field, _ in answer.lines if field.startswith(b"X-")]
    assert fields == [field.value.encode() for field in PROFILES[name].sanitized]


@pytest.mark.parametrize("name", NAMES)
def test_s85_s86_s98_heads_are_whole_in_every_profile(servers: dict[str, Live], name: str) -> None:
    answers = [answer for _, answer in stopped(servers, name)] + [download(servers, name), mail(servers, name)]
    for answer in answers:
        assert answer.lines[-1][0] == b"Encapsulated"
        assert answer.get("X-Evil") is None and answer.get("Server") == answers[0].get("Server")
        assert b"\r\n\t" not in b"".join(answer.sections.values())
        violations = answer.get("X-Violations-Found")
        assert (violations is not None) is (name in ("symantec", "clearswift"))
        if violations is not None:
            lines = violations.split(b"\r\n\t")
            assert lines[0] == b"1" and len(lines) == 5 and all(lines)


def test_s102_owncloud_for_mcafee_finds_the_name_in_either_head(servers: dict[str, Live]) -> None:
    answer = servers["block"].ask(respmod(chunked(EICAR), uri=uri("mcafee")))
    head = answer.sections["res-hdr"]
    assert head.startswith(b"HTTP/1.1 403 VirusFound\r\n") and b"\r\nX-Virus-Name: Eicar-Test\r\n" in head
    assert answer.get("X-Virus-Name") == b"Eicar-Test"
    locked = servers["block"].ask(respmod(chunked(LOCKED), uri=uri("mcafee")))
    assert locked.sections["res-hdr"].startswith(b"HTTP/1.1 403 Forbidden\r\n")


def test_what_ibm_connections_demands_of_symantec(servers: dict[str, Live]) -> None:
    """Both fields, with the same name in them."""
    answer = servers["block"].ask(respmod(chunked(EICAR), uri=uri("symantec")))
    assert answer.status == 200
    assert answer.get("X-Infection-Found") == b"Type=0; Resolution=2; Threat=Eicar-Test;"
    assert (answer.get("X-Violations-Found") or b"").split(b"\r\n\t")[2] == b"Eicar-Test"


def test_e2guardian_learns_the_name_where_options_announce_the_field(servers: dict[str, Live]) -> None:
    for name in NAMES:
        told = servers["block"].ask(options(uri(name)))
        assert (told.get("X-Allow-Out") is not None) is (name == "symantec")
        assert told.lines[-1] == (b"Encapsulated", b"null-body=0")


def test_s95_s104_errors_are_errors_in_every_profile() -> None:
    """Our own failures are no verdict, and no product's codes replace 500."""

    class Breaks(Fake):
        async def scan(self, part: Part, seconds: float) -> Report:
            return Report(self.name, unscanned=(Unscanned(Reason.ENGINE_FAILED, part.path, self.name, "Broke."),))

    with Live(Breaks(), services=SERVICES) as live:
        for name in NAMES:
            answer = live.ask(respmod(uri=uri(name)))
            assert answer.status == 500 and answer.get("X-Infection-Found") is answer.get("X-Virus-ID") is None
            believed = {read(answer) for client, read in READERS[name].items()}
            assert Belief.CLEAN not in believed


def test_s99_the_switch_for_violations_still_works() -> None:
    services = {name: ServiceSettings(profile=name, violations=True) for name in NAMES}  # type: ignore[arg-type]
    with Live(Finds(), services=services) as live:
        for name in NAMES:
            answer = live.ask(respmod(chunked(EICAR), uri=uri(name)))
            assert (answer.get("X-Violations-Found") is not None) is (name != "mcafee")


def test_a_service_has_its_profile_under_each_of_its_paths() -> None:
    services = {
        "avscan": ServiceSettings(aliases=("SYMCScanResp-AV", "SYMCScanRespEx-AV"), profile="symantec"),
        "web": ServiceSettings(aliases=("respmod",), profile="mcafee"),
    }
    with Live(Finds(), services=services) as live:
        for path, field in (
            (b"avscan", "X-Violations-Found"),
            (b"SYMCScanResp-AV", "X-Violations-Found"),
            (b"SYMCScanRespEx-AV?action=SCAN", "X-Violations-Found"),
            (b"web", "X-Virus-Name"),
            (b"respmod", "X-Virus-Name"),
        ):
            answer = live.ask(respmod(chunked(EICAR), uri=b"icap://127.0.0.1/" + path))
            assert answer.get(field) is not None, path
