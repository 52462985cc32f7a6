"""From body chunks to a verdict: what is scanned, and that nothing unscanned is called clean."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import os
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest

from icapscan.engines.contract import Engine, Part, Report
from icapscan.engines.fanout import Fanout
from icapscan.errors import StoreFull
from icapscan.findings import Finding, Level, Reason, Unscanned, Verdict
from icapscan.limits import Limits
from icapscan.pipeline import PARTS_AT_ONCE, Scan, Scanner, Subject
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartBegin, PartData, PartEnd, PartEvent, Waiting
from icapscan.unwrap.formats import Entry, Registry
from tests.unwrap.toys import BOX_MAGIC, CHEST_MAGIC, TOYS, Toy, box, frame, part

BAD = b"-bad-"


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


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
    limits = (
        Limits(seconds=0.2) if reason is Reason.TIMEOUT else Limits()
    )  # else a machine that stalls is a reason, too
    verdict = scan(body, *engines, subject=Subject(content_encoding=coding), limits=limits)
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


# Parts


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy formats in place of the real ones."""
    monkeypatch.setattr("icapscan.unwrap.walker.registry", lambda: TOYS)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_every_part_goes_to_the_engines_with_its_path(magic: bytes, piece: int) -> None:
    engine = Looks()
    inner = box(part(b"x", b"deep"), magic=magic)
    body = box(part(b"1", b"one"), part(b"2", inner), magic=magic)
    assert scan(body, engine, piece=piece).level is Level.CLEAN
    assert {path: data for path, data, _, _ in engine.seen} == {"": body, "1": b"one", "2": inner, "2/x": b"deep"}
    assert len(engine.seen) == 4, "no part twice"


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_a_hit_deep_inside_is_the_verdict(magic: bytes) -> None:
    class Exact(Looks):
        async def scan(self, part: Part, seconds: float) -> Report:
            hit = bytes(part.store.view()) == BAD
            return Report(self.name, (Finding(self.name, "Bad.Thing", part.path),) if hit else ())

    body = box(part(b"1", box(part(b"x", BAD), magic=magic)), part(b"2", b"fine"), magic=magic)
    verdict = scan(body, Exact())
    assert verdict.level is Level.INFECTED and verdict.findings[0].part == "1/x"


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (frame(b"!", b"2"), Reason.ENCRYPTED),
        (frame(b"!"), Reason.ENCRYPTED),
        (frame(b"X"), Reason.MALFORMED),
        (frame(b"+", b"2", b"half"), Reason.MALFORMED),
        (b"+200", Reason.MALFORMED),
    ],
)
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_what_a_decoder_could_not_open_is_never_clean(odd: bytes, reason: Reason, magic: bytes) -> None:
    engine = Looks()
    verdict = scan(box(part(b"1", b"fine"), odd, magic=magic), engine)
    assert (verdict.level, verdict.reason) == (Level.UNSCANNED, reason)
    assert "1" in [path for path, _, _, _ in engine.seen]


@pytest.mark.usefixtures("toys")
def test_an_anomaly_is_in_the_verdict_and_the_body_may_be_clean() -> None:
    verdict = scan(box(part(b"1", b"fine"), frame(b"?", b"1")), Looks())
    assert verdict.level is Level.CLEAN
    assert [(one.kind, one.part) for one in verdict.anomalies] == [("odd", "1")]


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_parts_wait_in_line_and_none_is_left_out(magic: bytes) -> None:
    class Slow(Looks):
        now = most = 0

        async def scan(self, part: Part, seconds: float) -> Report:
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(3):
                await asyncio.sleep(0)
            self.now -= 1
            return await super().scan(part, seconds)

    engine = Slow()
    body = box(*(part(b"%c" % number, b"%d" % number) for number in range(48, 112)), magic=magic)
    assert scan(body, engine).level is Level.CLEAN
    assert len(engine.seen) == 65 and engine.most == PARTS_AT_ONCE


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("silent", ["", "1"], ids=["body", "part"])
def test_silence_is_never_clean(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    """No report at all about something that is for all engines is a mistake of ours, and no verdict."""
    real = Fanout.scan

    async def scan_all_but_one(self: Fanout, part: Part, seconds: float) -> tuple[Report, ...]:
        return () if part.path == silent else await real(self, part, seconds)

    monkeypatch.setattr(Fanout, "scan", scan_all_but_one)
    for body in (box(part(b"1", b"x")), b"plain")[: 2 - bool(silent)]:
        verdict = scan(body, Looks())
        assert (verdict.level, verdict.reason) == (Level.UNSCANNED, Reason.ENGINE_FAILED)
        assert [item.part for item in verdict.unscanned] == [silent]


@pytest.mark.usefixtures("toys")
def test_every_failure_of_an_engine_with_a_part_is_told() -> None:
    verdict = scan(box(part(b"1", b"x"), part(b"2", b"y")), Raises())
    assert {item.part for item in verdict.unscanned} == {"", "1", "2"}
    assert verdict.reason is Reason.ENGINE_FAILED


@pytest.mark.usefixtures("toys")
def test_a_hit_ends_the_line_and_frees_what_waited() -> None:
    slow = Answers(Report("slow"), wait=60.0)
    body = box(part(b"0", BAD), *(part(b"%c" % number, b"x" * 100) for number in range(50, 100)))
    verdict = scan(body, Looks(), slow)
    assert (verdict.level, verdict.reason) == (Level.INFECTED, None)
    assert 0 < slow.cancelled <= 2 * PARTS_AT_ONCE


@pytest.mark.usefixtures("toys")
def test_parts_are_scanned_while_the_body_still_arrives() -> None:
    engine = Looks()

    async def run() -> list[str]:
        one = Scanner(Fanout([engine]), Limits(), Purse(1 << 20, 1 << 20)).begin(Subject())
        one.feed(box(part(b"1", b"first")) + frame(b"+", b"2", b"x" * 5000))
        await asyncio.sleep(0.01)
        seen = [path for path, _, _, _ in engine.seen]
        one.close()
        return seen

    assert asyncio.run(run()) == ["1"]


@pytest.mark.usefixtures("toys")
def test_a_hit_before_the_end_stops_the_unpacking_and_stays() -> None:
    async def run() -> Verdict:
        purse = Purse(1 << 20, 1 << 20)
        one = Scanner(Fanout([Looks()]), Limits(), purse).begin(Subject())
        one.feed(box(part(b"1", BAD)) + frame(b"+", b"2", b"x" * 5000))
        await asyncio.sleep(0.01)
        one.feed(part(b"3", b"y"))
        assert one.verdict_so_far().level is Level.INFECTED
        verdict = await one.finish()
        one.close()
        await asyncio.sleep(0)
        assert (purse.memory_left, purse.disk_left) == (1 << 20, 1 << 20)
        return verdict

    assert asyncio.run(run()).level is Level.INFECTED


class WaitsFor:
    """A format whose decoder waits for a pipe, as for a child process, and tells in ``log`` what it does."""

    name = "waits"

    def __init__(self, log: list[str], pipes: list[int]) -> None:
        self.log = log
        self.pipes = pipes

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith(b"WAIT") else Bid.NO

    def open(self, context: Context) -> WaitsFor:
        return self

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        yield Waiting()
        who, pipe = bytes(store.view())[4:].decode(), self.pipes.pop(0)
        self.log.append(f"{who} begins")
        try:
            yield PartBegin("1")
            yield Waiting(pipe)
            yield PartData("1", os.read(pipe, 100))
            yield PartEnd("1")
            self.log.append(f"{who} ends")
        except GeneratorExit:
            self.log.append(f"{who} is given up")


def waiting_scans(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, work: Callable[[list[str], list[int], Scan, Scan], Awaitable[None]]
) -> list[str]:
    """Run ``work`` with two scans that each wait for a pipe; what was logged."""
    log: list[str] = []
    ends = [os.pipe(), os.pipe()]
    waits = WaitsFor(log, [end[0] for end in ends])
    monkeypatch.setattr("icapscan.unwrap.walker.registry", lambda: Registry([Entry(waits)]))

    async def run() -> None:
        scanner = Scanner(Fanout([Looks()]), limits, Purse(1 << 20, 1 << 20))
        scans = [scanner.begin(Subject()), scanner.begin(Subject())]
        for one, who in zip(scans, (b"first", b"second"), strict=True):
            one.feed(b"WAIT" + who)
        try:
            await work(log, [end[1] for end in ends], *scans)
        finally:
            for one in scans:
                one.close()

    try:
        asyncio.run(run())
    finally:
        for pair in ends:
            for end in pair:
                os.close(end)
    return log


def test_while_a_child_works_others_go_on_and_children_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(log: list[str], pipes: list[int], first: Scan, second: Scan) -> None:
        tasks = [asyncio.create_task(one.finish()) for one in (first, second)]
        for _ in range(20):
            await asyncio.sleep(0)  # the loop is free: nobody reads a pipe that is empty
        log.append("the loop is free")
        for pipe in pipes:
            os.write(pipe, b"x" + BAD)
        assert [verdict.level for verdict in await asyncio.gather(*tasks)] == [Level.INFECTED] * 2

    assert waiting_scans(monkeypatch, Limits(), work) == [
        "first begins", "the loop is free", "first ends", "second begins", "second ends",
    ]  # fmt: skip


def test_a_child_that_says_nothing_is_a_timeout_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(log: list[str], pipes: list[int], first: Scan, second: Scan) -> None:
        for one in (first, second):
            verdict = await one.finish()
            assert (verdict.level, verdict.reason) == (Level.UNSCANNED, Reason.TIMEOUT)

    log = waiting_scans(monkeypatch, Limits(seconds=0.1), work)
    assert log == ["first begins", "first is given up", "second begins", "second is given up"]


def test_a_scan_that_is_cancelled_gives_up_its_child_and_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(log: list[str], pipes: list[int], first: Scan, second: Scan) -> None:
        task = asyncio.create_task(first.finish())
        other = asyncio.create_task(second.finish())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        first.close()
        os.write(pipes[1], b"fine")
        assert (await other).level is Level.CLEAN

    log = waiting_scans(monkeypatch, Limits(), work)
    assert log == ["first begins", "first is given up", "second begins", "second ends"]


def ar(member: bytes) -> bytes:
    """An ar archive, which libarchive reads in a child process."""
    return (
        b"!<arch>\na/              0           0     0     644     %-10d`\n" % len(member)
        + member
        + b"\n" * (len(member) % 2)
    )


def test_many_archives_at_once_are_all_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon each leaves the short turn (`icapscan.turns`)."""
    for short in (0.0, 0.1):
        monkeypatch.setattr("icapscan.turns.SHORT", short)
        engine = Looks()

        async def run(engine: Looks) -> list[Verdict]:
            scanner = Scanner(Fanout([engine]), Limits(), Purse(1 << 24, 1 << 24))
            scans = [scanner.begin(Subject()) for _ in range(9)]
            for number, one in enumerate(scans):
                one.feed(ar(b"%d" % number + bytes(200_000) + BAD * (number % 2)))
            try:
                return list(await asyncio.gather(*(one.finish() for one in scans)))
            finally:
                for one in scans:
                    one.close()
                assert scanner.turns.longs == 0

        levels = [verdict.level for verdict in asyncio.run(run(engine))]
        assert levels == [Level.INFECTED if number % 2 else Level.CLEAN for number in range(9)]
        members = {data[:1] for path, data, _, _ in engine.seen if path}
        assert members == {b"%d" % number for number in range(9)}


def test_the_audience_goes_with_the_part(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy(audience=Audience.NOT_CLAMD)
    monkeypatch.setattr(
        "icapscan.unwrap.walker.registry", lambda: Registry([Entry(toy, prefixes=(BOX_MAGIC,), covers=True)])
    )
    inside, lists, local = Looks(), Looks(), Looks()
    inside.audience, lists.audience = "clamd", "every"  # type: ignore[attr-defined]
    assert scan(box(part(b"1", b"x")), inside, lists, local).level is Level.CLEAN
    assert [path for path, _, _, _ in inside.seen] == []
    assert [path for path, _, _, _ in lists.seen] == ["1", ""]
    assert [path for path, _, _, _ in local.seen] == ["1"]


def test_close_in_mid_body_frees_everything() -> None:
    purse = Purse(1 << 20, 1 << 20)

    async def run() -> None:
        one = Scanner(Fanout([Looks()]), Limits(), purse).begin(Subject(content_encoding=b"gzip"))
        one.feed(gzip.compress(b"a" * 10_000)[:30])
        one.close()

    asyncio.run(run())
    assert (purse.memory_left, purse.disk_left) == (1 << 20, 1 << 20)


def test_the_boundary_of_an_upload_comes_from_its_content_type() -> None:
    engine = Looks()
    body = (
        b'--xyz\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\nhello\r\n'
        b'--xyz\r\nContent-Disposition: form-data; name="g"\r\n\r\n' + BAD + b"\r\n--xyz--\r\n"
    )
    kind = b"multipart/form-data; boundary=xyz"
    verdict = scan(body, engine, subject=Subject(media_type="multipart/form-data", content_type=kind))
    assert verdict.level is Level.INFECTED
    assert (b"hello", "a.txt") in [(data, name) for _, data, name, _ in engine.seen]


WHOLE = {
    "nothing": b"",
    "plain": os.urandom(5000),
    "bad": os.urandom(5000) + BAD,
    "text": b"some text\n" * 1000 + BAD,
    "gzip": gzip.compress(BAD * 100),
    "zip-behind": os.urandom(9000) + zipped({"a.txt": BAD * 10}),
    "zip": zipped({"a.txt": b"x" * 9000, "b.txt": BAD}),
    "iso": bytes(32769) + b"CD001" + bytes(40_000),
    "mail": b"From: a@example.org\nTo: b@example.org\nSubject: c\nMIME-Version: 1.0\n"
    b"Content-Transfer-Encoding: base64\n\n" + base64.b64encode(BAD * 2000),
    "pdf-behind": b"\0" * 700 + b"%PDF-1.4\n" + b"x" * 9000 + b"\n%%EOF\n",
    "piece.zip.001": os.urandom(6000),
    "brotli.br": os.urandom(6000),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_body_in_one_piece_is_read_as_one_in_pieces(name: str, pieces: int) -> None:
    """`Scan.feed_whole` is a short way and no other one: the same parts, the same verdict."""
    data = WHOLE[name]
    step = max(1, len(data) // pieces)

    async def run(whole: bool) -> tuple[Verdict, list[tuple[str, bytes, str, str]]]:
        engine = Looks()
        one = Scanner(Fanout([engine]), Limits(), Purse(1 << 30, 1 << 30)).begin(Subject(name=name))
        if whole:
            one.feed_whole(data)
        else:
            for at in range(0, len(data), step):
                one.feed(data[at : at + step])
        verdict = await one.finish()
        one.close()
        return verdict, sorted(engine.seen)

    verdict, seen = asyncio.run(run(True))
    assert (verdict, seen) == asyncio.run(run(False))
    assert (BAD in b"".join(data for _, data, _, _ in seen)) is (verdict.level is Level.INFECTED)


def test_a_body_in_one_piece_that_is_too_long_is_over_the_limit() -> None:
    async def run() -> Verdict:
        one = Scanner(Fanout([Looks()]), Limits(body=100), Purse(1 << 30, 1 << 30)).begin(Subject())
        one.feed_whole(bytes(101))
        verdict = await one.finish()
        one.close()
        return verdict

    assert asyncio.run(run()).reason is Reason.OVER_LIMIT
