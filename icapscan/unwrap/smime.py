"""CMS (RFC 5652) as S/MIME uses it (RFC 8551): what is signed or compressed is taken out, what is encrypted is told."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartBegin, PartData, PartEnd, PartEvent, PartFailed
from icapscan.unwrap.gate import Gate, Stop

_PKCS7 = bytes.fromhex("06092a864886f70d0107")
_SIGNED, _ENVELOPED, _SIGNED_ENVELOPED, _ENCRYPTED = 2, 3, 4, 6
_SMIME_TYPES = bytes.fromhex("060b2a864886f70d01091001")
_COMPRESSED, _AUTH_ENVELOPED = 9, 23
_SEQUENCE, _OCTETS, _OCTETS_IN_PIECES, _EXPLICIT = 0x30, 0x04, 0x24, 0xA0
_DEPTH_MAX = 8
_PIECE = 256 * KIB
_INFLATE_IN = 4 * KIB
View = bytes | mmap.mmap


class _Broken(Exception):
    """Not what ASN.1 says. Never leaves this file."""


class _Element:
    """One BER element: its tag, and where its content stands. ``end`` of one of indefinite length is the view's end."""

    __slots__ = ("cut", "end", "indefinite", "start", "tag")

    def __init__(self, view: View, at: int, limit: int) -> None:
        if at + 2 > limit:
            raise _Broken
        self.tag = view[at]
        size = view[at + 1]
        self.start = at + 2
        self.indefinite = size == 0x80
        if size > 0x80:
            count = size & 0x7F
            if count > 8 or self.start + count > limit:
                raise _Broken
            size = int.from_bytes(view[self.start : self.start + count], "big")
            self.start += count
        self.cut = not self.indefinite and self.start + size > limit
        """It is longer than what there is."""
        self.end = limit if self.indefinite else min(limit, self.start + size)


def _after(view: View, element: _Element, depth: int = 0) -> int:
    """Where the next element begins."""
    if not element.indefinite:
        return element.end
    if depth > _DEPTH_MAX:
        raise _Broken
    at = element.start
    while view[at : at + 2] != b"\0\0":
        at = _after(view, _Element(view, at, element.end), depth + 1)
    return at + 2


def _octets(view: View, element: _Element, depth: int = 0) -> Iterator[tuple[int, int]]:
    """The pieces of an octet string, which may be in several, in several."""
    if element.tag == _OCTETS:
        yield element.start, element.end
        if element.cut:
            raise _Broken
    elif element.tag == _OCTETS_IN_PIECES and depth < _DEPTH_MAX:
        at = element.start
        while at < element.end and view[at : at + 2] != b"\0\0":
            inner = _Element(view, at, element.end)
            yield from _octets(view, inner, depth + 1)
            at = _after(view, inner, depth + 1)
        if element.indefinite and view[at : at + 2] != b"\0\0":
            raise _Broken
    else:
        raise _Broken


class SmimeDecoder:
    """One ContentInfo."""

    def __init__(self, context: Context) -> None:
        self._gate: Gate = context.gate

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        """The signed content, or why there is none."""
        view = store.view()
        try:
            yield from self._content_info(view)
        except Stop as stop:
            yield PartFailed("", stop.reason, stop.detail)
        except _Broken:
            yield PartFailed("", Reason.MALFORMED, "This is no complete CMS object (RFC 5652).")

    def _content_info(self, view: View) -> Iterator[PartEvent]:
        outer = _Element(view, 0, len(view))
        yield from self._object(view, outer)
        if outer.cut:
            raise _Broken

    def _object(self, view: View, outer: _Element) -> Iterator[PartEvent]:
        oid = _Element(view, outer.start, outer.end)
        kind = view[oid.end - 1]
        smime = view[outer.start : outer.start + len(_SMIME_TYPES)] == _SMIME_TYPES
        if (kind == _AUTH_ENVELOPED) if smime else kind in (_ENVELOPED, _SIGNED_ENVELOPED, _ENCRYPTED):
            yield PartFailed("", Reason.ENCRYPTED, "The content is encrypted (RFC 5652).")
            return
        if kind != (_COMPRESSED if smime else _SIGNED):
            return
        explicit = _Element(view, oid.end, outer.end)
        body = _Element(view, explicit.start, explicit.end)
        if explicit.tag != _EXPLICIT or body.tag != _SEQUENCE:
            raise _Broken
        at = body.start
        for _ in range(2):  # version; digest algorithms or compression algorithm
            at = _after(view, _Element(view, at, body.end))
        encapsulated = _Element(view, at, body.end)
        inner = _Element(view, encapsulated.start, encapsulated.end)
        if inner.end >= encapsulated.end or view[inner.end] != _EXPLICIT:
            return  # signed from outside: multipart/signed, or certificates only
        content = _Element(view, inner.end, encapsulated.end)
        pieces = _octets(view, _Element(view, content.start, content.end))
        if smime:
            yield from self._inflated(view, pieces)
        else:
            yield from self._copied(view, pieces)

    def _copied(self, view: View, pieces: Iterator[tuple[int, int]]) -> Iterator[PartEvent]:
        yield PartBegin("1")
        for start, end in pieces:
            for at in range(start, end, _PIECE):
                yield self._data(view[at : min(end, at + _PIECE)])
        yield PartEnd("1")

    def _inflated(self, view: View, pieces: Iterator[tuple[int, int]]) -> Iterator[PartEvent]:
        yield PartBegin("1")
        stream = zlib.decompressobj()
        try:
            for start, end in pieces:
                for at in range(start, end, _INFLATE_IN):
                    data = view[at : min(end, at + _INFLATE_IN)]
                    while data:
                        out = stream.decompress(data, self._gate.room())
                        data = stream.unconsumed_tail
                        if out:
                            yield self._data(out)
        except zlib.error:
            yield PartFailed("1", Reason.MALFORMED, "The compressed content is broken (RFC 3274).")
            return
        if stream.eof:
            yield PartEnd("1")
        else:
            yield PartFailed("1", Reason.MALFORMED, "The compressed content is cut off (RFC 3274).")

    def _data(self, data: bytes) -> PartData:
        self._gate.room()
        if not self._gate.took(len(data)):
            self._gate.stop()
        return PartData("1", data)


class SmimeFormat:
    """DER or BER with a content type of PKCS #7 at its start."""

    name = "smime"
    prefixes = tuple(bytes([0x30, length]) for length in range(0x0B, 0x85))
    """A SEQUENCE of any length that an object can have: one of less than 128 bytes has it in this byte."""

    def bid(self, evidence: Evidence) -> Bid:
        """The object identifier stands within the first bytes."""
        first = evidence.first[:32]
        return Bid.YES if first[:1] == b"\x30" and (_PKCS7 in first or _SMIME_TYPES in first) else Bid.NO

    def open(self, context: Context) -> SmimeDecoder:
        """A decoder of one object."""
        return SmimeDecoder(context)


SMIME = SmimeFormat()
