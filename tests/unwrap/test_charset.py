"""Text in charsets that hide ASCII; mbox files; quoted-printable that nobody declares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.unwrap.charset import CHARSET
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.mbox import MBOX
from icapscan.unwrap.quoted import QUOTED
from icapscan.unwrap.urlencoded import URLENCODED
from tests.unwrap.samples_mime import EICAR, mail
from tests.unwrap.unpacked import WHOLE, Unpacked

WORDS = "<script>alert('こんにちは')</script> " * 50


@pytest.mark.parametrize("step", [WHOLE, 1, 7])
@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"])
def test_wide_text_becomes_utf_8(charset: str, step: int) -> None:
    unpacked = Unpacked(WORDS.encode(charset), [CHARSET], Declared(charset=charset), step)
    assert unpacked.parts["text"].decode().lstrip("\ufeff") == WORDS


def test_evasion_50_a_mark_of_two_charsets_gives_both() -> None:
    """To a browser these are UTF-16 and a NUL before the text."""
    unpacked = Unpacked(b"\xff\xfe\0\0" + WORDS.encode("utf-16-le"), [CHARSET])
    assert WORDS.encode() in unpacked.parts["text-16"] and "text" in unpacked.parts
    unpacked = Unpacked(WORDS.encode("utf-32"), [CHARSET])
    assert WORDS.encode() in unpacked.parts["text"] and "text-16" in unpacked.parts


def test_what_is_ascii_already_is_left_alone() -> None:
    for charset in ("", "utf-8", "iso-8859-1", "iso-2022-jp", "shift_jis", "x-unknown", "utf-unknown"):
        evidence = Evidence(b"Hello, world; a+b and A+B-C", True, Declared(charset=charset, media_type="text/html"))
        assert CHARSET.bid(evidence) is Bid.NO


def test_bytes_that_the_charset_does_not_have_are_replaced() -> None:
    unpacked = Unpacked(b"\xff\xfea\0\0\xd8b\0c", [CHARSET], Declared())
    assert "a" in unpacked.parts["text"].decode()


@given(st.binary(max_size=100), st.sampled_from(["utf-16", "utf-7", "utf-32", "ebcdic", "cp037"]))
def test_any_split_of_a_text_gives_the_same(data: bytes, charset: str) -> None:
    declared = Declared(charset=charset)
    whole = Unpacked(data * 50, [CHARSET], declared)
    assert Unpacked(data * 50, [CHARSET], declared, step=max(1, len(data))).parts == whole.parts


FROM = b"From a@example.org Tue Nov 24 03:41:06 2026\n"


@pytest.mark.parametrize("step", [WHOLE, 1, 100])
def test_the_messages_of_an_mbox(step: int) -> None:
    first, second = mail().replace(b"\r\n", b"\n"), mail().replace(b"sample", b"other")
    unpacked = Unpacked(FROM + first + b"\n" + FROM + second + b"\nFrom here on\n", [MBOX], Declared(), step)
    assert unpacked.parts["1"] == first + b"\n"
    assert unpacked.parts["2"] == second + b"\nFrom here on\n"
    assert MBOX.bid(Evidence(b"From Russia\nwith love\n", True, Declared())) is Bid.NO


@pytest.mark.parametrize("step", [WHOLE, 1, 5])
def test_undeclared_quoted_printable(step: int) -> None:
    text = b"caf=C3=A9 =\nand so on=\n" * 20
    assert (
        Unpacked(text, [QUOTED], Declared(), step).parts["quoted-printable"].startswith("café and so oncafé".encode())
    )
    assert QUOTED.bid(Evidence(b"a = b\nc == d\nx=1\n", True, Declared())) is Bid.NO


@pytest.mark.parametrize("step", [WHOLE, 1, 5])
def test_long_values_of_a_form(step: int) -> None:
    value = b"".join(b"%%%02X" % code for code in EICAR)
    form = b"a=b&&x&long+name=" + value + b"&c=d&e=" + b"y" * 200 + b"%"
    unpacked = Unpacked(form, [URLENCODED], Declared(media_type="application/x-www-form-urlencoded"), step)
    assert unpacked.parts == {"1": EICAR, "2": b"y" * 200 + b"%"}
    assert unpacked.begins["1"].name == "long name"
