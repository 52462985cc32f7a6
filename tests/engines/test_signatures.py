"""The shipped signatures: the two test files, by YARA and by clamd, and nothing that only speaks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from icapscan.engines.contract import Engine
from icapscan.engines.fanout import eicar
from icapscan.engines.rules import compile_rules, shipped_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from tests.conformance.engine import SECONDS, make_part
from tests.engines.fake_clamd import engine_for
from tests.peers.clamd import ClamdPeer, run_clamd

IMPORTS = b"KERNEL32.DLL\0\0ExitProcess\0USER32.DLL\0CLA" + b"MessageBoxA"


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdPeer]:
    with run_clamd(tmp_path_factory.mktemp("clamd")) as peer:
        yield peer


def names(engine: Engine, data: bytes) -> list[str]:
    async def main() -> list[str]:
        part = make_part(data)
        report = await engine.scan(part, SECONDS)
        part.store.close()
        await engine.close()
        assert not report.unscanned
        return [finding.name for finding in report.findings]

    return asyncio.run(main())


def yara_engine() -> Engine:
    return YaraEngine(YaraSettings(), compile_rules())


HITS = [b"", b"\n", b"\r\n", b" \t\r\n\x1a", b"\x1a", b" " * 60]
MISSES = [b"\0", b"x", b"\n\nThis was EICAR", b" " * 61, b"\r\n" * 31, b"\x0b", b"\n\xa0"]


@pytest.mark.parametrize("tail", HITS)
def test_eicar_with_white_space_behind_it(clamd: ClamdPeer, tail: bytes) -> None:
    assert names(yara_engine(), eicar() + tail) == ["Eicar_Test_File"]
    (name,) = names(engine_for(clamd.unix_address), eicar() + tail)
    assert name.startswith("Icapscan.Test.Eicar")


@pytest.mark.parametrize("tail", MISSES)
@pytest.mark.parametrize("head", [b"", b"The file is "])
def test_a_text_about_eicar_is_none(clamd: ClamdPeer, head: bytes, tail: bytes) -> None:
    assert names(yara_engine(), head + eicar() + tail) == []
    assert names(engine_for(clamd.unix_address), head + eicar() + tail) == []


@pytest.mark.parametrize("head", [b" ", b"\n", b"\xef\xbb\xbf", b"\0"])
def test_eicar_stands_at_the_start(clamd: ClamdPeer, head: bytes) -> None:
    assert names(yara_engine(), head + eicar()) == []
    assert names(engine_for(clamd.unix_address), head + eicar()) == []


def test_clamavs_test_program(clamd: ClamdPeer, corpus: Path) -> None:
    program = (corpus / "clamav-testfiles" / "wrappers" / "clam.exe").read_bytes()
    assert names(yara_engine(), program) == ["ClamAV_Test_File"]
    assert names(yara_engine(), b"MZ" + program) == ["ClamAV_Test_File_Imports"]
    for data in (program, b"MZ" + program):
        (name,) = names(engine_for(clamd.unix_address), data)
        assert name.startswith("Icapscan.Test.ClamAV-Test-File")


def test_the_imports_stored_inside_another_file(clamd: ClamdPeer) -> None:
    data = bytes(1000) + IMPORTS + bytes(1000)
    assert names(yara_engine(), data) == ["ClamAV_Test_File_Imports"]
    (name,) = names(engine_for(clamd.unix_address), data)
    assert name.startswith("Icapscan.Test.ClamAV-Test-File-Imports")


def test_clamd_finds_every_wrapper_of_the_test_program(clamd: ClamdPeer, corpus: Path) -> None:
    """Packed programs need ClamAV's own unpackers; all of them lead to the program's digest or imports."""

    async def main() -> list[str]:
        engine = engine_for(clamd.unix_address)
        missed = []
        for file in sorted((corpus / "clamav-testfiles" / "wrappers").iterdir()):
            part = make_part(file.read_bytes(), "memfd")
            report = await engine.scan(part, SECONDS)
            part.store.close()
            if not report.findings:
                missed.append(file.name)
        await engine.close()
        return missed

    assert asyncio.run(main()) == []


def test_a_clone_is_harmless() -> None:
    """No file of ours holds the EICAR string itself."""
    root = Path(__file__).parents[2]
    for folder in ("icapscan", "signatures", "tests", "docs"):
        for file in (root / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert eicar() not in file.read_bytes(), file


def test_the_shipped_folder_tells_where_it_comes_from() -> None:
    readme = (shipped_rules() / "README.md").read_text()
    for file in shipped_rules().rglob("*"):
        if file.is_file() and file.name != "README.md":
            assert file.name in readme
