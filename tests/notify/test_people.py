"""Who is told, and above all who is not."""

from __future__ import annotations

from typing import Any

import pytest

from icapscan.notify.guard import Marks
from icapscan.notify.people import TOLD_MAX, Addressee, People, is_address, is_domain, plan_of
from icapscan.notify.settings import RuleNotifySettings
from tests.notify.made import ADMIN, notice, settings

ALL = ("administrator", "sender", "recipient")


def told(given: dict[str, Any] | None = None, /, **changes: Any) -> list[str]:
    found, _ = People(settings(to=ALL, **(given or {}))).told(notice(**changes))
    return [f"{one.whom}:{one.address}" for one in found]


def test_a_mail_within_our_own_tells_everybody_of_ours() -> None:
    assert told() == [f"administrator:{ADMIN}", "sender:jane@example.org", "recipient:bob@example.org"]


@pytest.mark.parametrize(
    "changes",
    [
        {"client": "198.51.100.1"},  # from outside: whatever the sender says, it may be forged
        {"client": ""},
        {"client": "not an address"},
        {"sender": "jane@elsewhere.test"},
        {"sender": "jane@notexample.org"},
        {"sender": "jane@sub.example.org"},
        {"sender": "mailer-daemon@example.org"},
        {"sender": "Postmaster@example.org"},
        {"sender": "list-bounces@example.org"},
        {"sender": "a\r\nRCPT TO:<x@y>@example.org"},
        {"sender": "<jane@example.org>"},
        {"marks": Marks(bulk=True)},
    ],
)
def test_the_sender_is_told_only_where_it_is_no_backscatter(changes: dict[str, Any]) -> None:
    found = told(**changes)
    assert found[0] == f"administrator:{ADMIN}" and "recipient:bob@example.org" in found
    assert not [one for one in found if one.startswith("sender:")]


@pytest.mark.parametrize(
    "changes",
    [
        {"sender": ""},  # the null reverse-path: a bounce
        {"sender": None},
        {"marks": None},
        {"marks": Marks(own=True)},
        {"marks": Marks(automatic=True)},
        {"direction": "upload"},
    ],
)
def test_the_guard_against_loops_leaves_the_administrators(changes: dict[str, Any]) -> None:
    assert told(**changes) == [f"administrator:{ADMIN}"]


def test_our_own_notice_to_administrators_makes_no_other_one() -> None:
    own = {"marks": Marks(own=True), "sender": ""}
    assert told(**own, recipients=("Admin@example.org",)) == []
    assert told(**own, recipients=(), verdict="clean", decision="allow") == []
    # whoever sends a virus may write our field: it hides nothing that is for anybody else
    assert told(**own, recipients=()) == [f"administrator:{ADMIN}"]
    assert told(**own, recipients=("admin@example.org", "bob@example.org")) == [f"administrator:{ADMIN}"]


def test_domains_with_all_below_and_mapped_addresses() -> None:
    wide = {"own_domains": (".Example.ORG",), "own_networks": ("10.0.0.0/8", "2001:db8::/32")}
    assert "sender:jane@a.b.example.org" in told(wide, sender="jane@a.b.example.org")
    assert "sender:jane@example.org" in told(wide, client="::ffff:10.9.9.9")
    assert "sender:jane@example.org" in told(wide, client="2001:db8::1")
    assert "sender:jane@badexample.org" not in told(wide, sender="jane@badexample.org")


def test_each_address_once_with_the_template_of_the_first_rule_that_wants_it_told() -> None:
    given = settings(
        template="general",
        rules={
            "first": RuleNotifySettings(to=("recipient",), template="own"),
            "second": RuleNotifySettings(
                to=("administrator", "recipient"), administrators=("BOB@example.org", "x@y.z")
            ),
        },
    )
    found, more = People(given).told(notice(rules=("first", "second")))
    assert found == [
        Addressee("BOB@example.org", "administrator", "general"),
        Addressee("x@y.z", "administrator", "general"),
    ]
    assert more == 0
    found, _ = People(given).told(notice(rules=("first",)))
    assert found == [Addressee("bob@example.org", "recipient", "own")]


def test_what_holds_for_a_rule() -> None:
    given = settings(webhook="http://x/", rules={"a": RuleNotifySettings(to=(), webhook=False)})
    assert not plan_of(given, "a").mails and not plan_of(given, "a").webhook
    assert plan_of(given, "b").mails and plan_of(given, "b").webhook
    assert not plan_of(settings(administrators=()), "b").mails


def test_a_mail_to_a_thousand_tells_some_and_says_how_many_more() -> None:
    many = tuple(f"u{number}@example.org" for number in range(TOLD_MAX + 30))
    found, more = People(settings(to=ALL)).told(notice(recipients=many))
    assert len(found) == TOLD_MAX and more == 32 and found[0].address == ADMIN


@pytest.mark.parametrize("text", ["a@b", "a.b+c@x-y.example.org", "o'neil@example.org", "A@1.2.3.4"])
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b c", "<a@b>", "a@b\r\n", "a@b\n", '"a"@b', "é@b", "a@é", "a@-b", "a@b-",
     "a@b..c", "a@.b", "a,c@b", "a;c@b", "a:c@b", "a\0@b", "a@[1.2.3.4]", ".a@b",
     "a.@b", "a..b@c", "a" * 65 + "@b", "a@" + "b" * 64,
     "a@" + "b." * 130 + "c", "\u202ea@b"],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    assert not is_address(text)


def test_domains() -> None:
    assert is_domain("example.org") and is_domain(".example.org") and not is_domain("a@b") and not is_domain("*.b")
