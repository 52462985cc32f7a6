"""Answers, byte by byte (PROTOCOL A.6)."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from email.utils import parsedate_to_datetime
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icapscan.findings import Level, Reason
from icapscan.limits import Limits
from icapscan.policy.settings import PolicySettings, UnscannedSettings
from icapscan.servers.settings import ServiceSettings
from tests.conformance.fakes import THREAT, Fails, Fake, FindsEicar, Hangs, Raises, Waits
from tests.conformance.live import SERVICES, Answer, Live, Peer
from tests.wire.samples import EICAR, GET, IEOF, LAST, OK, POST, chunk, chunked, options, raw, reqmod, respmod

ERRORS = {
    400: b"x\r\n\r\n",
    404: options(b"icap://h/nope"),
    405: reqmod(None, uri=b"icap://h/respmod-only"),
    414: b"OPTIONS icap://h/" + b"x" * 9000 + b"\r\n\r\n",
    501: b"FOO icap://h/avscan ICAP/1.0\r\n\r\n",
    505: b"OPTIONS icap://h/avscan ICAP/1.1\r\n\r\n",
}
VERDICTS = ("X-Infection-Found", "X-Virus-ID", "X-Violations-Found", "X-Response-Info", "X-Icapscan-Verdict")


def all_answers(live: Live) -> dict[str, Answer]:
    """One answer of each kind that this server gives."""
    answers = {str(status): live.ask(request) for status, request in ERRORS.items()}
    answers["options"] = live.ask(options())
    answers["204"] = live.ask(respmod())
    answers["204 in preview"] = live.ask(respmod(chunk(b"hello") + IEOF, b"Preview: 99\r\n"))
    answers["copy"] = live.ask(respmod(fields=b""))
    answers["copy of nothing"] = live.ask(respmod(None, b""))
    answers["request copy"] = live.ask(reqmod(fields=b""))
    answers["block"] = live.ask(respmod(chunked(EICAR)))
    answers["request block"] = live.ask(reqmod(chunked(EICAR)))
    return answers


def test_s78_s80_s81_s83_s84_s85_every_answer(live: Live) -> None:
    for kind, answer in all_answers(live).items():
        assert re.fullmatch(rb"ICAP/1\.0 [0-9]{3} [A-Za-z][A-Za-z0-9 -]+", answer.head.partition(b"\r\n")[0]), kind
        assert answer.istag == b"test-1", kind
        assert (answer.get("Server") or b"").startswith(b"icapscan/"), kind
        date = parsedate_to_datetime((answer.get("Date") or b"").decode())
        assert abs(date.timestamp() - time.time()) < 60, kind
        assert (answer.get("Date") or b"").endswith(b" GMT"), kind
        assert answer.lines[-1][0] == b"Encapsulated", kind
        assert answer.get("Connection") in (b"keep-alive", b"close"), kind
        if kind[:3].isdigit() or kind == "options":
            assert answer.head.endswith(b"Encapsulated: null-body=0\r\n\r\n"), kind
            assert answer.sections == {} and answer.body is None, kind
        if kind in ("404", "405"):
            assert not answer.closes  # there was no body to come, so the connection goes on
        elif kind in ("400", "414", "501", "505"):
            assert answer.closes


def test_s79_the_reason_of_204(live: Live) -> None:
    assert live.ask(respmod()).head.startswith(b"ICAP/1.0 204 No modifications needed\r\n")


def test_s82_one_istag_for_options_and_answers_that_changes_with_the_engines() -> None:
    with Live(istag="first-1") as live, live.connect() as peer:
        requests = (options(), respmod(), respmod(chunked(EICAR)), options(b"icap://h/echo"), options(b"icap://h/nope"))
        assert {peer.ask(request).istag for request in requests} == {b"first-1"}
        live.call(lambda: live.shared.generation.set_istag("second-2"))
        assert {peer.ask(request).istag for request in requests} == {b"second-2"}

        def reload() -> None:
            before, live.shared.generation = live.shared.generation, live.generation("third-3")
            before.retire()

        live.call(reload)
        assert {peer.ask(request).istag for request in requests} == {b"third-3"}


def test_s82_d107_an_istag_that_changes_during_a_scan_is_not_that_of_the_scan() -> None:
    """A cache in the client would keep what the older engine said as the newer engine's word."""
    engine = Waits()
    with Live(engine, istag="older-1") as live, live.connect() as peer:
        peer.send(respmod())
        live.wait(lambda: engine.waiting == 1, "the scan began")
        live.call(lambda: live.shared.generation.set_istag("newer-2"))
        live.call(engine.released.set)
        assert peer.answer().istag == b"older-1"
        assert peer.ask(respmod()).istag == b"newer-2"


def test_d107_a_reload_in_the_middle_of_many_scans() -> None:
    """Each answer carries the ISTag of the engine that scanned it: the threat is named after it here."""
    with Live(FindsEicar("Threat.tag-0"), istag="tag-0") as live:
        wrong: list[Answer] = []
        tags: set[bytes] = set()
        stop = threading.Event()

        def scan() -> None:
            with live.connect() as peer:
                for number in range(250):
                    peer.send(respmod(chunk(b"x" * number)))
                    answer = peer.ask(chunked(EICAR))
                    tags.add(answer.istag)
                    if b"Threat=Threat.%s;" % answer.istag not in (answer.get("X-Infection-Found") or b""):
                        wrong.append(answer)

        threads = [threading.Thread(target=scan) for _ in range(4)]
        for thread in threads:
            thread.start()

        def reload(number: int) -> None:
            generation = live.generation(f"tag-{number}", FindsEicar(f"Threat.tag-{number}"))
            before, live.shared.generation = live.shared.generation, generation
            before.retire()

        number = 0
        while any(thread.is_alive() for thread in threads) and not stop.wait(0.01):
            number += 1
            live.call(partial(reload, number))
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(tags) > 1


def test_s86_nothing_follows_an_answer_without_a_body(live: Live) -> None:
    for request in (*ERRORS.values(), options(), respmod(), respmod(None, b"")):
        with live.connect() as peer:
            answer = peer.ask(request)
            peer.fin()
            assert answer.body is None
            assert peer.rest_or_reset() == b""


@pytest.mark.parametrize("body", [None, LAST, chunked(b"hello")])
@pytest.mark.parametrize(("req_hdr", "res_hdr"), [(GET, OK), (None, OK), (GET, None), (None, None)])
def test_s87_s89_s90_a_200_to_respmod_has_a_response_head(
    peer: Peer, req_hdr: bytes | None, res_hdr: bytes | None, body: bytes | None
) -> None:
    if (req_hdr, res_hdr, body) == (None, None, None):
        return
    for service in (b"avscan", b"echo"):
        answer = peer.ask(respmod(body, b"", req_hdr=req_hdr, res_hdr=res_hdr, uri=b"icap://h/" + service))
        assert answer.status == 200
        assert list(answer.sections) == ["res-hdr"]
        kind = b"null-body" if body is None else b"res-body"
        head = answer.sections["res-hdr"]
        assert answer.get("Encapsulated") == b"res-hdr=0, %s=%d" % (kind, len(head))
        assert re.fullmatch(rb"HTTP/1\.1 200 OK\r\n(?:[A-Za-z-]+: [^\r\n]+\r\n)+\r\n", head)


@pytest.mark.parametrize("body", [None, LAST, chunked(b"hello")])
@pytest.mark.parametrize("head", [POST, None])
def test_s88_s89_s90_a_200_to_reqmod_has_a_request_head(peer: Peer, head: bytes | None, body: bytes | None) -> None:
    if (head, body) == (None, None):
        return
    for service in (b"avscan", b"echo"):
        answer = peer.ask(reqmod(body, b"", req_hdr=head, uri=b"icap://h/" + service))
        assert list(answer.sections) == ["req-hdr"]
        kind = b"null-body" if body is None else b"req-body"
        sent = answer.sections["req-hdr"]
        assert answer.get("Encapsulated") == b"req-hdr=0, %s=%d" % (kind, len(sent))
        assert re.fullmatch(rb"[A-Z]+ [^ ]+ HTTP/1\.1\r\n(?:[A-Za-z-]+: [^\r\n]+\r\n)+\r\n", sent)


def test_s88_a_block_of_reqmod_is_a_response(peer: Peer) -> None:
    answer = peer.ask(reqmod(chunked(EICAR)))
    assert list(answer.sections) == ["res-hdr"]
    assert (answer.get("Encapsulated") or b"").startswith(b"res-hdr=0, res-body=")


@pytest.mark.parametrize("size", [0, 1, 100, 65_536, 65_537, 300_000, 9_000_000])
def test_s91_s106_a_copy_is_the_same_bytes(peer: Peer, size: int) -> None:
    """The client writes all of it before it reads anything: there must be no deadlock."""
    body = hashlib.shake_128(b"seed").digest(size)
    for service in (b"avscan", b"echo"):
        answer = peer.ask(respmod(chunked(body, 50_000), b"", uri=b"icap://h/" + service))
        assert answer.body == body
        answer = peer.ask(reqmod(chunked(body, 50_000), b"", uri=b"icap://h/" + service))
        assert answer.body == body


def test_s106_fifty_megabytes_to_a_client_that_writes_first(live: Live) -> None:
    body = bytes(50_000_000)
    with live.bystander(), live.connect() as peer:
        assert peer.ask(respmod(chunked(body, 60_000), b"Connection: close\r\n")).body == body


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=500), max_size=8),
    st.lists(
        st.tuples(
            st.sampled_from([b"Set-Cookie", b"ETag", b"Cache-Control", b"X-Odd", b"www-authenticate", b"Age"]),
            st.binary(max_size=30).map(lambda value: re.sub(rb"[\r\n\x00]", b"", value)),
        ),
        max_size=6,
    ),
)
def test_s91_any_body_and_fields_come_back(peer: Peer, pieces: list[bytes], fields: list[tuple[bytes, bytes]]) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"
    wire = b"".join(chunk(piece) for piece in pieces) + LAST
    answer = peer.ask(respmod(wire, b"", res_hdr=head))
    if answer.get("X-Response-Info") is None:  # else it was blocked: some bytes begin a format and do not end it
        assert answer.body == b"".join(pieces)
        assert answer.sections["res-hdr"].startswith(head[:-2])


def test_s92_via_is_added_or_appended(peer: Peer) -> None:
    head = peer.ask(respmod(fields=b"")).sections["res-hdr"]
    assert head.startswith(OK[:-2])
    assert re.fullmatch(rb"Via: ICAP/1\.0 [A-Za-z0-9.-]+ \(icapscan\)\r\n\r\n", head[len(OK) - 2 :])
    with_via = b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\nX: y\r\n\r\n"
    head = peer.ask(respmod(fields=b"", res_hdr=with_via)).sections["res-hdr"]
    assert re.fullmatch(rb"HTTP/1\.1 200 OK\r\nVia: 1\.1 proxy, ICAP/1\.0 \S+ \(icapscan\)\r\nX: y\r\n\r\n", head)
    head = peer.ask(reqmod(fields=b"")).sections["req-hdr"]
    assert head.startswith(POST[:-2]) and b"\r\nVia: ICAP/1.0 " in head


def test_s110_s111_fields_of_the_origin_come_back_unchanged(peer: Peer) -> None:
    head = (
        b"HTTP/1.1 401 Unauthorized\r\nCache-Control: no-store, max-age=0\r\nExpires: 0\r\nPragma: no-cache\r\n"
        b'WWW-Authenticate: Basic realm="a b"\r\nWWW-Authenticate: Negotiate\r\nConnection: close\r\n\r\n'
    )
    assert peer.ask(respmod(fields=b"", res_hdr=head)).sections["res-hdr"].startswith(head[:-2])


def page_head(answer: Answer) -> dict[bytes, bytes]:
    """The field lines of a block page's HTTP head by lower-case name."""
    lines = answer.sections["res-hdr"][:-4].split(b"\r\n")[1:]
    pairs = [line.partition(b": ")[::2] for line in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs)
    return {name.lower(): value for name, value in pairs}


def test_s93_s94_s102_a_block_page(peer: Peer) -> None:
    for request in (respmod(chunked(EICAR)), reqmod(chunked(EICAR)), respmod(chunked(EICAR), b"")):
        answer = peer.ask(request)
        assert answer.status == 200
        assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 Forbidden\r\n")
        head = page_head(answer)
        assert head[b"content-length"] == b"%d" % len(answer.body or b"")
        assert head[b"content-type"] == b"text/html; charset=utf-8"
        assert head[b"cache-control"] == b"no-store"
        assert answer.body and EICAR not in answer.body
        hop_by_hop = {b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade"}
        assert not hop_by_hop & set(head)
        assert not any(name.startswith(b"proxy-") for name in head)
        assert head[b"x-infection-found"] == answer.get("X-Infection-Found")
        assert head[b"x-virus-id"] == answer.get("X-Virus-ID")


def test_s93_hop_by_hop_fields_do_not_get_into_heads_that_we_make(peer: Peer) -> None:
    broken = b"Connection: x\r\nKeep-Alive: y\r\nTransfer-Encoding: chunked\r\nUpgrade: z\r\nX-Kept: 1\r\n\r\n"
    head = peer.ask(respmod(fields=b"", res_hdr=broken)).sections["res-hdr"]
    assert b"X-Kept: 1\r\n" in head
    for name in (b"Connection:", b"Keep-Alive:", b"Transfer-Encoding:", b"Upgrade:"):
        assert name not in head


def test_s95_a_block_is_never_an_icap_error(live: Live) -> None:
    with live.connect() as peer:
        for _ in range(50):
            answer = peer.ask(respmod(chunked(EICAR)))
            assert (answer.status, answer.closes) == (200, False)


INFECTION = re.compile(rb"Type=([0-2]); Resolution=([0-2]); Threat=([^;\r\n\x00-\x1f]+);")
HOSTILE_NAMES = [
    "Eicar-Test",
    "Win.Trojan.Evil(1)",
    "a;b; Type=0",
    "a\r\nX-Evil: yes",
    "a\nb\tc\x00d",
    "n" * 10_000,
    "ウイルス",
    "a, b",
    "\x1b[31mred",
    "\ud800",
    "<script>",
    "",
    " ",
    '"quoted"',
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: ascii(name[:20]))
def test_s96_s100_s101_s103_d106_names_of_threats(name: str) -> None:
    with Live(FindsEicar(name)) as live:
        answer = live.ask(respmod(chunked(EICAR)))
        assert answer.status == 200
        match = INFECTION.fullmatch(answer.get("X-Infection-Found") or b"")
        assert match is not None
        assert match[3].isascii() and 0 < len(match[3]) <= 128
        assert answer.get("X-Infection-Found") == page_head(answer)[b"x-infection-found"]
        virus = answer.get("X-Virus-ID")
        assert virus and re.fullmatch(rb"[\x21-\x7e]+", virus) and b"," not in virus and b";" not in virus
        assert answer.get("X-Response-Info") == b"Blocked"
        assert re.fullmatch(rb"[\x20-\x7e]+", answer.get("X-Response-Desc") or b"")
        assert answer.get("X-Evil") is None
        assert b"<script>" not in (answer.body or b"")


def test_s97_types_by_cause() -> None:
    blocking = PolicySettings(suspicious="block")
    cases = [
        (FindsEicar(), PolicySettings(), b"Type=0; Resolution=2; Threat=Eicar-Test;"),
        (FindsEicar("Odd.Macro", Level.SUSPICIOUS), blocking, b"Type=1; Resolution=2; Threat=Odd.Macro;"),
        (Fails(Reason.ENCRYPTED), PolicySettings(), b"Type=2; Resolution=2; Threat=Unscanned.encrypted;"),
        (Fails(Reason.MALFORMED), PolicySettings(), b"Type=2; Resolution=2; Threat=Unscanned.malformed;"),
        (Fails(Reason.UNSUPPORTED), PolicySettings(), b"Type=2; Resolution=2; Threat=Unscanned.unsupported;"),
        (Fails(Reason.OVER_LIMIT), PolicySettings(), b"Type=2; Resolution=2; Threat=Unscanned.over-limit;"),
    ]
    for engine, policy, expected in cases:
        with Live(engine, policy=policy) as live:
            answer = live.ask(respmod(chunked(EICAR)))
            assert answer.get("X-Infection-Found") == expected
            assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 403 Forbidden\r\n")
            assert (answer.get("X-Virus-ID") is None) is expected.startswith(b"Type=2")


def test_s98_violations_unfold_to_one_and_four_lines() -> None:
    services = {**SERVICES, "avscan": ServiceSettings(violations=True)}
    head = b'HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename="X-Evil: a.exe"\r\n\r\n'
    with Live(services=services) as live:
        for name in ("Eicar-Test", "a\r\nX-Evil: yes"):
            engine = FindsEicar(name)
            live.call(lambda engine=engine: setattr(live.shared, "generation", live.generation("t", engine)))  # type: ignore[misc]
            answer = live.ask(respmod(chunked(EICAR), res_hdr=head))
            value = answer.get("X-Violations-Found") or b""
            lines = value.split(b"\r\n\t")
            assert len(lines) == 1 + 4 * int(lines[0])
            file, threat, identity, resolution = lines[1:]
            assert file and b":" not in file
            assert threat and threat in (answer.get("X-Infection-Found") or b"")
            assert identity.isdigit() and resolution == b"2"
            assert answer.get("X-Evil") is None
            assert answer.lines[-1][0] == b"Encapsulated"


def test_s99_violations_are_off_by_default(peer: Peer) -> None:
    answer = peer.ask(respmod(chunked(EICAR)))
    assert answer.get("X-Violations-Found") is None
    assert b"\r\n\t" not in answer.head and b"\r\n " not in answer.head


def test_s103_clean_answers_have_no_verdict_fields_and_infected_ones_are_never_204(peer: Peer) -> None:
    clean = (respmod(), respmod(fields=b""), respmod(None), respmod(chunk(b"x") + IEOF, b"Preview: 9\r\n"), reqmod())
    for request in clean:
        answer = peer.ask(request)
        assert [name for name in VERDICTS if answer.get(name) is not None] == []
    for body in (chunked(EICAR), chunked(EICAR, 1), chunk(EICAR) + IEOF):
        for make in (respmod, reqmod):
            for fields in (b"", b"Allow: 204\r\n", b"Preview: 99\r\n", b"Preview: 0\r\nAllow: 204\r\n"):
                answer = peer.ask(make(body, fields))
                assert answer.status == 200 and answer.get("X-Infection-Found") is not None


def test_s103_a_suspicious_body_passes_with_a_field_of_our_own_only() -> None:
    with Live(FindsEicar("Odd.Macro", Level.SUSPICIOUS)) as live:
        for fields, status in ((b"Allow: 204\r\n", 204), (b"", 200)):
            answer = live.ask(respmod(chunked(EICAR), fields))
            assert answer.status == status
            assert answer.get("X-Icapscan-Verdict") == b"suspicious; name=Odd.Macro"
            assert [name for name in VERDICTS[:4] if answer.get(name) is not None] == []


@pytest.mark.parametrize(
    ("engine", "status"),
    [(Fails(), 500), (Raises(), 500), (Fails(Reason.TIMEOUT), 503)],
    ids=["fails", "raises", "late"],
)
@pytest.mark.parametrize("body", [b"harmless", EICAR])
def test_s104_a_failed_engine_is_an_error_and_never_clean(engine: Fake, status: int, body: bytes) -> None:
    with Live(engine) as live, live.connect() as peer:
        for request in (respmod(chunked(body)), respmod(chunk(body) + IEOF, b"Preview: 99\r\n"), reqmod(chunked(body))):
            answer = peer.ask(request)
            assert answer.status == status
            assert b"secret" not in answer.head and b"Traceback" not in answer.head
            assert answer.get("X-Infection-Found") is None
        assert peer.ask(options()).status == 200


def test_s104_a_hit_beside_a_failed_engine_is_a_block() -> None:
    with Live(Fails(), FindsEicar()) as live:
        assert live.ask(respmod(chunked(EICAR))).get("X-Virus-ID") == THREAT.encode()
        assert live.ask(respmod(chunked(b"harmless"))).status == 500


def test_s104_failing_open_only_where_it_is_configured() -> None:
    with Live(Fails(), policy=PolicySettings(failures="allow")) as live:
        answer = live.ask(respmod())
        assert answer.status == 204
        assert answer.get("X-Icapscan-Verdict") == b"unscanned; reason=engine-failed"
    allowing = PolicySettings(unscanned=UnscannedSettings("allow", "allow", "allow", "allow"))
    with Live(Fails(), policy=allowing) as live:
        assert live.ask(respmod()).status == 500


def test_s104_no_engine_at_all_is_an_error() -> None:
    with Live() as live:
        live.call(lambda: setattr(live.shared.generation.scanner.engines, "engines", ()))
        assert live.ask(respmod()).status == 500


def test_d110_an_engine_that_hangs_is_cut_off() -> None:
    with Live(Hangs(), limits=Limits(seconds=0.1)) as live, live.connect() as peer:
        for body in (b"harmless", EICAR):
            answer = peer.ask(respmod(chunked(body)))
            assert answer.status == 503
        assert peer.ask(options()).status == 200


def test_s105_an_error_behind_a_whole_request_keeps_the_connection() -> None:
    with Live(Fails()) as live, live.connect() as peer:
        assert not peer.ask(respmod()).closes
        assert not peer.ask(options(b"icap://h/nope")).closes
        answer = peer.ask(respmod(b"5\r\nhel", uri=b"icap://h/nope"))
        assert (answer.status, answer.closes) == (404, True)


def test_s108_s109_206_and_trailers_are_only_for_clients_that_offer_them(peer: Peer) -> None:
    for fields in (b"", b"Allow: 204\r\n", b"Allow: 204, 206, trailers\r\n", b"Preview: 68\r\nAllow: 206\r\n"):
        for body in (b"hello", EICAR):
            answer = peer.ask(respmod(chunk(body) + IEOF, fields))
            assert answer.status in (200, 204)
            assert answer.get("Trailer") is None


def test_d105_names_from_the_peer_name_no_file(tmp_path: object) -> None:
    names = [b"../../etc/passwd", b"a\x00b", "a\u202ecod.exe".encode(), b"n" * 60_000, b"%2e%2e%2f", b"a;b", b"'\"<>"]
    with Live(limits=Limits(part_in_bytes=0, part_in_memory=0)) as live:
        for name in names:
            req = b"GET http://h/" + name + b" HTTP/1.1\r\n\r\n"
            res = b'HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename="' + name[:5000] + b'"\r\n\r\n'
            assert live.ask(respmod(chunked(b"hello"), req_hdr=req, res_hdr=res)).status == 204
            answer = live.ask(respmod(chunked(EICAR), req_hdr=req, res_hdr=res))
            assert answer.get("X-Infection-Found") is not None
            assert answer.head.isascii()


def test_raw_bodies_are_answered_without_heads_of_their_own(peer: Peer) -> None:
    answer = peer.ask(raw(b"res-body=0", chunked(b"hello")))
    assert answer.sections["res-hdr"].startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
