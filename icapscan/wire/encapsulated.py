"""The Encapsulated header (RFC 3507 4.4.1): which sections follow an ICAP head, and how long each is."""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import force_setattr

from icapscan.errors import ProtocolError
from icapscan.wire.limits import KIB


class BodyKind(enum.Enum):
    """The last entry of an Encapsulated list."""

    NULL = b"null-body"
    REQUEST = b"req-body"
    RESPONSE = b"res-body"
    OPTIONS = b"opt-body"


class Encapsulated(Struct, frozen=True):
    """Sections by their lengths in bytes; None where the list does not name the section."""

    req_hdr: int | None
    res_hdr: int | None
    body: BodyKind
    head_length: int = 0
    """Bytes of all HTTP heads together: the offset of the body. Derived from the others."""
    has_body: bool = False
    """Whether a chunked body follows the heads. Derived from the others."""

    def __post_init__(self) -> None:
        force_setattr(self, "head_length", (self.req_hdr or 0) + (self.res_hdr or 0))
        force_setattr(self, "has_body", self.body is not BodyKind.NULL)

    def encode(self) -> bytes:
        """The field value, with exact offsets (PROTOCOL S89)."""
        return _encode(self.req_hdr, self.res_hdr, self.body)


@lru_cache(maxsize=4096)
def _encode(req_hdr: int | None, res_hdr: int | None, body: BodyKind) -> bytes:
    entries = []
    offset = 0
    if req_hdr is not None:
        entries.append(b"req-hdr=0")
        offset = req_hdr
    if res_hdr is not None:
        entries.append(b"res-hdr=%d" % offset)
        offset += res_hdr
    entries.append(b"%s=%d" % (body.value, offset))
    return b", ".join(entries)


NO_BODY = Encapsulated(None, None, BodyKind.NULL)

_ENTRY = re.compile(rb"([a-z-]+)=([0-9]{1,10})")
_SEPARATOR = re.compile(rb"[ \t]*,[ \t]*|[ \t]+")
_BODIES = {kind.value: kind for kind in BodyKind}
_LONGEST = 256
"""Four entries of the longest name and ten digits are under 100 bytes."""


@lru_cache(maxsize=4096)
def parse_encapsulated(value: bytes, most: int = 64 * KIB) -> Encapsulated:
    """The meaning of a field value. ``most`` bounds each section in bytes.

    Raises `ProtocolError` unless it is ``[req-hdr] [res-hdr] body`` in this order, the first offset 0, none
    decreasing (PROTOCOL S47, S49, S50, D45-D58). Commas, blanks or both separate the entries.
    """
    if len(value) > _LONGEST:
        raise ProtocolError("The Encapsulated header is too long.")
    names: list[bytes] = []
    offsets: list[int] = []
    for entry in _SEPARATOR.split(value.lower()):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ProtocolError("The Encapsulated header has an entry that is not a name, '=' and an offset.")
        names.append(match[1])
        offsets.append(int(match[2]))
    body = _BODIES.get(names[-1])
    heads = names[:-1]
    if body is None or heads not in ([], [b"req-hdr"], [b"res-hdr"], [b"req-hdr", b"res-hdr"]):
        raise ProtocolError("The Encapsulated header must list req-hdr, res-hdr and one body entry, in this order.")
    if offsets[0] != 0:
        raise ProtocolError("The first offset in the Encapsulated header must be 0.")
    lengths = [after - before for before, after in pairwise(offsets)]
    if any(length < 0 for length in lengths):
        raise ProtocolError("The offsets in the Encapsulated header decrease.")
    if any(length > most for length in lengths):
        raise ProtocolError(f"An encapsulated HTTP head is longer than {most} bytes.")
    named = dict(zip(heads, lengths, strict=True))
    return Encapsulated(named.get(b"req-hdr"), named.get(b"res-hdr"), body)


_REQUEST_FORMS = {
    b"REQMOD": (False, (BodyKind.REQUEST, BodyKind.NULL)),
    b"RESPMOD": (True, (BodyKind.RESPONSE, BodyKind.NULL)),
    b"OPTIONS": (False, (BodyKind.OPTIONS, BodyKind.NULL)),
}
"""Method: whether a response head may be there, and which bodies (RFC 3507 4.4.1; errata e1 and e4)."""


def check_request_form(method: bytes, sections: Encapsulated) -> None:
    """Raise `ProtocolError` when a request of this method must not have these sections (PROTOCOL S42, S43, D46)."""
    response_head, bodies = _REQUEST_FORMS[method]
    if sections.body not in bodies:
        raise ProtocolError(f"A {method.decode()} request must not have the body entry {sections.body.value.decode()}.")
    if sections.res_hdr is not None and not response_head:
        raise ProtocolError(f"A {method.decode()} request must not have a res-hdr section.")
    if not sections.has_body and sections.req_hdr is None and sections.res_hdr is None and method != b"OPTIONS":
        raise ProtocolError(f"A {method.decode()} request must encapsulate something.")
