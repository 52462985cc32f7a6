"""OneNote sections and Windows shortcuts: what is in them comes out."""

from __future__ import annotations

import random
import struct

import pytest

from icapscan.findings import Reason
from icapscan.limits import Limits
from icapscan.unwrap.active_content import NAME
from icapscan.unwrap.lnk import LnkFormat
from icapscan.unwrap.onenote import BEGIN, END, SECTION, OneNoteFormat
from tests.unwrap.archive_driver import drive, walk
from tests.unwrap.lnk_maker import shortcut

PROGRAM = b"MZ" + bytes(range(256)) * 600
SCRIPT = b"<job><script>1</script></job>"


def section(*files: bytes, size: int | None = None) -> bytes:
    """A section with these files."""
    out = SECTION + bytes(1000)
    for data in files:
        length = len(data) if size is None else size
        out += BEGIN + struct.pack("<Q", length) + bytes(12) + data + bytes(-len(data) % 8) + END + bytes(77)
    return out


def test_evasion_92_files_in_a_section_are_parts() -> None:
    got = drive(OneNoteFormat(), section(PROGRAM, SCRIPT, b""))
    assert got.parts.pop(NAME).startswith(b"onenote-file: 4d5a0001\nonenote-program: 4d5a0001\n")
    assert got.parts == {"file1": PROGRAM, "file2": SCRIPT, "file3": b""}
    assert {"onenote-file", "onenote-program"} <= got.kinds and not got.failures
    assert drive(OneNoteFormat(), section(b"\x89PNG", b"%PDF-1.7")).kinds == {"onenote-file"}


def test_evasion_92_a_wrong_length_hides_nothing() -> None:
    got = drive(OneNoteFormat(), section(PROGRAM, SCRIPT, size=1 << 60))
    assert got.reasons == {Reason.MALFORMED}
    assert got.parts["file1"].startswith(PROGRAM) and got.parts["file2"].startswith(SCRIPT)
    short = drive(OneNoteFormat(), section(PROGRAM, SCRIPT, size=3))
    assert set(short.parts) == {"file1", "file2", NAME}


def test_files_that_overlap_are_bounded() -> None:
    """Each claims all that follows it: the sum is bounded by the ratio."""
    one = BEGIN + struct.pack("<Q", 1) + bytes(12)
    data = bytearray(SECTION + one * 4000)
    for at in range(len(SECTION), len(data), len(one)):
        data[at + 16 : at + 24] = struct.pack("<Q", len(data) - at - 36)
    got = drive(OneNoteFormat(), bytes(data))
    assert Reason.OVER_LIMIT in got.reasons and got.budget.unpacked < 40 << 20


def test_evasion_92_a_shortcut_says_what_it_starts() -> None:
    for wide in (False, True):
        got = drive(LnkFormat(), shortcut("/c echo hello", "..\\cmd.exe", wide=wide))
        assert got.parts["shortcut.txt"] == b"path: ..\\cmd.exe\narguments: /c echo hello"
        assert [(one.kind, one.detail) for one in got.anomalies] == [("shortcut", "..\\cmd.exe /c echo hello")]
        assert not got.failures


def test_evasion_92_a_target_in_environment_variables() -> None:
    got = drive(LnkFormat(), shortcut(target="%COMSPEC%"))
    assert got.parts["shortcut.txt"] == b"target: %COMSPEC%\ntarget: %COMSPEC%"


def test_evasion_92_what_is_appended_to_a_shortcut() -> None:
    got = drive(LnkFormat(), shortcut("x", target="y", tail=PROGRAM))
    assert got.parts["appended"] == PROGRAM and "shortcut-appended" in got.kinds
    assert "appended" in walk(shortcut("x", tail=PROGRAM)).leaves


def test_a_shortcut_that_is_cut_short() -> None:
    whole = shortcut("/c echo", "cmd.exe")
    assert drive(LnkFormat(), whole[:120]).reasons == {Reason.MALFORMED}


@pytest.mark.parametrize("seed", range(30))
def test_damage_never_raises(seed: int) -> None:
    dice = random.Random(seed)
    for fmt, whole in ((OneNoteFormat(), section(SCRIPT, SCRIPT)), (LnkFormat(), shortcut("a", "b", target="c"))):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 30)):
            data[dice.randrange(20, len(data))] = dice.randrange(256)
        drive(fmt, bytes(data[: dice.randrange(20, len(data))]), limits=Limits(parts=100))
