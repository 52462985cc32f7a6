"""Archives that libarchive reads in its child process, and the bounds of that process (EVASION.md 85-88)."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from icapscan.findings import Reason
from icapscan.limits import KIB, MIB, Limits
from icapscan.store import PartStore
from icapscan.unwrap import bounded, children, libarchive, sevenzip
from icapscan.unwrap.children import Child, within_bounds
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.libarchive import LIBARCHIVE_FORMATS
from icapscan.unwrap.rar_headers import RAR4, RAR5, facts
from tests.conftest import missing
from tests.peers import require

from .archive_driver import Got, drive, walk

FORMATS = {one.name: one for one in LIBARCHIVE_FORMATS}
EVIL = b"the bytes that must be found " * 4000
GOOD = b"some harmless text\n" * 60


def write(kind: str, *members: tuple[str, bytes]) -> bytes:
    """An archive that libarchive writes."""
    try:
        import libarchive as library
    except (OSError, TypeError):
        missing("this test needs the library libarchive (Debian: libarchive13)")
    written: list[bytes] = []

    def take(data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    with library.custom_writer(take, kind) as archive:
        for name, data in members:
            archive.add_file_from_memory(name, len(data), data)
    return b"".join(written)


KINDS = {"7z": "7zip", "cpio": "cpio_newc", "ar": "ar_svr4", "xar": "xar", "iso": "iso9660"}


@pytest.mark.parametrize("kind", KINDS)
def test_archives_of_every_kind(kind: str) -> None:
    got = drive(FORMATS[kind], write(KINDS[kind], ("a.txt", GOOD), ("evil.exe", EVIL)))
    assert {GOOD, EVIL} <= set(got.contents) and not got.failures and not got.anomalies
    assert len(got.parts) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_short_or_damaged_is_never_clean(kind: str) -> None:
    data = write(KINDS[kind], ("a.txt", GOOD), ("evil.exe", EVIL))
    cut = drive(FORMATS[kind], data[: 60_000 if kind == "iso" else len(data) // 2])
    assert cut.reasons
    if kind == "7z":
        assert "multi-volume" in cut.kinds


def test_evasion_87_names_are_harmless_and_links_are_no_parts(tmp_path: Path) -> None:
    got = drive(FORMATS["cpio"], write("cpio_newc", ("../../etc/passwd", EVIL), ("/etc/shadow", GOOD), ("..", GOOD)))
    assert len(got.parts) == 3  # the driver asserts what the keys look like
    assert {begin.name for begin in got.begins.values()} == {"../../etc/passwd", "/etc/shadow", ".."}


def odc(name: bytes, data: bytes, mode: int) -> bytes:
    """A member of a portable cpio archive (POSIX.1-2017 pax, "cpio Interchange Format")."""
    return (
        b"070707" + b"%06o" * 6 % (0, 1, mode, 0, 0, 1) + b"%06o%011o%06o%011o" % (0, 0, len(name) + 1, len(data))
        + name + b"\0" + data
    )  # fmt: skip


def test_a_member_that_is_said_to_be_a_device_has_its_data_scanned_all_the_same() -> None:
    data = odc(b"pipe", EVIL, 0o010644) + odc(b"device", b"", 0o020644) + odc(b"plain", GOOD, 0o100644)
    got = drive(FORMATS["cpio"], data + odc(b"TRAILER!!!", b"", 0))
    assert EVIL in got.contents and GOOD in got.contents and "device" not in got.parts


def test_compress(corpus: Path) -> None:
    data = (corpus / "archives/libarchive/test_compat_mac-1.tar.Z").read_bytes()
    got = drive(FORMATS["compress"], data, declared=Declared(("mac.tar.Z",)))
    (begin,) = got.begins.values()
    assert begin.name == "mac.tar" and not got.failures
    assert drive(FORMATS["compress"], b"\x1f\x9d\xff\xff").reasons == {Reason.MALFORMED}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("rar", "test_read_format_rar.rar"),
        ("rar", "test_read_format_rar5_multiple_files.rar"),
        ("cab", "test_read_format_cab_1.cab"),
        ("lha", "test_read_format_lha_lh7.lzh"),
        ("rpm", "test_read_format_cpio_svr4_bzip2_rpm.rpm"),
    ],
)
def test_archives_that_nothing_here_can_write(kind: str, name: str, corpus: Path) -> None:
    got = drive(FORMATS[kind], (corpus / "archives/libarchive" / name).read_bytes())
    assert got.parts and not got.failures


@pytest.mark.parametrize(
    "name",
    [
        "test_read_format_rar4_encrypted.rar",
        "test_read_format_rar4_encrypted_filenames.rar",
        "test_read_format_rar5_encrypted.rar",
        "test_read_format_rar5_encrypted_filenames.rar",
        "test_read_format_7zip_encryption_partially.7z",
    ],
)
def test_evasion_85_encrypted(name: str, corpus: Path) -> None:
    got = walk((corpus / "archives/libarchive" / name).read_bytes())
    assert Reason.ENCRYPTED in got.reasons


@pytest.mark.parametrize(
    "name", ["test_rar_multivolume_single_file.part2.rar", "test_read_format_rar5_multiarchive_solid.part02.rar"]
)
def test_evasion_86_volumes(name: str, corpus: Path) -> None:
    got = walk((corpus / "archives/libarchive" / name).read_bytes())
    assert Reason.UNSUPPORTED in got.reasons and "multi-volume" in got.kinds


def test_evasion_86_volumes_of_rar_are_seen_in_its_headers() -> None:
    def block(kind: int, flags: int, body: bytes = b"") -> bytes:
        return struct.pack("<HBHH", 0, kind, flags, 7 + len(body)) + body

    assert facts(RAR4 + block(0x73, 0)).volume is False
    assert facts(RAR4 + block(0x73, 1)).volume is True
    assert facts(RAR4 + block(0x73, 0x80)).encrypted is True
    assert facts(RAR4 + block(0x73, 0) + block(0x74, 0x8004, bytes(25))).encrypted is True
    assert facts(RAR5 + bytes(4) + b"\x03\x01\x00\x01").volume is True
    assert facts(RAR5 + bytes(4) + b"\x02\x04\x00").encrypted is True
    assert facts(RAR5) == facts(RAR5 + b"\xff" * 4) == facts(RAR4)


def test_evasion_86_volumes_of_cabinets() -> None:
    head = bytearray(b"MSCF" + bytes(60))
    head[30] = 1
    assert "multi-volume" in drive(FORMATS["cab"], bytes(head)).kinds


def test_evasion_88_damaged_archives_end_in_failures(corpus: Path) -> None:
    folder = corpus / "archives/libarchive"
    for name in ("test_read_format_7zip_malformed.7z", "test_read_format_cab_skip_malformed.cab"):
        assert walk((folder / name).read_bytes()).reasons


def test_a_member_over_the_limit_ends_the_archive() -> None:
    data = write("cpio_newc", ("a", bytes(MIB)), ("b", bytes(MIB)))
    got = drive(FORMATS["cpio"], data, limits=Limits(unpacked=MIB + 100 * KIB))
    assert got.reasons == {Reason.OVER_LIMIT} and got.budget.unpacked < MIB + 300 * KIB
    assert not children._running


def test_without_the_library_archives_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write("cpio_newc", ("a", GOOD))
    monkeypatch.setitem(children._ENVIRONMENT, "LIBARCHIVE", "/nonexistent/libarchive.so")
    monkeypatch.setattr(libarchive, "python", _with_environment)
    monkeypatch.setattr(sevenzip, "program", lambda: None)
    got = drive(FORMATS["cpio"], data)
    assert got.reasons == {Reason.UNSUPPORTED} and "not installed" in got.failures[0].detail


def _with_environment(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]  # isolated mode hides nothing of what is tested here


def test_self_extractors_hand_out_what_is_behind_them() -> None:
    seven = write("7zip", ("evil.exe", EVIL))
    for program in (b"MZ" + bytes(5000) + b"7z\xbc\xaf\x27\x1c in its text", b"\x7fELF" + bytes(900)):
        got = walk(program + seven)
        assert hashlib.sha256(EVIL).hexdigest() in got.hashes
    assert not walk(b"MZ" + b"7z\xbc\xaf\x27\x1c" * 900 + b"Rar!\x1a\x07\x01\x00" * 90 + b"MSCF\0\0\0\0" * 90).failures


def test_a_program_that_ends_within_a_signature() -> None:
    for magic in (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00", b"MSCF\0\0\0\0"):
        for more in range(16):
            assert not walk(b"MZ" + bytes(20) + magic + bytes(more)).failures


def test_bids() -> None:
    def bid(kind: str, first: bytes, whole: bool = True) -> Bid:
        return FORMATS[kind].bid(Evidence(first, whole, Declared()))

    assert bid("7z", b"7z\xbc\xaf\x27\x1c") is Bid.YES
    assert bid("cab", b"MSCF\0\0\0\0") is Bid.YES
    assert bid("cab", b"MSCF text") is Bid.NO
    assert bid("cpio", b"\xc7\x71 a text") is Bid.NO
    assert bid("lha", b"\x19\x23-lh5-") is Bid.YES
    assert bid("iso", bytes(4096), False) is Bid.MAYBE
    assert not drive(FORMATS["iso"], bytes(40_000)).failures


# The bounds of child processes


def run(code: str) -> tuple[int, str]:
    store = PartStore.of(b"x")
    with Child(within_bounds(sys.executable, "-c", code), store) as child:
        child.read_exactly(100)
        return child.end()


def test_a_child_process_has_bounded_memory_and_writes_no_file(tmp_path: Path) -> None:
    assert run("print('fine')") == (0, "")
    status, error = run(f"bytearray({bounded.MEMORY + MIB})")
    assert status == 1 and "MemoryError" in error
    target = tmp_path / "written"
    code = "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    status, _ = run(f"{code}\nwith open({str(target)!r}, 'w') as file: file.write('x')")
    assert status == 1 and (not target.exists() or target.read_bytes() == b"")


def test_a_child_process_that_is_quiet_for_too_long_ends() -> None:
    code = "from icapscan.unwrap import bounded; bounded.alive()\nwhile True: pass"
    status, _ = run(code)
    told = children.why(status)
    assert told is not None and told[0] is Reason.OVER_LIMIT


def test_a_child_process_dies_with_its_reader() -> None:
    store = PartStore.of(b"x")
    with Child(within_bounds(sys.executable, "-c", "while True: print('x' * 65536)"), store) as child:
        child.read_exactly(100)
    assert child.end()[0] != 0 and not children._running


def test_a_child_process_that_ended_before_its_reader_gives_up_is_forgotten() -> None:
    """It is dead already when it is to be killed; eight that are not forgotten would be the last."""
    descriptors = len(os.listdir("/proc/self/fd"))
    store = PartStore.of(b"x")
    for _ in range(3):
        with pytest.raises(Stop), Child(["/bin/echo", "a word"], store) as child:
            os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)
            raise Stop(Reason.OVER_LIMIT, "enough")
        assert not children._running
    store.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_there_are_not_too_many_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "CHILDREN_MAX", 0)
    got = drive(FORMATS["cpio"], odc(b"a", GOOD, 0o100644))
    assert got.reasons == {Reason.ENGINE_FAILED}
    with pytest.raises(Stop):
        Child(["/bin/true"], PartStore.of(b""))


def test_nothing_is_loaded_before_it_is_needed() -> None:
    heavy = ("libarchive", "lz4", "inflate64")
    code = f"import sys, icapscan.unwrap.formats as f; f.registry(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_seven_zip_takes_over_where_libarchive_stops(tmp_path: Path) -> None:
    program = require("7zz", "7zip")
    (tmp_path / "evil.exe").write_bytes(EVIL)
    subprocess.run(
        [program, "a", "-m0=ARM64", "-m1=LZMA2", "a.7z", "evil.exe"], cwd=tmp_path, check=True, capture_output=True
    )
    got: Got = walk((tmp_path / "a.7z").read_bytes())
    assert hashlib.sha256(EVIL).hexdigest() in got.hashes and not got.failures
