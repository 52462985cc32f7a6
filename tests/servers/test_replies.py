"""From decisions to header lines: the grammar that clients read verdicts by."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import CLEAN, Finding, Level, Reason, Unscanned, Verdict, summarize
from icapscan.policy.decide import Action, Cause, Decision
from icapscan.servers import replies
from icapscan.wire.fields import Fields, parse_fields

INFECTED = Decision(Action.BLOCK, Cause.INFECTED)
GRAMMAR = re.compile(rb"Type=[012]; Resolution=[012]; Threat=[^;\r\n\x00-\x1f\x7f-\xff]+;")


def infected(name: str = "Eicar") -> Verdict:
    return summarize([Finding("e", name)])


@given(st.text(max_size=300))
def test_s96_d106_any_threat_name_keeps_the_grammar(name: str) -> None:
    for violations in (False, True):
        block = replies.block_fields(
            INFECTED, infected(name), file=name.encode("utf-8", "replace"), violations=violations
        )
        fields = parse_fields(block, 50)
        value = fields.get(b"x-infection-found")
        assert value is not None and GRAMMAR.fullmatch(value)
        assert len(value) < 200
        virus = fields.get(b"x-virus-id")
        assert virus is not None and b"," not in virus and virus.isascii()


def test_s97_the_type_says_the_cause() -> None:
    unscanned = summarize(unscanned=[Unscanned(Reason.ENCRYPTED)])
    for cause, verdict, kind in (
        (Cause.INFECTED, infected(), b"Type=0"),
        (Cause.SUSPICIOUS, summarize([Finding("e", "Odd", level=Level.SUSPICIOUS)]), b"Type=1"),
        (Cause.UNSCANNED, unscanned, b"Type=2"),
    ):
        lines = replies.verdict_fields(Decision(Action.BLOCK, cause, verdict.reason), verdict)
        assert kind in lines and b"Resolution=2" in lines


def test_s98_violations_are_one_count_and_four_lines_each() -> None:
    lines = replies.verdict_fields(INFECTED, infected("Eicar"), file=b"a:b.exe", violations=True)
    folded = re.search(rb"X-Violations-Found: ([^\r]*(?:\r\n\t[^\r\n]*)*)\r\n", lines)
    assert folded is not None
    assert folded[1].split(b"\r\n\t") == [b"1", b"a_b.exe", b"Eicar", b"0", b"2"]


def test_s99_violations_are_left_out_by_default() -> None:
    assert b"Violations" not in replies.block_fields(INFECTED, infected())


def test_s100_the_virus_id_is_there_only_for_a_virus_or_a_suspicion() -> None:
    unscanned = summarize(unscanned=[Unscanned(Reason.ENCRYPTED)])
    lines = replies.verdict_fields(Decision(Action.BLOCK, Cause.UNSCANNED, Reason.ENCRYPTED), unscanned)
    assert b"X-Virus-ID" not in lines
    assert b"Threat=Unscanned.encrypted;" in lines
    assert b"X-Virus-ID: Eicar\r\n" in replies.verdict_fields(INFECTED, infected())


def test_s103_clean_says_nothing() -> None:
    assert replies.verdict_fields(Decision(Action.ALLOW, Cause.CLEAN), CLEAN) == b""


def test_a_passed_body_that_is_not_clean_says_so_in_a_field_of_our_own_only() -> None:
    verdict = summarize([Finding("e", "Odd\r\nX-Evil: 1", level=Level.SUSPICIOUS)], [Unscanned(Reason.MALFORMED)])
    lines = replies.verdict_fields(Decision(Action.ALLOW, Cause.SUSPICIOUS), verdict)
    names = [name for name, _ in Fields(lines).items()]
    assert names == [b"X-Icapscan-Verdict"]
    assert b"suspicious; reason=malformed; name=Odd" in lines


@pytest.mark.parametrize(("cause", "status"), [(Cause.FAILED, 500), (Cause.TIMEOUT, 503)])
def test_s104_our_failures_are_no_verdict(cause: Cause, status: int) -> None:
    verdict = summarize(unscanned=[Unscanned(Reason.ENGINE_FAILED, engine="clamd", detail="a\r\nb")])
    reply = replies.failure(Decision(Action.ERROR, cause), verdict)
    assert (reply.status, reply.close, reply.body) == (status, False, None)
    assert b"Infection" not in reply.fields
    parse_fields(reply.fields, 10)


@given(st.text(max_size=2000))
def test_an_error_sentence_cannot_break_the_head(sentence: str) -> None:
    reply = replies.error(400, sentence)
    parse_fields(reply.fields, 10)
    assert len(reply.fields) < 1000


def test_s78_every_status_we_send_has_a_reason() -> None:
    assert all(replies.REASONS.values())


def test_s93_s94_s102_the_head_of_a_block_page() -> None:
    fields = replies.verdict_fields(INFECTED, infected(), violations=True)
    page = "だめ".encode()
    head = replies.block_head(page, b"ja", b"Tue, 24 Nov 2026 00:00:00 GMT", b"ICAP/1.0 h (icapscan)", fields)
    start, _, block = head.partition(b"\r\n")
    assert start == b"HTTP/1.1 403 Forbidden"
    parsed = parse_fields(block[:-2], 30)
    assert parsed.get(b"content-length") == b"%d" % len(page)
    assert parsed.get(b"cache-control") == b"no-store"
    assert parsed.get(b"content-language") == b"ja"
    assert parsed.get(b"x-infection-found") == b"Type=0; Resolution=2; Threat=Eicar;"
    assert parsed.get(b"x-virus-id") == b"Eicar"
    assert b"Violations" not in head, "folded lines stay in the ICAP head"
    for name in (b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade"):
        assert parsed.get(name) is None
