"""EVASION.md 75, 76, 86, 91 and 92 to the verdict: overlaps of more than 65,535 files, installers, disk images."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import libarchive
import pytest

from icapscan.findings import Level
from icapscan.limits import Limits
from tests.conftest import corpus_rows
from tests.corpus.walk import walk
from tests.peers import require
from tests.peers.clamd import ClamdPeer, run_clamd
from tests.unwrap.disk_maker import fat, partitioned, vhd
from tests.unwrap.lnk_maker import shortcut
from tests.unwrap.ole_maker import ole
from tests.unwrap.samples_mime import EICAR, TEXT, mail, multipart, part
from tests.unwrap.test_onenote import section
from tests.unwrap.verdicts import infected, reasons, verdict
from tests.unwrap.zip_maker import Made, made_zip

PROGRAM = b"MZ\x90\0" + bytes(60)


def zip64_overlap(entries: int, size: int) -> bytes:
    """Every one of so many directory entries names the one local header; more than 65,535 need zip64."""
    local = made_zip(Made(b"z", bytes(size)), directory=False)
    listed = made_zip(Made(b"z", bytes(size)), end=False)[len(local) :] * entries
    at = len(local) + len(listed)
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, len(listed), len(local))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + listed + wide + locator + end


def test_evasion_75_76_overlaps_of_more_files_than_65535() -> None:
    data = zip64_overlap(70_000, 1 << 20)
    assert len(data) > 70_000 * 46
    assert "over-limit" in reasons(verdict(data))


def test_evasion_76_every_entry_of_a_few_is_charged_for() -> None:
    said = verdict(zip64_overlap(300, 1 << 20), limits=Limits(ratio_from=1 << 30, unpacked=64 << 20))
    assert "over-limit" in reasons(said)


# Installers and packers


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdPeer]:
    with run_clamd(tmp_path_factory.mktemp("clamd")) as peer:
        yield peer


PACKED = ("upx", "nsis", "ISmsi_int", "ISmsi_ext", "ea05", "ea06", "aspack", "fsg", "mew", "pespin", "petite", "upack",
          "wwpack", "yc")  # fmt: skip


def test_evasion_91_packers_and_installers_with_clamd(corpus: Path, clamd: ClamdPeer) -> None:
    """UPX, NSIS, InstallShield, AutoIt and others: ClamAV unpacks them, and its verdict is ours."""
    rows = [row for row in corpus_rows(corpus) if row["verdict"] == "clam" and row["path"].endswith(".exe")]
    rows = [row for row in rows if any(word in row["path"] for word in PACKED)]
    assert len(rows) == len(PACKED)
    for facts in walk(corpus, rows, clamd.unix_address):
        assert facts.level is Level.INFECTED, facts.path
        assert any(finding.engine == "clamd" for finding in facts.findings), facts.path


def test_evasion_91_an_installer_of_nsis_without_clamd(corpus: Path) -> None:
    require("7zz", "7zip")
    (row,) = [row for row in corpus_rows(corpus) if row["path"].endswith("clam-nsis.exe")]
    (facts,) = walk(corpus, [row])
    assert facts.level is Level.INFECTED


# Images, and files that carry others


def iso(files: dict[str, bytes], tmp_path: Path) -> bytes:
    """An ISO 9660 image."""
    target = tmp_path / "made.iso"
    with libarchive.file_writer(str(target), "iso9660") as archive:
        for name, data in files.items():
            archive.add_file_from_memory(name, len(data), data)
    return target.read_bytes()


def test_evasion_92_iso_and_img(tmp_path: Path) -> None:
    image = iso({"a.com": EICAR, "b.txt": b"nothing"}, tmp_path)
    for name in ("a.iso", "a.img", "a.bin", ""):
        infected(image, name)
    infected(mail(multipart(TEXT, part(image, encoding=b"Content-Transfer-Encoding: binary\r\n"))), "message/rfc822")
    said = verdict(iso({"setup.exe": PROGRAM}, tmp_path), name="bill.iso")
    assert said.level is Level.SUSPICIOUS


@pytest.mark.parametrize("wrap", [bytes, partitioned, vhd, lambda volume: vhd(partitioned(volume))])
def test_evasion_92_disks_and_vhd(wrap: type[bytes]) -> None:
    require("7zz", "7zip")
    said = verdict(wrap(fat({b"A.COM": EICAR, b"B.TXT": b"nothing"})), name="a.vhd")
    assert said.level is Level.INFECTED and not said.unscanned
    said = verdict(wrap(fat({b"A.ZIP": made_zip(Made(b"a.com", EICAR)), b"B.TXT": b"nothing"})))
    assert said.level is Level.INFECTED
    assert verdict(wrap(fat({b"B.TXT": b"nothing"}))).level is Level.CLEAN
    sent = part(
        wrap(fat({b"A.EXE": PROGRAM})),
        type=b'Content-Type: application/octet-stream; name="a.vhd"\r\n',
        encoding=b"Content-Transfer-Encoding: binary\r\n",
    )
    assert verdict(mail(multipart(TEXT, sent)), "message/rfc822").level is Level.SUSPICIOUS


def test_evasion_92_chm(corpus: Path) -> None:
    require("7zz", "7zip")
    (row,) = [row for row in corpus_rows(corpus) if row["path"].endswith("clam.chm")]
    (facts,) = walk(corpus, [row])
    assert facts.level is Level.INFECTED


def test_evasion_92_msi_lnk_and_onenote() -> None:
    infected(ole({"Binary.a": EICAR}, clsid="000C1084-0000-0000-C000-000000000046"))
    infected(section(EICAR))
    assert verdict(section(PROGRAM)).level is Level.SUSPICIOUS
    assert verdict(shortcut("/c echo", "cmd.exe")).level is Level.SUSPICIOUS
    attached = part(shortcut("/c echo", "cmd.exe"), encoding=b"Content-Transfer-Encoding: binary\r\n")
    assert verdict(mail(multipart(TEXT, attached)), "message/rfc822").level is Level.SUSPICIOUS
