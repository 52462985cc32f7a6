"""RTF: objects in every disguise of their digits, what they hold, and what else runs or is loaded."""

from __future__ import annotations

import random

import pytest

from icapscan.findings import Reason
from icapscan.limits import Limits
from icapscan.unwrap.rtf import WINDOW, RtfFormat
from tests.unwrap.archive_driver import Got, drive, walk
from tests.unwrap.ole_maker import native, ole, ole1, packed

PROGRAM = b"MZ" + bytes(range(256)) * 3
OBJECT = ole1("Package", packed("setup.exe", PROGRAM))
HEX = OBJECT.hex()


def rtf(data: str | bytes, before: str = "\\objemb") -> bytes:
    """A document with one object whose data is this text."""
    text = data.encode() if isinstance(data, str) else data
    return b"{\\rtf1 Some text.{\\object" + before.encode() + b"{\\*\\objdata " + text + b"}{\\result x}} And more.}"


def read(data: bytes, limits: Limits | None = None) -> Got:
    return drive(RtfFormat(), data, limits=limits)


def test_a_package_is_extracted_with_its_name() -> None:
    got = read(rtf(HEX))
    assert got.parts["object1"] == OBJECT and got.parts["setup.exe"] == PROGRAM
    assert got.kinds == {"ole-package"} and not got.failures


DISGUISES = {
    "lines": "\r\n".join(HEX[at : at + 7] for at in range(0, len(HEX), 7)),
    "upper case": HEX.upper(),
    "other characters": "".join(f"{char}-.zZ!" for char in HEX),
    "control words": "\\par12 ".join(HEX[at : at + 3] for at in range(0, len(HEX), 3)),
    "control words in a row": "\\a\\b\\c-5 " + HEX,
    "control symbols": "\\~".join(HEX[at : at + 5] for at in range(0, len(HEX), 5)),
    "groups to be ignored": "{\\*\\junk 0123 {more ff} }".join(HEX[at : at + 9] for at in range(0, len(HEX), 9)),
    "groups that are not": "{\\rtlch " + HEX[:101] + "}{" + HEX[101:] + "}",
    "nested groups": "{{{" + HEX[:50] + "}" + HEX[50:60] + "}}" + HEX[60:],
}


@pytest.mark.parametrize("how", DISGUISES)
def test_evasion_89_digits_in_disguise(how: str) -> None:
    got = read(rtf(DISGUISES[how]))
    assert got.parts["setup.exe"] == PROGRAM
    if how not in ("lines", "upper case"):
        assert "rtf-obfuscated-object" in got.kinds


def test_evasion_89_escapes_in_both_readings() -> None:
    """Versions of Word differ on whether an escape drops the digit before it."""
    kept = HEX[:81] + "\\'41" + HEX[81:]
    dropped = HEX[:80] + "7\\'41" + HEX[80:]
    for text in (kept, dropped):
        got = read(rtf(text))
        assert PROGRAM in got.parts.values()
    assert {begin.reading for begin in got.begins.values()} == {0, 1}


def test_evasion_89_binary_data() -> None:
    data = OBJECT[:60].hex().encode() + b"\\bin%d " % len(OBJECT[60:]) + OBJECT[60:]
    assert read(rtf(data)).parts["setup.exe"] == PROGRAM


def test_binary_data_that_is_longer_than_the_file() -> None:
    got = read(rtf(HEX.encode() + b"\\bin99999999999 }"))
    assert Reason.MALFORMED in got.reasons and got.parts["setup.exe"] == PROGRAM


def test_evasion_89_an_ole2_object_behind_a_wrong_header() -> None:
    """Word looks for no more than the object; the sizes in front of it may be anything."""
    inner = ole({"\1Ole10Native": native("a.js", b"var a;")})
    for head in (b"\1\5\0\0\7\0\0\0", b"", b"\xff" * 40):
        got = read(rtf((head + inner).hex()))
        assert inner in got.parts.values()
    assert "a.js" in {path.rpartition("/")[2] for path in walk(rtf(ole1("x", inner).hex())).leaves}


def test_evasion_89_equation_objects() -> None:
    assert "equation-object" in read(rtf(ole1("eQuATion.3", b"x" * 80).hex())).kinds
    assert "equation-object" in read(rtf(HEX, "\\objemb{\\*\\objclass Equation.3}")).kinds
    inner = ole({"x": b"y"}, "0002ce02-0000-0000-c000-000000000046")
    assert "equation-object" in read(rtf(ole1("x", inner).hex())).kinds


def test_evasion_89_links_updates_and_templates() -> None:
    assert "ole-link" in read(rtf(ole1("OLE2Link", b"x").hex())).kinds
    linked = ole1("Word.Document.8", b"", kind=1, topic=b"http://example.org/x\0")
    assert ("ole-link", "http://example.org/x") in {(one.kind, one.detail) for one in read(rtf(linked.hex())).anomalies}
    assert "rtf-objupdate" in read(rtf(HEX, "\\objautlink\\objupdate")).kinds
    assert read(b"{\\rtf1{\\*\\template http://example.org/x.dotm}}").kinds == {"remote-template"}
    assert read(b"{\\rtf1{\\*\\template C:\\\\Normal.dot}}").kinds == set()
    assert read(b"{\\rtf1{\\field{\\*\\fldinst DDEAUTO c:\\\\a.exe}}}").kinds == {"dde"}


def test_an_object_that_does_not_end() -> None:
    whole = rtf(HEX)
    got = read(whole[: whole.index(b"}{\\result")])
    assert got.reasons == {Reason.MALFORMED} and got.parts["setup.exe"] == PROGRAM


def test_long_data_in_windows() -> None:
    """Digits over many windows, an odd one at each edge."""
    data = random.Random(2).randbytes(WINDOW + 12345)
    made = ole1("Package", packed("big.bin", data))
    assert read(rtf("\n" + made.hex())).parts["big.bin"] == data


def test_several_objects() -> None:
    one = rtf(ole1("Package", packed("1.exe", b"MZ1")).hex())[:-1]
    two = rtf(ole1("Package", packed("2.exe", b"MZ2")).hex())[6:]
    got = read(one + two)
    assert (got.parts["1.exe"], got.parts["2.exe"]) == (b"MZ1", b"MZ2")


def test_too_many_objects_are_over_limit() -> None:
    got = read(b"{\\rtf1" + b"{\\*\\objdata 00}" * 300 + b"}")
    assert Reason.OVER_LIMIT in got.reasons


def test_nested_objects_do_not_multiply() -> None:
    got = read(b"{\\rtf1" + b"{\\objdata 4d5a" * 20000 + b"}", Limits(seconds=5.0))
    assert Reason.OVER_LIMIT in got.reasons and got.budget.unpacked < 17 << 20


def test_a_flood_of_braces_is_over_limit() -> None:
    got = read(b"{\\rtf1{\\object{\\*\\objdata " + b"{}" * 400_000 + b"}}}")
    assert Reason.OVER_LIMIT in got.reasons


def test_an_ordinary_text_says_nothing() -> None:
    got = read(b"{\\rtf1\\ansi{\\fonttbl{\\f0 Arial;}}Plain {\\b bold} text\\par}")
    assert not (got.parts or got.anomalies or got.failures)


@pytest.mark.parametrize("seed", range(40))
def test_damage_never_raises(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(rtf(dice.choice(list(DISGUISES.values()))))
    for _ in range(dice.randint(1, 30)):
        data[dice.randrange(4, len(data))] = dice.choice(b"{}\\'0fb \n\xff")
    read(bytes(data[: dice.randrange(10, len(data))]))
