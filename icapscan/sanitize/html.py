"""HTML parts of mails: scripts, event handlers and what loads or hides programs is taken out; the charset is kept.

nh3 (ammonia) reads the text as browsers do and writes anew what is on a list of harmless tags and attributes. What it
reads depends on how a mail program decodes the bytes, which the part alone does not say. In nearly all charsets the
bytes below 0x80 that make a tag are ASCII wherever they stand; such a text is read with its other bytes as they are.
The charsets in which that does not hold are decoded, or refused.

It takes quadratic time on bad input and so runs in a child process with bounds.
"""

from __future__ import annotations

import codecs
import re

from icapscan.limits import MIB
from icapscan.sanitize.contract import CannotSanitize, Cleaned
from icapscan.sanitize.documents_child import run_child
from icapscan.sanitize.documents_options import Work

HTML_MAX = 8 * MIB
_LOOK = 64 * 1024
_TAGS = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|title|meta|style|script|div|table|span|font|center|img|iframe|form|object|embed|"
    rb"svg|br|p|a|b|i|u|h[1-6])(?=[\s/>])",
    re.I,
)
_WHOLE = re.compile(rb"<(?:!doctype\s+html|html|head|body)(?=[\s/>])", re.I)
_XML = re.compile(rb"<\?xml(?!.{0,400}<(?:!doctype\s+)?html)|<(?:svg|math|rss|feed)[\s>]", re.I | re.S)
_ISO2022 = re.compile(rb"\x1b[$(&).\-/N-O]")
_ESCAPED_CHARSETS = ("iso2022_jp", "iso2022_jp_2", "iso2022_jp_ext")
_UTF7 = re.compile(rb"\+[A-Za-z0-9+/]{2,}")
_TAG_START = re.compile(r"<[A-Za-z/!?+]")
RAW = "raw"
"""Name of the way in which bytes from 0x80 on are kept as they are."""


def looks_like_html(data: bytes) -> bool:
    """Whether these bytes are HTML, and neither XML of another kind nor a text with a tag somewhere in it."""
    first = data[:_LOOK].replace(b"\0", b"").removeprefix(b"\xef\xbb\xbf").lstrip(b"\xff\xfe \t\r\n\f")
    if _XML.match(first) is not None:
        return False
    return _WHOLE.search(first) is not None or (first.startswith(b"<") and _TAGS.search(first) is not None)


def clean_html(data: bytes, work: Work) -> Cleaned | None:
    """The text without what acts in it; None where there is nothing of that. Raises `CannotSanitize`."""
    if len(data) > HTML_MAX:
        raise CannotSanitize("The HTML part is too large to be cleaned.")
    charset = _charset(data)
    options = work.options
    arguments = [charset, *(["forms"] if options.html_forms else ())]
    result, what = run_child("icapscan.sanitize.html_child", arguments, data, work.gate)
    return Cleaned(result, "", what) if what and result else None


def _charset(data: bytes) -> str:
    """How to read the bytes. Raises `CannotSanitize` where mail programs might disagree about what a tag is."""
    for mark, charset in (
        (codecs.BOM_UTF32_LE, ""), (codecs.BOM_UTF32_BE, ""), (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):  # fmt: skip
        if data.startswith(mark) and charset and not len(data) % 2:
            return charset
        if data.startswith(mark):
            break
    if b"\0" in data:
        raise CannotSanitize("The HTML part has NUL bytes in it.")
    if b"\x0e" in data or b"\x1b$)" in data or b"~{" in data:
        raise CannotSanitize("The HTML part may be in a charset that hides tags.")
    if _ISO2022.search(data) is not None:
        for charset in _ESCAPED_CHARSETS:
            try:
                if data.decode(charset).encode(charset):
                    return charset
            except UnicodeError:
                continue
        raise CannotSanitize("The HTML part changes its charset in a way that is not known.")
    if b"\x1b" in data:
        raise CannotSanitize("The HTML part may be in a charset that hides tags.")
    if any(_tag_in_utf7(data, found) for found in _UTF7.finditer(data)):
        raise CannotSanitize("The HTML part has tags in UTF-7.")
    return RAW


def _tag_in_utf7(data: bytes, found: re.Match[bytes]) -> bool:
    """Whether a run of letters that UTF-7 gives another meaning begins a tag, alone or with what stands behind it."""
    text = (found[0] + b"-").decode("utf-7", "replace")
    behind = data[found.end() : found.end() + 2].removeprefix(b"-")[:1].decode("latin-1")
    return _TAG_START.search(text + behind) is not None
