"""From body chunks to a verdict: what is scanned, and that nothing unscanned is called clean."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Sequence

import pytest

from icapscan.engines.contract import Engine, Part, Report
from icapscan.engines.fanout import Fanout
from icapscan.errors import StoreFull
from icapscan.findings import Finding, Level, Reason, Unscanned, Verdict
from icapscan.limits import Limits
from icapscan.pipeline import Scan, Scanner, Subject
from icapscan.store import Purse

BAD = b"-bad-"


class Looks:
    """An engine that finds ``BAD`` and remembers what it was given."""

    name = "looks"

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, str, str]] = []
        self.cancelled = 0

    async def scan(self, part: Part, seconds: float) -> Report:
        data = bytes(part.store.view())
        self.seen.append((part.path, data, part.name, part.media_type))
        found = (Finding(self.name, "Bad.Thing", part.path),) if BAD in data else ()
        return Report(self.name, found)

    async def version(self) -> str:
        return "1"

    async def close(self) -> None:
        return None


class Answers(Looks):
    """An engine with a fixed report, after an optional wait."""

    def __init__(self, report: Report, wait: float = 0.0) -> None:
        super().__init__()
        self.report = report
        self.wait = wait

    async def scan(self, part: Part, seconds: float) -> Report:
        try:
            await asyncio.sleep(self.wait)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.report


class Raises(Looks):
    async def scan(self, part: Part, seconds: float) -> Report:
        raise RuntimeError("broken")


def scan(
    body: bytes,
    *engines: Engine,
    subject: Subject | None = None,
    limits: Limits | None = None,
    purse: Purse | None = None,
    piece: int = 1 << 16,
    then: Callable[[Scan], None] = lambda scan: None,
) -> Verdict:
    """The verdict on ``body``, fed in pieces; afterwards every byte of the purse must be back."""
    own = purse or Purse(1 << 30, 1 << 30)
    before = (own.memory_left, own.disk_left)

    async def run() -> Verdict:
        scanner = Scanner(Fanout(engines), limits or Limits(), own)
        one = scanner.begin(subject or Subject())
        try:
            for at in range(0, len(body), piece):
                one.feed(body[at : at + piece])
            verdict = await one.finish()
            then(one)
            return verdict
        finally:
            one.close()
            one.close()

    try:
        return asyncio.run(run())
    finally:
        assert (own.memory_left, own.disk_left) == before


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_each_engine_sees_the_body_once_with_its_name_and_type(piece: int) -> None:
    engine = Looks()
    verdict = scan(b"hello world", engine, subject=Subject(name="a.txt", media_type="text/plain"), piece=piece)
    assert verdict.level is Level.CLEAN
    assert engine.seen == [("", b"hello world", "a.txt", "text/plain")]


def test_a_finding_makes_it_infected() -> None:
    verdict = scan(b"x" + BAD, Looks())
    assert (verdict.level, verdict.name) == (Level.INFECTED, "Bad.Thing")


def test_an_empty_body_is_scanned_too() -> None:
    engine = Looks()
    assert scan(b"", engine).level is Level.CLEAN
    assert [data for _, data, _, _ in engine.seen] == [b""]


def test_a_coded_body_is_scanned_raw_and_decoded() -> None:
    engine = Looks()
    verdict = scan(gzip.compress(b"hidden " + BAD), engine, subject=Subject(content_encoding=b"gzip"), piece=5)
    assert verdict.level is Level.INFECTED
    assert b"hidden " + BAD in [data for _, data, _, _ in engine.seen]


def test_a_broken_coding_is_malformed_and_what_was_decoded_is_scanned() -> None:
    engine = Looks()
    body = gzip.compress(b"a" * 100_000)[:-20]
    verdict = scan(body, engine, subject=Subject(content_encoding=b"gzip"))
    assert (verdict.level, verdict.reason) == (Level.UNSCANNED, Reason.MALFORMED)
    assert len(engine.seen) == 2


def test_an_unknown_coding_is_unsupported() -> None:
    verdict = scan(b"hello", Looks(), subject=Subject(content_encoding=b"secret"))
    assert (verdict.level, verdict.reason) == (Level.UNSCANNED, Reason.UNSUPPORTED)


def test_a_body_over_the_limit_is_never_clean() -> None:
    verdict = scan(b"x" * 1001, Looks(), limits=Limits(body=1000))
    assert (verdict.level, verdict.reason) == (Level.UNSCANNED, Reason.OVER_LIMIT)
    assert scan(b"x" * 1000, Looks(), limits=Limits(body=1000)).level is Level.CLEAN


def test_a_body_over_the_limit_can_still_be_copied_back() -> None:
    def check(one: Scan) -> None:
        assert one.over_body_limit
        assert bytes(one.store.view()) == b"x" * 5000

    scan(b"x" * 5000, Looks(), limits=Limits(body=1000), then=check)


def test_the_verdict_before_the_end_is_never_clean() -> None:
    async def run() -> Verdict:
        one = Scanner(Fanout([Looks()]), Limits(), Purse(1000, 1000)).begin(Subject())
        one.feed(b"hello")
        verdict = one.verdict_so_far()
        one.close()
        return verdict

    assert asyncio.run(run()).level is Level.UNSCANNED


def test_a_bomb_is_over_limit_and_what_is_found_is_kept() -> None:
    limits = Limits(ratio=10.0, ratio_from=1000)
    bomb = gzip.compress(BAD + b"\0" * 1_000_000)
    verdict = scan(bomb, Looks(), subject=Subject(content_encoding=b"gzip"), limits=limits)
    assert verdict.level is Level.INFECTED
    assert verdict.reason is Reason.OVER_LIMIT


@pytest.mark.parametrize(
    ("engines", "reason"),
    [
        ([Raises()], Reason.ENGINE_FAILED),
        ([Looks(), Raises()], Reason.ENGINE_FAILED),
        ([], Reason.ENGINE_FAILED),
        ([Answers(Report("a", unscanned=(Unscanned(Reason.ENCRYPTED),)))], Reason.ENCRYPTED),
        ([Answers(Report("a"), wait=60.0)], Reason.TIMEOUT),
    ],
)
@pytest.mark.parametrize("coding", [b"", b"gzip"])
def test_what_an_engine_could_not_look_at_is_unscanned(
    engines: Sequence[Engine], reason: Reason, coding: bytes
) -> None:
    body = gzip.compress(b"hello") if coding else b"hello"
    verdict = scan(body, *engines, subject=Subject(content_encoding=coding), limits=Limits(seconds=0.2))
    assert (verdict.level, verdict.reason) == (Level.UNSCANNED, reason)


def test_the_first_hit_in_a_part_ends_the_scan_of_the_others() -> None:
    slow = Answers(Report("slow"), wait=60.0)
    verdict = scan(gzip.compress(BAD), Looks(), slow, subject=Subject(content_encoding=b"gzip"))
    assert verdict.level is Level.INFECTED
    assert verdict.reason is None
    assert slow.cancelled == 2, "once for the virgin part, once for the decoded one"


def test_d109_a_full_purse_stops_the_scan_and_gives_everything_back() -> None:
    purse = Purse(100, 100)
    with pytest.raises(StoreFull):
        scan(b"x" * 250, Looks(), purse=purse, piece=50)


def test_d109_no_room_for_a_decoded_part_is_our_failure_not_clean() -> None:
    body = gzip.compress(b"a" * 5000)
    purse = Purse(len(body) + 100, 0)
    verdict = scan(body, Looks(), purse=purse, subject=Subject(content_encoding=b"gzip"))
    assert (verdict.level, verdict.reason) == (Level.UNSCANNED, Reason.ENGINE_FAILED)


def test_close_in_mid_body_frees_everything() -> None:
    purse = Purse(1 << 20, 1 << 20)

    async def run() -> None:
        one = Scanner(Fanout([Looks()]), Limits(), purse).begin(Subject(content_encoding=b"gzip"))
        one.feed(gzip.compress(b"a" * 10_000)[:30])
        one.close()

    asyncio.run(run())
    assert (purse.memory_left, purse.disk_left) == (1 << 20, 1 << 20)
