"""The stream filters of PDF (ISO 32000-2, 7.4) that a scan undoes by itself. Each takes pieces and gives pieces."""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.limits import MIB
from icapscan.unwrap.gate import Gate, Stop
from icapscan.unwrap.streams import Inflate
from icapscan.unwrap.unpack import Unpacker

PICTURES = frozenset({b"DCTDecode", b"JPXDecode", b"CCITTFaxDecode", b"JBIG2Decode"})
"""What comes in front of them is a picture file: nothing more to undo."""
OURS = frozenset({b"FlateDecode", b"ASCIIHexDecode", b"ASCII85Decode"})
_A85_MAX = 4 * MIB
"""Of ASCII85: the standard library needs about a fifth of a second for one MiB."""
_HEX = b"0123456789abcdefABCDEF"
_NOT_HEX = bytes(code for code in range(256) if code not in _HEX)
_A85 = bytes(range(33, 118)) + b"z"
_NOT_A85 = bytes(code for code in range(256) if code not in _A85)


class Decoded:
    """The data of one stream behind its filters. `pieces` raises `Stop`; what came before it counts."""

    def __init__(self, gate: Gate, filters: tuple[bytes, ...]) -> None:
        self._gate = gate
        self._filters = filters
        self.left = b""
        """What stood behind the end of the compressed data."""

    def pieces(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """The decoded data."""
        for name in self._filters:
            if name in PICTURES:
                break
            if name == b"FlateDecode":
                raw = self._flate(raw)
            elif name == b"ASCIIHexDecode":
                raw = self._hex(raw)
            elif name == b"ASCII85Decode":
                raw = self._a85(raw)
            else:
                raise Stop(Reason.UNSUPPORTED, f"The filter {name.decode('latin-1')} is not undone here.")
        yield from raw

    def _flate(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Zlib, or what is left of it without its header (viewers read that too)."""
        first = next(raw, b"").lstrip(b"\r\n")
        headed = len(first) > 1 and first[0] & 15 == 8 and (first[0] << 8 | first[1]) % 31 == 0
        unpacker = Unpacker(Inflate(15 if headed else -15), self._gate)
        for piece in itertools.chain((first,), raw):
            if unpacker.eof:
                self._keep(piece)
                continue
            used = yield from unpacker.run(piece)
            self._keep(piece[used:])  # there is none before the end
        if unpacker.used and not unpacker.eof:
            raise Stop(Reason.MALFORMED, "The compressed data is cut short.")

    def _keep(self, piece: bytes) -> None:
        if len(self.left) < MIB:
            self.left += piece

    def _hex(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        half = b""
        for piece in raw:
            text, mark, rest = piece.partition(b">")
            digits = half + text.translate(None, _NOT_HEX)
            if mark and len(digits) % 2:
                digits += b"0"
            half = digits[len(digits) & ~1 :]
            if len(digits) > 1:
                yield self._counted(binascii.unhexlify(digits[: len(digits) & ~1]))
            if mark:
                self._keep(rest)
                return

    def _a85(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        held, size = b"", 0
        for piece in raw:
            text, mark, rest = piece.partition(b"~")
            size += len(text)
            if size > _A85_MAX:
                self._gate.stop("ASCII85 in a PDF file")
            held += text.translate(None, _NOT_A85)
            held = held[2:] if held.startswith(b"<~") else held
            # A group is five characters or a z: without z the groups are known.
            use = len(held) if mark or b"z" in held else len(held) // 5 * 5
            if use and (mark or b"z" not in held):
                yield self._counted(_a85(held[:use]))
                held = held[use:]
            if mark:
                self._keep(rest)
                return
        if held:
            yield self._counted(_a85(held))

    def _counted(self, out: bytes) -> bytes:
        self._gate.room()
        if not self._gate.took(len(out)):
            self._gate.stop()
        return out


def _a85(text: bytes) -> bytes:
    try:
        return base64.a85decode(text)
    except ValueError as error:
        raise Stop(Reason.MALFORMED, f"The ASCII85 data is damaged: {error}.") from None
