"""qmail-queue's protocol (qmail-queue(8)): the envelope on descriptor 1, the exit codes, the text on descriptor 6.

No descriptors in here: bytes in, an `Envelope` out, and back. Bounds are those of qmail-queue.c where it has one.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct

ADDRESS_MOST = 1002
"""Bytes of one address. qmail-queue.c: ADDR 1003, the final NUL included."""
ENVELOPE_MOST = 16 * 1024 * 1024
"""Bytes of a whole envelope. qmail-queue has no such bound: it writes to the disk what we keep in memory."""
TEXT_MOST = 255
"""Bytes on descriptor 6. qmail.c reads no more."""


class Exit(enum.IntEnum):
    """What qmail-queue's exit code says (qmail-queue(8), EXIT CODES). 11 to 40 are permanent, all others temporary."""

    QUEUED = 0
    ADDRESS_TOO_LONG = 11
    REFUSED = 31
    OUT_OF_MEMORY = 51
    TIMEOUT = 52
    WRITE_ERROR = 53
    READ_ERROR = 54
    """The message or the envelope ended too early, or cannot be read."""
    CONFIGURATION = 55
    NETWORK = 56
    TRY_LATER = 71
    INTERNAL_BUG = 81
    TOLD = 82
    """A text is on descriptor 6: ``D…`` refused for good, ``Z…`` for now."""
    ENVELOPE_FORMAT = 91


class EnvelopeError(Exception):
    """An envelope that qmail-queue would not take; ``exit`` is what it says then."""

    def __init__(self, sentence: str, exit: Exit) -> None:
        super().__init__(sentence)
        self.exit = exit


class Envelope(Struct, frozen=True):
    """Who sent a message, and to whom: addresses as bytes, without angle brackets. An empty sender is a bounce."""

    sender: bytes
    recipients: tuple[bytes, ...]
    wire: bytes
    """The bytes that it was read from, up to and with its last NUL."""


def encode_envelope(sender: bytes, recipients: Sequence[bytes]) -> bytes:
    """``F<sender>\\0T<recipient>\\0…\\0``. Raises ``ValueError`` for an address with a NUL, or one too long."""
    for address in (sender, *recipients):
        if b"\0" in address or len(address) > ADDRESS_MOST:
            raise ValueError("An address in an envelope has no NUL and at most 1002 bytes.")
    return b"F%s\0%s\0" % (sender, b"".join(b"T%s\0" % address for address in recipients))


def refusal_text(text: str, *, permanent: bool) -> bytes:
    """What is written to descriptor 6 with `Exit.TOLD`: one line, with qmail's way to write an enhanced status code."""
    start, code = ("D", " (#5.7.1)") if permanent else ("Z", " (#4.7.1)")
    line = "".join(character if " " <= character <= "~" else "?" for character in text)
    return (start + line[: TEXT_MOST - len(start) - len(code)] + code).encode("ascii")


class EnvelopeReader:
    """Bytes from descriptor 1 in, the envelope out. Any split gives the same; what follows the envelope is not read."""

    __slots__ = ("_at", "_data", "_most", "_recipients", "_sender")

    def __init__(self, most: int = ENVELOPE_MOST) -> None:
        self._most = most
        self._data = bytearray()
        self._at = 0
        """Where the next address begins."""
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []

    def feed(self, data: bytes) -> Envelope | None:
        """The envelope, as soon as its last NUL is there. Raises `EnvelopeError`."""
        self._data += data
        buffer = self._data
        while self._at < len(buffer):
            at = self._at
            if buffer[at] == 0 and self._sender is not None:
                return Envelope(self._sender, tuple(self._recipients), bytes(buffer[: at + 1]))
            if buffer[at] != (ord("F") if self._sender is None else ord("T")):
                raise EnvelopeError("The envelope has neither a sender nor a recipient there.", Exit.ENVELOPE_FORMAT)
            stop = buffer.find(0, at + 1, at + 2 + ADDRESS_MOST)
            if stop < 0:
                if len(buffer) - at > 1 + ADDRESS_MOST:
                    raise EnvelopeError("An address in the envelope is too long.", Exit.ADDRESS_TOO_LONG)
                break
            if stop >= self._most:
                raise EnvelopeError("The envelope is too long.", Exit.OUT_OF_MEMORY)
            self._take(bytes(buffer[at + 1 : stop]))
            self._at = stop + 1
        return None

    def finish(self) -> EnvelopeError:
        """Descriptor 1 ended before the envelope did: what is to be raised."""
        return EnvelopeError("The envelope ends before its last NUL.", Exit.READ_ERROR)

    def _take(self, address: bytes) -> None:
        if self._sender is None:
            self._sender = address
        else:
            self._recipients.append(address)
