"""The child process that cleans HTML on standard input with nh3. Run by `html.py` only.

Arguments: the charset, then ``forms`` where forms are to go. The cleaned text goes to standard output in the same
charset, what was taken out to standard error, a line each.
"""

from __future__ import annotations

import codecs
import re
import sys
from html.parser import HTMLParser

import nh3

from icapscan.sanitize.documents_child import TOOK
from icapscan.sanitize.html import RAW
from icapscan.unwrap import bounded

DAMAGED = 5
_PRIVATE = 0xE000
"""Bytes from 0x80 on are characters of the private use area while the text is parsed: no parser changes those."""
_TO_PRIVATE = {code: _PRIVATE + code for code in range(0x80, 0x100)}
_FROM_PRIVATE = {_PRIVATE + code: code for code in range(0x80, 0x100)}
_GONE = {"script", "iframe", "object", "embed", "applet", "frameset", "noscript", "template", "svg", "math", "noembed",
         "noframes", "xmp", "plaintext", "title", "portal", "audio", "video"}  # fmt: skip
"""Taken out with all that is in them; other tags that are not on the list go without their content."""
_FORMS = {
    "form",
    "input",
    "button",
    "select",
    "option",
    "optgroup",
    "textarea",
    "fieldset",
    "legend",
    "label",
    "isindex",
}
_TAGS = nh3.ALLOWED_TAGS | {
    "font",
    "style",
    "tfoot",
    "big",
    "dir",
    "marquee",
    "main",
    "section",
    "address",
    "nobr",
    "picture",
}
_GENERIC = {
    "abbr", "align", "alt", "background", "bgcolor", "border", "cellpadding", "cellspacing", "cite", "class", "clear",
    "color", "cols", "colspan", "compact", "coords", "datetime", "dir", "face", "frame", "headers", "height", "hspace",
    "id", "ismap", "lang", "leftmargin", "link", "name", "noshade", "nowrap", "open", "role", "rows", "rowspan",
    "rules", "scope", "shape", "size", "span", "start", "style", "summary", "text", "title", "topmargin", "type",
    "usemap", "valign", "value", "vlink", "vspace", "width", "xml:lang",
}  # fmt: skip
_ATTRIBUTES = {"*": _GENERIC, "a": {"href", "target", "hreflang"}, "area": {"href", "target"}, "img": {"src", "srcset"}}
_FORM_ATTRIBUTES = {"form": {"action", "method"}, "input": {"checked", "disabled", "maxlength"}, "label": {"for"}}
_SCHEMES = {"http", "https", "mailto", "tel", "sms", "ftp", "cid", "mid", "data", "news", "callto", "sip", "xmpp"}
_EVIL = {"javascript", "vbscript", "livescript", "mocha", "jscript", "mhtml", "ms-msdt", "search-ms", "script", "file"}
_NAME = re.compile(r"<([A-Za-z][\w:.-]*)", re.A)
_ATTRIBUTE = re.compile(r"[\s/\"']([A-Za-z][\w:.-]*)\s*=", re.A)
_PICTURE = re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp|x-icon)\s*[;,]", re.I)
_LINKS = {"href", "src", "srcset", "action", "background", "cite"}
_ACTS = re.compile(
    r"(?:javascript|vbscript|livescript|mocha|jscript|data|mhtml|ms-msdt|search-ms|script|file)\s*:", re.I
)
_STYLE_ACTS = re.compile(
    r"expression\s*\(|javascript\s*:|vbscript\s*:|behaviou?r\s*:|-moz-binding|@import|\burl\s*\(\s*[\"']?\s*data\s*:(?!\s*image/)",
    re.I,
)
_STYLE_NOISE = re.compile(r"/\*.*?\*/|\\(?=[^0-9a-fA-F])|[\0-\x1f]", re.S)
_STYLE_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?")
_DECLARED = re.compile(r"<meta[^>]*charset\s*=\s*[\"']?\s*([A-Za-z0-9][\w.:\-]{0,40})", re.I | re.A)
_ASCII = bytes(range(0x20, 0x7F))
_IMPORTANT = {"script": "scripts", "iframe": "frames", "object": "embedded objects", "embed": "embedded objects",
              "applet": "embedded objects", "frame": "frames", "frameset": "frames", "base": "another base for links",
              "svg": "drawings that may hold scripts", "form": "forms", "input": "forms", "button": "forms",
              "link": "a style sheet from elsewhere", "portal": "frames"}  # fmt: skip


class Acting(HTMLParser):
    """What acts in a text that `normal` made, as words; this parser reads other texts in another way than browsers."""

    def __init__(self, text: str, forms: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, None] = {}
        self._forms = forms
        self._style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        what = _IMPORTANT.get(tag)
        if what and (self._forms or what != "forms"):
            self.found[what] = None
        self._style = tag == "style"
        for name, value in attrs:
            value = value or ""
            if name.startswith("on") and len(name) > 4:
                self.found["event handlers"] = None
            elif tag == "meta" and name == "http-equiv" and value.strip().lower() == "refresh":
                self.found["an address that is opened by itself"] = None
            elif name == "style" and style_acts(value):
                self.found["styles that act"] = None
            elif name not in ("content", "value", "alt", "title", "style") and acts(value):
                self.found["links that start something"] = None

    def handle_data(self, data: str) -> None:
        if self._style and style_acts(data):
            self.found["styles that act"] = None
        self._style = False


def acts(value: str) -> bool:
    """Whether an address is a script or holds a document."""
    plain = re.sub(r"[\s\0-\x20]+", "", value[:200])
    return plain.startswith("\\\\") or (_ACTS.match(plain) is not None and _PICTURE.match(plain) is None)


def style_acts(text: str) -> bool:
    """Whether a style has something in it that old programs run, or that is loaded from elsewhere."""
    plain = _STYLE_NOISE.sub("", text)
    plain = _STYLE_ESCAPE.sub(lambda found: chr(min(int(found[1], 16), 0x10FFFF)), plain)
    return _STYLE_ACTS.search(plain) is not None or _STYLE_ACTS.search(text) is not None


def kept(tag: str, name: str, value: str) -> str | None:
    """The value of an attribute, or None where it has to go."""
    if name == "style" and style_acts(value):
        return None
    if name in _LINKS and acts(value):
        return None
    return value


def normal(text: str) -> str:
    """The text as browsers read it, written anew with all tags and attributes that it may have."""
    return nh3.clean(
        text,
        tags={name.lower() for name in _NAME.findall(text)},
        clean_content_tags=set(),
        attributes={"*": {name.lower() for name in _ATTRIBUTE.findall(text)}},
        url_schemes=_SCHEMES | _EVIL,
        link_rel=None,
    )


def cleaned(text: str, forms: bool) -> str:
    """The text without what acts in it, as a whole document."""
    tags, attributes, gone = set(_TAGS), dict(_ATTRIBUTES), set(_GONE)
    if forms:
        gone |= {"select", "textarea", "button"}
    else:
        tags |= _FORMS
        attributes |= _FORM_ATTRIBUTES
    if _style_sheets_act(text):
        tags.discard("style")
        gone.add("style")
    body = nh3.clean(
        text,
        tags=tags,
        clean_content_tags=gone,
        attributes=attributes,
        attribute_filter=kept,
        strip_comments=True,
        link_rel=None,
        url_schemes=_SCHEMES,
    )
    return f"<!DOCTYPE html>\n<html><head>{_meta(text)}</head><body>\n{body}\n</body></html>\n"


def _meta(text: str) -> str:
    """The charset that the text itself declares, where it is one in which ASCII is ASCII."""
    found = _DECLARED.search(text[:4096])
    if found is None:
        return ""
    try:
        if _ASCII.decode(found[1].lower().removeprefix("x-")) != _ASCII.decode():
            return ""
    except (LookupError, UnicodeError):
        return ""
    return f'<meta charset="{found[1]}">'


def _style_sheets_act(text: str) -> bool:
    return any(style_acts(found[1]) for found in re.finditer(r"<style[^>]*>(.*?)(?:</style|$)", text, re.I | re.S))


def decoded(data: bytes, charset: str) -> str:
    """The text; bytes that are kept as they are become private characters."""
    if charset == RAW:
        return data.removeprefix(codecs.BOM_UTF8).decode("latin-1").translate(_TO_PRIVATE)
    return data.decode(charset)


def encoded(text: str, charset: str) -> bytes:
    """Back again; other characters that the charset may not have are written as numbers."""
    if charset != RAW:
        return text.encode(charset, "xmlcharrefreplace")
    pieces = []
    for piece in re.split(r"([\ue080-\ue0ff]+)", text):
        if piece[:1] and _PRIVATE + 0x80 <= ord(piece[0]) <= _PRIVATE + 0xFF:
            pieces.append(piece.translate(_FROM_PRIVATE).encode("latin-1"))
        else:
            pieces.append(piece.encode("ascii", "xmlcharrefreplace"))
    return b"".join(pieces)


def main(charset: str, forms: bool) -> int:
    """Clean standard input."""
    bounded.apply()
    bounded.alive()
    with open(bounded.PART, "rb") as part:
        data = part.read()
    try:
        text = decoded(data, charset)
        before = Acting(normal(text), forms).found
        bounded.alive()
        result = cleaned(text, forms)
        bounded.alive()
        out = encoded(result, charset)
        after = Acting(result, forms).found
        if charset.startswith("iso2022"):  # a program that does not know the charset sees other letters
            after |= Acting(decoded(out, RAW), forms).found
    except Exception as error:  # whatever bad input does to a parser
        sys.stderr.write(f"{type(error).__name__}: {error}")
        return DAMAGED
    if after:
        sys.stderr.write(f"still there: {', '.join(after)}")
        return DAMAGED
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    bounded.put(mark + out)
    sys.stderr.write("".join(f"{TOOK}{what}\n" for what in before))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "forms" in sys.argv[2:]))
