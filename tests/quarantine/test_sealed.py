"""The encrypted file of an item: what goes in comes out, and no change of the file goes unnoticed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.errors import Damaged, QuarantineFailed
from icapscan.quarantine.item import new_id
from icapscan.quarantine.keys import Key, Keys
from icapscan.quarantine.sealed import DESCRIPTION_MAX, FRAME, HEADER, MAGIC, TAG, Sealed, seal

KEY = Key(bytes(range(32)))
OTHER = Key(bytes(range(1, 33)))
KEYS = Keys(KEY)
NAME = "0123456789abcdef"
DESCRIPTION = b'{"a": 1}'
FIRST = HEADER + len(DESCRIPTION) + TAG
"""Where the first frame of the body begins."""
KNOWN = (
    "4943415051010d0a58d4aadc0e028e3757ef8128eb1b4a4b205ce1718c1e7cad6066fec04218013160fc6984cd3d6a8b0000"
    "0002a7b920293ca19039d9aeada5016b100ccb85f0c65f0d13796a6c3ff4e15eba8af4a11ea144c4"
)


def sealed(body: bytes | Sequence[bytes], name: str = NAME, key: Key = KEY, description: bytes = DESCRIPTION) -> bytes:
    return b"".join(seal([body] if isinstance(body, bytes) else body, key, name, description))


def unsealed(data: bytes, name: str = NAME, keys: Keys = KEYS) -> tuple[bytes, bytes]:
    file = Sealed(io.BytesIO(data), name, keys)
    return file.description, b"".join(file.pieces())


SIZES = st.one_of(
    st.integers(0, 300), st.integers(-2, 2).map(lambda n: FRAME + n), st.integers(-2, 2).map(lambda n: 3 * FRAME + n)
)


@given(size=SIZES, cuts=st.lists(st.integers(0, 4 * FRAME), max_size=6), filler=st.binary(min_size=1, max_size=40))
def test_what_goes_in_comes_out_however_it_is_cut(size: int, cuts: list[int], filler: bytes) -> None:
    body = (filler * (size // len(filler) + 1))[:size]
    places = [0, *sorted(min(cut, size) for cut in cuts), size]
    pieces = [body[a:b] for a, b in pairwise(places)]
    data = sealed(pieces)
    assert unsealed(data) == (DESCRIPTION, body)
    frames = max(1, -(-size // FRAME))
    assert len(data) == FIRST + size + frames * TAG


@given(description=st.binary(max_size=2000), body=st.binary(max_size=200))
def test_any_description(description: bytes, body: bytes) -> None:
    assert unsealed(sealed(body, description=description)) == (description, body)


def test_views_of_memory_are_taken() -> None:
    assert unsealed(b"".join(seal([memoryview(b"abc"), b"", b"d"], KEY, NAME, b"")))[1] == b"abcd"


def test_a_description_past_its_bound_is_refused() -> None:
    with pytest.raises(QuarantineFailed, match="too long"):
        sealed(b"", description=bytes(DESCRIPTION_MAX + 1))


def test_nothing_of_the_body_or_the_description_is_to_be_seen() -> None:
    data = sealed(b"a very secret text " * 50, description=b"a secret description")
    assert b"secret" not in data
    assert NAME.encode() not in data


def test_the_same_body_twice_has_nothing_in_common_but_the_beginning() -> None:
    one, two = sealed(b"\0" * 1000), sealed(b"\0" * 1000)
    start = len(MAGIC) + 8
    assert one[:start] == two[:start]
    assert one[start : start + 32] != two[start : start + 32]
    blocks = {data[at : at + 16] for data in (one, two) for at in range(HEADER, len(data) - 16, 16)}
    assert len(blocks) == sum(len(range(HEADER, len(data) - 16, 16)) for data in (one, two))


def test_every_flipped_bit_is_noticed() -> None:
    data = sealed(b"twenty bytes of text")
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(QuarantineFailed):
                unsealed(bytes(changed))


def test_every_cut_is_noticed() -> None:
    data = sealed(b"twenty bytes of text")
    for size in range(len(data)):
        with pytest.raises(Damaged):
            unsealed(data[:size])


def test_a_cut_between_frames_is_noticed_at_each_frame() -> None:
    data = sealed(b"x" * (4 * FRAME + 5))
    for frames in range(5):
        with pytest.raises(Damaged, match="frame"):
            unsealed(data[: FIRST + frames * (FRAME + TAG)])


def frames_of(data: bytes) -> list[bytes]:
    return [data[at : at + FRAME + TAG] for at in range(FIRST, len(data), FRAME + TAG)]


def joined(data: bytes, frames: Sequence[bytes]) -> bytes:
    return data[:FIRST] + b"".join(frames)


def test_frames_that_are_moved_left_out_doubled_or_added_are_noticed() -> None:
    data = sealed(b"".join(bytes([n]) * FRAME for n in range(4)))
    other = frames_of(sealed(b"".join(bytes([n]) * FRAME for n in range(4))))
    a, b, c, d = frames_of(data)
    assert unsealed(joined(data, [a, b, c, d]))
    wrong = [
        [b, a, c, d], [a, c, b, d], [a, b, d, c], [b, c, d], [a, c, d], [a, b, d], [a, b, c], [d], [],
        [a, a, b, c, d], [a, b, c, d, d], [a, b, c, d, a], [a, b, c, d, b"\0"], [a, b, c, d, bytes(TAG)],
        [other[0], b, c, d], [a, other[1], c, d], [a, b, c, other[3]], other,
    ]  # fmt: skip
    for frames in wrong:
        with pytest.raises(Damaged):
            unsealed(joined(data, frames))


def test_the_description_cannot_stand_for_a_body_nor_the_other_way_round() -> None:
    data = sealed(b"12345678")
    described, body = data[HEADER:FIRST], data[FIRST:]
    for changed in (body + described, described + described, body + body):
        with pytest.raises(Damaged):
            unsealed(data[:HEADER] + changed)


def test_what_came_before_the_damage_was_good_and_nothing_more_is_given_out() -> None:
    data = bytearray(sealed(b"a" * FRAME + b"b" * FRAME + b"c"))
    data[FIRST + FRAME + TAG + 7] ^= 1
    pieces = Sealed(io.BytesIO(bytes(data)), NAME, KEYS).pieces()
    assert next(pieces) == b"a" * FRAME
    with pytest.raises(Damaged, match="frame 2"):
        next(pieces)


def test_a_file_under_another_id_does_not_open() -> None:
    with pytest.raises(Damaged):
        unsealed(sealed(b"x"), name=new_id())


def test_another_key_does_not_open_it_and_is_no_damage() -> None:
    with pytest.raises(QuarantineFailed, match=KEY.number.hex()) as caught:
        unsealed(sealed(b"x"), keys=Keys(OTHER))
    assert not isinstance(caught.value, Damaged)


def test_an_old_key_still_opens_it() -> None:
    assert unsealed(sealed(b"x"), keys=Keys(OTHER, (KEY,)))[1] == b"x"


class Slow(io.RawIOBase):
    """A raw file that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        return self._data.readinto(memoryview(buffer)[:1000])

    def readable(self) -> bool:
        return True


def test_short_reads_are_no_end() -> None:
    body = b"0123456789" * 20_000
    file = Sealed(Slow(sealed(body)), NAME, KEYS)  # type: ignore[arg-type]
    assert b"".join(file.pieces()) == body


def test_the_form_stays_as_it_is() -> None:
    """What was written by this release must be read by the next."""
    data = bytes.fromhex(KNOWN)
    assert unsealed(data) == (b"{}", b"kept")
