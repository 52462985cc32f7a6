"""Archives that only 7-Zip reads, and the passwords that everybody knows (EVASION.md 84, 85)."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from icapscan.findings import Reason
from icapscan.limits import MIB, Limits
from icapscan.unwrap import sevenzip
from icapscan.unwrap.sevenzip import SEVENZIP_FORMATS, Listed
from tests.peers import require

from .archive_driver import drive, walk

FORMATS = {one.name: one for one in SEVENZIP_FORMATS}
EVIL = b"the bytes that must be found " * 4000
GOOD = b"some harmless text\n" * 60
FOUND = hashlib.sha256(EVIL).hexdigest()


def pack(folder: Path, kind: str, *switches: str) -> bytes:
    """An archive of two files that 7-Zip writes."""
    program = require("7zz", "7zip")
    (folder / "evil.exe").write_bytes(EVIL)
    (folder / "a.txt").write_bytes(GOOD)
    packed = folder / f"packed.{kind}"
    subprocess.run(
        [program, "a", f"-t{kind}", *switches, packed.name, "a.txt", "evil.exe"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return packed.read_bytes()


def test_wim(tmp_path: Path) -> None:
    got = drive(FORMATS["wim"], pack(tmp_path, "wim"))
    assert {EVIL, GOOD} <= set(got.contents) and not got.failures


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("arj", "clam.arj"),
        ("chm", "clam.chm"),
        ("szdd", "clam.exe.szdd"),
        ("nsis", "clam-nsis.exe"),
    ],
)
def test_archives_that_nothing_here_can_write(kind: str, name: str, corpus: Path) -> None:
    require("7zz", "7zip")
    folder = corpus / "clamav-testfiles" / "wrappers"
    got = drive(FORMATS[kind], (folder / name).read_bytes())
    assert (folder / "clam.exe").read_bytes() in got.contents and not got.failures


def test_evasion_84_implode(corpus: Path) -> None:
    require("7zz", "7zip")
    folder = corpus / "clamav-testfiles" / "wrappers"
    got = walk((folder / "clam.impl.zip").read_bytes())
    assert hashlib.sha256((folder / "clam.exe").read_bytes()).hexdigest() in got.hashes and not got.failures


@pytest.mark.parametrize("method", ["Deflate64", "PPMd", "BZip2", "LZMA", "XZ"])
def test_evasion_84_methods_of_zip_as_7_zip_writes_them(method: str, tmp_path: Path) -> None:
    got = walk(pack(tmp_path, "zip", f"-mm={method}"))
    assert FOUND in got.hashes and not got.failures


@pytest.mark.parametrize("method", ["ZipCrypto", "AES128", "AES256"])
def test_evasion_85_zip(method: str, tmp_path: Path) -> None:
    known = walk(pack(tmp_path, "zip", f"-mem={method}", "-pinfected"))
    assert FOUND in known.hashes and not known.failures and "opened-with-a-known-password" in known.kinds
    (tmp_path / "packed.zip").unlink()
    secret = walk(pack(tmp_path, "zip", f"-mem={method}", "-pxyzzy plugh"))
    assert FOUND not in secret.hashes and secret.reasons == {Reason.ENCRYPTED}


@pytest.mark.parametrize("names", ["on", "off"])
def test_evasion_85_7z(names: str, tmp_path: Path) -> None:
    known = walk(pack(tmp_path, "7z", f"-mhe={names}", "-pvirus"))
    assert FOUND in known.hashes and not known.failures
    (tmp_path / "packed.7z").unlink()
    secret = walk(pack(tmp_path, "7z", f"-mhe={names}", "-pxyzzy plugh"))
    assert FOUND not in secret.hashes and Reason.ENCRYPTED in secret.reasons


def test_evasion_86_7z_volumes(tmp_path: Path) -> None:
    program = require("7zz", "7zip")
    (tmp_path / "evil.exe").write_bytes(EVIL)
    subprocess.run([program, "a", "-mx=0", "-v40k", "a.7z", "evil.exe"], cwd=tmp_path, check=True, capture_output=True)
    for number in (1, 2):
        name = f"a.7z.00{number}"
        got = walk((tmp_path / name).read_bytes(), name=name)
        assert Reason.UNSUPPORTED in got.reasons and "multi-volume" in got.kinds


def test_a_member_over_the_limit_ends_the_archive(tmp_path: Path) -> None:
    got = drive(FORMATS["wim"], pack(tmp_path, "wim"), limits=Limits(unpacked=60_000))
    assert got.reasons == {Reason.OVER_LIMIT} and got.budget.unpacked < MIB


def test_damaged(tmp_path: Path) -> None:
    data = bytearray(pack(tmp_path, "wim"))
    assert drive(FORMATS["wim"], bytes(data[: len(data) // 2])).reasons
    data[300:400] = bytes(100)
    assert drive(FORMATS["wim"], bytes(data)).reasons


def test_without_the_program_archives_are_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sevenzip, "program", lambda: None)
    got = drive(FORMATS["chm"], b"ITSF" + bytes(100))
    assert got.reasons == {Reason.UNSUPPORTED} and "not installed" in got.failures[0].detail


def test_a_program_is_no_archive() -> None:
    assert not drive(FORMATS["nsis"], b"MZ" + bytes(5000)).failures


def test_listings() -> None:
    text = (
        b"Path = a/b.txt\nSize = 5\nCRC = 0000000A\nEncrypted = -\nAttributes = A\n\n"
        b"Path = folder\nFolder = +\nSize = 0\n\nPath = odd = name\r\nSize = \nEncrypted = +\n\nrubbish\n"
    )
    assert sevenzip._parse(text) == [
        Listed("a/b.txt", 5, 10, False, False),
        Listed("folder", 0, None, False, True),
        Listed("odd = name", None, None, True, False),
    ]
