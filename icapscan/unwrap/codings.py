"""HTTP content codings (RFC 9110 8.4.1): from the value of Content-Encoding to a chain of layers, each undoing one.

gzip and deflate: RFC 9110 8.4.1.2 and 8.4.1.3 (deflate is zlib's format; raw deflate is what some senders mean);
br: RFC 7932; zstd: RFC 8878 and 9659; lzma and xz are no registered codings, but clients exist that undo them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from icapscan.findings import Reason
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.layer import Coding, Layer
from icapscan.unwrap.streams import Brotli, Buffer, Inflate, Lzma, Opener
from icapscan.unwrap.zstd import Zstd, is_frame

LAYERS_MAX = 5
"""Codings on one body. More is an attempt to be skipped; no client needs two."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
"""The ``wbits`` of zlib."""
_GZIP_MAGIC = b"\x1f\x8b"
_BLANKS = b" \t\r\n\v\f"


def _gzip(head: Buffer) -> tuple[Opener, ...]:
    # A wrong second byte is no gzip for zlib, but a sign of tampering, so it is not let through as plain content.
    return (partial(Inflate, _GZIP),) if head[:1] == _GZIP_MAGIC[:1] else ()


def _deflate(head: Buffer) -> tuple[Opener, ...]:
    zlib, raw = partial(Inflate, _ZLIB), partial(Inflate, _RAW)
    is_zlib = len(head) > 1 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0  # RFC 1950 2.2
    return (zlib, raw) if is_zlib else (raw,)


def _brotli(head: Buffer) -> tuple[Opener, ...]:
    return (Brotli,)


def _zstd(head: Buffer) -> tuple[Opener, ...]:
    return (Zstd,) if is_frame(head) else ()


def _lzma(head: Buffer) -> tuple[Opener, ...]:
    return (Lzma,)


CODINGS = {
    b"gzip": Coding("gzip", _gzip, magic=2, search=_GZIP_MAGIC, sure=True),
    b"deflate": Coding("deflate", _deflate, magic=2),
    b"br": Coding("br", _brotli, magic=1),
    b"zstd": Coding("zstd", _zstd, magic=4, search=b"\x28\xb5\x2f\xfd", sure=True),
    b"lzma": Coding("lzma", _lzma, magic=1),
}
"""By token, lower case."""
_ALIASES = {b"x-gzip": b"gzip", b"x-deflate": b"deflate", b"xz": b"lzma", b"x-lzma": b"lzma"}


def parse(value: bytes) -> list[Coding]:
    """The codings of a Content-Encoding value in the order they were applied; "identity" and empty elements drop out.

    Raises `Stop`: UNSUPPORTED for an unknown token, OVER_LIMIT for more than `LAYERS_MAX`.
    """
    codings = []
    for element in value.lower().split(b","):
        token = element.strip(_BLANKS)
        if token in (b"", b"identity"):
            continue
        coding = CODINGS.get(_ALIASES.get(token, token))
        if coding is None:
            shown = token[:40].decode("ascii", "backslashreplace")
            raise Stop(Reason.UNSUPPORTED, f"The content coding {shown!r} is not known.")
        codings.append(coding)
    if len(codings) > LAYERS_MAX:
        raise Stop(Reason.OVER_LIMIT, f"There are more than {LAYERS_MAX} content codings.")
    return codings


class Chain:
    """All codings of one body being undone, the last applied first."""

    __slots__ = ("_layers", "name")

    def __init__(self, codings: list[Coding], gate: Gate) -> None:
        self._layers = [Layer(coding, gate) for coding in reversed(codings)]
        self.name = "+".join(coding.name for coding in codings)

    @property
    def applied(self) -> bool | None:
        """Whether any coding was really applied; None while that is open."""
        known = [layer.applied for layer in self._layers]
        return True if any(known) else None if None in known else False

    @property
    def ended(self) -> bool:
        """The innermost coding has ended: what comes now stood behind its end."""
        return self._layers[-1].ended

    def not_applied(self) -> list[str]:
        """The codings that were declared and not applied."""
        return [layer.name for layer in reversed(self._layers) if layer.applied is False]

    def trailing(self) -> list[str]:
        """The codings behind whose end something stood."""
        return [layer.name for layer in reversed(self._layers) if layer.ended]

    def doubts(self) -> list[str]:
        """Why the body is malformed although it could be decoded."""
        return [layer.doubt for layer in self._layers if layer.doubt is not None]

    def decode(self, data: Buffer) -> Iterator[bytes]:
        """More of the coded body: yields decoded bytes, a bounded piece at a time. Raises `Stop`."""
        return self._through(0, data)

    def finish(self) -> Iterator[bytes]:
        """The body ended: yields the rest. Raises `Stop`, e.g. MALFORMED for one that was cut short."""
        for index, layer in enumerate(self._layers):
            for piece in layer.finish():
                yield from self._through(index + 1, piece)

    def _through(self, index: int, data: Buffer) -> Iterator[bytes]:
        if index == len(self._layers):
            yield bytes(data)
            return
        for piece in self._layers[index].decode(data):
            yield from self._through(index + 1, piece)
