"""The page with a bar: whole HTML in the end, nothing untrusted in it unescaped, and no script."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.policy.page import PageFacts
from icapscan.policy.page_texts import Kind
from icapscan.policy.progress_page import ProgressPage

VOID = {"meta", "br", "input"}


class Reader(HTMLParser):
    """Tags that are open, attributes of links, and the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.events: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.events += [name for name, _ in attrs if name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read(page: bytes) -> Reader:
    reader = Reader()
    reader.feed(page.decode())
    reader.close()
    assert reader.open == []
    assert "script" not in reader.tags and reader.events == []
    return reader


@given(name=st.text(max_size=300), url=st.binary(max_size=400), threat=st.text(max_size=200))
@pytest.mark.parametrize("language", [b"en", b"ja"])
def test_nothing_untrusted_becomes_markup(language: bytes, name: str, url: bytes, threat: str) -> None:
    page = ProgressPage(language)
    first = page.begin(name, url) + page.step(5, None, complete=False) + page.step(7, 7, complete=True)
    facts = PageFacts(Kind.INFECTED, "reference", threat, None, url)
    assert read(first + page.stopped(facts)).links == []
    page = ProgressPage(language)
    place = url + b"?icapscan-download=0"
    (link,) = read(page.begin(name, url) + page.done(place)).links
    assert re.fullmatch(r"[!-~]*", link) and '"' not in link and "<" not in link


def test_steps_say_how_far_it_is() -> None:
    page = ProgressPage(b"")
    page.begin("report.zip", b"http://www.example.org/report.zip")
    step = page.step(1_500_000, 6_000_000, complete=False)
    assert b"#bar{width:25.0%}" in step and b"1.5 MB of 6.0 MB have arrived" in step
    assert b"width:100.0%" in page.step(900, 10, complete=False), "more than was announced"
    assert b"999 bytes have arrived" in page.step(999, None, complete=False)
    assert b"1.0 KB have arrived" in page.step(1000, 0, complete=False)
    last = page.step(6_000_000, 6_000_000, complete=True)
    assert b"being checked for viruses" in last and b".s4{display:none}" in last and b'class="step s5"' in last


def test_a_reader_of_japanese_gets_japanese() -> None:
    page = ProgressPage(b"ja,en;q=0.5")
    assert page.language == b"ja"
    text = read(page.begin("a", b"b") + page.step(1, 2, complete=False) + page.done(b"/x")).text
    assert "ダウンロードを検査しています" in text and "ファイルを保存" in text and "virus" not in text
