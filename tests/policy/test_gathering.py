"""What a scan gathers of the parts for rules: all of them where one asks, whatever was found, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import io
import zipfile

import pytest

from icapscan.engines.fanout import Fanout
from icapscan.findings import Level, Verdict
from icapscan.limits import Limits
from icapscan.pipeline import Scan, Scanner, Subject
from icapscan.policy.rules import Needs
from icapscan.store import Purse
from tests.conformance.fakes import FindsEicar
from tests.wire.samples import EICAR

PARTS, TYPES, NOTHING = Needs(True), Needs(True, True), Needs()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def scanned(
    data: bytes, needs: Needs, limits: Limits | None = None, subject: Subject | None = None
) -> tuple[Scan, Verdict]:
    async def run() -> tuple[Scan, Verdict]:
        scanner = Scanner(Fanout([FindsEicar()]), limits or Limits(), Purse(1 << 24, 1 << 24))
        scan = scanner.begin(subject or Subject(name="x.zip"), needs)
        try:
            for at in range(0, len(data), 500):
                scan.feed(data[at : at + 500])
                await asyncio.sleep(0)
            return scan, await scan.finish()
        finally:
            scan.close()

    return asyncio.run(run())


def test_nothing_is_gathered_where_nobody_asks() -> None:
    scan, verdict = scanned(zipped(a=b"x" * 100), NOTHING)
    assert scan.parts == [] and verdict.level is Level.CLEAN


@pytest.mark.parametrize("needs", [PARTS, TYPES])
def test_every_part_with_its_names_and_size_and_types_where_asked(needs: Needs) -> None:
    scan, _ = scanned(zipped(a=b"x" * 100, b=zipped(c=b"MZ")), needs)
    parts = {part.path: part for part in scan.parts}
    assert set(parts) == {"", "a", "b", "b/c"} and scan.parts_complete
    assert parts[""].names == ("x.zip",) and parts["a"].size == 100 and parts["b"].opened == ("zip",)
    assert parts["b"].types == (("application/zip",) if needs.types else ())


def test_a_hit_ends_the_unpacking_only_where_no_rule_asks_for_the_parts() -> None:
    members = {f"m{number}": bytes(3000) for number in range(20)}
    data = zipped(a=EICAR, **members)
    scan, verdict = scanned(data, PARTS)
    assert verdict.level is Level.INFECTED and scan.parts_complete
    assert {part.path for part in scan.parts} == {"", "a", *members}


@pytest.mark.parametrize(
    "limits",
    [Limits(parts=5), Limits(depth=1), Limits(body=200), Limits(unpacked=2000), Limits(ratio=2.0, ratio_from=1)],
    ids=["parts", "depth", "body", "unpacked", "ratio"],
)
def test_where_unpacking_ended_early_there_may_be_other_parts(limits: Limits) -> None:
    data = zipped(**{f"m{number}": bytes(3000) for number in range(8)}, z=zipped(inner=zipped(deep=b"x")))
    scan, verdict = scanned(data, PARTS, limits)
    assert verdict.level is Level.UNSCANNED and not scan.parts_complete


def test_a_content_coding_is_a_part_too() -> None:
    scan, _ = scanned(gzip.compress(b"MZ" + bytes(200)), TYPES, subject=Subject(b"gzip"))
    assert any("application/x-dosexec" in part.types for part in scan.parts)
