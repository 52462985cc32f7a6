"""The block page: language, texts, escaping, templates of one's own."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan import templates
from icapscan.errors import ConfigError
from icapscan.findings import Finding, Level, Reason, Unscanned, summarize
from icapscan.policy.decide import decide
from icapscan.policy.page import BlockPage, PageFacts, facts_of, language_of
from icapscan.policy.page_texts import LANGUAGES, Kind
from icapscan.policy.settings import PolicySettings

FACTS = PageFacts(Kind.INFECTED, "3f9ac1de", "Eicar-Test", None, b"http://example.com/a.zip")
EVERY = [(Kind.INFECTED, None), (Kind.SUSPICIOUS, None), *((Kind.UNSCANNED, reason) for reason in Reason)]
EVIL = "\"'><script>alert(1)</script><img src=x onerror=y>&amp;\x00\x1b\u202e\ue000threat\ue000{{7*7}}{% raw %}"


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")
        if tag not in ("meta", "path"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "path":
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(facts: PageFacts, language: bytes = b"", contact: str = "") -> str:
    return BlockPage(contact=contact).render(language, facts).html.decode("utf-8")


# Language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (b"", "en"),
        (b"ja", "ja"),
        (b"ja-JP", "ja"),
        (b"JA-jp;q=0.9", "ja"),
        (b"ja,en-US;q=0.9,en;q=0.8", "ja"),
        (b"en-US,en;q=0.9,ja;q=0.8", "en"),
        (b"en;q=0.3, ja ; q=0.7", "ja"),
        (b"en,ja", "en"),
        (b"ja,en", "ja"),
        (b"ja;q=0", "en"),
        (b"ja;q=0,en;q=0", "en"),
        (b"*", "en"),
        (b"*;q=0.5, ja;q=0.6", "ja"),
        (b"de,fr;q=0.9", "en"),
        (b"fr, ja;q=0.5, en;q=0.2", "ja"),
        (b"jav", "en"),
        (b"ja;q=abc", "en"),
        (b"ja;q=1.0001", "en"),
        (b",,;;, ja ,", "ja"),
        (b"\xff\xfe,ja", "ja"),
    ],
)
def test_language_is_chosen_by_weight(header: bytes, language: str) -> None:
    assert language_of(header) == language
    rendered = BlockPage().render(header, FACTS)
    assert rendered.language == language.encode()
    assert f'<html lang="{language}">'.encode() in rendered.html


@given(st.binary(max_size=200))
def test_no_header_breaks_the_choice(header: bytes) -> None:
    assert language_of(header) in ("en", "ja")


def test_a_huge_header_is_cut() -> None:
    assert BlockPage().render(b"x," * 100_000 + b"ja", FACTS).language == b"en"


# Texts


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize(("kind", "reason"), EVERY, ids=lambda value: getattr(value, "value", "-"))
def test_every_page_says_what_happened_in_both_languages(language: str, kind: Kind, reason: Reason | None) -> None:
    texts = LANGUAGES[language]
    facts = PageFacts(kind, "3f9ac1de", "Some.Name", reason, b"http://example.com/")
    html = page(facts, language.encode(), contact="help@example.com")
    said = texts.unscanned[reason] if reason else texts.infected if kind is Kind.INFECTED else texts.suspicious
    text = Reader(html).text
    for sentence in (said.heading, said.what, said.todo, texts.footer, "3f9ac1de", "Some.Name", "http://example.com/"):
        assert sentence in text
    assert "help@example.com" in text and "{contact}" not in text
    assert (reason.value in text) if reason else True


def test_both_languages_have_the_same_texts() -> None:
    for texts in LANGUAGES.values():
        assert set(texts.unscanned) == set(Reason)
        assert set(texts.labels) == {"threat", "reason", "address", "reference"}
        assert "{contact}" in texts.mistake
    english, japanese = LANGUAGES["en"], LANGUAGES["ja"]
    assert all(english.unscanned[reason].what.isascii() for reason in Reason)
    assert all(not japanese.unscanned[reason].what.isascii() for reason in Reason)
    headings = [said.heading for texts in LANGUAGES.values() for said in texts.unscanned.values()]
    assert len(set(headings)) == len(headings)


def test_without_a_contact_the_administrator_is_named() -> None:
    assert "your network administrator" in page(FACTS)


def test_what_is_not_known_is_left_out() -> None:
    text = Reader(page(PageFacts(Kind.INFECTED, ""))).text
    assert "Threat" not in text and "Address" not in text and "Reason" not in text
    assert "Reference number-" in text


# Safety


@pytest.mark.parametrize("language", [b"en", b"ja"])
def test_nothing_untrusted_becomes_markup(language: bytes) -> None:
    evil = PageFacts(Kind.INFECTED, EVIL, EVIL, None, EVIL.encode("utf-8") + b"\xff\xfe")
    html = page(evil, language, contact=EVIL)
    plain = page(FACTS, language)
    assert Reader(html).tags == Reader(plain).tags
    assert set(Reader(html).attributes) == set(Reader(plain).attributes)
    assert "<script>alert(1)</script>" in Reader(html).text
    assert "{{7*7}}" in Reader(html).text
    assert not any(char in html for char in "\x00\x1b\u202e\ue000")


@given(st.text(max_size=200), st.binary(max_size=400))
def test_any_threat_and_address_make_the_same_markup(threat: str, url: bytes) -> None:
    facts = PageFacts(Kind.INFECTED, "1", f"x{threat}", None, b"x" + url)
    assert Reader(page(facts)).tags == Reader(page(FACTS)).tags


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing() -> None:
    reader = Reader(page(FACTS))
    assert not {"script", "link", "img", "iframe", "a", "form", "object"} & set(reader.tags)
    assert not {"src", "href", "onclick", "onload", "style"} & set(reader.attributes)
    html = page(FACTS)
    assert "url(" not in html and "@import" not in html


def test_long_values_are_shortened() -> None:
    facts = PageFacts(Kind.INFECTED, "1", "t" * 10_000, None, b"http://example.com/" + b"u" * 100_000)
    assert len(page(facts)) < len(page(FACTS)) + 1000
    assert "…" in page(facts)


def test_the_fast_path_gives_what_the_template_gives() -> None:
    shipped = Path(__file__).parents[2] / "icapscan" / "policy" / "templates" / "block.html"
    fast, slow = BlockPage(contact="a&b"), BlockPage(str(shipped), "a&b")
    for kind, reason in EVERY:
        for threat in ("", "a<b", "c&d"):
            for url in (b"", b"http://x/?a&b", "http://x/日本".encode()):
                facts = PageFacts(kind, "12", threat, reason, url)
                for language in (b"ja", b"en"):
                    assert fast.render(language, facts) == slow.render(language, facts) == fast.render(language, facts)


# Templates of one's own


def own(tmp_path: Path, text: str) -> str:
    file = tmp_path / "own.html"
    file.write_text(text, "utf-8")
    return str(file)


def test_a_template_of_ones_own_is_escaped_too(tmp_path: Path) -> None:
    block_page = BlockPage(own(tmp_path, "<p lang={{ language }}>{{ threat }} {{ url }} {{ contact }}</p>"), "me@x")
    html = block_page.render(b"ja", PageFacts(Kind.INFECTED, "1", "<b>", None, b"http://x/?<i>")).html.decode()
    assert html == "<p lang=ja>&lt;b&gt; http://x/?&lt;i&gt; me@x</p>"


def test_a_template_that_is_missing_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.html cannot be read: No such file"):
        BlockPage(str(tmp_path / "nothing.html"))


def test_a_template_with_a_mistake_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"own\.html, line 2:"):
        BlockPage(own(tmp_path, "<p>\n{% if %}\n</p>"))


@pytest.mark.parametrize("text", ["{{ nothing }}", "{{ 1/0 }}", "{{ threat.x.y }}", "  \n ", "{{ '' }}"])
def test_a_template_that_cannot_make_every_page_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"own\.html"):
        BlockPage(own(tmp_path, text))


def test_a_template_in_another_charset_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.html"
    file.write_bytes("日本".encode("shift_jis"))
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        BlockPage(str(file))


def test_a_template_that_fails_only_later_still_gives_a_page_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for text, why in (
        ("{{ 1 / (threat|length - 1) }}", "ZeroDivisionError"),
        ("{% if threat|length != 1 %}x{% endif %}", "It makes nothing."),
    ):
        templates._told.clear()
        caplog.clear()
        file = own(tmp_path, text)
        page = BlockPage(file)
        for _ in range(3):
            html = page.render(b"", PageFacts(Kind.INFECTED, "77", "T")).html
            assert b"A virus was found" in html and b"77" in html
        (line,) = caplog.messages
        assert file in line and why in line


# Facts


def test_facts_of_an_infected_body() -> None:
    verdict = summarize([Finding("yara", "Low", level=Level.SUSPICIOUS), Finding("clamd", "High")])
    facts = facts_of(decide(verdict, PolicySettings()), verdict, b"http://x/", "9")
    assert facts == PageFacts(Kind.INFECTED, "9", "High", None, b"http://x/")


@pytest.mark.parametrize("reason", [Reason.OVER_LIMIT, Reason.ENCRYPTED, Reason.MALFORMED, Reason.UNSUPPORTED])
def test_facts_of_an_unscanned_body(reason: Reason) -> None:
    verdict = summarize((), [Unscanned(reason)])
    facts = facts_of(decide(verdict, PolicySettings()), verdict, b"", "9")
    assert (facts.kind, facts.reason, facts.threat) == (Kind.UNSCANNED, reason, "")


def test_facts_of_a_suspicious_body() -> None:
    verdict = summarize([Finding("yara", "Odd", level=Level.SUSPICIOUS)])
    facts = facts_of(decide(verdict, PolicySettings(suspicious="block")), verdict, b"", "9")
    assert (facts.kind, facts.threat) == (Kind.SUSPICIOUS, "Odd")
