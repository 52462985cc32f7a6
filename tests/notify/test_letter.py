"""The mail: what stands in it, for whom, and what no hostile text can make of it."""

from __future__ import annotations

import email
import email.policy
import logging
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.errors import ConfigError
from icapscan.findings import Finding
from icapscan.notify.guard import Marks, marks_of
from icapscan.notify.letter import LIST_MAX, Letters
from icapscan.notify.people import Addressee, is_address
from icapscan.notify.settings import Language, Whom
from tests.notify.made import ADMIN, MAIL, notice, settings

TO_ADMIN = Addressee(ADMIN, "administrator")
TO_SENDER = Addressee("jane@example.org", "sender")
TO_RECIPIENT = Addressee("bob@example.org", "recipient")
FIELDS = {
    "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Icapscan-Notice", "Content-Type",
    "MIME-Version", "Content-Transfer-Encoding",
}  # fmt: skip


def parsed(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def letter(addressee: Addressee = TO_ADMIN, held: int = 0, /, **changes: Any) -> EmailMessage:
    return parsed(Letters(settings(), "helpdesk").letter(notice(**changes), addressee, held))


def text(addressee: Addressee = TO_ADMIN, held: int = 0, /, **changes: Any) -> str:
    return Letters(settings(), "helpdesk").text(notice(**changes), addressee, held)


def own(folder: Path, source: str, **changes: Any) -> Letters:
    file = folder / "own.txt"
    file.write_text(source, "utf-8")
    return Letters(settings(template=str(file), **changes))


def test_the_header_says_that_a_program_wrote_it_and_nobody_is_to_answer() -> None:
    message = letter()
    assert set(message.keys()) == FIELDS
    assert message["From"] == "icapscan <icapscan@example.org>" and message["To"] == ADMIN
    assert message["Subject"] == "[icapscan] A virus was found (0123abcd)"
    assert message["Auto-Submitted"] == "auto-generated" and message["X-Icapscan-Notice"] == "0123abcd"
    assert message["Message-ID"].endswith("@scanner.example.org>") and message["Date"].datetime.year == 2026
    assert message.get_content_type() == "text/plain" and message.get_content_charset() == "utf-8"


def test_our_own_guard_knows_our_own_mails() -> None:
    head = Letters(settings()).letter(MAIL, TO_ADMIN, 0).partition(b"\r\n\r\n")[0]
    assert marks_of(head) == Marks(own=True, automatic=True)


def test_the_administrator_is_told_everything_in_both_languages() -> None:
    said = text()
    for word in (
        "[English] A virus was found", "in a mail.", "blocked and not passed on", "Found: Evil_Rule (yara, 2/bad.exe)",
        "File name: bad.exe", "Subject: Invoice", "From: jane@example.org", "To: bob@example.org, eve@elsewhere.test",
        "Message-ID: <1@example.org>", "Address: /mail", "Client: 10.1.2.3", "User: jane", "Service: mail",
        "Type: message/rfc822", "Bytes: 1234", "Rule: viruses", "Quarantine: 0123456789abcdef", "Reference: 0123abcd",
        "kept in the quarantine", "Scanner: scanner.example.org", "[日本語] ウイルスが見つかりました",
        "検出名: Evil_Rule", "途中で止めた",
    ):  # fmt: skip
        assert word in said, word
    assert letter().get_content().replace("\r\n", "\n") == said


@pytest.mark.parametrize("addressee", [TO_SENDER, TO_RECIPIENT])
def test_people_are_not_told_about_one_another(addressee: Addressee) -> None:
    said = text(addressee)
    for word in ("eve@elsewhere.test", "10.1.2.3", "User:", "Message-ID", "yara", "Rule:", "viruses", "Bytes:"):
        assert word not in said, word
    assert "Found: Evil_Rule" in said and "Reference: 0123abcd" in said and "contact helpdesk" in said
    assert ("a mail that you sent" in said) == (addressee is TO_SENDER)
    assert ("a mail for you" in said) == (addressee is TO_RECIPIENT)
    message = letter(addressee)
    assert message["In-Reply-To"] == message["References"] == "<1@example.org>"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "suspicious"}, ["signs of a harmful program", "有害なプログラムに似た"]),
        ({"verdict": "unscanned", "reason": "encrypted"}, ["could not check", "protected by a password", "パスワード"]),
        (
            {"verdict": "clean", "decision": "allow"},
            ["No virus was found", "passed on", "ウイルスは見つかっていません"],
        ),
        ({"decision": "sanitize"}, ["taken out of it, and the rest was passed on", "取り除き"]),
        ({"decision": "defer"}, ["for the time being", "いまは届けていません"]),
        ({"decision": "error"}, ["could not decide", "判断できませんでした"]),
        ({"decision": ""}, ["could not decide"]),
        ({"quarantine": "failed"}, ["and could not be", "隔離しようとしましたが"]),
        ({"direction": "upload"}, ["in an upload", "アップロード"]),
        ({"direction": "download"}, ["in a download", "ダウンロード"]),
        ({"direction": "odd", "verdict": "odd", "reason": "odd"}, ["could not check"]),
    ],
)
def test_what_happened_and_what_was_done(changes: dict[str, Any], words: list[str]) -> None:
    said = text(**changes)
    assert [word for word in words if word not in said] == []


def test_what_was_not_kept_has_no_number() -> None:
    assert "Quarantine:" not in text(quarantine="failed") and "kept in" not in text(quarantine="")


def test_how_many_were_held_back() -> None:
    said = text(TO_ADMIN, 17)
    assert "17 more for you were held back" in said and "ほかに17件" in said and "held back" not in text()


@pytest.mark.parametrize("languages", [("en",), ("ja",), ("ja", "en")])
def test_the_languages_in_their_order(languages: tuple[Language, ...]) -> None:
    letters = Letters(settings(languages=languages))
    said, subject = letters.text(MAIL, TO_ADMIN, 0), parsed(letters.letter(MAIL, TO_ADMIN, 0))["Subject"]
    places = [said.find({"en": "Found:", "ja": "検出名:"}[one]) for one in languages]
    assert places == sorted(places) and -1 not in places
    assert ("Found:" in said) == ("en" in languages) and ("検出名" in said) == ("ja" in languages)
    assert ("A virus" in subject) == (languages[0] == "en") and ("[" in said) == (len(languages) > 1)


def test_lists_are_cut() -> None:
    many = tuple(Finding("yara", f"N{number}") for number in range(50))
    said = text(findings=many)
    assert f"N{LIST_MAX - 1} (yara), …" in said and f"N{LIST_MAX} " not in said


# Hostile texts

HOSTILE = (
    "a\r\nBcc: victim@example.org",
    "a\r\n\r\n<html>",
    "a\n.\nRCPT TO:<x@y>",
    "\u202egpj.exe",
    "\u2066x\u200b\ufeff\u2028\x85\x00\x1b[31m",
    "=?utf-8?q?=0D=0ABcc:_x@y?=",
    "{{ 7 * 7 }}{% raw %}",
    "{thing}{0}",
    "x" * 100_000,
    "\udcff\ud800",
    "https://evil.test/click",
)


@pytest.mark.parametrize("bad", HOSTILE)
@pytest.mark.parametrize("addressee", [TO_ADMIN, TO_SENDER, TO_RECIPIENT])
def test_hostile_texts_stay_within_their_line(bad: str, addressee: Addressee) -> None:
    check_harmless(bad, addressee)


@given(st.text(max_size=300), st.sampled_from([TO_ADMIN, TO_RECIPIENT]))
def test_any_text_stays_within_its_line(bad: str, addressee: Addressee) -> None:
    check_harmless(bad, addressee)


def check_harmless(bad: str, addressee: Addressee) -> None:
    changed = notice(
        service=bad, direction=bad, client=bad, icap_client=bad, user=bad, url=bad, sender=bad, recipients=(bad, bad),
        subject=bad, message_id=bad, media_type=bad, names=(bad,), verdict=bad, reason=bad,
        findings=(Finding(bad, bad, bad),), decision=bad, rule=bad, rules=(bad,), quarantine=bad, reference=bad,
        detail=bad, host=bad,
    )  # fmt: skip
    data = LETTERS.letter(changed, addressee, 0)
    assert data.isascii() and b"\r" not in data.replace(b"\r\n", b"") and b"\n" not in data.replace(b"\r\n", b"")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    message = parsed(data)
    assert set(message.keys()) <= FIELDS | {"In-Reply-To", "References"} and not message.defects
    assert message["To"] == addressee.address and not message.is_multipart()
    said = message.get_content().replace("\r\n", "\n")
    assert len(said) < 32_768 and "://" not in said
    assert not [char for char in said if not char.isprintable() and char != "\n"]
    lines = said.split("\n")
    assert lines.count("[English] Content that could not be checked") <= 1 and len(lines) < 80
    assert not [line for line in lines if line.startswith(("Bcc:", "RCPT", ".", "<html>"))]


LETTERS = Letters(settings(), "helpdesk")


@given(st.from_regex(r"[!#-'*+/-9=?A-Z^-~.-]{1,70}@[A-Za-z0-9.-]{1,70}", fullmatch=True).filter(is_address))
def test_every_address_that_we_write_to_can_stand_in_the_header(address: str) -> None:
    assert parsed(LETTERS.letter(MAIL, Addressee(address, "recipient"), 0))["To"].addresses[0].addr_spec == address


def test_a_strange_message_id_is_not_answered_to() -> None:
    assert letter(TO_SENDER, message_id="<a b@c>\r\nBcc: x@y")["In-Reply-To"] is None


# Templates of one's own


def test_an_own_template_gets_harmless_names(tmp_path: Path) -> None:
    letters = own(tmp_path, "{{ whom }}: {{ names }} {{ threats }} {{ verdict }} {{ decision }} {{ held }} <{{ url }}>")
    said = letters.text(notice(names=("a\r\nb",)), Addressee(ADMIN, "administrator", str(tmp_path / "own.txt")), 2)
    assert said == "administrator: a  b Evil_Rule (yara, 2/bad.exe) infected block 2 </mail>\n"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / (size | int - 1234) }}",
        "{% if size != '1234' %}x{% endif %}",
        "x{{ 'x' * (size | int) * 100 }}",
    ],
)
def test_an_own_template_that_fails_on_a_notice_gives_the_shipped_text(
    tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    letters = own(tmp_path, source)
    with caplog.at_level(logging.WARNING, "icapscan"):
        said = letters.text(MAIL, Addressee(ADMIN, "administrator", str(tmp_path / "own.txt")), 0)
    assert "[English] A virus was found" in said and "[日本語]" in said
    (record,) = caplog.records
    assert "own.txt" in record.getMessage() and "0123abcd" in record.getMessage()


@pytest.mark.parametrize("source", ["{{ nothing }}", "{% if %}", "", "   \n", "{{ names.x.y }}"])
def test_an_own_template_that_never_works_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=r"own\.txt"):
        own(tmp_path, source)


def test_a_template_that_went_away_after_the_check_is_told_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = str(tmp_path / "gone.txt")
    letters = Letters(settings(template=gone), strict=False)
    assert "gone.txt" in caplog.text
    whoms: tuple[Whom, ...] = ("administrator", "sender", "recipient")
    for whom in whoms:
        assert "A virus was found" in letters.text(MAIL, Addressee("a@b", whom, gone), 0)
