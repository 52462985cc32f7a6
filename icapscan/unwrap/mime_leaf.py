"""One body part handed on decoded, and held back while it may yet travel in the skeleton of its message."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from icapscan.findings import Anomaly, Reason
from icapscan.limits import KIB
from icapscan.unwrap.events import AnomalyFound, Audience, PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.mime_entity import Encoding, Entity, EntityDoubt
from icapscan.unwrap.mime_fields import HeaderEnd
from icapscan.unwrap.mime_variation import STRICT, Variation, encoding_of
from icapscan.unwrap.transfer import Doubt, Identity, Transfer
from icapscan.unwrap.transfer_base64 import base64
from icapscan.unwrap.transfer_quoted import QuotedPrintable
from icapscan.unwrap.uu import Uuencode

if TYPE_CHECKING:
    from icapscan.unwrap.mime_reading import Reading

SMALL = 64 * KIB
"""Text and nested multiparts up to this size travel in the skeleton instead of being sent to clamd one by one."""
_TEXTS = frozenset({"text/plain", "text/html", ""})


class Leaf:
    """One body part whose content is handed on decoded: a leaf, or a container that the walker opens in turn."""

    __slots__ = (
        "_begun", "_closing", "_described", "_failure", "_guess", "_held", "_is_text", "_key", "_raw", "_raw_size",
        "_reading", "_small", "_tail", "_transfer",
    )  # fmt: skip

    def __init__(
        self, reading: Reading, key: str, described: Entity, failure: tuple[Reason, str] | None = None
    ) -> None:
        self._reading = reading
        self._key = key
        self._described = described
        self._failure = failure or _unscannable(described)
        reading.encodings = max(reading.encodings, len(described.encodings))
        encoding = encoding_of(reading.variation, described)
        self._is_text = described.media_type.startswith("text/") or described.is_container
        self._transfer = _transfer(encoding, reading.variation, self._is_text)
        # What does not decode in such a reading only shows that it is not the right one.
        self._guess = encoding in described.guessed or reading.variation.header_end is not HeaderEnd.EMPTY_LINE
        # Text and nested structure that every reader sees alike, until it turns out to be large.
        self._small = (
            reading.variation is STRICT
            and (reading.start.skeleton or reading.start.covered)
            and (described.media_type in _TEXTS or (described.is_container and encoding is Encoding.IDENTITY))
            and not described.attachment
            and not described.doubts
        )
        self._held: list[bytes] = []
        """Decoded, of what is small."""
        self._raw: list[bytes] = []
        self._raw_size = 0
        self._begun = False
        self._closing = b""
        """The closing delimiter of a nested multipart, until it was seen."""
        self._tail = b""
        if described.is_multipart and len(described.boundaries) == 1 and encoding is Encoding.IDENTITY:
            self._closing = b"--" + described.boundaries[0] + b"--"

    def feed(self, data: bytes) -> Iterator[PartEvent]:
        if self._closing:
            self._look_for_closing(data)
        out = self._transfer.feed(data)
        if self._small:
            self._raw_size += len(data)
            if self._raw_size <= SMALL:
                self._raw.append(data)
                self._held.append(out)
                return
            self._small = False
            held, self._held, self._raw = self._held, [], []
            yield from self._give(b"".join(held))
        yield from self._give(out)

    def finish(self) -> Iterator[PartEvent]:
        out = self._transfer.finish()
        if self._closing:
            self._reading.doubt(EntityDoubt.UNCLOSED, self._key)
        self._judge(self._transfer.doubts)
        if self._small:
            out = b"".join(self._held) + out
            yield from self._give(out, Audience.NOT_CLAMD if self._in_skeleton(out) else Audience.ALL)
        else:
            yield from self._give(out)
        if self._failure is not None:
            reason, detail = self._failure
            if reason is not Reason.MALFORMED:
                yield AnomalyFound(Anomaly(self._described.media_type.replace("/", "-"), self._key, detail))
            yield PartFailed(self._key, reason, detail)
        else:
            yield PartEnd(self._key)

    def _judge(self, doubts: set[Doubt]) -> None:
        """Note what is odd in the encoded bytes; some of it no reader can decode for sure."""
        text = self._is_text
        for doubt in doubts:
            self._reading.doubt(doubt, self._key)
        if self._failure is not None or self._guess:
            return
        if Doubt.BROKEN in doubts or (Doubt.ESCAPE in doubts and not text):
            self._failure = Reason.MALFORMED, "The content is not encoded as its Content-Transfer-Encoding says."
        elif not text and Doubt.TRUNCATED in doubts and Doubt.JUNK not in doubts and Doubt.PADDING not in doubts:
            self._failure = Reason.MALFORMED, "The base64 ends in the middle of a byte."

    def _in_skeleton(self, decoded: bytes) -> bool:
        """Put a small part into the skeleton; whether it is there."""
        if self._transfer.doubts or self._closing:
            return False
        if not self._described.is_container and not self._reading.keep(self._key, decoded):
            return False
        for piece in self._raw:
            self._reading.add_to_skeleton(piece)
        return True

    def _give(self, data: bytes, audience: Audience = Audience.ALL) -> Iterator[PartEvent]:
        if not self._begun:
            self._begun = self._reading.spoke = True
            yield self._begin(audience)
        if data:
            if not self._reading.gate.took(len(data)):
                self._reading.gate.stop()
            yield PartData(self._key, data)

    def _begin(self, audience: Audience) -> PartBegin:
        described = self._described
        names = described.names or ((described.field,) if described.field else ())
        return PartBegin(
            self._key,
            names[0] if names else None,
            described.media_type,
            names=names[1:],
            charset=described.charset,
            audience=audience,
            content_type=described.content_type,
            in_skeleton=audience is Audience.NOT_CLAMD,
        )

    def _look_for_closing(self, data: bytes) -> None:
        data = self._tail + data
        if self._closing in data:
            self._closing = b""
        else:
            self._tail = data[-len(self._closing) :]


def _unscannable(described: Entity) -> tuple[Reason, str] | None:
    if described.media_type == "message/partial":
        return Reason.UNSUPPORTED, "A fragment of a message cannot be scanned (RFC 2046 5.2.2)."
    if described.media_type == "message/external-body":
        return Reason.UNSUPPORTED, "The content is somewhere else (RFC 2046 5.2.3)."
    return None


def _transfer(encoding: Encoding, variation: Variation, text: bool) -> Transfer:
    if encoding is Encoding.BASE64:
        return base64(variation.base64)
    if encoding is Encoding.QUOTED_PRINTABLE:
        return QuotedPrintable(variation.quoted, text)
    if encoding is Encoding.UUENCODE:
        return Uuencode()
    return Identity()  # yEnc and BinHex say where they begin, and are found in the text
