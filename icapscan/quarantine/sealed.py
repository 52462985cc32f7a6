"""The form of an item's file: encrypted frames, of which none can be changed, moved, left out or added unnoticed.

::

    magic 8 | number of the master key 8 | salt 32 | size of the description 4      header, 52 bytes
    description (JSON), encrypted                                                   frame 0
    64 KiB of the body, encrypted                                                   frame 1, 2, …
    0 to 64 KiB of the body, encrypted                                              the last frame

Each frame is AES-256-GCM (NIST SP 800-38D) with the item's own key, the number of the frame as its nonce, and the
header and what the frame is (description, middle, last) as associated data. A nonce is never used twice, for no two
items have the same key: it is derived from a random salt and the id. The construction is STREAM (Hoang, Reyhanitabar,
Rogaway, Vizár: Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015), with the mark of the last
frame in the associated data in place of the nonce.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from icapscan.errors import Damaged, QuarantineFailed
from icapscan.limits import KIB, MIB
from icapscan.quarantine.keys import NUMBER_SIZE, SALT_SIZE, Key, Keys

FRAME = 64 * KIB
TAG = 16
MAGIC = b"ICAPQ\x01\r\n"
HEADER = len(MAGIC) + NUMBER_SIZE + SALT_SIZE + 4
DESCRIPTION_MAX = 16 * MIB
_DESCRIPTION, _MIDDLE, _LAST = b"d", b"m", b"l"


def seal(pieces: Iterable[bytes | memoryview], key: Key, name: str, description: bytes) -> Iterator[bytes]:
    """The file of the item with the id ``name``, in pieces, read from ``pieces`` as they are asked for.

    Raises `QuarantineFailed` where ``description`` is over `DESCRIPTION_MAX` bytes.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(description) > DESCRIPTION_MAX:
        raise QuarantineFailed("What is to be noted about this item, its recipients above all, is too long.")
    salt = secrets.token_bytes(SALT_SIZE)
    header = MAGIC + key.number + salt + len(description).to_bytes(4, "big")
    cipher = AESGCM(key.of_item(salt, name))
    yield header
    yield cipher.encrypt(_nonce(0), description, header + _DESCRIPTION)
    for number, (frame, last) in enumerate(_frames(pieces), 1):
        yield cipher.encrypt(_nonce(number), frame, header + (_LAST if last else _MIDDLE))


class Sealed:
    """An item's file, opened. Nothing is given out that did not verify."""

    __slots__ = ("_cipher", "_file", "_header", "_name", "description", "number")

    def __init__(self, file: BinaryIO, name: str, keys: Keys) -> None:
        """Reads header and description. Raises `Damaged`, and `QuarantineFailed` for a key that is not configured.

        ``file`` is read from its beginning and stays the caller's; its errors (OSError) go through.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._file = file
        self._name = name
        header = self._header = _read(file, HEADER)
        if len(header) < HEADER or not header.startswith(MAGIC):
            raise Damaged(f"The item {name} is damaged: its file does not begin as one of ours.")
        at = len(MAGIC)
        self.number = header[at : at + NUMBER_SIZE]
        """The number of its master key."""
        salt = header[at + NUMBER_SIZE : at + NUMBER_SIZE + SALT_SIZE]
        size = int.from_bytes(header[-4:], "big")
        self._cipher = AESGCM(keys.get(self.number).of_item(salt, name))
        if size > DESCRIPTION_MAX:
            raise self._damaged(0)
        self.description = self._opened(0, _read(file, size + TAG), _DESCRIPTION)

    def pieces(self) -> Iterator[bytes]:
        """The body, a frame at a time. Raises `Damaged` at the first frame that does not verify. Once only."""
        number = 1
        frame = _read(self._file, FRAME + TAG)
        while True:
            after = _read(self._file, FRAME + TAG)
            piece = self._opened(number, frame, _MIDDLE if after else _LAST)
            if piece:
                yield piece
            if not after:
                return
            frame = after
            number += 1

    def _opened(self, number: int, frame: bytes, what: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        if len(frame) < TAG:
            raise self._damaged(number)
        try:
            return self._cipher.decrypt(_nonce(number), frame, self._header + what)
        except InvalidTag as error:
            raise self._damaged(number) from error

    def _damaged(self, number: int) -> Damaged:
        return Damaged(
            f"The item {self._name} is damaged: frame {number} of its file does not verify, so bytes of it were "
            "changed, moved, added or cut off."
        )


def _frames(pieces: Iterable[bytes | memoryview]) -> Iterator[tuple[bytes, bool]]:
    """Whole frames, and whether each is the last, which may be shorter or empty."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        at = 0
        while len(pending) - at > FRAME:
            yield bytes(pending[at : at + FRAME]), False
            at += FRAME
        del pending[:at]
    yield bytes(pending), True


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _read(file: BinaryIO, size: int) -> bytes:
    """``size`` bytes, fewer only at the end of the file (a raw file may give fewer at a time)."""
    data = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data
