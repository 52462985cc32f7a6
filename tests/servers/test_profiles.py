"""The table of profiles: what the answers of each say, line by line."""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import CLEAN, Finding, Level, Reason, Unscanned, Verdict, summarize
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.servers import replies
from icapscan.servers.profiles import GENERIC, PROFILES, Field, Profile
from icapscan.servers.settings import ServiceSettings
from icapscan.servers.stationery import options_fields
from icapscan.wire.fields import Fields, parse_fields
from icapscan.wire.verdict_headers import ThreatKind, gravest, read_lines, read_threats

ENCRYPTED = summarize(unscanned=[Unscanned(Reason.ENCRYPTED)])
CASES: dict[str, tuple[Decision, Verdict]] = {
    "infected": (Decision(Action.BLOCK, Cause.INFECTED), summarize([Finding("e", "Eicar")])),
    "suspicious": (
        Decision(Action.BLOCK, Cause.SUSPICIOUS),
        summarize([Finding("e", "Odd", level=Level.SUSPICIOUS)]),
    ),
    "unscanned": (Decision(Action.BLOCK, Cause.UNSCANNED, Reason.ENCRYPTED), ENCRYPTED),
    "rule": (Decision(Action.BLOCK, Cause.RULE, rule="no-exe"), CLEAN),
    "deferred": (Decision(Action.DEFER, Cause.UNSCANNED, Reason.ENCRYPTED), ENCRYPTED),
    "sanitized": (Decision(Action.SANITIZE, Cause.INFECTED), summarize([Finding("e", "Eicar")])),
}
FOLDED = "X-Violations-Found: 1|a.zip|{}|0|{}"
TABLE = {
    "generic": {
        "infected": [
            "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;", "X-Virus-ID: Eicar",
            "X-Response-Info: Blocked", "X-Response-Desc: Eicar",
        ],
        "suspicious": [
            "X-Infection-Found: Type=1; Resolution=2; Threat=Odd;", "X-Virus-ID: Odd",
            "X-Response-Info: Blocked", "X-Response-Desc: Odd",
        ],
        "unscanned": [
            "X-Infection-Found: Type=2; Resolution=2; Threat=Unscanned.encrypted;",
            "X-Response-Info: Blocked", "X-Response-Desc: Unscanned.encrypted",
        ],
        "rule": [
            "X-Infection-Found: Type=1; Resolution=2; Threat=Policy.no-exe;",
            "X-Response-Info: Blocked", "X-Response-Desc: Policy.no-exe",
        ],
        "deferred": [
            "X-Infection-Found: Type=2; Resolution=2; Threat=Unscanned.encrypted;",
            "X-Response-Info: Deferred", "X-Response-Desc: Unscanned.encrypted",
        ],
        "sanitized": [
            "X-Infection-Found: Type=0; Resolution=1; Threat=Eicar;", "X-Virus-ID: Eicar", "X-Response-Info: Modified",
        ],
    },
    "trend": {
        "infected": [
            "X-Virus-ID: Eicar", "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;", "X-Response-Desc: Eicar",
        ],
        "suspicious": [
            "X-Virus-ID: Odd", "X-Infection-Found: Type=1; Resolution=2; Threat=Odd;", "X-Response-Desc: Odd",
        ],
        "unscanned": [
            "X-Virus-ID: Unscanned.encrypted", "X-Infection-Found: Type=2; Resolution=2; Threat=Unscanned.encrypted;",
            "X-Response-Desc: Unscanned.encrypted",
        ],
        "rule": [
            "X-Virus-ID: Policy.no-exe", "X-Infection-Found: Type=1; Resolution=2; Threat=Policy.no-exe;",
            "X-Response-Desc: Policy.no-exe",
        ],
        "deferred": [
            "X-Virus-ID: Unscanned.encrypted", "X-Infection-Found: Type=2; Resolution=2; Threat=Unscanned.encrypted;",
            "X-Response-Desc: Unscanned.encrypted",
        ],
        "sanitized": ["X-Virus-ID: Eicar", "X-Infection-Found: Type=0; Resolution=1; Threat=Eicar;"],
    },
    "symantec": {
        "infected": ["X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;", FOLDED.format("Eicar", 2)],
        "suspicious": ["X-Infection-Found: Type=1; Resolution=2; Threat=Odd;", FOLDED.format("Odd", 2)],
        "unscanned": [
            "X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted container violation;",
            FOLDED.format("Encrypted container violation", 2),
        ],
        "rule": [
            "X-Infection-Found: Type=1; Resolution=2; Threat=File policy violation no-exe;",
            FOLDED.format("File policy violation no-exe", 2),
        ],
        "deferred": [
            "X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted container violation;",
            FOLDED.format("Encrypted container violation", 2),
        ],
        "sanitized": ["X-Infection-Found: Type=0; Resolution=1; Threat=Eicar;", FOLDED.format("Eicar", 1)],
    },
    "mcafee": {
        "infected": [
            "X-Virus-ID: Eicar", "X-Virus-Name: Eicar", "X-Block-Reason: Malware found", "X-Block-Result: 80",
            "X-WWBlockResult: 80",
        ],
        "suspicious": [
            "X-Virus-ID: Odd", "X-Virus-Name: Odd", "X-Block-Reason: Malware found", "X-Block-Result: 80",
            "X-WWBlockResult: 80",
        ],
        "unscanned": [
            "X-Virus-ID: Unscanned.encrypted", "X-Virus-Name: Unscanned.encrypted",
            "X-Block-Reason: Encrypted archive unwanted", "X-Block-Result: 34", "X-WWBlockResult: 34",
        ],
        "rule": [
            "X-Virus-ID: Policy.no-exe", "X-Virus-Name: Policy.no-exe", "X-Block-Reason: Policy.no-exe",
            "X-Block-Result: 23", "X-WWBlockResult: 23",
        ],
        "deferred": [
            "X-Virus-ID: Unscanned.encrypted", "X-Virus-Name: Unscanned.encrypted",
            "X-Block-Reason: Encrypted archive unwanted", "X-Block-Result: 34", "X-WWBlockResult: 34",
        ],
        "sanitized": ["X-Virus-ID: Eicar", "X-Virus-Name: Eicar"],
    },
    "kaspersky": {
        "infected": [
            "X-Virus-ID: Eicar", "X-Infection-Found: Type=0; Resolution=0; Threat=Eicar;",
            "X-Response-Info: blocked", "X-Response-Desc: Eicar",
        ],
        "suspicious": [
            "X-Virus-ID: Odd", "X-Infection-Found: Type=0; Resolution=0; Threat=Odd;",
            "X-Response-Info: blocked", "X-Response-Desc: Odd",
        ],
        "unscanned": [
            "X-Virus-ID: Unscanned.encrypted", "X-Infection-Found: Type=1; Resolution=0; Threat=Unscanned.encrypted;",
            "X-Response-Info: blocked", "X-Response-Desc: Unscanned.encrypted",
        ],
        "rule": [
            "X-Virus-ID: Policy.no-exe", "X-Infection-Found: Type=1; Resolution=0; Threat=Policy.no-exe;",
            "X-Response-Info: blocked", "X-Response-Desc: Policy.no-exe",
        ],
        "deferred": [
            "X-Virus-ID: Unscanned.encrypted", "X-Infection-Found: Type=1; Resolution=0; Threat=Unscanned.encrypted;",
            "X-Response-Info: blocked", "X-Response-Desc: Unscanned.encrypted",
        ],
        "sanitized": [
            "X-Virus-ID: Eicar", "X-Infection-Found: Type=0; Resolution=1; Threat=Eicar;", "X-Response-Info: modified",
        ],
    },
    "clearswift": {
        "infected": [
            "X-Virus-ID: Eicar", "X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;", FOLDED.format("Eicar", 0),
        ],
        "suspicious": [
            "X-Virus-ID: Odd", "X-Infection-Found: Type=1; Resolution=2; Threat=Odd;", FOLDED.format("Odd", 0),
        ],
        "unscanned": [
            "X-Virus-ID: Encrypted Archive", "X-Infection-Found: Type=1; Resolution=2; Threat=Encrypted Archive;",
            FOLDED.format("Encrypted Archive", 0),
        ],
        "rule": [
            "X-Virus-ID: Policy.no-exe", "X-Infection-Found: Type=1; Resolution=2; Threat=Policy.no-exe;",
            FOLDED.format("Policy.no-exe", 0),
        ],
        "deferred": [
            "X-Virus-ID: Encrypted Archive", "X-Infection-Found: Type=1; Resolution=2; Threat=Encrypted Archive;",
            FOLDED.format("Encrypted Archive", 0),
        ],
        "sanitized": [
            "X-Virus-ID: Eicar", "X-Infection-Found: Type=0; Resolution=1; Threat=Eicar;", FOLDED.format("Eicar", 1),
        ],
    },
}  # fmt: skip
IDENTITY = {Field.INFECTION, Field.VIRUS_ID, Field.VIRUS_NAME}
"""What clients find a hit by."""
NAMES = st.one_of(st.text(max_size=300), st.sampled_from(["a\r\nX-Evil: 1", "a;b,c=d", "\x00", "名前", " ", ": "]))


def lines_of(profile: Profile, decision: Decision, verdict: Verdict, file: bytes = b"a.zip") -> bytes:
    if decision.action is Action.SANITIZE:
        return replies.sanitized_fields(decision, verdict, file=file, profile=profile)
    return replies.block_fields(decision, verdict, file=file, profile=profile)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PROFILES)
def test_the_table_line_by_line(name: str, case: str) -> None:
    block = lines_of(PROFILES[name], *CASES[case])
    logical = re.split(rb"\r\n(?!\t)", block)
    assert logical.pop() == b""
    assert [line.replace(b"\r\n\t", b"|").decode() for line in logical] == TABLE[name][case]


def test_the_configuration_knows_these_profiles_and_begins_with_generic() -> None:
    words = get_args(get_type_hints(ServiceSettings)["profile"])
    assert set(words) == set(PROFILES) == set(TABLE)
    assert PROFILES[ServiceSettings().profile] is GENERIC


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"generic"}))
@pytest.mark.parametrize("cause", [cause for cause in Cause if cause not in (Cause.CLEAN, Cause.FAILED)])
@pytest.mark.parametrize("action", [Action.BLOCK, Action.DEFER, Action.SANITIZE])
def test_what_a_client_looks_for_is_in_every_answer_to_a_body_that_is_not_passed(
    name: str, cause: Cause, action: Action
) -> None:
    """A client that reads one field and keeps its own copy must not take the file for clean."""
    profile = PROFILES[name]
    looked_for = {field.value for field in profile.blocked if field in IDENTITY}
    assert looked_for
    for reason in (None, *Reason):
        decision = Decision(action, cause, reason, "r")
        fields = Fields(lines_of(profile, decision, summarize([Finding("e", "Eicar")])))
        assert looked_for <= {field.decode() for field, value in fields.items() if value}


@pytest.mark.parametrize("name", PROFILES)
@given(threat=NAMES, file=NAMES, rule=NAMES)
def test_s96_s98_s100_d106_hostile_names_keep_the_grammar_of_each_profile(
    name: str, threat: str, file: str, rule: str
) -> None:
    profile = PROFILES[name]
    verdict = summarize([Finding("e", threat)])
    for action in (Action.BLOCK, Action.DEFER, Action.SANITIZE):
        for decision in (Decision(action, Cause.INFECTED), Decision(action, Cause.RULE, rule=rule)):
            block = lines_of(profile, decision, verdict, file.encode("utf-8", "replace"))
            fields = parse_fields(block, 20)
            known = [field.value.encode() for field in Field]
            assert all(field in known for field, _ in fields.items())
            assert all(value.isascii() and value for _, value in fields.items())
            infection = fields.get(b"x-infection-found")
            if infection is not None:
                assert re.fullmatch(rb"Type=[012]; Resolution=[012]; Threat=[^;\x00-\x1f\x7f-\xff]+;", infection)
            for field in (b"x-virus-id", b"x-virus-name"):
                assert not {*b",;"} & {*(fields.get(field) or b"")}
            # Nextcloud takes each folded line for a field of its own, should it have a colon and a blank
            folded = re.findall(rb"\r\n\t([^\r\n]*)", block)
            assert len(folded) == (4 if Field.VIOLATIONS in profile.blocked else 0)
            assert not any(b": " in line for line in folded)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("case", CASES)
def test_our_own_client_reads_a_hit(name: str, case: str) -> None:
    block = lines_of(PROFILES[name], *CASES[case])
    threats = read_threats(read_lines(block))
    assert threats
    if case == "infected":
        assert gravest(threats) is ThreatKind.VIRUS and threats[0].name == "Eicar"


@pytest.mark.parametrize("name", PROFILES)
def test_s103_a_passed_body_is_told_of_in_the_same_way_by_all(name: str) -> None:
    passed = Decision(Action.ALLOW, Cause.SUSPICIOUS)
    odd = CASES["suspicious"][1]
    assert replies.verdict_fields(passed, odd, profile=PROFILES[name]) == replies.verdict_fields(passed, odd)
    assert replies.verdict_fields(Decision(Action.ALLOW, Cause.CLEAN), CLEAN, profile=PROFILES[name]) == b""


@pytest.mark.parametrize("name", PROFILES)
def test_s94_s102_the_page_repeats_what_is_not_folded(name: str) -> None:
    profile = PROFILES[name]
    for case in ("infected", "suspicious", "unscanned", "rule", "deferred"):
        decision, verdict = CASES[case]
        said = replies.verdict_fields(decision, verdict, profile=profile)
        defer, reason = decision.action is Action.DEFER, profile.page_reason(decision.cause)
        head = replies.block_head(b"page", b"en", b"D", b"V", said, defer=defer, reason=reason)
        status, _, block = head.partition(b"\r\n")
        found = name == "mcafee" and case in ("infected", "suspicious")
        assert status == b"HTTP/1.1 " + (
            b"503 Service Unavailable" if defer else b"403 VirusFound" if found else b"403 Forbidden"
        )
        fields = parse_fields(block[:-2], 30)
        for field in profile.blocked:
            value = Fields(said).get(field.value.lower().encode())
            about_reply = field in (Field.INFO, Field.DESC)
            assert fields.get(field.value.lower().encode()) == (None if field is Field.VIOLATIONS else value)
            assert not about_reply or value is None
        assert b"\r\n\t" not in head


def test_s98_s99_violations_where_they_are_asked_for() -> None:
    decision, verdict = CASES["infected"]
    for name, profile in PROFILES.items():
        count = [
            replies.block_fields(decision, verdict, violations=asked, profile=profile).count(b"X-Violations-Found")
            for asked in (False, True)
        ]
        assert count == {"symantec": [1, 1], "clearswift": [1, 1], "mcafee": [0, 0]}.get(name, [0, 1])


def test_webwasher_numbers() -> None:
    """What `icapscan` blocks for has the number that clients of Webwasher know for it."""
    known = {Reason.ENCRYPTED: 34, Reason.MALFORMED: 31, Reason.OVER_LIMIT: 33}
    for reason in Reason:
        decision = Decision(Action.BLOCK, Cause.UNSCANNED, reason)
        fields = Fields(lines_of(PROFILES["mcafee"], decision, CLEAN))
        assert fields.get(b"x-wwblockresult") == b"%d" % known.get(reason, 23) == fields.get(b"x-block-result")
    fields = Fields(lines_of(PROFILES["mcafee"], Decision(Action.BLOCK, Cause.MACRO), CLEAN))
    assert (fields.get(b"x-wwblockresult"), fields.get(b"x-virus-name")) == (b"45", b"Policy.macro")


def test_every_status_of_a_profile_has_a_reason_and_is_one_that_squid_takes() -> None:
    assert {profile.adapted for profile in PROFILES.values()} == {200, 201}
    assert all(profile.adapted in replies.REASONS for profile in PROFILES.values())
    assert [name for name, profile in PROFILES.items() if profile.adapted == 201] == ["symantec"]


def test_s120_options_announce_what_comes_out_where_clients_ask_for_it() -> None:
    for name in PROFILES:
        fields = Fields(options_fields("a", ServiceSettings(profile=name), 1))  # type: ignore[arg-type]
        expected = b"X-Infection-Found, X-Violations-Found" if name == "symantec" else None
        assert fields.get(b"x-allow-out") == expected
    echo = Fields(options_fields("e", ServiceSettings(kind="echo", profile="symantec"), 1))
    assert echo.get(b"x-allow-out") is None
