"""TNEF: attachments by attribute and by property, bodies, damage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.tnef import TNEF
from icapscan.unwrap.tnef_rtf import decompressed
from tests.unwrap.coders import DATA, MESSAGE_PROPERTIES, PROPERTIES, RENDERING, TITLE, properties, tnef, winmail
from tests.unwrap.samples_mime import EICAR
from tests.unwrap.unpacked import Unpacked


def unpack(body: bytes) -> Unpacked:
    return Unpacked(body, [TNEF], Declared())


def test_attachments_have_their_own_names_wherever_they_stand() -> None:
    body = tnef(
        (2, RENDERING, bytes(14)), (2, TITLE, b"first.com\0"), (2, DATA, EICAR),
        (2, RENDERING, bytes(14)), (2, DATA, b"second"), (2, TITLE, b"second.txt\0"),
    )  # fmt: skip
    unpacked = unpack(body)
    named = {begin.name: unpacked.parts[path] for path, begin in unpacked.begins.items()}
    assert named == {"first.com": EICAR, "second.txt": b"second"} and unpacked.clean


def test_a_long_name_stands_in_the_properties() -> None:
    long = "Rechnung für März.exe"
    listed = properties((0x3707, 31, long.encode("utf-16-le") + b"\0\0"), (0x3001, 30, b"shown\0"))
    unpacked = unpack(
        tnef((2, RENDERING, bytes(14)), (2, TITLE, b"RECHNU~1.EXE\0"), (2, DATA, EICAR), (2, PROPERTIES, listed))
    )
    (begin,) = unpacked.begins.values()
    assert begin.name == long or long in begin.names
    assert "RECHNU~1.EXE" in (begin.name, *begin.names)


def test_a_message_in_a_message_is_opened() -> None:
    inner = winmail(EICAR)
    listed = properties((0x3701, 13, bytes(16) + inner))
    unpacked = unpack(tnef((2, RENDERING, bytes(14)), (2, PROPERTIES, listed)))
    assert inner in unpacked.parts.values() and EICAR in unpacked.parts.values()


def test_bodies() -> None:
    rtf = b"{\\rtf1 hello}"
    plain = (len(rtf) + 12).to_bytes(4, "little") + len(rtf).to_bytes(4, "little") + b"MELA" + bytes(4) + rtf
    listed = properties((0x1013, 258, b"<p>hello</p>"), (0x1009, 258, plain))
    unpacked = unpack(tnef((1, MESSAGE_PROPERTIES, listed)))
    assert set(unpacked.parts.values()) == {b"<p>hello</p>", rtf}


def test_compressed_rtf() -> None:
    """The example of [MS-OXRTFCP] 3.1.1: a run out of the dictionary that every reader starts with."""
    packed = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c090020627705b06c647d0a800fa0"
    )
    pieces = list(decompressed(packed))
    assert b"".join(piece for piece in pieces if piece) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    assert pieces[-1] is not None
    assert list(decompressed(packed[:-4]))[-1] is None


def test_cut_off_is_malformed_and_what_is_there_is_told() -> None:
    unpacked = unpack(winmail(EICAR + bytes(100))[:-80])
    assert unpacked.failed == {"": Reason.MALFORMED} and unpacked.holding(EICAR)


def test_junk_at_the_end() -> None:
    unpacked = unpack(winmail(EICAR) + b"\0" * 50)
    assert EICAR in unpacked.parts.values() and unpacked.kinds == {"tnef-junk-at-end"}


@given(st.binary(max_size=200), st.integers(0, 200))
def test_nothing_in_the_input_raises(junk: bytes, at: int) -> None:
    listed = properties((0x3707, 31, b"a\0b\0"), (0x1009, 258, bytes(8) + b"LZFu" + bytes(4) + junk))
    whole = tnef((1, MESSAGE_PROPERTIES, listed), (2, RENDERING, b""), (2, PROPERTIES, listed), (2, DATA, junk))
    unpack(whole[:at] + junk + whole[at:])
    unpack(b"\x78\x9f\x3e\x22" + junk)
