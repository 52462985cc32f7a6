"""The child process that drives libarchive: reads an archive on standard input, writes its members as frames.

A frame is a letter, the length of its payload as 32 bits, and the payload: N a member begins (its name), D data,
E it is complete, F it failed, A the archive failed, Z the archive is complete. Payload of F and A: a `Reason`'s value,
a blank, a sentence. Run by `libarchive.py` only.
"""

from __future__ import annotations

import ctypes
import locale
import os
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Any

from icapscan.unwrap import bounded

FRAME = struct.Struct(">cI")
BLOCK = 64 * 1024
NOT_INSTALLED = 3
"""Exit status: there is no libarchive here."""
FILTERS = ("none", "compress", "gzip", "bzip2", "xz", "lzma", "zstd", "rpm")
"""What packages of these formats are compressed with. For what it was built without, libarchive would start a program:
the child's search path is empty."""


def main(formats: list[str], only_encrypted: bool) -> int:
    """Unpack standard input."""
    try:
        from libarchive import ffi
    except (ImportError, OSError, TypeError, AttributeError):  # the last two: no library was found to load
        return NOT_INSTALLED
    bounded.apply()
    bounded.alive()
    locale.setlocale(locale.LC_ALL, "")
    _Unpacking(ffi, only_encrypted).run(formats)
    return 0


class _Unpacking:
    def __init__(self, ffi: Any, only_encrypted: bool) -> None:
        self._ffi = ffi
        self._only_encrypted = only_encrypted
        library = ffi.libarchive
        self._read_block = library.archive_read_data_block
        self._read_block.argtypes, self._read_block.restype = [ctypes.c_void_p] * 4, ctypes.c_int
        self._is_encrypted = library.archive_entry_is_encrypted
        self._is_encrypted.argtypes, self._is_encrypted.restype = [ctypes.c_void_p], ctypes.c_int

    def run(self, formats: list[str]) -> None:
        ffi = self._ffi
        archive = ffi.read_new()
        for name in FILTERS:
            ffi.get_read_filter_function(name)(archive)
        for name in formats:
            try:
                ffi.get_read_format_function(name)(archive)
            except ValueError:
                pass  # an older libarchive; it will say that it does not know the format
        for password in bounded.passwords():
            ffi.read_add_passphrase(archive, password.encode())
        entry = ffi.entry_new()
        try:
            ffi.read_open_fd(archive, os.open(bounded.PART, os.O_RDONLY), BLOCK)
            while ffi.read_next_header2(archive, entry) != ffi.ARCHIVE_EOF:
                self._member(archive, entry)
        except ffi.ArchiveError as error:
            _say(b"A", _why(error))
            return
        _say(b"Z", b"")

    def _member(self, archive: Any, entry: Any) -> None:
        """One member. Raises ArchiveError when the archive cannot be read on."""
        ffi = self._ffi
        encrypted = self._is_encrypted(entry) > 0
        if self._only_encrypted and not encrypted:
            return
        name = _name(ffi, entry)
        # Links and devices are no members, unless they have data: other readers make plain files of them.
        plain = stat.S_IFMT(ffi.entry_filetype(entry)) == stat.S_IFREG
        begun = plain and not ffi.entry_hardlink(entry)
        if begun:
            _say(b"N", name)
        try:
            for piece in self._pieces(archive, ffi.entry_size(entry) if plain else 0):
                if not begun:
                    _say(b"N", name)
                    begun = True
                _say(b"D", piece)
        except ffi.ArchiveError as error:
            if not begun:
                _say(b"N", name)
            _say(b"F", b"encrypted It is encrypted." if encrypted else _why(error))
            if error.retcode == ffi.ARCHIVE_FATAL:
                raise
            return
        if begun:
            _say(b"E", b"")

    def _pieces(self, archive: Any, whole: int) -> Iterator[bytes]:
        """The data of a member of ``whole`` bytes (0: not known), its holes filled."""
        ffi = self._ffi
        address, size, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_int64()
        position = 0
        while True:
            result = self._read_block(archive, ctypes.byref(address), ctypes.byref(size), ctypes.byref(offset))
            if result == ffi.ARCHIVE_EOF:
                break
            if result < ffi.ARCHIVE_WARN:
                raise ffi.archive_error(archive, result)
            if not size.value or address.value is None:
                continue
            yield from _holes(offset.value - position)
            for at in range(0, size.value, BLOCK):
                yield ctypes.string_at(address.value + at, min(BLOCK, size.value - at))
            position = max(position, offset.value) + size.value
        yield from _holes(whole - position)


def _holes(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, BLOCK))
        size -= BLOCK


def _name(ffi: Any, entry: Any) -> bytes:
    raw = ffi.entry_pathname(entry)
    if raw is not None:
        return bytes(raw)[:BLOCK]
    wide = ffi.entry_pathname_w(entry)
    return (wide or "").encode("utf-8", "replace")[:BLOCK]


def _why(error: Any) -> bytes:
    text = " ".join(str(error.msg if hasattr(error, "msg") else error).split())[:200]
    lower = text.lower()
    if "ncrypt" in lower or "passphrase" in lower:
        reason = "encrypted"
    elif "support" in lower or "unrecognized" in lower or "unknown codec" in lower:
        reason = "unsupported"
    elif "memory" in lower:
        reason = "over-limit"
    else:
        reason = "malformed"
    return f"{reason} libarchive: {text}.".encode()


def _say(letter: bytes, payload: bytes) -> None:
    bounded.put(FRAME.pack(letter, len(payload)) + payload)


if __name__ == "__main__":
    sys.exit(main(sys.argv[2].split(","), sys.argv[1] == "encrypted"))
