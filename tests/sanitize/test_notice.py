"""The notice: both languages, nothing untrusted as it is, one's own template and what happens when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.errors import ConfigError
from icapscan.sanitize.contract import Reference
from icapscan.sanitize.notice import NOTICE_MAX, SHIPPED, THREATS_MAX, Notice, Notices
from icapscan.templates import NAME_MAX, shown

FULL = Reference("T-1", "Q-9", "2026-11-24", "mx.example.org", "help@example.org")
EICAR = Notice("bad.exe", ("Eicar", "Other", "Eicar"))


def test_both_languages_say_everything() -> None:
    english, _, japanese = SHIPPED.text(EICAR, FULL).partition("-" * 64)
    for text in (english, japanese):
        for said in ("bad.exe", "Eicar", "Other", "Q-9", "T-1", "2026-11-24", "mx.example.org", "help@example.org"):
            assert text.count(said) == 1, said
    assert english.startswith("[English] A part of this message") and "削除しました" in japanese


def test_what_is_not_known_is_left_out() -> None:
    text = SHIPPED.text(Notice("", ()), Reference("T-1"))
    assert "(no name)" in text and "(名前なし)" in text and "your administrator" in text and "管理者" in text
    for label in ("Found:", "Quarantine:", "Date:", "Scanner:", "検出名", "隔離", "日時", "検査サーバー:"):
        assert label not in text, label
    assert not any(line != line.rstrip() for line in text.splitlines()) and "\n\n\n" not in text


def test_the_text_tells_what_is_gone_and_what_is_broken() -> None:
    whole = SHIPPED.text(Notice("", (), one=False, signed=True), Reference("T-1"))
    assert "The content of this message" in whole and "A part of" not in whole
    assert "no longer valid" in whole and "電子署名" in whole
    assert "no longer valid" not in SHIPPED.text(EICAR, FULL)


def test_many_findings_are_cut() -> None:
    text = SHIPPED.text(Notice("x", tuple(f"Threat-{number}" for number in range(99))), FULL)
    assert text.count("Found:") == THREATS_MAX + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("report.docx", "report.docx"),
        ("見積書(最終版).xlsx", "見積書(最終版).xlsx"),
        ("a\r\nb\tc", "a  b c"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\0b\x1b[0m\x85", "a\\x00b\\x1b[0m\\x85"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\ud800", "\\ud800"),
        ("全角\u3000空白", "全角 空白"),
        ("http://evil.test/", "http[:]//evil.test/"),
        ("  x  ", "x"),
    ],
)
def test_untrusted_text_is_shown_harmless(text: str, said: str) -> None:
    assert shown(text) == said


@given(st.text(max_size=1000))
def test_any_text_is_one_printable_line(text: str) -> None:
    said = shown(text)
    assert said.isprintable() and len(said) <= 10 * NAME_MAX and "://" not in said
    assert shown("x" * 500 + ".exe").endswith("x.exe") and len(shown("x" * 500)) == NAME_MAX


@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=3), st.text(max_size=200))
def test_no_notice_has_anything_unprintable(name: str, threats: list[str], other: str) -> None:
    text = SHIPPED.text(Notice(name, tuple(threats)), Reference(other, other, other, other, other))
    assert text.endswith("\n") and all(line.isprintable() for line in text.split("\n"))


def template(folder: Path, text: str) -> str:
    file = folder / "notice.txt"
    file.write_text(text, "utf-8")
    return str(file)


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    own = template(tmp_path, "Gone: {{ name }} ({{ threats | join(', ') }}) {{ '<b>' }}\r\n\r\n")
    assert Notices(own).text(EICAR, FULL) == "Gone: bad.exe (Eicar, Other) <b>\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% if %}", "line 1"),
        ("{{ nobody }}", "cannot be rendered"),
        ("{{ 1 // 0 }}", "cannot be rendered"),
        ("  \n", "empty"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_of_at_once(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Notices(template(tmp_path, text))


def test_a_template_that_cannot_be_read_is_told_of_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Notices(str(tmp_path / "missing.txt"))
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        Notices(str(tmp_path / "latin"))


@pytest.mark.parametrize(
    "text",
    [
        "{% if name == 'bad.exe' %}{{ 1 // 0 }}{% endif %}x",
        "{% if name != 'bad.exe' %}x{% endif %}",
        "x{% if name == 'bad.exe' %}{{ 'y' * " + str(NOTICE_MAX) + " }}{% endif %}",
    ],
)
def test_a_template_that_fails_later_falls_back_to_the_shipped_one(tmp_path: Path, text: str) -> None:
    own = Notices(template(tmp_path, text))
    assert own.text(EICAR, FULL) == SHIPPED.text(EICAR, FULL)
