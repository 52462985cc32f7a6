"""Rules that can never match are found, and no rule that can is taken for one."""

from __future__ import annotations

import itertools
from ipaddress import ip_address
from typing import Any

import pytest

from icapscan.findings import Reason
from icapscan.policy.decide import Policy
from icapscan.policy.decision import Action
from icapscan.policy.facts import Direction
from icapscan.policy.lint import never_matching
from icapscan.policy.rules import read_rules
from icapscan.policy.settings import PolicySettings
from tests.policy.made import facts, part, verdict

SERVICES = ("avscan", "mail")


def dead(*rules: dict[str, Any]) -> dict[int, str]:
    """The numbers of the rules that never match, and why."""
    return {rule.index + 1: why for rule, why in never_matching(read_rules(rules), SERVICES)}


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ({"service": "avscam"}, "there is no such service that scans; there are avscan, mail"),
        ({"service": ["echo", "x*"]}, "no such service"),
        ({"engine": "clam"}, "there is no such engine; there are yara, clamd, hash"),
        ({"media-type": "application/x-pdf"}, "nothing is found by content to be application/x-pdf"),
        ({"size": "< 0"}, "no number is size = < 0"),
        ({"size": "10 MB .. 1 MB"}, "no number is size = 10 MB .. 1 MB"),
        ({"part-size": ["< 0 B", "5 .. 4"]}, "no number is part-size"),
        ({"verdict": "infected", "reason": "encrypted"}, "of a body that is infected no reason is asked"),
        ({"verdict": ["clean", "infected"], "reason": "encrypted"}, "clean or infected"),
        ({"verdict": "clean", "threat": "*"}, "nothing is found in a body that is clean"),
        ({"direction": "download", "icap-method": "REQMOD"}, "does not come by REQMOD"),
    ],
)
def test_conditions_that_never_hold(when: dict[str, object], words: str) -> None:
    assert words in dead({"when": when, "action": "block"})[1]


@pytest.mark.parametrize(
    "rule",
    [
        {"when": {"service": ["echo", "avscan"]}},
        {"when": {"service": "*"}},
        {"when": {"engine": "cl*"}},
        {"when": {"media-type": ["application/x-pdf", "application/x-msdownload", "image/*"]}},
        {"when": {"verdict": ["infected", "unscanned"], "reason": "encrypted"}},
        {"when": {"direction": "mail", "icap-method": "REQMOD"}},
        {"when": {"direction": ["mail", "download"], "icap-method": "REQMOD"}},
        {"when": {"client": "192.0.2.0/24"}, "unless": {"client": "192.0.2.7"}},
        {"when": {"file-name": "*.exe"}, "unless": {"file-name": "*.exe"}},
        {},
    ],
)
def test_rules_that_may_hold(rule: dict[str, Any]) -> None:
    assert dead({**rule, "action": "block"}) == {}


def test_what_is_excepted_as_a_whole() -> None:
    assert (
        "excepted"
        in dead({"when": {"client": "192.0.2.7"}, "unless": {"client": "192.0.2.0/24"}, "action": "block"})[1]
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"when": {"file-name": ["*.exe", "*.scr"]}}, {"when": {"file-name": "setup*.exe", "direction": "mail"}}),
        ({}, {"when": {"client": "192.0.2.7"}}),
        ({"when": {"client": "192.0.2.0/24"}}, {"when": {"client": ["192.0.2.7", "192.0.2.128/25"]}}),
        ({"when": {"size": "> 1 MB"}}, {"when": {"size": [">= 2 MB", "5 MB .. 6 MB"]}}),
        ({"when": {"host": ".example.com"}}, {"when": {"host": "www.example.com", "method": "POST"}}),
        ({"when": {"verdict": ["suspicious", "unscanned"]}}, {"when": {"verdict": "suspicious", "threat": "Odd"}}),
        ({"when": {"kind": ["program", "script"]}}, {"when": {"kind": "script"}, "unless": {"client": "192.0.2.1"}}),
        ({"when": {"direction": "web"}}, {"when": {"direction": "upload"}, "action": "allow"}),
        ({"action": "allow"}, {"when": {"reason": "encrypted"}, "action": "allow"}),
        ({"when": {"verdict": "infected"}, "action": "allow"},
         {"when": {"verdict": "infected", "user": "x"}, "action": "allow"}),
    ],
)  # fmt: skip
def test_a_rule_behind_one_that_decides_all_of_it(first: dict[str, Any], second: dict[str, Any]) -> None:
    found = dead({"name": "first", "action": "block", **first}, {"action": "defer", **second})
    assert 'rule 1 ("first") decides' in found[2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"when": {"file-name": "?.exe"}}, {"when": {"file-name": "*.exe"}}),
        ({"when": {"file-name": "*.exe"}}, {"when": {"file-name": ["*.exe", "*.scr"]}}),
        ({"when": {"file-name": "*.exe"}}, {"when": {"kind": "program"}}),
        ({"when": {"file-name": "*.exe"}}, {"when": {"file-name": "*.exe"}, "action": "allow"}),
        ({"when": {"file-name": "*.exe"}, "unless": {"client": "192.0.2.1"}}, {"when": {"file-name": "*.exe"}}),
        ({"monitor": True}, {}),
        ({"action": "tag"}, {}),
        ({"action": "allow"}, {}),
        ({"action": "allow"}, {"when": {"verdict": "infected"}, "action": "allow"}),
        ({"action": "allow"}, {"when": {"reason": "timeout"}, "action": "allow"}),
        ({"when": {"reason": "encrypted"}, "action": "allow"}, {"when": {"reason": "malformed"}, "action": "allow"}),
        ({"action": "sanitize"}, {}),
        ({"when": {"client": "192.0.2.0/24"}}, {"when": {"client": ["192.0.2.7", "198.51.100.1"]}}),
        ({"when": {"size": "> 1 MB"}}, {"when": {"size": "> 1 KB"}}),
    ],
)  # fmt: skip
def test_a_rule_that_gets_what_the_one_before_leaves(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert dead({"action": "block", **first}, {"action": "block", **second}) == {}


def test_what_is_said_never_to_match_does_not_match() -> None:
    """Against the matcher itself: many pairs of rules, many bodies."""
    whens: list[dict[str, Any]] = [
        {}, {"verdict": "infected"}, {"verdict": ["suspicious", "unscanned"]}, {"reason": "encrypted"},
        {"reason": ["encrypted", "timeout"]}, {"reason": "encrypted", "threat": "Odd"}, {"threat": "Odd"},
        {"file-name": "*.exe"}, {"file-name": "a.exe", "kind": "program"}, {"kind": "program"},
        {"direction": "mail"}, {"direction": ["mail", "upload"]}, {"size": "> 1 KB"}, {"anomaly": "x"},
        {"verdict": "unscanned", "kind": "program"},
    ]  # fmt: skip
    rules: list[dict[str, Any]] = [
        {"when": when, "action": action} for when in whens for action in ("allow", "block", "defer", "sanitize")
    ]
    verdicts = [
        verdict(), verdict(infected=("Bad", "1")), verdict((Reason.ENCRYPTED, "1")), verdict(Reason.TIMEOUT),
        verdict((Reason.ENCRYPTED, "1"), Reason.TIMEOUT), verdict((Reason.ENCRYPTED, "1"), suspicious=("Odd", "1")),
        verdict((Reason.ENCRYPTED, "1"), suspicious=("Other", "2")), verdict(suspicious="Odd"),
        verdict(Reason.TIMEOUT, infected="Bad"), verdict(anomalies=(("more-anomalies", ""),)),
    ]  # fmt: skip
    exe = part("1", "a.exe", "application/x-dosexec")
    shapes = [
        (), (part("", opened=("mime",)), exe), (part("", opened=("mime",)), exe, part("2", "b.txt", "text/plain")),
        (part("", opened=("mime",)), part("1", names=("b.txt", "a.exe")), part("2", "c", "text/plain")),
    ]  # fmt: skip
    bodies = [
        facts(verdict=found, parts=parts, size=size, directions=directions, client=ip_address("192.0.2.7"))
        for found, parts, size, directions in itertools.product(
            verdicts, shapes, (10, 5000), ((Direction.MAIL,), (Direction.MAIL, Direction.UPLOAD), (Direction.UPLOAD,))
        )
    ]
    said = 0
    for pair in itertools.permutations(rules, 2):
        if 2 in dead(*pair):
            said += 1
            policy = Policy(PolicySettings(rules=pair, suspicious="block"))
            assert all(policy.decide(body).rule != "rule 2" for body in bodies[said % 7 :: 7]), pair
    assert said > 100
    assert Action.SANITIZE in {Action(one["action"]) for one in rules}
