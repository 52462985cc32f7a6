"""HTML of mails: what acts goes, the text and its charset stay."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser

import pytest

from icapscan.sanitize.documents import CleanOptions
from icapscan.sanitize.html import looks_like_html
from tests.sanitize.document_views import cleaned
from tests.sanitize.test_archive import ok


class Elements(HTMLParser):
    """All tags and attributes, as an independent parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


FORBIDDEN = {
    "script", "iframe", "frame", "object", "embed", "applet", "base", "form", "input", "button", "link", "svg", "math",
    "template", "noscript", "portal",
}  # fmt: skip


def harmless(text: str) -> Elements:
    """Nothing of what acts is in it."""
    found = Elements(text)
    assert not FORBIDDEN & set(found.tags), found.tags
    for name, value in found.attributes:
        assert not name.startswith("on") and name not in ("http-equiv", "srcdoc", "formaction"), name
        plain = re.sub(r"[\s\0-\x20]+", "", value).lower()
        assert not plain.startswith(("javascript:", "vbscript:", "data:text", "data:image/svg", "file:", "mhtml:")), (
            value
        )
        assert "expression(" not in plain and "url(javascript" not in plain
    assert "alert" not in text
    return found


def page(inner: str, head: str = "") -> str:
    return f"<html><head>{head}</head><body><p>before</p>{inner}<p>after</p></body></html>"


CASES = {
    "scripts": "<script>alert(1)</script>",
    "scripts of an odd kind": "<SCRIPT/x src=//h/alert.js ></SCRIPT\t>",
    "event handlers": '<p onclick="alert(1)">x</p><img src=x onerror=alert(1)>',
    "handlers with slashes": '<img/src="x"/onerror=alert(1)>',
    "javascript links": '<a href="javascript:alert(1)">x</a>',
    "hidden javascript": '<a href=" java&#x0A;script&colon;alert(1)">x</a>',
    "vbscript": "<a href='VBScript:alert(1)'>x</a>",
    "documents in addresses": '<a href="data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==">x</a>',
    "pictures that are documents": '<img src="data:image/svg+xml,<svg onload=alert(1)>">',
    "frames": '<iframe src="http://h/alert"></iframe><iframe srcdoc="<script>alert(1)</script>">',
    "objects": '<object data="alert.swf"></object><embed src=alert.swf><applet code=alert></applet>',
    "refresh": '<meta http-equiv="Refresh" content="0;url=http://h/alert">',
    "base": '<base href="http://h/alert">',
    "forms": '<form action="http://h/alert"><input name=a><button>x</button></form>',
    "drawings": "<svg><script>alert(1)</script><a xlink:href='javascript:alert(1)'></a></svg>",
    "styles": '<p style="width: expression(alert(1))">x</p><p style="background:url(javascript:alert(1))">x</p>',
    "hidden styles": '<p style="wid/**/th: ex\\pression(alert(1))">x</p>',
    "style sheets": "<style>p { behavior: url(alert.htc) }</style><style>@import 'http://h/alert.css';</style>",
    "comments": "<!--[if mso]><script>alert(1)</script><![endif]--><p onclick=alert(1)>x</p>",
    "unended": "<script>alert(1)",
    "a file": '<a href="file://host/share/alert.exe">x</a><img src="\\\\host\\share\\alert">',
}


@pytest.mark.parametrize("what", CASES)
def test_what_acts_is_gone(what: str) -> None:
    result = ok(cleaned(page(CASES[what]).encode(), "x.html"))
    assert result.what and result.name == ""
    found = harmless(result.data.decode())
    assert "before" in found.text and ("after" in found.text or what in ("unended", "frames"))


MUTATIONS = (
    '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=alert(1)&gt;">',
    '<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">',
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    '<select><template><style><!--</style><a rel="--></style></template></select><img id=x onerror=alert(1)>">',
    "<p title='`--><script>alert(1)</script>`'>x</p>",
)


@pytest.mark.parametrize("text", MUTATIONS)
def test_text_that_is_something_else_when_it_is_read_again(text: str) -> None:
    for more in ("", "<script>alert(1)</script>"):
        result = cleaned(page(f"{more}{text}").encode())
        if result is not None:
            for parsed in (result.data, ok(cleaned(result.data + b"<script>x</script>")).data):
                found = Elements(parsed.decode())
                assert not FORBIDDEN & set(found.tags)
                assert not any(name.startswith("on") for name, _ in found.attributes)


def test_what_is_harmless_stays() -> None:
    inner = (
        '<table width="100%" bgcolor="#fff" cellpadding="3"><tbody><tr><td align="center" style="color: red">x'
        '</td></tr></tbody></table><img src="cid:a@b" alt="x" width="3"><a href="https://example.org/?a=1&amp;b=2">y</a>'
        '<img src="data:image/png;base64,AAAA"><font face="Arial" size="2">z</font><br><ul><li>1</li></ul>'
        "<style>p { color: red }</style>"
    )
    text = ok(cleaned(page(inner + "<script>alert(1)</script>").encode())).data.decode()
    assert inner in text
    assert cleaned(page(inner).encode()) is None, "nothing acts in it, so something else offends"


TEXT = "Zażółć gęślą jaźń"
CHARSETS = {
    "utf-8": TEXT + " 日本語 à\u00a0é 🙂", "iso-8859-2": TEXT, "windows-1252": "Grüße €", "shift_jis": "日本語ソ能表",
    "euc-jp": "日本語", "iso-2022-jp": "日本語の文", "gb18030": "汉字€", "big5": "漢字許功蓋", "koi8-r": "Привет",
    "utf-16": TEXT,
}  # fmt: skip


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("declared", [True, False])
def test_the_charset_is_kept(charset: str, declared: bool) -> None:
    text = CHARSETS[charset]
    head = f'<meta charset="{charset}">' if declared else ""
    inner = f'<p title="{text}">{text}</p><script>alert(1)</script>'
    result = ok(cleaned(page(inner, head).encode(charset)))
    assert f'<p title="{text}">{text}</p>' in result.data.decode(charset)
    found = harmless(result.data.decode(charset))
    assert text in found.text and ("title", text) in found.attributes
    assert (("charset", charset) in found.attributes) is (declared and charset != "utf-16")


def test_characters_that_the_charset_does_not_have_become_numbers() -> None:
    data = page("<p>&eacute;&#x65E5;&nbsp;\xe9</p><script>alert(1)</script>").encode("latin-1")
    assert b"<p>&#233;&#26085;&nbsp;\xe9</p>" in ok(cleaned(data)).data


def test_a_mark_is_kept() -> None:
    assert ok(cleaned(page("<script>alert(1)</script>").encode("utf-8-sig"))).data.startswith(b"\xef\xbb\xbf<!DOCTYPE")


@pytest.mark.parametrize(
    "data",
    [
        page("+ADw-script+AD4-alert(1)+ADw-/script+AD4-<script>x</script>").encode(),
        page("+ADwAcwBjAHIAaQBwAHQAPgBhAGwAZQByAHQAKAAxACk").encode() + b"<script>x</script>",
        page("~{<:Ky~}<script>x</script>").encode(),
        page("<script>x</script>\x1b$)C\x0e").encode(),
        page("<script>x</script>\0").encode(),
        page("<script>x</script>한국어").encode("iso2022_kr"),
        b"\xff\xfe\0\0" + page("<script>x</script>").encode("utf-32-le"),
    ],
)
def test_charsets_that_hide_tags_are_not_cleaned(data: bytes) -> None:
    assert cleaned(data) is None


def test_japanese_that_reads_as_a_script_in_ascii() -> None:
    """Two letters a character: what shows a text in one charset is a script in another."""
    evil = b'"><script>alert(1)</script><a ">'
    assert not len(evil) % 2
    raw = page("<p title='X'>x</p><script>y</script>").encode().replace(b"X", b"\x1b$B" + evil + b"\x1b(B")
    result = cleaned(raw)
    assert result is None or b"<script" not in result.data.lower()


def test_options() -> None:
    form = page('<form action="https://example.org/"><input name="a"></form>').encode()
    assert ok(cleaned(form)).what == ("forms",)
    assert cleaned(form, options=CleanOptions(html_forms=False)) is None
    both = page('<form action="https://example.org/"><input name="a"></form><script>alert(1)</script>').encode()
    kept = ok(cleaned(both, options=CleanOptions(html_forms=False)))
    assert b'<form action="https://example.org/">' in kept.data and kept.what == ("scripts",)
    assert cleaned(both, options=CleanOptions(html=False)) is None, "a page of the web"


def test_what_is_html() -> None:
    for text in (
        "<!DOCTYPE html><p>x",
        " \r\n<HTML>",
        "<p>x</p>",
        "text <body>x",
        "\ufeff<div>x",
        "<?xml version='1.0'?><html>",
    ):
        assert looks_like_html(text.encode()), text
        assert looks_like_html(text.lstrip("\ufeff").encode("utf-16")), text
    for text in ("plain", "a <b>bold</b> text", "<?xml version='1.0'?><a/>", "<svg><script/></svg>", "<x>", ""):
        assert not looks_like_html(text.encode()), text


def test_floods_end() -> None:
    """A parser of HTML can be made to take a very long time; then the part is replaced."""
    for flood in ("<a><b><i><u>" * 60_000, "<p " + "x=" * 400_000, "<" * 2_000_000):
        result = cleaned(page(flood + "<script>alert(1)</script>").encode())
        assert result is None or b"<script" not in result.data


def test_noise_never_lets_anything_pass() -> None:
    chance = random.Random(6)
    pieces = [
        *CASES.values(),
        "<",
        ">",
        '"',
        "'",
        "&lt;",
        "<!--",
        "-->",
        "<style>",
        "</style>",
        "<table>",
        "<td>",
        "\\",
        "]]>",
        "<![CDATA[",
    ]
    for _ in range(40):
        text = "".join(chance.choice(pieces) for _ in range(12))
        cut = chance.randrange(len(text))
        result = cleaned(page(text[:cut] + chance.choice("<>\"'/ =`") + text[cut:]).encode())
        if result is not None:
            found = Elements(result.data.decode())
            assert not FORBIDDEN & set(found.tags)
            assert not any(name.startswith("on") for name, _ in found.attributes)
