"""Mutations that know where things stand: records behind their signatures, numbers beside them, lines, checksums."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutate = Callable[[bytes, int], bytes]
"""The fuzzing engine's own mutation: an input and the most bytes that it may have."""
Mutator = Callable[[bytes, int, random.Random, tuple[bytes, ...]], bytes]

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 127, 128, 255, 256, 511, 512, 513, 4095, 4096, 32767, 32768, 65535, 65536)
_FAR = (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1)


def near_words(data: bytes, most: int, dice: random.Random, words: tuple[bytes, ...]) -> bytes:
    """Change a number near a signature, or move, double, drop or cut what stands between two of them."""
    places = _places(data, words)
    start = dice.choice(places) if places else dice.randrange(len(data) + 1)
    end = min((place for place in places if place > start), default=len(data))
    block = data[start:end]
    match dice.randrange(8):
        case 0 | 1 | 2:
            return _number(data, start, dice)
        case 3:
            return data[:end] + block + data[end:]
        case 4:
            return data[:start] + data[end:]
        case 5:
            other = dice.choice(places) if places else 0
            rest = data[:start] + data[end:]
            return rest[:other] + block + rest[other:]
        case 6:
            return data[:start] + (dice.choice(words) if words else b"") + data[start:]
        case _:
            return data[: dice.randrange(start, len(data) + 1)]


def lines(data: bytes, most: int, dice: random.Random, words: tuple[bytes, ...]) -> bytes:
    """Change the order of lines, their ends, their number; put known words at their starts and ends."""
    kept = data.splitlines(keepends=True) or [b""]
    at = dice.randrange(len(kept))
    match dice.randrange(8):
        case 0:
            kept.insert(dice.randrange(len(kept) + 1), kept[at])
        case 1:
            del kept[at]
        case 2:
            kept[at] = kept[at].rstrip(b"\r\n") + dice.choice(
                (b"\r\n", b"\n", b"\r", b"", b"\r\r\n", b"\n\r", b" \r\n")
            )
        case 3:
            other = dice.randrange(len(kept))
            kept[at], kept[other] = kept[other], kept[at]
        case 4:
            kept[at] = (dice.choice(words) if words else b" ") + kept[at]
        case 5:
            line = kept[at]
            place = dice.randrange(len(line) + 1)
            kept[at] = line[:place] + (dice.choice(words) if words else b"=") + line[place:]
        case 6:
            kept.insert(at, (dice.choice(words) if words else b"") + b"\r\n")
        case _:
            end = dice.randrange(at, len(kept)) + 1
            kept[at:at] = kept[at:end]
    return b"".join(kept)


def tar_blocks(data: bytes, most: int, dice: random.Random, words: tuple[bytes, ...]) -> bytes:
    """Change, move or double blocks of a tar, and make the checksum of each header right again."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data), 512)] or [bytearray(512)]
    at = dice.randrange(len(blocks))
    match dice.randrange(5):
        case 0 | 1:
            field = dice.choice((0, 100, 124, 156, 157, 257, 345, 386, 482, 483))
            word = dice.choice((*words, b"%011o" % dice.choice(_NUMBERS), b"\x80" + bytes(7) + b"\xff" * 4))
            blocks[at][field : field + len(word)] = word
        case 2:
            blocks.insert(dice.randrange(len(blocks) + 1), bytearray(blocks[at]))
        case 3:
            del blocks[at]
        case _:
            place = dice.randrange(512)
            blocks[at][place : place + 1] = bytes([dice.randrange(256)])
    for block in blocks:
        if len(block) == 512 and (block[257:262] == b"ustar" or bytes(block[154:156]) in (b"\0 ", b" \0")):
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


def _places(data: bytes, words: tuple[bytes, ...]) -> list[int]:
    places = list[int]()
    for word in words:
        if len(word) < 2:
            continue
        at = data.find(word)
        while at >= 0 and len(places) < 500:
            places.append(at)
            at = data.find(word, at + 1)
    return sorted(set(places))


def _number(data: bytes, start: int, dice: random.Random) -> bytes:
    """A number of one, two, four or eight bytes within 64 bytes becomes one that lies at an edge."""
    size = dice.choice((1, 2, 4, 4, 8))
    at = min(max(0, start + dice.randrange(64)), max(0, len(data) - size))
    order = dice.choice(("little", "little", "big"))
    old = int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]
    value = dice.choice(
        (
            old + 1,
            old - 1,
            old * 2,
            -old,
            len(data),
            len(data) - at,
            at,
            start,
            dice.choice(_NUMBERS),
            dice.choice(_FAR),
        )
    )
    return data[:at] + (value % (1 << 8 * size)).to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def mutator(own: Mutator | None, words: tuple[bytes, ...], engine: Mutate) -> Callable[[bytes, int, int], bytes]:
    """A mutation for the engine: half of the time its own, else ours, at times both."""

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if own is not None and dice.random() < 0.5:
            for _ in range(dice.choice((1, 1, 1, 2, 4))):
                data = own(data, most, dice, words)
            data = data[:most]
            if dice.random() < 0.7:
                return data
        return engine(data, most)

    return mutate
