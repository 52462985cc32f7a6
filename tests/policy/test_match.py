"""When a rule holds: each condition, widely where it stops and narrowly where it allows, and what is not known yet."""

from __future__ import annotations

import fnmatch
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.policy.facts import Direction, Facts
from icapscan.policy.kinds import MORE_ANOMALIES
from icapscan.policy.patterns import Globs, fold
from tests.policy.made import facts, holds, part, verdict

EXE, PDF, TEXT, ZIP = "application/x-dosexec", "application/pdf", "text/plain", "application/zip"
MAIL = (Direction.MAIL,)
UNSURE = (Direction.MAIL, Direction.UPLOAD)
ASKED = facts(
    client=ip_address("192.0.2.7"),
    icap_client=ip_address("10.0.0.1"),
    users=("LDAP://ldap.example.com/CN=Bob Smith,OU=Sales", "Bob Smith"),
    groups=("Administrators", "Sales"),
    host="www.example.com",
    path="/downloads/Setup.EXE",
    url="http://www.example.com/downloads/Setup.EXE",
    size=5_000_000,
)


# One condition


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, True),
        ({"service": "avscan"}, True),
        ({"service": ["other", "AV*"]}, True),
        ({"service": "other"}, False),
        ({"icap-method": "respmod"}, True),
        ({"icap-method": "REQMOD"}, False),
        ({"method": "get"}, True),
        ({"method": ["POST", "PUT"]}, False),
        ({"direction": "download"}, True),
        ({"direction": "web"}, True),
        ({"direction": ["mail", "upload"]}, False),
        ({"client": "192.0.2.0/24"}, True),
        ({"client": ["198.51.100.0/24", "192.0.2.7"]}, True),
        ({"client": "2001:db8::/32"}, False),
        ({"icap-client": "10.0.0.0/8"}, True),
        ({"icap-client": "192.0.2.0/24"}, False),
        ({"user": "bob smith"}, True),
        ({"user": "*ou=sales"}, True),
        ({"user": "bob"}, False),
        ({"group": "ADMIN*"}, True),
        ({"group": "staff"}, False),
        ({"host": "www.example.com"}, True),
        ({"host": ".example.com"}, True),
        ({"host": "example.com"}, False),
        ({"host": ".ample.com"}, False),
        ({"path": "*.exe"}, True),
        ({"path": "/uploads/*"}, False),
        ({"url": "http://*.example.com/*"}, True),
        ({"size": "> 4 MB"}, True),
        ({"size": "> 5 MB"}, False),
        ({"size": ">= 5 MB"}, True),
        ({"size": "4 MiB .. 6 MiB"}, True),
        ({"size": ["< 1 MB", "> 4 MB"]}, True),
        ({"size": "= 5000000"}, True),
        ({"parts": "0"}, True),
        ({"verdict": "clean"}, True),
        ({"verdict": ["infected", "suspicious"]}, False),
        ({"reason": "encrypted"}, False),
        ({"threat": "*"}, False),
        ({"anomaly": "*"}, False),
        ({"file-name": "*"}, False),
        ({"client": "192.0.2.0/24", "host": ".example.com", "method": "GET"}, True),
        ({"client": "192.0.2.0/24", "host": ".example.com", "method": "POST"}, False),
    ],
)
@pytest.mark.parametrize("action", ["block", "defer", "tag"])
def test_conditions_on_the_request(when: dict[str, object], expected: bool, action: str) -> None:
    assert holds(when, ASKED, action) is expected


@pytest.mark.parametrize("key", ["client", "icap-client", "user", "group", "host", "url"])
def test_what_is_not_known_fits_nothing_but_a_star(key: str) -> None:
    value = "192.0.2.0/24" if "client" in key else "x*"
    assert holds({key: value}, facts()) is False
    assert holds({key: value}, facts(), "allow") is False
    assert holds({}, facts(), unless={key: value}) is True, "and excepts nothing"


def test_findings_are_asked_together() -> None:
    both = facts(verdict=verdict(infected="Win.Bad", tags=("trojan",)))
    assert holds({"engine": "yara", "threat": "win.*", "tag": "TROJAN"}, both)
    assert holds({"engine": "clamd", "threat": "win.*"}, both) is False
    assert holds({"threat": "win.*", "tag": "test"}, both) is False


def test_verdicts_suspicious_and_unscanned_may_both_be_true_and_infected_stands_alone() -> None:
    mixed = facts(verdict=verdict(Reason.ENCRYPTED, suspicious="Odd"))
    assert holds({"verdict": "suspicious"}, mixed) and holds({"verdict": "unscanned"}, mixed)
    assert holds({"reason": "encrypted"}, mixed) and holds({"reason": "malformed"}, mixed) is False
    infected = facts(verdict=verdict(Reason.ENCRYPTED, suspicious="Odd", infected="Bad"))
    assert holds({"verdict": "infected"}, infected)
    for when in ({"verdict": "suspicious"}, {"verdict": "unscanned"}, {"reason": "encrypted"}):
        assert holds(when, infected, "defer") is False, "no other rule takes an infected body away from the defaults"


def test_anomalies_and_what_they_say_when_there_are_too_many() -> None:
    assert holds({"anomaly": "vba-*"}, facts(verdict=verdict(anomalies=(("vba-macro", ""),))))
    many = facts(verdict=verdict(anomalies=((MORE_ANOMALIES, ""),)))
    assert holds({"anomaly": "vba-macro"}, many) is True, "a thousand others must not hide it"
    assert holds({"anomaly": "vba-macro"}, many, "allow") is False


@given(st.lists(st.text("ab.*?[]!-", max_size=5), max_size=4), st.text("abAB.\n", max_size=6))
def test_patterns_are_those_of_the_shell(patterns: list[str], text: str) -> None:
    expected = any(fnmatch.fnmatchcase(text.lower(), pattern) for pattern in patterns)
    assert Globs(patterns).fits(fold(text)) is expected


def test_a_pattern_is_not_taken_for_the_one_beside_it() -> None:
    assert Globs(["*exe", "?exe"]).fits("exe") and Globs(["*.exe", "?.exe"]).fits("ab.exe")
    assert not Globs(["?.exe", "*.scr"]).fits("ab.exe") and Globs(["?.exe", "*.scr"]).fits("a.exe")


# Parts


def mail(*parts: Any, **changes: Any) -> Facts:
    return facts(directions=MAIL, parts=(part("", opened=("mime",)), *parts), **changes)


ONE = mail(part("1", declared="text/plain"), part("2", "report.zip", ZIP, opened=("zip",), size=5000),
           part("2/report.zip/a.exe", "a.exe", EXE, size=400))  # fmt: skip


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"file-name": "*.EXE"}, True),
        ({"file-name": ["*.scr", "report.*"]}, True),
        ({"file-name": "*.pdf"}, False),
        ({"part": "*/report.zip/*"}, True),
        ({"part": "1"}, True),
        ({"media-type": "application/x-dosexec"}, True),
        ({"media-type": "application/x-msdownload"}, True),
        ({"media-type": "application/*"}, True),
        ({"media-type": "image/*"}, False),
        ({"kind": "program"}, True),
        ({"kind": ["image", "archive"]}, True),
        ({"declared-type": "text/plain"}, True),
        ({"format": "zip"}, True),
        ({"part-size": "> 1 KB"}, True),
        ({"part-size": "> 1 MB"}, False),
        ({"parts": "> 2"}, True),
        ({"parts": "> 3"}, False),
        ({"kind": "program", "part-size": "< 1 KB", "file-name": "a.*"}, True),
        ({"kind": "program", "part-size": "> 1 KB"}, False),
        ({"kind": "program", "file-name": "report.zip"}, False),
    ],
)
def test_conditions_on_parts_hold_for_one_part_together_at_any_depth(when: dict[str, object], expected: bool) -> None:
    assert holds(when, ONE) is expected


@pytest.mark.parametrize(
    "name",
    ["evil.exe", "EVIL.EXE", "evil.exe.", "evil.exe . .", "dir/evil.exe", "dir\\evil.exe", "evil.exe::$DATA", "x.exe:a",
     "evil.ｅｘｅ", "annexe\u202etxt.exe", "ev\u200bil.ex\u200de", "evil.exe\x00", " evil.exe\t"],
)  # fmt: skip
def test_no_way_to_write_a_name_gets_past_its_pattern(name: str) -> None:
    assert holds({"file-name": "*.exe"}, mail(part("1", name))) is True
    assert holds({"file-name": "*.txt"}, mail(part("1", name))) is False


def test_of_an_endless_name_start_and_end_are_compared() -> None:
    endless = "setup" + "x" * 100_000 + ".exe"
    for pattern in ("*.exe", "setup*", "setup*.exe"):
        assert holds({"file-name": pattern}, mail(part("1", endless))) is True


def test_one_of_several_names_is_enough_to_stop_and_all_of_them_are_needed_to_excuse() -> None:
    two = mail(part("1", names=("a.pdf", "a.exe")))
    assert holds({"file-name": "*.exe"}, two) is True
    assert holds({"file-name": "*.pdf"}, two, "allow") is False
    assert holds({"file-name": "*"}, two, unless={"file-name": "*.pdf"}) is True


def test_one_of_several_types_is_enough_to_stop_and_all_of_them_are_needed_to_excuse() -> None:
    both = mail(part("1", "a.pdf", PDF, EXE))
    assert holds({"kind": "program"}, both) is True
    assert holds({"kind": "pdf"}, both, "allow") is False
    assert holds({"media-type": PDF}, both, "allow") is False
    assert holds({"file-name": "*"}, both, unless={"media-type": PDF}) is True
    assert holds({"kind": ["pdf", "program"]}, both, "allow") is True


def test_a_part_of_unknown_type_is_excused_by_no_type() -> None:
    assert holds({"media-type": "*/*"}, mail(part("1", "x")), "allow") is False
    assert holds({"kind": "pdf"}, mail(part("1", "x")), "allow") is False


# Exceptions


def test_an_exception_excuses_the_part_and_not_the_body() -> None:
    rule: dict[str, Any] = {"when": {"kind": "program"}, "unless": {"file-name": "setup.exe"}}
    setup, evil = part("1", "setup.exe", EXE), part("2", "evil.exe", EXE)
    assert holds(about=mail(setup), **rule) is False
    assert holds(about=mail(evil), **rule) is True
    assert holds(about=mail(setup, evil), **rule) is True


def test_an_exception_on_the_request_excuses_all_of_it() -> None:
    rule: dict[str, Any] = {"when": {"kind": "program"}, "unless": {"client": "192.0.2.0/24"}}
    program = mail(part("2", "evil.exe", EXE))
    assert holds(about=program, **rule) is True
    assert holds(about=mail(*program.parts, client=ip_address("192.0.2.7")), **rule) is False
    both: dict[str, Any] = {"when": {"kind": "program"}, "unless": {"client": "192.0.2.0/24", "file-name": "a.exe"}}
    assert holds(about=mail(*program.parts, client=ip_address("192.0.2.7")), **both) is True


def test_an_exception_to_an_allowance_is_taken_widely() -> None:
    rule: dict[str, Any] = {"when": {"client": "192.0.2.0/24"}, "action": "allow", "unless": {"kind": "program"}}
    client = ip_address("192.0.2.7")
    assert holds(about=mail(part("1", "a.txt", TEXT), client=client), **rule) is True
    assert holds(about=mail(part("1", "a", TEXT), part("2", "b", TEXT, EXE), client=client), **rule) is False
    assert holds(about=mail(client=client, parts_complete=False), **rule) is None, "there may be one that nobody saw"


# Rules that allow


@pytest.mark.parametrize(
    ("when", "found", "expected"),
    [
        ({}, verdict(infected="Bad"), False),
        ({"client": "192.0.2.0/24"}, verdict(infected="Bad"), False),
        ({"threat": "Bad"}, verdict(infected="Bad"), False),
        ({"verdict": "infected"}, verdict(infected="Bad"), True),
        ({"verdict": ["suspicious", "infected"]}, verdict(infected="Bad"), True),
        ({"verdict": "infected", "threat": "Bad"}, verdict(infected="Bad"), True),
        ({"verdict": "infected", "threat": "Test"}, verdict(infected="Bad"), False),
        ({"verdict": "infected"}, verdict(Reason.ENGINE_FAILED, infected="Bad"), False),
        ({}, verdict(Reason.ENCRYPTED), True),
        ({}, verdict(Reason.ENGINE_FAILED), False),
        ({}, verdict(Reason.TIMEOUT), False),
        ({"verdict": "unscanned"}, verdict(Reason.TIMEOUT), False),
        ({"reason": "timeout"}, verdict(Reason.TIMEOUT), True),
        ({"reason": "timeout"}, verdict(Reason.TIMEOUT, Reason.ENGINE_FAILED), False),
        ({"reason": ["timeout", "engine-failed"]}, verdict(Reason.TIMEOUT, Reason.ENGINE_FAILED), True),
        ({"reason": "encrypted"}, verdict(Reason.ENCRYPTED), True),
        ({"reason": "encrypted"}, verdict(Reason.ENCRYPTED, Reason.MALFORMED), False),
        ({"reason": "encrypted"}, verdict(Reason.ENCRYPTED, Reason.ENGINE_FAILED), False),
        ({"reason": "encrypted"}, verdict(Reason.ENCRYPTED, suspicious="Odd"), True),
        ({"reason": "encrypted"}, verdict(Reason.ENCRYPTED, infected="Bad"), False),
        ({"verdict": "unscanned"}, verdict(Reason.ENCRYPTED, Reason.MALFORMED), True),
    ],
)
def test_an_allowance_excuses_what_it_names_and_nothing_else(
    when: dict[str, object], found: Any, expected: bool
) -> None:
    about = mail(part("1"), verdict=found, client=ip_address("192.0.2.7"))
    assert bool(holds(when, about, "allow")) is expected


def test_an_allowance_with_parts_excuses_what_stands_in_them() -> None:
    encrypted: dict[str, object] = {"reason": "encrypted", "kind": "pdf"}
    pdf, archive = part("2", "a.pdf", PDF), part("3", "b.zip", ZIP, opened=("zip",))
    text = part("1", "", TEXT)
    one = mail(text, pdf, archive, verdict=verdict((Reason.ENCRYPTED, "2")))
    assert holds(encrypted, one, "allow") is True
    inner = mail(text, pdf, archive, verdict=verdict((Reason.ENCRYPTED, "2/a.pdf/stream"), (Reason.ENCRYPTED, "2")))
    assert holds(encrypted, inner, "allow") is True
    other = mail(text, pdf, archive, verdict=verdict((Reason.ENCRYPTED, "2"), (Reason.ENCRYPTED, "3/b.zip/x")))
    assert holds(encrypted, other, "allow") is False
    whole = mail(text, pdf, verdict=verdict((Reason.ENCRYPTED, "2"), (Reason.ENCRYPTED, "")))
    assert holds(encrypted, whole, "allow") is False, "and what is said of the body is said of all of it"


def test_an_allowance_with_parts_for_a_clean_body_needs_every_part() -> None:
    only: dict[str, object] = {"kind": "pdf"}
    assert holds(only, mail(part("1", "a.pdf", PDF)), "allow") is True
    assert holds(only, mail(part("1", "a.pdf", PDF), part("2", "b.exe", EXE)), "allow") is False
    opened = mail(part("1", "a.pdf", PDF, opened=("pdf",)), part("1/a.pdf/x", "x"))
    assert holds(only, opened, "allow") is True, "what stands in a part that fits is a part of it"
    assert holds(only, mail(part("1", "a.pdf", PDF), parts_complete=False), "allow") is False
    assert holds(only, facts(), "allow") is False


def test_a_part_without_a_name_of_its_own_excuses_no_other() -> None:
    about = mail(part("1", "", PDF), part("12", "", EXE), verdict=verdict((Reason.ENCRYPTED, "12")))
    assert holds({"kind": "pdf", "reason": "encrypted"}, about, "allow") is False


def test_where_only_the_head_says_that_this_is_mail() -> None:
    unsure = facts(directions=UNSURE)
    assert holds({"direction": "upload"}, unsure) is True and holds({"direction": "mail"}, unsure) is True
    assert holds({"direction": "upload"}, unsure, "allow") is False
    assert holds({"direction": ["upload", "mail"]}, unsure, "allow") is True
    assert holds({}, unsure, unless={"direction": "mail"}) is True, "a forged field is no way out of a rule"


# Before the end


def early(**changes: Any) -> Facts:
    return facts(final=False, **changes)


@pytest.mark.parametrize(
    ("when", "about", "expected"),
    [
        ({"client": "192.0.2.0/24"}, early(client=ip_address("192.0.2.7")), True),
        ({"client": "192.0.2.0/24"}, early(), False),
        ({"size": "> 1 KB"}, early(size=2000), True),
        ({"size": "> 1 KB"}, early(size=10), None),
        ({"size": "< 1 KB"}, early(size=10), None),
        ({"size": "< 1 KB"}, early(size=2000), False),
        ({"parts": "> 5"}, early(), None),
        ({"kind": "program"}, early(), None),
        ({"kind": "program"}, early(parts=(part("1", "x", EXE),)), True),
        ({"kind": "program", "method": "POST"}, early(), False),
        ({"verdict": "clean"}, early(), None),
        ({"verdict": "unscanned"}, early(verdict=verdict(Reason.OVER_LIMIT)), None),
        ({"verdict": "infected"}, early(verdict=verdict(infected="Bad")), True),
        ({"verdict": "suspicious"}, early(verdict=verdict(infected="Bad")), False),
        ({"verdict": "suspicious"}, early(verdict=verdict(suspicious="Odd")), None),
        ({"reason": "encrypted"}, early(verdict=verdict(infected="Bad")), False),
        ({"reason": "over-limit"}, early(verdict=verdict(Reason.OVER_LIMIT)), None),
        ({"threat": "Odd"}, early(verdict=verdict(suspicious="Odd")), True),
        ({"threat": "Odd"}, early(), None),
        ({"anomaly": "x"}, early(), None),
    ],
)
def test_what_may_still_change_is_not_known(when: dict[str, object], about: Facts, expected: bool | None) -> None:
    assert holds(when, about) is expected
    assert holds(when, about, "allow") in (None, False), "and nothing is allowed before the end"


def test_an_exception_that_may_still_come_is_waited_for() -> None:
    about = early(parts=(part("1", "x", EXE),))
    assert holds({"kind": "program"}, about, unless={"threat": "Known.Good"}) is None
    assert holds({"kind": "program"}, about, unless={"client": "192.0.2.1"}) is True
    assert holds({}, about, unless={"size": "> 1 KB"}) is None


def test_parts_that_nobody_saw_are_not_taken_for_absent() -> None:
    about = mail(part("1", "a", TEXT), parts_complete=False)
    assert holds({"kind": "program"}, about) is None
    assert holds({"parts": "< 5"}, about) is None
