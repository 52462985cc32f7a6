"""Rules as an administrator writes them, and every way to write them wrong."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.policy.conditions import RuleMistake, condition_names
from icapscan.policy.decision import ACTING, Action
from icapscan.policy.facts import Direction
from icapscan.policy.rules import needs_of, read_rules
from tests.policy.made import mistake, rule

EXAMPLE: dict[str, Any] = {
    "name": "no programs by mail",
    "when": {
        "service": ["avscan"], "direction": "mail", "media-type": ["application/x-dosexec"],
        "file-name": ["*.exe", "*.scr"], "client": ["192.0.2.0/24"], "verdict": "suspicious", "tag": ["macro"],
        "size": "> 10 MB", "parts": "<= 100", "reason": ["encrypted", "over-limit"],
    },
    "unless": {"user": "admin*", "file-name": "setup.exe"},
    "action": "block",
}  # fmt: skip


def test_a_rule_with_everything_in_it() -> None:
    (one,) = read_rules([EXAMPLE])
    assert (one.index, one.name, one.action, one.monitor, one.tag) == (
        0, "no programs by mail", Action.BLOCK, False, ""
    )  # fmt: skip
    when = one.when
    assert when.direction == frozenset({Direction.MAIL})
    assert when.client == (ip_network("192.0.2.0/24"),)
    assert when.reason == frozenset({Reason.ENCRYPTED, Reason.OVER_LIMIT})
    assert when.size is not None and (when.size[0].low, when.size[0].high) == (10_000_001, None)
    assert when.parts is not None and (when.parts[0].low, when.parts[0].high) == (0, 100)
    assert when.on_parts and when.on_findings and when.on_content
    assert one.unless is not None and one.unless.on_parts


def test_a_rule_without_a_name_has_its_number_and_without_conditions_holds_always() -> None:
    one = read_rules([{"action": "block"}])[0]
    assert one.name == "rule 1" and one.when.asked() == ()


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("allow", "allow"),
        ("defer", "defer"),
        (["block", "quarantine", "notify"], "block+quarantine+notify"),
        (["sanitize", "tag"], "sanitize+tag"),
        ("tag", "tag"),
        (["notify"], "notify"),
        ("monitor", "monitor"),
        (["block", "monitor"], "block"),
    ],
)
def test_actions(action: object, words: str) -> None:
    one = rule({}, action)
    assert one.words == words
    assert one.monitor == ("monitor" in action if isinstance(action, list) else action == "monitor")


def test_a_tag_has_its_text_or_the_name_of_the_rule() -> None:
    assert rule({}, "tag", name="news").tag == "news"
    assert rule({}, "allow", tag="checked by hand").tag == "checked by hand"


@pytest.mark.parametrize(
    ("table", "path", "words"),
    [
        ("block all", "0", "expected a table"),
        ({"when": {}}, "0.action", "expected one or several of allow, block, defer"),
        ({"action": "delete"}, "0.action", "got 'delete'"),
        ({"action": []}, "0.action", "expected one or several"),
        ({"action": ["block", "allow"]}, "0.action", "only one of allow, block, sanitize, defer"),
        ({"action": 5}, "0.action", "got 5"),
        ({"action": "quarantine"}, "0.action", '["block", "quarantine"]'),
        ({"action": ["quarantine", "notify"]}, "0.action", "what is to become of the body"),
        ({"action": "block", "if": {}}, "0.if", "the keys of a rule are name, when"),
        ({"action": "block", "file-name": "*.exe"}, "0.file-name", "conditions stand in when = { file-name"),
        ({"action": "block", "monitor": "yes"}, "0.monitor", "expected true or false"),
        ({"action": "block", "name": ""}, "0.name", "expected a text of at most 100"),
        ({"action": "block", "name": "a\nb"}, "0.name", "expected a text"),
        ({"action": "block", "name": "x" * 101}, "0.name", "expected a text"),
        ({"action": "allow", "tag": 5}, "0.tag", "expected a text of at most 60"),
        ({"action": "block", "when": "mail"}, "0.when", 'expected a table of conditions, got "mail"'),
        ({"action": "block", "when": {"filename": "x"}}, "0.when.filename", "did you mean file-name?"),
        ({"action": "block", "when": {"colour": "x"}}, "0.when.colour", "the conditions are service, icap-method"),
        ({"action": "block", "unless": {"client": "here"}}, "0.unless.client", 'a network (no bits set'),
        ({"action": "block", "when": {"client": "192.0.2.1/24"}}, "0.when.client", "no bits set behind the prefix"),
        ({"action": "block", "when": {"direction": "out"}}, "0.when.direction", "upload, download, web, mail"),
        ({"action": "block", "when": {"verdict": "bad"}}, "0.when.verdict", "clean, unscanned, suspicious, infected"),
        ({"action": "block", "when": {"reason": "big"}}, "0.when.reason", "over-limit, encrypted, malformed"),
        ({"action": "block", "when": {"kind": "exe"}}, "0.when.kind", "program, script, shortcut"),
        ({"action": "block", "when": {"media-type": "exe"}}, "0.when.media-type", 'got "exe"'),
        ({"action": "block", "when": {"media-type": "a/b; c"}}, "0.when.media-type", "a media type"),
        ({"action": "block", "when": {"size": "big"}}, "0.when.size", '"1 MB .. 10 MB", got "big"'),
        ({"action": "block", "when": {"size": "> 1 XB"}}, "0.when.size", "a size such as"),
        ({"action": "block", "when": {"size": True}}, "0.when.size", "a size such as"),
        ({"action": "block", "when": {"size": "> 1.5 B"}}, "0.when.size", "a size such as"),
        ({"action": "block", "when": {"parts": "> 1 MB"}}, "0.when.parts", "a number of parts"),
        ({"action": "block", "when": {"file-name": []}}, "0.when.file-name", "a text or a list of texts"),
        ({"action": "block", "when": {"file-name": ["*.exe", ""]}}, "0.when.file-name", "a text or a list"),
        ({"action": "block", "when": {"file-name": 5}}, "0.when.file-name", "got 5"),
        ({"action": "block", "when": {"icap-method": "GET"}}, "0.when.icap-method", '"REQMOD" or "RESPMOD"'),
        ({"action": "block", "when": {"host": "http://x/"}}, "0.when.host", "a host such as"),
        ({"action": "block", "when": {"size": "> 1 MB"}, "unless": {"kind": "pdf"}}, "0.unless", 'in "when" too'),
    ],
)  # fmt: skip
def test_every_mistake_names_its_key_and_what_was_expected(table: Any, path: str, words: str) -> None:
    found = mistake(table)
    assert ".".join(found.path) == path
    assert words in str(found)


def test_a_name_that_was_given_twice_and_the_place_of_a_later_rule() -> None:
    found = mistake({"name": "a", "action": "block"}, {"name": "a", "action": "allow"})
    assert found.path == ("1", "name") and 'rule 1 is "a"' in str(found)
    assert mistake({"action": "block"}, {"action": "block"}, {"action": "x"}).path == ("2", "action")


VALUES = st.one_of(
    st.text(max_size=20),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(),
    st.lists(st.text(max_size=20), max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


@given(st.dictionaries(st.sampled_from(condition_names()), VALUES, max_size=4))
def test_no_value_makes_anything_but_a_rule_or_a_mistake(table: dict[str, object]) -> None:
    try:
        read_rules([{"when": table, "action": "block"}])
    except RuleMistake as found:
        assert str(found)


@pytest.mark.parametrize(
    ("table", "parts", "types"),
    [
        ({"client": "192.0.2.1"}, False, False),
        ({"verdict": "infected", "threat": "*"}, False, False),
        ({"parts": "> 5"}, True, False),
        ({"file-name": "*.exe"}, True, False),
        ({"media-type": "application/pdf"}, True, True),
        ({"kind": "program"}, True, True),
    ],
)
def test_what_nobody_asks_for_is_not_gathered(table: dict[str, object], parts: bool, types: bool) -> None:
    needs = needs_of([rule(table)])
    assert (needs.parts, needs.types) == (parts, types)
    needs = needs_of([rule({"part": "*"}, unless=table)])
    assert (needs.parts, needs.types) == (True, types)


def test_every_word_for_an_action_is_known_to_act_or_not() -> None:
    assert set(ACTING) == {"allow", "block", "sanitize", "quarantine", "tag", "notify", "defer", "monitor"}
    assert {one.value for one in Action} - {"error"} <= set(ACTING)
