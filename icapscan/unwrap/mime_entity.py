"""What the header of a MIME entity says of its body, in all readings: type, boundaries, transfer encodings, names."""

from __future__ import annotations

import enum
import re
from functools import lru_cache

from msgspec import Struct

from icapscan.unwrap.mime_fields import FieldDoubt, Fields
from icapscan.unwrap.mime_params import CANDIDATES_MAX, VALUE_MAX, candidates, parse
from icapscan.unwrap.names import field_name, part_names


class Encoding(enum.Enum):
    """The transfer encodings that can be undone."""

    IDENTITY = "identity"
    BASE64 = "base64"
    QUOTED_PRINTABLE = "quoted-printable"
    UUENCODE = "uuencode"
    YENC = "yenc"
    BINHEX = "binhex"


class EntityDoubt(enum.Enum):
    """What readers of a header's values do not agree about."""

    TYPES = "content-types-differ"
    BOUNDARIES = "boundary-ambiguous"
    MANY_BOUNDARIES = "boundaries-too-many"
    """More than are tried: what a reader of the others sees is not known."""
    NO_BOUNDARY = "boundary-missing"
    NO_DELIMITER = "delimiter-missing"
    UNDECLARED = "multipart-undeclared"
    UNCLOSED = "nested-multipart-unclosed"
    ENCODINGS = "transfer-encoding-ambiguous"
    CODED_CONTAINER = "container-encoded"
    NAMES = "names-differ"


class Entity(Struct, frozen=True):
    """A body part, or a message, as its header describes it."""

    media_type: str
    content_type: bytes
    """All values of Content-Type, joined by LF; of several the most telling reader's first."""
    boundaries: tuple[bytes, ...] = ()
    """Every boundary that some reader might see, the strict one first."""
    encodings: tuple[Encoding, ...] = (Encoding.IDENTITY,)
    """Every transfer encoding to try, the strict one first."""
    guessed: frozenset[Encoding] = frozenset()
    """Those of them that no word of the header names: they are tried because it says something else."""
    names: tuple[str, ...] = ()
    field: str = ""
    """The name of a form field."""
    charset: str = ""
    attachment: bool = False
    doubts: frozenset[EntityDoubt] = frozenset()

    @property
    def is_multipart(self) -> bool:
        """Declared to be a multipart, however oddly."""
        return self.media_type.startswith("multipart")

    @property
    def is_message(self) -> bool:
        """Declared to be a whole message."""
        return self.media_type in MESSAGES

    @property
    def is_container(self) -> bool:
        return self.is_multipart or self.is_message


MESSAGES = frozenset({"message/rfc822", "message/global", "message/news", "x-message/rfc822"})

_TOKENS = {
    b"7bit": Encoding.IDENTITY,
    b"8bit": Encoding.IDENTITY,
    b"binary": Encoding.IDENTITY,
    b"base64": Encoding.BASE64,
    b"quoted-printable": Encoding.QUOTED_PRINTABLE,
    b"x-uuencode": Encoding.UUENCODE,
    b"uuencode": Encoding.UUENCODE,
    b"x-uue": Encoding.UUENCODE,
    b"uue": Encoding.UUENCODE,
    b"x-uu": Encoding.UUENCODE,
    b"x-yencode": Encoding.YENC,
    b"yencode": Encoding.YENC,
    b"yenc": Encoding.YENC,
    b"x-binhex": Encoding.BINHEX,
    b"x-binhex40": Encoding.BINHEX,
    b"mac-binhex40": Encoding.BINHEX,
    b"binhex": Encoding.BINHEX,
    b"x-gzip64": Encoding.BASE64,
    b"gzip64": Encoding.BASE64,
}
"""Content-Transfer-Encodings by token. What x-gzip64 holds is a gzip file, which is opened by its content."""
_STANDARD = frozenset({b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable"})
_WORDS = re.compile(
    rb"(?P<base64>base-?64|gzip-?64|b64)|(?P<quoted>quoted|printable|\bqp\b)|(?P<uu>\bx-uu|uue|uu\b)|(?P<yenc>yenc)|(?P<binhex>binhex)",
    re.I,
)
_BY_WORD = {
    "base64": Encoding.BASE64,
    "quoted": Encoding.QUOTED_PRINTABLE,
    "uu": Encoding.UUENCODE,
    "yenc": Encoding.YENC,
    "binhex": Encoding.BINHEX,
}
_MULTI = re.compile(rb"mul?ti?\W{0,2}part|ulti\W?part|boundary", re.I)


def entity(fields: Fields, default: str = "text/plain") -> Entity:
    """What a header says; ``default`` is the type where it says none (RFC 2045 5.2, RFC 2046 5.1.5)."""
    short = not fields.dispositions and not fields.doubts and sum(map(len, fields.types)) <= _SHORT
    return _entity_short(fields, default) if short else _entity(fields, default)


def _entity(fields: Fields, default: str) -> Entity:
    doubts: set[EntityDoubt] = set()
    media_type, content_type, charset = _type(fields.types, default, doubts)
    boundaries = _boundaries(fields.types, doubts)
    if media_type.startswith("multipart") and not boundaries:
        doubts.add(EntityDoubt.NO_BOUNDARY)
    encodings, guessed = _encodings(fields.encodings, doubts)
    if FieldDoubt.HIDDEN_FIELD in fields.doubts and encodings != [Encoding.IDENTITY]:
        doubts.add(EntityDoubt.ENCODINGS)
        encodings = list(dict.fromkeys([*encodings, Encoding.IDENTITY]))
    if media_type == "application/mac-binhex40" and encodings == [Encoding.IDENTITY]:
        encodings = [Encoding.BINHEX]
    if (media_type.startswith("multipart") or media_type in MESSAGES) and encodings != [Encoding.IDENTITY]:
        doubts.add(EntityDoubt.CODED_CONTAINER)
        plain: list[Encoding] = [Encoding.IDENTITY]
        coded: list[Encoding] = [one for one in encodings if one is not Encoding.IDENTITY]
        encodings = plain + coded if media_type.startswith("multipart") else coded + plain
    names: tuple[str, ...] = ()
    field, attachment = "", False
    if fields.dispositions or fields.types:
        names, doubted = part_names(fields.dispositions, fields.types)
        field = field_name(fields.dispositions) if fields.dispositions else ""
        attachment = any(value[:10].lower() == b"attachment" for value in fields.dispositions)
        if doubted:
            doubts.add(EntityDoubt.NAMES)
    return Entity(
        media_type,
        content_type,
        boundaries,
        tuple(encodings),
        frozenset(guessed),
        names,
        field,
        charset,
        attachment,
        frozenset(doubts),
    )


_entity_short = lru_cache(maxsize=512)(_entity)
"""The headers of text parts are almost always the same few."""
_SHORT = 256


def _type(types: tuple[bytes, ...], default: str, doubts: set[EntityDoubt]) -> tuple[str, bytes, str]:
    if not types:
        return default, b"", ""
    parsed = [parse(value) for value in types]
    tokens = [one.token.decode("latin-1") for one in parsed]
    if len(set(tokens)) > 1:
        doubts.add(EntityDoubt.TYPES)
    first = next((token for token in tokens if token.startswith("multipart/")), tokens[0])
    charsets = [value for one in parsed if (value := one.first(b"charset"))]
    charset = charsets[0].decode("ascii", "replace").strip().lower() if charsets else ""
    if "/" not in first or first.startswith("multi"):
        # "multi part", "multipart" without a subtype, "ultipart/mixed": what else could be meant
        if not first.startswith("multipart/"):
            doubts.add(EntityDoubt.TYPES)
        if _MULTI.search(types[0]) is not None and not first.startswith("multipart"):
            first = "multipart/mixed"
    return first, b"\n".join(types), charset


def _boundaries(types: tuple[bytes, ...], doubts: set[EntityDoubt]) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for value in types:
        values, doubted = candidates(value, b"boundary")
        found += values
        if doubted:
            doubts.add(EntityDoubt.BOUNDARIES)
        if len(values) >= CANDIDATES_MAX or b"boundary" in value[VALUE_MAX:].lower():
            doubts.add(EntityDoubt.MANY_BOUNDARIES)
    unique = tuple(dict.fromkeys(found))
    if len(unique) > 1:
        doubts.add(EntityDoubt.BOUNDARIES)
    return unique


def _encodings(values: tuple[bytes, ...], doubts: set[EntityDoubt]) -> tuple[list[Encoding], set[Encoding]]:
    """The transfer encodings to try, and those of them that are guessed."""
    if not values:
        return [Encoding.IDENTITY], set()
    found: list[Encoding] = []
    tries: list[Encoding] = []
    for value in values:
        neat = _TOKENS.get(value.lower())
        if neat is not None:
            found.append(neat)
            if value.lower() not in _STANDARD:  # not every reader knows the others
                doubts.add(EntityDoubt.ENCODINGS)
        else:
            doubts.add(EntityDoubt.ENCODINGS)
            found += [_BY_WORD[match.lastgroup or ""] for match in _WORDS.finditer(value)]
            tries = [Encoding.BASE64, Encoding.QUOTED_PRINTABLE]
    guessed = set(tries) - set(found)
    found += tries
    if EntityDoubt.ENCODINGS in doubts:
        found.append(Encoding.IDENTITY)
    unique = list(dict.fromkeys(found))
    if len(unique) > 1:
        doubts.add(EntityDoubt.ENCODINGS)
        if Encoding.IDENTITY not in unique:
            unique.append(Encoding.IDENTITY)
    return unique, guessed
