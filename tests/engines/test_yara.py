"""The YARA engine: verdicts, tags, external variables, threads, bounded memory, and no failure that looks clean."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from icapscan.engines.contract import Report
from icapscan.engines.fanout import eicar
from icapscan.engines.rules import CompiledRules, compile_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.findings import Finding, Level
from tests.conformance.engine import SECONDS, make_part

SLOW = "rule slow { strings: $a = /a.{1,3000}b.*c.*[a-c]{20}/ condition: $a }"
"""Minutes for some MB of "a"."""


def compiled(folder: Path, text: str) -> CompiledRules:
    (folder / "rules.yar").write_text(text)
    return compile_rules([folder])


def scan(
    rules: CompiledRules, data: bytes, *, inline: int = 16_384, seconds: float = SECONDS, kind: str = "bytes",
    name: str = "", media_type: str = "", path: str = "p",
) -> Report:  # fmt: skip
    async def main() -> Report:
        engine = YaraEngine(YaraSettings(inline=inline), rules)
        part = make_part(data, kind, name, media_type, path)
        try:
            return await asyncio.wait_for(engine.scan(part, seconds), SECONDS)
        finally:
            part.store.close()
            await engine.close()

    return asyncio.run(main())


@pytest.mark.parametrize("inline", [0, 16_384])
def test_metadata_says_the_verdict_and_tags_are_kept(tmp_path: Path, inline: int) -> None:
    rules = compiled(
        tmp_path,
        'rule bad : trojan windows { meta: verdict = "infected" condition: true }'
        'rule odd : packer { meta: verdict = "suspicious" author = "x" condition: true }'
        "rule plain { condition: true } rule silent { condition: false } private rule hidden { condition: true }",
    )
    assert scan(rules, b"x", inline=inline).findings == (
        Finding("yara", "bad", "p", Level.INFECTED, ("trojan", "windows")),
        Finding("yara", "odd", "p", Level.SUSPICIOUS, ("packer",)),
        Finding("yara", "plain", "p", Level.INFECTED),
    )


@pytest.mark.parametrize(
    ("condition", "hit"),
    [
        ('filename == "Report.PDF.exe"', True),
        ('filepath == "1/a.zip/Report.PDF.exe"', True),
        ('filetype == "application/pdf"', True),
        ('extension == ".exe"', True),
        ('owner == ""', True),
        ('filename == ""', False),
    ],
)
def test_external_variables(tmp_path: Path, condition: str, hit: bool) -> None:
    rules = compiled(tmp_path, f"rule r {{ condition: {condition} }}")
    for inline in (0, 16_384):
        report = scan(
            rules,
            b"x",
            inline=inline,
            name="Report.PDF.exe",
            media_type="application/pdf",
            path="1/a.zip/Report.PDF.exe",
        )
        assert bool(report.findings) is hit and not report.unscanned


def test_a_nul_does_not_cut_a_name_short(tmp_path: Path) -> None:
    rules = compiled(tmp_path, r"rule r { condition: extension == '.exe' }".replace("'", '"'))
    assert scan(rules, b"x", name="a.txt\0.exe").findings
    assert not scan(rules, b"x", name="a.exe\0.txt").findings


def test_compiled_rules_without_our_variables_work(tmp_path: Path) -> None:
    import yara

    yara.compile(source='rule c { meta: verdict = "suspicious" condition: true }').save(str(tmp_path / "c.yac"))
    assert [finding.level for finding in scan(compile_rules([tmp_path]), b"x", name="n").findings] == [Level.SUSPICIOUS]


def test_eicar_is_reported_once(tmp_path: Path) -> None:
    assert [finding.name for finding in scan(compile_rules(), eicar()).findings] == ["Eicar_Test_File"]
    foreign = compiled(tmp_path, 'rule mine { strings: $e = "EICAR" condition: $e }')
    assert [finding.name for finding in scan(foreign, eicar()).findings] == ["mine"]


@pytest.mark.parametrize("kind", ["bytes", "memfd", "file"])
def test_a_rule_gone_wild_is_a_timeout(tmp_path: Path, kind: str) -> None:
    report = scan(compiled(tmp_path, SLOW), b"a" * 30_000_000, seconds=0.2, kind=kind)
    assert [item.reason.value for item in report.unscanned] == ["timeout"]


def test_a_store_closed_under_a_thread_harms_nobody(tmp_path: Path) -> None:
    """After the deadline the pipeline frees the store while the thread still reads the map."""
    rules = compiled(tmp_path, SLOW)

    async def main() -> None:
        engine = YaraEngine(YaraSettings(inline=0, threads=2), rules)
        for kind in ("memfd", "file", "memfd", "file"):  # two run, two wait for a thread
            part = make_part(b"a" * 30_000_000, kind)
            report = await engine.scan(part, 0.05)
            part.store.close()
            assert report.unscanned
            reused = make_part(bytes(30_000_000), kind)  # takes the descriptors that were freed
            reused.store.close()
        await asyncio.sleep(1.5)
        part = make_part(eicar(), "memfd")
        assert (await engine.scan(part, SECONDS)).findings
        part.store.close()
        await engine.close()

    asyncio.run(main())


def test_waiting_for_a_thread_counts(tmp_path: Path) -> None:
    rules = compiled(tmp_path, SLOW)

    async def main() -> None:
        engine = YaraEngine(YaraSettings(inline=0, threads=1), rules)
        parts = [make_part(b"a" * 3_000_000) for _ in range(5)]
        reports = await asyncio.gather(*(engine.scan(part, 0.3) for part in parts))
        assert [[item.reason.value for item in report.unscanned] for report in reports] == [["timeout"]] * 5
        for part in parts:
            part.store.close()
        await engine.close()

    asyncio.run(main())


def test_too_many_matches_are_not_clean(tmp_path: Path) -> None:
    """YARA drops a string after a million matches: a rule that counts on it may miss."""
    rules = compiled(tmp_path, 'rule r { strings: $a = "a" condition: #a == 2000000 }')
    report = scan(rules, b"a" * 2_000_000)
    assert [item.reason.value for item in report.unscanned] == ["over-limit"]


def test_a_failure_inside_yara_is_not_clean(tmp_path: Path) -> None:
    engine = YaraEngine(YaraSettings(), compiled(tmp_path, "rule r { condition: false }"))

    class Broken:
        def match(self, **_: object) -> None:
            raise MemoryError("no room")

    engine._rules = (Broken(), *engine._rules)
    part = make_part(eicar())
    report = engine.scan_now(part, SECONDS)
    assert report is not None
    assert [(item.reason.value, item.detail) for item in report.unscanned] == [
        ("engine-failed", "MemoryError: no room")
    ]


def test_small_parts_are_matched_at_once_and_large_ones_are_not(tmp_path: Path) -> None:
    engine = YaraEngine(YaraSettings(inline=1000), compile_rules())
    for kind in ("bytes", "memfd", "file"):
        assert engine.scan_now(make_part(eicar(), kind), SECONDS) is not None
        assert engine.scan_now(make_part(b"", kind), SECONDS) is not None
        assert engine.scan_now(make_part(bytes(1001), kind), SECONDS) is None


def test_glance_sees_the_first_bytes() -> None:
    engine = YaraEngine(YaraSettings(), compile_rules())
    assert [finding.name for finding in engine.glance(eicar())] == ["Eicar_Test_File"]
    assert engine.glance(b"hello") == ()


def test_the_loop_goes_on_while_a_large_part_is_matched(tmp_path: Path) -> None:
    rules = compiled(tmp_path, SLOW)

    async def main() -> int:
        engine = YaraEngine(YaraSettings(), rules)
        part = make_part(b"a" * 30_000_000)
        turns = 0
        task = asyncio.ensure_future(engine.scan(part, 0.5))
        while not task.done():
            await asyncio.sleep(0.001)
            turns += 1
        part.store.close()
        await engine.close()
        return turns

    assert asyncio.run(main()) > 20


MEMORY = """
import asyncio, os, re, sys, threading, time
from icapscan.engines.contract import Part
from icapscan.engines.rules import compile_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.limits import Limits
from icapscan.store import PartStore, Purse

def rss():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

async def main():
    engine = YaraEngine(YaraSettings(), compile_rules())
    store = PartStore(Purse(1 << 30, 1 << 30), Limits(part_in_memory=int(sys.argv[1])))
    block = os.urandom(1 << 20)
    for _ in range(200):
        store.append(block)
    start = peak = rss()
    done = False
    def watch():
        nonlocal peak
        while not done:
            peak = max(peak, rss())
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    report = await engine.scan(Part("", store), 60)
    done = True
    watcher.join()
    assert not report.findings and not report.unscanned, report
    print(peak - start)
    store.close()
    await engine.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_200_mb_do_not_become_resident(in_memory: int) -> None:
    said = subprocess.run([sys.executable, "-c", MEMORY, str(in_memory)], capture_output=True, text=True, check=True)
    assert int(said.stdout) < 60_000_000


def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        scan(compile_rules(), bytes(300_000), kind="memfd")
    end = time.monotonic() + SECONDS
    while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < end:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/fd")) <= before
