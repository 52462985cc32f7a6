"""The choices that make one reading of a message or multipart, and what it begins with."""

from __future__ import annotations

from msgspec import Struct

from icapscan.unwrap.mime_entity import Encoding, Entity, EntityDoubt
from icapscan.unwrap.mime_fields import FieldDoubt, HeaderEnd
from icapscan.unwrap.multipart import Match, SplitDoubt
from icapscan.unwrap.transfer import Doubt
from icapscan.unwrap.transfer_base64 import Base64Reading
from icapscan.unwrap.transfer_quoted import QuotedReading

AnyDoubt = FieldDoubt | EntityDoubt | SplitDoubt | Doubt


class Variation(Struct, frozen=True):
    """The choices of one reading; as it is made, those of a strict reader."""

    header_end: HeaderEnd = HeaderEnd.EMPTY_LINE
    bare_cr: bool = False
    """A CR alone ends a line."""
    match: Match = Match.EXACT
    boundary: int = 0
    """Which of the candidates."""
    encoding: int = 0
    """Which of the candidates; `RAW` for none of them."""
    base64: Base64Reading = Base64Reading.LENIENT
    quoted: QuotedReading = QuotedReading.KEEP
    leaf: bool = False
    """A message that is declared to be a multipart is taken for a single body."""
    inner_first: bool = False
    """A nested multipart goes on to its own closing delimiter, past the delimiters of the outer one."""


STRICT = Variation()
RAW = -1
"""For `Variation.encoding`: nothing is undone."""


class Start(Struct, frozen=True):
    """What a decoder begins with: a message, or the body of a multipart whose header is known."""

    entity: Entity | None = None
    """None: a header comes first."""
    sniff: bool = False
    """Nobody says that this is a multipart: nothing is told until one is found."""
    fields_needed: int = 0
    """Well-known fields below which this is no message after all."""
    skeleton: bool = False
    """Make a skeleton."""
    covered: bool = False
    """The skeleton of a part above holds this one."""


def encoding_of(variation: Variation, described: Entity) -> Encoding:
    """The transfer encoding that is undone in this reading."""
    if variation.encoding == RAW:
        return Encoding.IDENTITY
    return described.encodings[min(variation.encoding, len(described.encodings) - 1)]
