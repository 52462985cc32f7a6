"""Parameters of structured MIME fields (RFC 2045 5.1, RFC 2231), read as strictly and as leniently as readers do."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from urllib.parse import unquote_to_bytes

from msgspec import Struct

VALUE_MAX = 8192
"""Bytes of a field value that parameters are looked for in."""
_SHORT = 256
CANDIDATES_MAX = 24
"""Readings of one parameter."""

_QUOTED_OR_COMMENT = re.compile(rb'"(?:[^"\\]|\\.)*"|\((?:[^()\\"]|\\.)*\)')
_PARAM = re.compile(rb';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"?|[^;]*)', re.S)
_NEAT = re.compile(
    rb"[\w!#$&^.+-]+(?:/[\w!#$&^.+-]+)?\s*"
    rb"(?:;\s*(?:[\w-]+=(?:\"[^\"\\]*\"|[^\s;\"()<>@,\\']+)"
    rb"|[\w-]+\*(?:\d{1,3}\*?)?=(?:[\w-]*'[\w-]*')?(?:\"[^\"\\]*\"|[^\s;\"()<>@,\\']*))\s*)*;?\s*"
)
_ESCAPE = re.compile(rb"\\(.)", re.S)
_TYPE = re.compile(rb"\s*\"?\s*([^\s;,\"()]*(?:\s*/\s*[^\s;,\"()]+)?)")


class Parameter(Struct, frozen=True):
    """One ``name=value`` as written; ``name`` in lower case, ``value`` without quotes and escapes."""

    name: bytes
    value: bytes


class Parsed(Struct, frozen=True):
    """A field value taken apart as a strict reader does."""

    token: bytes
    """What stands before the first semicolon, lower case, without comments and white space."""
    params: tuple[Parameter, ...]
    neat: bool
    """Written in a way that leaves no doubt."""

    def first(self, name: bytes) -> bytes | None:
        """The first parameter of this name."""
        return next((param.value for param in self.params if param.name == name), None)


def parse(value: bytes) -> Parsed:
    """Token and parameters of a field value."""
    return _parse_short(value) if len(value) <= _SHORT else _parse(value[:VALUE_MAX])


def _parse(value: bytes) -> Parsed:
    neat = _NEAT.fullmatch(value) is not None
    plain = value if neat or b"(" not in value else without_comments(value)
    found = _TYPE.match(plain)
    token = b"".join(found[1].lower().split()) if found else b""
    written = _PARAM.findall(b";" + plain.partition(b";")[2])
    params = tuple(Parameter(name.strip().lower(), _unquoted(text)) for name, text in written)
    if neat and len(params) > 1:
        neat = len({param.name for param in params}) == len(params)
    return Parsed(token, params, neat)


_parse_short = lru_cache(maxsize=512)(_parse)
"""Mails say the same over and over."""


def without_comments(value: bytes) -> bytes:
    """Comments (RFC 5322 3.2.2) replaced by a blank, inner ones first; quoted strings stay."""
    for _ in range(8):
        shorter = _QUOTED_OR_COMMENT.sub(lambda found: found[0] if found[0][:1] == b'"' else b" ", value)
        if shorter == value:
            break
        value = shorter
    return value


def candidates(value: bytes, name: bytes) -> tuple[list[bytes], bool]:
    """Every value that some reader might see for a parameter, the strict one first; and whether there is a doubt."""
    parsed = parse(value)
    written = value[:VALUE_MAX].lower()
    if name not in written:
        return [], False
    mentions = len(_mention(name).findall(written))
    plain = [param.value for param in parsed.params if param.name == name]
    star = continued(parsed.params, name)
    pieces = sum(param.name.startswith(name + b"*") for param in parsed.params)
    if parsed.neat and len(star) == 1 and len(plain) <= 1 and mentions == pieces + len(plain):
        return [*star, *plain], False
    if parsed.neat and not pieces and mentions == len(plain) <= 1:
        if plain and plain[0] != plain[0].strip():
            return [plain[0], plain[0].strip()], True
        return plain, False
    found = [*plain, *star, *_loose(value[:VALUE_MAX], name)]
    for one in list(found):
        found += [one.strip(), one.strip(b" \t\"'")]
    found += [
        blank for blank in re.findall(re.escape(name) + rb"\s*=([ \t\v\f]+[^;\"]+)", value, re.I) if blank.strip()
    ]
    unique = list(dict.fromkeys(one for one in found if one))[:CANDIDATES_MAX]
    if b"" in plain or not unique:
        unique.append(b"")  # an empty one, whose delimiter is two dashes
    return unique, True


@cache
def _mention(name: bytes) -> re.Pattern[bytes]:
    return re.compile(re.escape(name) + rb"\s*(?:\*\d*\*?)?\s*=")


def continued(params: tuple[Parameter, ...], name: bytes) -> list[bytes]:
    """RFC 2231 values of a parameter (``name*``, ``name*0``, ``name*1*``…), joined in every plausible way."""
    if not any(b"*" in param.name for param in params):
        return []
    pieces: list[tuple[int, bytes]] = []
    whole = []
    for param in params:
        if param.name == name + b"*":
            whole.append(decoded(param.value))
        elif param.name.startswith(name + b"*"):
            digits = param.name[len(name) + 1 :].rstrip(b"*")
            coded = param.name.endswith(b"*")
            if digits.isdigit() and len(digits) < 6:
                pieces.append((int(digits), _piece(param.value, coded)))
    if not pieces:
        return whole
    ordered = [text for _, text in sorted(pieces, key=lambda piece: piece[0])]
    written = [text for _, text in pieces]
    run: list[bytes] = []
    for index, text in sorted(pieces, key=lambda piece: piece[0]):
        if index != len(run):
            break
        run.append(text)
    plain = [param.value for param in params if param.name == name]
    if len(run) == len(pieces) and run == written and not plain:
        return [*whole, _in_charset(b"".join(run), pieces_charset(params, name))]
    joins = [b"".join(run), b"".join(ordered), b"".join(written), *written]
    joins += [first + b"".join(ordered) for first in plain] + [b"".join(ordered) + last for last in plain]
    return whole + [_in_charset(one, pieces_charset(params, name)) for one in joins if one]


def pieces_charset(params: tuple[Parameter, ...], name: bytes) -> str:
    """The charset that the first encoded piece names; empty where there is none."""
    for param in params:
        if param.name.startswith(name + b"*") and param.name.endswith(b"*") and param.value.count(b"'") >= 2:
            return param.value.split(b"'", 1)[0].decode("ascii", "replace").strip()
    return ""


def decoded(value: bytes) -> bytes:
    """``charset'language'percent-encoded`` as UTF-8 bytes (bytes as they are where the charset is unknown)."""
    charset, mark, rest = value.partition(b"'")
    if not mark:
        return unquote_to_bytes(value)
    return _in_charset(unquote_to_bytes(rest.partition(b"'")[2]), charset.decode("ascii", "replace").strip())


def _piece(value: bytes, coded: bool) -> bytes:
    if not coded:
        return value
    if value.count(b"'") >= 2:
        value = value.split(b"'", 2)[2]
    return unquote_to_bytes(value)


def _in_charset(value: bytes, charset: str) -> bytes:
    if not charset or charset.lower() in ("us-ascii", "utf-8", "utf8", "ascii"):
        return value
    try:
        return value.decode(charset).encode("utf-8", "surrogatepass")
    except (LookupError, ValueError):
        return value


def _loose(value: bytes, name: bytes) -> list[bytes]:
    """What stands behind every mention of the name, cut where one reader or another would end it."""
    found = []
    views = dict.fromkeys((value, without_comments(value), value.replace(b"\\", b"")))
    pattern = re.compile(re.escape(name) + rb"[^\w=;]*(?:\*[0-9]*\*?)?[^\w=;\"']*=[\s=]*", re.I)
    for view in views:
        for mention in pattern.finditer(view):
            rest = view[mention.end() :]
            to_semicolon, to_blank = rest.partition(b";")[0], re.split(rb"[\s;,]", rest, maxsplit=1)[0]
            found += [to_semicolon.strip(), to_blank, rest.strip(), re.split(rb"[\s;,(\"]", rest, maxsplit=1)[0]]
            parts = rest.split(b'"')
            found += [*parts[1:2], b"".join(to_semicolon.split(b'"')), *parts[0:1], *parts[2:3]]
            found += rest.split(b"'")[1:2]
            found += [to_blank.partition(b"(")[0], re.sub(rb"\s*\([^)]*\)?\s*", b"", to_semicolon).strip(b' "')]
            if b"%" in rest:
                found.append(decoded(to_blank.strip(b'"')))
    return found


def _unquoted(text: bytes) -> bytes:
    text = text.strip()
    if text[:1] == b'"':
        text = text[1:-1] if len(text) > 1 and text[-1:] == b'"' else text[1:]
        return _ESCAPE.sub(rb"\1", text) if b"\\" in text else text
    return text
