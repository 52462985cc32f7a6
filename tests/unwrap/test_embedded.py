"""What is embedded in text: every kind by itself, its bounds, and any split."""

from __future__ import annotations

import random
from base64 import b64encode, encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.limits import MIB, Limits
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.embedded import TEXT
from icapscan.unwrap.yenc import YEnc
from tests.unwrap.coders import binhex, uuencode, yenc
from tests.unwrap.samples_mime import EICAR
from tests.unwrap.unpacked import WHOLE, Unpacked

PROSE = b"Some words of text, as people write them.\n"
DATA = bytes(random.Random(7).randbytes(5000))


def unpack(text: bytes, step: int = WHOLE, seed: int | None = None) -> Unpacked:
    return Unpacked(text, [TEXT], Declared(), step, seed=seed)


@pytest.mark.parametrize(
    ("coded", "key"),
    [
        (uuencode(DATA, b"file"), "uu1"),
        (yenc(DATA, b"file"), "yenc1"),
        (binhex(DATA, name=b"file"), "binhex1"),
        (encodebytes(DATA), "base64-1"),
        (b"begin-base64 644 file\n" + encodebytes(DATA) + b"====\n", "begin-base64-1"),
        (b"<a href='data:x/y;base64," + b64encode(DATA) + b"'>\n", "data-uri1"),
    ],
)
@pytest.mark.parametrize("step", [WHOLE, 64, 1000])
def test_a_file_in_a_text(coded: bytes, key: str, step: int) -> None:
    for text in (coded, PROSE + coded + PROSE, PROSE * 3000 + coded + PROSE * 3000):
        unpacked = unpack(text, step)
        assert unpacked.parts[key] == DATA and unpacked.clean
        assert key.startswith(("base64", "data")) or unpacked.begins[key].name == "file"


def test_many_files_in_a_text() -> None:
    text = b"".join(PROSE + uuencode(EICAR + b"%d" % n) + yenc(DATA) + b64encode(DATA) + b"\n" for n in range(50))
    unpacked = unpack(text)
    assert [unpacked.parts[f"uu{n + 1}"] for n in range(50)] == [EICAR + b"%d" % n for n in range(50)]
    assert len(unpacked.parts) == 150


def test_prose_is_left_alone() -> None:
    assert not unpack(PROSE * 5000).parts
    for dull in (b"deadbeef" * 20, b"-" * 500, b"A" * 500, b"word" * 40, PROSE.upper() * 100):
        assert not unpack(dull).parts
    assert TEXT.bid(Evidence(PROSE, True, Declared())) is Bid.NO
    assert TEXT.bid(Evidence(b"\0\1\2" * 100, False, Declared())) is Bid.NO


def test_both_forks_of_a_binhex_file() -> None:
    unpacked = unpack(binhex(EICAR, DATA))
    assert unpacked.parts == {"binhex1": EICAR, "binhex1-resource": DATA}


def test_runs_in_binhex() -> None:
    data = b"a" * 1000 + b"\x90" * 300 + b"\x90\0\x90\1" + bytes(600)
    assert unpack(binhex(data)).parts["binhex1"] == data
    assert unpack(binhex(data), step=1).parts["binhex1"] == data


@pytest.mark.parametrize("cut", [3, 30, 90])
def test_a_binhex_file_that_is_cut_off(cut: int) -> None:
    assert Reason.MALFORMED in unpack(binhex(EICAR)[:-cut]).failed.values()


def test_a_binhex_bomb_is_bounded() -> None:
    text = binhex(bytes(30 * MIB))
    assert len(text) < MIB
    unpacked = Unpacked(text, [TEXT], Declared(), limits=Limits(unpacked=2 * MIB))
    assert unpacked.failed == {"": Reason.OVER_LIMIT}
    assert sum(map(len, unpacked.parts.values())) <= 2 * MIB


def test_dots_of_a_news_server() -> None:
    data = bytes([(code - 42) & 255 for code in b"." * 300])
    text = yenc(data).replace(b"\r\n.", b"\r\n..")
    unpacked = unpack(text)
    assert data in unpacked.parts.values() and "yenc-dots" in unpacked.kinds


PIECES = [
    b"begin 644 a\n",
    b"end\n",
    b"`\n",
    uuencode(EICAR, frame=False),
    b"=ybegin line=128 size=9 name=b\r\n",
    b"=",
    b"=}",
    b"=yend size=9\r\n",
    b"=ypart begin=1 end=2\r\n",
    b"..",
    b"\r\n",
    b"\n",
    b":",
    b"\n:",
    binhex(EICAR),
    b"data:",
    b"data:,x",
    b"data:a/b;base64,",
    b'"',
    b"%",
    b"%4",
    b"%41",
    b64encode(DATA[:90]),
    b64encode(EICAR),
    encodebytes(DATA[:100]),
    b"QUJD",
    b" ",
    b"\\",
    b"\\n",
    b"\\/",
    b"-",
    b"M" * 61 + b"\n",
    b"Hello, world\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(0, 2**32))
def test_any_split_gives_the_same_parts(pieces: list[bytes], seed: int) -> None:
    text = b"".join(pieces)
    whole = unpack(text)
    for other in (unpack(text, step=1), unpack(text, seed=seed)):
        assert (other.parts, other.failed, other.begins) == (whole.parts, whole.failed, whole.begins)


@given(st.binary(max_size=300))
def test_nothing_in_the_input_raises(text: bytes) -> None:
    unpack(text)
    for start in (b"begin 644 a\n", b"=ybegin a\n", b"\n:" + b"!" * 30, b"data:a;base64,"):
        unpack(start + text)


@pytest.mark.parametrize(
    ("coded", "plain"), [(b"=\n..=}x", b"\xc4\x04\x13N"), (b"a=\r\n.b", b"7\xc48"), (b"=\r\n=\n.", b"\xd3\x04")]
)
def test_escapes_at_the_end_of_a_line_of_yenc(coded: bytes, plain: bytes) -> None:
    """However it is split: the escape goes on behind the line end."""
    for size in range(1, len(coded) + 1):
        stream = YEnc()
        pieces = [stream.feed(coded[at : at + size]) for at in range(0, len(coded), size)]
        assert b"".join(pieces) + stream.finish() == plain


@pytest.mark.parametrize("step", [WHOLE, 97, 1])
def test_a_begin_line_hides_nothing_that_follows(step: int) -> None:
    """What is no line of uuencode is looked at again, however long it is and wherever the text ends."""
    text = b"begin 644 a.com\n<a href='data:text/html;base64," + b64encode(EICAR * 9) + b"'>"
    assert EICAR * 9 in unpack(text, step).parts.values()
    assert EICAR * 9 in unpack(b"x" * 6000 + b"\n" + text, step).parts.values()


@pytest.mark.parametrize("blank", [b" ", b"\t", b"\n ", b"\\"])
def test_a_flood_of_blanks_behind_base64_is_looked_at_once(blank: bytes) -> None:
    """Each of them might indent a next line; two million took many minutes."""
    text = b"x = '" + b64encode(EICAR * 9) + b"\n" + blank * (2_000_000 // len(blank))
    assert EICAR * 9 in unpack(text).parts.values()


@pytest.mark.parametrize("step", [61, 97, 501, 700])
def test_a_line_of_base64_is_whole_or_not_however_it_is_split(step: int) -> None:
    """What stands before it tells; that a piece of the text begins in it does not."""
    run = b64encode(bytes(range(57)))
    text = (b";" + run + b"'\n") * 150 + b"'" + run + b"'"
    assert unpack(text).parts == {"base64-1": bytes(range(57))}
    assert unpack(text, step).parts == unpack(text).parts


YBEGIN = b"=ybegin line=128 size=9 name=b\r\n"
UU_LINES = uuencode(DATA[:4500], frame=False)
SAVED = b"[77,90," + b"1,2,33,0x4," * 200 + b"5]"


def ends_at(multiple: int, text: bytes) -> bytes:
    """``text`` behind as many bytes of a line as make it end at such an offset."""
    return b"." * (-(len(text) + 1) % multiple) + b"\n" + text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PROSE + b"0123456789abcdef" * 400 + b64encode(DATA), id="hex-then-base64"),
        pytest.param(
            b'{"x": "' + b64encode(DATA) + b"\\n".join([b"QUJD"] * 2000) + b'"}' + PROSE * 90, id="line-ends-of-json"
        ),
        pytest.param(encodebytes(DATA) + b64encode(DATA)[:2300] + b"? " + PROSE, id="text-in-a-long-line"),
        pytest.param(encodebytes(DATA) + b" " * 2500 + b64encode(DATA), id="a-long-indent"),
        pytest.param(b64encode(DATA * 2)[:8998] + b"====\n" + encodebytes(DATA), id="padding-like-a-last-line"),
        pytest.param(b" " * 9000 + b"\n" + encodebytes(DATA[:200]) + PROSE * 200, id="blanks-first"),
        pytest.param(PROSE * 97 + YBEGIN * 150 + DATA + b"\r\n=yend\r\n", id="many-begin-lines"),
        pytest.param(
            yenc(DATA, b"f").rstrip() + b"x" * 2500 + b" data:a/b;base64,QUJDREVGR0g= " + PROSE * 200,
            id="a-long-last-line",
        ),
        pytest.param(
            PROSE * 97 + YBEGIN + b"x\r\n=yend " + b"0123456789abcdef" * 300 + b"begin\n" + PROSE * 200,
            id="the-end-of-a-file-in-a-run",
        ),
        pytest.param(ends_at(500, PROSE * 200 + UU_LINES) + uuencode(EICAR, b"g") + PROSE * 100, id="no-end"),
        pytest.param(
            YBEGIN + DATA * 3 + b"createObjectURL(" + DATA + b"\r\n=yend\r\n" + SAVED, id="a-script-in-a-file"
        ),
    ],
)
def test_where_a_piece_ends_does_not_matter(text: bytes) -> None:
    whole = unpack(text)
    for step in (61, 97, 128, 500, 997, 2048, 3001, 4096):
        cut = unpack(text, step)
        assert (cut.parts, cut.failed, cut.begins, cut.kinds) == (whole.parts, whole.failed, whole.begins, whole.kinds)


def test_dull_bytes_hide_nothing_behind_them() -> None:
    """A disk image begins with 32 KiB of zeros, which are as many letters A and a third."""
    for dull in (b"A" * 400, b"A" * 5000, b"A" * 43_688, b"0123456789abcdef" * 25):
        parts = unpack(PROSE + b'x = "' + dull + b64encode(EICAR * 9) + b'";\n').parts
        assert any(data.endswith(EICAR * 9) for data in parts.values())


def test_half_a_byte_that_a_script_spells_goes_on_in_the_next_piece() -> None:
    program = b"MZ" + DATA[:300]
    spelled = b"".join(b"\\x%02x" % code for code in program) + b"\\x414" * 40_000
    text = b"createObjectURL(x); x = '" + spelled + b"';\n"
    assert program + bytes.fromhex("414" * 40_000) in unpack(text).parts.values()
