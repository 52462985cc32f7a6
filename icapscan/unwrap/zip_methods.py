"""The compression methods of zip members (APPNOTE.TXT 4.4.5) that are undone in process, each as a `Stream`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.archive_streams import Bzip2, RawLzma
from icapscan.unwrap.streams import Broken, Buffer, Inflate, Lzma, Stream
from icapscan.unwrap.zstd import Zstd

_STEP64 = 64
"""Input of deflate64 at once. Its library has no bound on output, and 64 bytes make 2 MiB at most (65,538 bytes from
18 bits)."""


class Stored:
    """No compression. Ends when its input does."""

    __slots__ = ("eof",)

    def __init__(self) -> None:
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        return bytes(data[:limit]), data[limit:]

    def copy(self) -> None:
        return None


class Deflate64:
    """Method 9 by ``inflate64``, which does not say where in its input the stream ended: up to 64 bytes too late."""

    __slots__ = ("_inflater", "eof")

    def __init__(self) -> None:
        import inflate64

        self._inflater: Any = inflate64.Inflater()
        self.eof = False

    def step(self, data: Buffer, limit: int) -> tuple[bytes, Buffer]:
        out: list[bytes] = []
        size = 0
        while data and size < limit:
            piece = bytes(data[:_STEP64])
            try:
                made = self._inflater.inflate(piece)
            except Exception as error:  # its errors have no common class
                raise Broken(str(error) or "not deflate64") from error
            out.append(made)
            size += len(made)
            if self._inflater.eof:
                self.eof = True
                break  # the last piece is given back, for what stands behind the end
            data = data[len(piece) :]
        return b"".join(out), data

    def copy(self) -> None:
        return None


OPENERS: dict[int, Callable[[], Stream]] = {
    zh.STORED: Stored,
    zh.DEFLATE: lambda: Inflate(-15),
    zh.DEFLATE64: Deflate64,
    zh.BZIP2: Bzip2,
    zh.LZMA: RawLzma,
    zh.ZSTD_OLD: Zstd,
    zh.ZSTD: Zstd,
    zh.XZ: Lzma,
}
"""By number; what is not here is UNSUPPORTED in process."""

ENDS_ITSELF = frozenset({zh.DEFLATE, zh.DEFLATE64, zh.BZIP2, zh.ZSTD, zh.ZSTD_OLD, zh.XZ})
"""Methods whose data shows its own end. LZMA need not (general purpose bit 1)."""

CLAMD = frozenset({zh.STORED, zh.DEFLATE, zh.DEFLATE64, zh.BZIP2, 6})
"""Methods that clamd undoes (implode, 6, is undone here by 7-Zip); members packed by others are for it, too."""
