"""S/MIME: signed content in DER and BER, compressed content, encrypted content, damage."""

from __future__ import annotations

import hashlib
import zlib

from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.limits import MIB, Limits
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.smime import SMIME
from tests.unwrap.archive_driver import walk
from tests.unwrap.coders import cms, der
from tests.unwrap.samples_mime import EICAR
from tests.unwrap.unpacked import Unpacked

COMPRESSED = bytes.fromhex("060b2a864886f70d0109100109")


def compressed(data: bytes) -> bytes:
    inner = der(0x30, bytes.fromhex("06092a864886f70d010701"), der(0xA0, der(4, data)))
    return der(0x30, COMPRESSED, der(0xA0, der(0x30, der(2, b"\0"), der(0x30), inner)))


def unpack(body: bytes, limits: Limits | None = None) -> Unpacked:
    return Unpacked(body, [SMIME], Declared(), limits=limits)


def test_signed_content() -> None:
    for content in (EICAR, EICAR * 100, EICAR * 10_000):
        assert unpack(cms(2, content)).parts == {"1": content}
        for pieces in (10, 1000):
            assert unpack(cms(2, content, pieces=pieces)).parts == {"1": content}


def test_signed_from_outside_has_no_content() -> None:
    unpacked = unpack(cms(2, None))
    assert not unpacked.parts and unpacked.clean


def test_compressed_content() -> None:
    assert unpack(compressed(zlib.compress(EICAR * 50))).parts == {"1": EICAR * 50}
    assert unpack(compressed(zlib.compress(EICAR * 50)[:-6])).failed == {"1": Reason.MALFORMED}
    assert unpack(compressed(b"junk")).failed == {"1": Reason.MALFORMED}


def test_a_compressed_bomb_is_bounded() -> None:
    unpacked = unpack(compressed(zlib.compress(bytes(100 * MIB))), Limits(unpacked=1 * MIB, ratio_from=64 * MIB))
    assert unpacked.budget.spent == "unpacked" and unpacked.failed
    assert sum(map(len, unpacked.parts.values())) < 2 * MIB


def test_encrypted_content() -> None:
    for kind in (3, 4, 6):
        assert unpack(cms(kind, None)).failed == {"": Reason.ENCRYPTED}


def test_cut_off_is_malformed_or_told_as_far_as_it_goes() -> None:
    whole = cms(2, EICAR)
    for size in range(20, len(whole) - 2):
        unpacked = unpack(whole[:size])
        assert unpacked.failed or EICAR in unpacked.parts.values(), size


@given(st.binary(max_size=60), st.integers(0, 120))
def test_nothing_in_the_input_raises(junk: bytes, at: int) -> None:
    for whole in (cms(2, EICAR), cms(2, EICAR, pieces=10), compressed(zlib.compress(EICAR))):
        unpack(whole[:at] + junk + whole[at + len(junk) :])


def test_short_objects_are_opened_too() -> None:
    """Below 128 bytes the length of the whole object is one byte of any value."""
    for size in (1, 20, 40, 68, 75, 100):
        body = cms(2, EICAR[:1] * size)
        assert hashlib.sha256(EICAR[:1] * size).hexdigest() in walk(body).leaves.values()
