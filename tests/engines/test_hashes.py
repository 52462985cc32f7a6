"""Hash lists: what denies, what allows, and which line is wrong."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from icapscan.engines.contract import Report
from icapscan.engines.hashes import HashEngine
from icapscan.engines.settings import HashSettings
from icapscan.errors import ConfigError
from icapscan.findings import Finding
from tests.conformance.engine import SECONDS, make_part

SMALL, LARGE = b"a small one", bytes(5_000_000)
DIGEST = hashlib.sha256(SMALL).hexdigest()


def settings(folder: Path, deny: str = "", allow: str = "") -> HashSettings:
    (folder / "deny").write_text(deny)
    (folder / "allow").write_text(allow)
    return HashSettings(deny=(str(folder / "deny"),), allow=(str(folder / "allow"),))


def scan(engine: HashEngine, data: bytes) -> Report:
    part = make_part(data, "memfd" if len(data) > 70_000 else "bytes", path="p")
    try:
        return asyncio.run(engine.scan(part, SECONDS))
    finally:
        part.store.close()


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("", "Hash.Denied"),
        (" Bad.Thing", "Bad.Thing"),
        ("\tBad thing  ", "Bad thing"),
        (" *a.exe", "a.exe"),
        (" #1", "#1"),
    ],
)
def test_a_denied_digest_is_a_finding_with_its_name(tmp_path: Path, data: bytes, rest: str, name: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    engine = HashEngine(settings(tmp_path, deny=f"# ours\n\n{digest.upper()}{rest}\n"))
    assert scan(engine, data) == Report("hash", (Finding("hash", name, "p"),))
    assert scan(engine, data + b"x") == Report("hash")


@pytest.mark.parametrize("data", [SMALL, LARGE])
def test_an_allowed_digest_is_known_good(tmp_path: Path, data: bytes) -> None:
    engine = HashEngine(settings(tmp_path, allow=f"{hashlib.sha256(data).hexdigest()}  installer.exe\r\n"))
    assert scan(engine, data) == Report("hash", allowed=True)
    assert scan(engine, data + b"x") == Report("hash")


@pytest.mark.parametrize("line", ["x", DIGEST[:-1], DIGEST + "0", DIGEST[:-1] + "g", DIGEST + "name", "md5 " + DIGEST])
@pytest.mark.parametrize("which", ["deny", "allow"])
def test_a_bad_line_is_named(tmp_path: Path, which: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HashEngine(settings(tmp_path, **{which: f"{hashlib.sha256(b'ok').hexdigest()}\n\n{line}\n"}))
    said = str(caught.value)
    assert said.startswith(f"engines.hash.{which}: {tmp_path / which}, line 3: ") and "64 hex digits" in said


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engines\.hash\.deny: .*none cannot be read: No such file"):
        HashEngine(HashSettings(deny=(str(tmp_path / "none"),)))
    (tmp_path / "latin").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        HashEngine(HashSettings(allow=(str(tmp_path / "latin"),)))


def test_denied_and_allowed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=DIGEST):
        HashEngine(settings(tmp_path, deny=DIGEST, allow=DIGEST))


def test_the_version_changes_with_the_lists(tmp_path: Path) -> None:
    def version(deny: str, allow: str) -> str:
        return asyncio.run(HashEngine(settings(tmp_path, deny, allow)).version())

    versions = [version("", ""), version(DIGEST, ""), version("", DIGEST), version(DIGEST + " Name", "")]
    assert len(set(versions)) == 4
    assert version(f"# a comment\n{DIGEST}", "") == versions[1]


def test_a_large_part_leaves_others_their_turn() -> None:
    async def main() -> int:
        part = make_part(bytes(50_000_000), "memfd")
        task = asyncio.ensure_future(HashEngine(HashSettings()).scan(part, SECONDS))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        part.store.close()
        return turns

    assert asyncio.run(main()) >= 40
