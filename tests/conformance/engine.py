"""What every scanner must do, whatever it is: the executable form of `icapscan.engines.contract`.

A test file subclasses `EngineContract` and says how its engine is made. Nothing here knows which engine it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from icapscan.engines.contract import Engine, Part, Report
from icapscan.engines.fanout import eicar
from icapscan.findings import Level, Reason
from icapscan.limits import Limits
from icapscan.store import PartStore, Purse

SECONDS = 60.0
"""A guard against hanging, never expected to pass."""
T = TypeVar("T")

KINDS = {
    "bytes": Limits(),
    "memfd": Limits(part_in_bytes=0),
    "file": Limits(part_in_bytes=0, part_in_memory=0),
}
"""The three places where a store keeps its bytes."""


def make_part(data: bytes, kind: str = "bytes", name: str = "", media_type: str = "", path: str = "1/a") -> Part:
    """A part with ``data``, kept as ``kind`` says; in several pieces, as from a socket."""
    store = PartStore(Purse(1 << 40, 1 << 40), KINDS[kind])
    for at in range(0, len(data), 70_000):
        store.append(data[at : at + 70_000])
    return Part(path, store, name, media_type)


@asynccontextmanager
async def closing(engine: Engine) -> AsyncIterator[Engine]:
    try:
        yield engine
    finally:
        await engine.close()


class EngineContract:
    """Subclass it in a ``test_…`` file; give `engine` (and `broken`, where the engine can break)."""

    finds_nothing_in = b"just a letter\n"

    def engine(self) -> Engine:
        raise NotImplementedError

    def run(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        async def main() -> T:
            async with closing(self.engine()) as engine:
                return await work(engine)

        return asyncio.run(main())

    def scan(self, data: bytes, kind: str = "bytes", **names: str) -> Report:
        async def work(engine: Engine) -> Report:
            part = make_part(data, kind, **names)
            try:
                return await engine.scan(part, SECONDS)
            finally:
                part.store.close()

        return self.run(work)

    def test_name_is_a_short_word(self) -> None:
        async def work(engine: Engine) -> str:
            return engine.name

        name = self.run(work)
        assert name.isidentifier() and name.islower()

    @pytest.mark.parametrize("kind", KINDS)
    def test_eicar_is_found_wherever_it_is_kept(self, kind: str) -> None:
        report = self.scan(eicar(), kind, path="2/x.zip/eicar.com")
        (finding,) = report.findings
        assert finding.level is Level.INFECTED
        assert finding.engine == report.engine
        assert finding.name
        assert finding.part == "2/x.zip/eicar.com"
        assert not report.unscanned

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [1, 68, 4096, 65_536, 65_537, 1_000_000])
    def test_clean_is_an_empty_report(self, kind: str, size: int) -> None:
        report = self.scan(os.urandom(size), kind)
        assert (report.findings, report.unscanned, report.allowed) == ((), (), False)

    @pytest.mark.parametrize("kind", KINDS)
    def test_an_empty_part_is_clean(self, kind: str) -> None:
        part_report = self.scan(b"", kind)
        assert (part_report.findings, part_report.unscanned) == ((), ())

    @pytest.mark.parametrize(
        "name",
        ["", "a.exe", "\0", "a\0b.exe", "\udcff\udc80", "日本語.exe", "x" * 70_000, "../../etc/passwd", "%s\r\n"],
    )
    def test_no_name_disturbs_it(self, name: str) -> None:
        for data, hits in ((eicar(), 1), (self.finds_nothing_in, 0)):
            report = self.scan(data, name=name, media_type=name, path=name)
            assert (len(report.findings), report.unscanned) == (hits, ())

    def test_the_store_is_left_as_it_was(self) -> None:
        async def work(engine: Engine) -> None:
            for kind in KINDS:
                data = os.urandom(300_000)
                part = make_part(data, kind)
                await engine.scan(part, SECONDS)
                assert b"".join(part.store.pieces()) == data
                part.store.close()

        self.run(work)

    def test_many_at_once_do_not_mix_up(self) -> None:
        async def work(engine: Engine) -> None:
            async def one(number: int) -> None:
                sick = number % 3 == 0
                part = make_part(eicar() if sick else os.urandom(2000 + number), path=str(number))
                report = await engine.scan(part, SECONDS)
                part.store.close()
                assert not report.unscanned
                assert [finding.part for finding in report.findings] == ([str(number)] if sick else [])

            await asyncio.gather(*(one(number) for number in range(200)))

        self.run(work)

    def test_a_cancelled_scan_harms_no_later_one(self) -> None:
        async def work(engine: Engine) -> None:
            for size in (100, 3_000_000):
                for turns in range(6):
                    part = make_part(os.urandom(size))
                    task = asyncio.ensure_future(engine.scan(part, SECONDS))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait({task})
                    part.store.close()
                    sick = make_part(eicar())
                    report = await engine.scan(sick, SECONDS)
                    sick.store.close()
                    assert len(report.findings) == 1 and not report.unscanned

        self.run(work)

    def test_a_deadline_that_passed_is_never_clean(self) -> None:
        async def work(engine: Engine) -> Report:
            part = make_part(os.urandom(30_000_000))
            report = await asyncio.wait_for(engine.scan(part, 0.000_001), SECONDS)
            part.store.close()
            return report

        report = self.run(work)
        assert [item.reason for item in report.unscanned] == [Reason.TIMEOUT]

    def test_version_is_stable_and_says_something(self) -> None:
        async def work(engine: Engine) -> str:
            return await engine.version()

        first, second = self.run(work), self.run(work)
        assert first and first == second and first.isprintable()

    @pytest.mark.parametrize("padding", [0, 1_000_000])
    def test_close_is_idempotent_and_nothing_passes_after_it(self, padding: int) -> None:
        async def work(engine: Engine) -> Report:
            await engine.close()
            await engine.close()
            part = make_part(eicar() + bytes(padding))
            report = await asyncio.wait_for(engine.scan(part, SECONDS), SECONDS)
            part.store.close()
            return report

        report = self.run(work)
        assert report.unscanned or report.findings or (padding and self.works_when_closed)

    works_when_closed = False
    """An engine that holds nothing to close may go on working: then a padded EICAR, which is none, is clean."""
