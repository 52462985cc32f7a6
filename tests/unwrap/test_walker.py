"""The tree that the walker makes, with toy formats: paths, readings, audiences, failures, bounds, any split."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Reason
from icapscan.limits import KIB, Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import FIRST, Bid, Context, Declared, Decoder, Evidence, WholeDecoder
from icapscan.unwrap.events import Audience, PartBegin, PartData, PartEnd, PartEvent
from icapscan.unwrap.formats import Entry, Registry
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.tree import PartReady
from icapscan.unwrap.walker import NOTES_MAX, Walker
from tests.unwrap.toys import (
    BOX,
    BOX_MAGIC,
    CHEST,
    CHEST_MAGIC,
    TOYS,
    WHOLE,
    BoxDecoder,
    Toy,
    Walked,
    box,
    frame,
    part,
)

NESTED = box(
    part(b"1", b"hello"),
    part(b"2", box(part(b"a", b"inner"), part(b"b", box(part(b"x", b"chest"), magic=CHEST_MAGIC)))),
    part(b"3", b"\0" * 20_000),
)
DEEP = box(part(b"1", box(part(b"1", box(part(b"1", b"bottom"))))))


def toys(**given: object) -> Registry:
    """Both toys with other properties."""
    return Registry(
        [
            Entry(Toy(**given), prefixes=(BOX_MAGIC,)),  # type: ignore[arg-type]
            Entry(Toy("chest", CHEST_MAGIC, whole=True, **given), prefixes=(CHEST_MAGIC,)),  # type: ignore[arg-type]
        ]
    )


@pytest.mark.parametrize("step", [1, 3, 4096, WHOLE])
def test_parts_stand_under_their_container(step: int) -> None:
    walked = Walked(NESTED, step)
    assert walked.parts["1"] == b"hello"
    assert walked.parts["2/a"] == b"inner"
    assert walked.parts["2/b/x"] == b"chest"
    assert walked.parts["3"] == b"\0" * 20_000
    assert set(walked.parts) == {"", "1", "2", "2/a", "2/b", "2/b/x", "3"}
    assert walked.leaves == {"1", "2/a", "2/b/x", "3"}
    assert not walked.failed and not walked.anomalies


@pytest.mark.parametrize("body", [b"", b"x", b"hello", b"\0" * 50_000, BOX_MAGIC[:2]])
def test_what_no_format_opens_is_one_leaf(body: bytes) -> None:
    for step in (1 if len(body) < 100 else 999, WHOLE):
        walked = Walked(body, step)
        assert walked.parts == {"": body} and walked.leaves == {""}
        assert walked.ready[""].audience is Audience.ALL


def test_a_part_with_only_a_number_brings_its_name_along() -> None:
    formats = toys(names={"2": "C:\\files/report.zip", "3": "../..", "4": "a\x1b[0m\u202etxt.exe"})
    inner = box(part(b"z", b"data"))
    walked = Walked(box(*(part(b"%d" % number, inner) for number in (1, 2, 3, 4))), formats=formats)
    assert {path for path in walked.parts if path.endswith("z")} == {
        "1/z", "2/report.zip/z", "3/z", "4/a\\x1b[0m\\u202etxt.exe/z",
    }  # fmt: skip
    assert walked.ready["2"].declared == Declared(("C:\\files/report.zip",), "", "", "box")


def test_two_parts_with_one_key_get_two_paths() -> None:
    two = Registry([BOX, Entry(Toy("twin"), prefixes=(BOX_MAGIC,))])
    walked = Walked(box(part(b"1", b"hello")), formats=two)
    assert walked.parts["1"] == walked.parts["1~2"] == b"hello"
    assert (walked.ready["1"].reading, walked.ready["1~2"].reading) == (0, 1)
    assert walked.ready[""].opened == ("box", "twin")


def test_a_key_of_any_length_makes_a_short_path() -> None:
    class Long:
        name = "long"

        def bid(self, evidence: Evidence) -> Bid:
            return Bid.YES if evidence.first.startswith(BOX_MAGIC) else Bid.NO

        def open(self, context: Context) -> Decoder:
            return self

        def feed(self, data: bytes | memoryview) -> list[PartEvent]:
            return []

        def finish(self) -> Iterator[PartEvent]:
            for last in "ab":
                key = "x" * 60_000 + last + ".exe"
                yield from (PartBegin(key), PartData(key, b"data"), PartEnd(key))

    walked = Walked(box(), formats=Registry([Entry(Long())]))
    assert sorted(map(len, walked.parts)) == [0, 251, 251]
    assert all(path.endswith(".exe") for path in walked.parts if path)


@given(st.integers(1, 60), st.sampled_from([NESTED[:400], DEEP, box(frame(b"?"), part(b"1", b"x" * 5000))]), st.data())
def test_any_split_gives_the_same_tree(step: int, body: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(body)))
    assert Walked(body[:cut], step).facts() == Walked(body[:cut]).facts()


def test_one_byte_at_a_time_is_linear() -> None:
    """Calls into the decoder and bytes copied, not seconds: each byte reaches each decoder once."""
    seen: list[int] = []

    class Counts:
        name = "counts"

        def bid(self, evidence: Evidence) -> Bid:
            return Bid.YES

        def open(self, context: Context) -> Decoder:
            return self

        def feed(self, data: bytes | memoryview) -> list[PartEvent]:
            seen.append(len(data))
            return []

        def finish(self) -> list[PartEvent]:
            return []

    Walked(b"x" * 20_000, 1, formats=Registry([Entry(Counts())]))
    assert seen == [FIRST + 1] + [1] * (20_000 - FIRST - 1)


# Bids


def test_the_surest_bid_is_the_first_reading_then_the_order_of_the_registry() -> None:
    maybe, sure, other = Toy("maybe", bid=Bid.MAYBE), Toy("sure"), Toy("other")
    walked = Walked(box(part(b"1", b"x")), formats=Registry([Entry(maybe), Entry(sure), Entry(other)]))
    assert {one.declared.within: one.reading for path, one in walked.ready.items() if path} == {
        "sure": 0, "other": 1, "maybe": 2,
    }  # fmt: skip


def test_a_format_is_asked_only_where_its_line_says_so() -> None:
    toy = Toy()
    formats = Registry([Entry(toy, prefixes=(BOX_MAGIC,), types=("application/box", "multipart/*"))])
    for media_type in ("", "text/html", "application/boxes", "multi"):
        Walked(b"something", formats=formats, declared=Declared(media_type=media_type))
    assert toy.asked == 0
    for media_type in ("application/box", "multipart/x"):
        Walked(b"something", formats=formats, declared=Declared(media_type=media_type))
    Walked(BOX_MAGIC, formats=formats)
    assert toy.asked == 3


def test_a_short_prefix_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Registry([Entry(Toy(), prefixes=(b"B",))])


def test_a_bid_sees_the_first_bytes_however_they_come() -> None:
    seen: list[tuple[bytes, bool]] = []

    class Sees(Toy):
        def bid(self, evidence: Evidence) -> Bid:
            seen.append((evidence.first, evidence.whole))
            return Bid.NO

    for size, step in ((10, 1), (10, WHOLE), (FIRST, 7), (9000, 1000), (9000, WHOLE)):
        seen.clear()
        Walked(b"y" * size, step, formats=Registry([Entry(Sees())]))
        assert seen == [(b"y" * min(size, FIRST), size <= FIRST)]


def test_a_decoder_with_two_faces_is_fed_and_then_reads_the_whole() -> None:
    class Two(Toy):
        def open(self, context: Context) -> Decoder | WholeDecoder:
            stream = super().open(context)
            assert isinstance(stream, Decoder)
            return Faces(stream)

    class Faces:
        def __init__(self, stream: Decoder) -> None:
            self.feed, self.finish = stream.feed, stream.finish

        def read(self, store: PartStore) -> Iterator[PartEvent]:
            yield PartBegin("whole")
            yield PartData("whole", bytes(store.view())[::-1])
            yield PartEnd("whole")

    two = Registry([Entry(Two())])
    for step in (1, WHOLE):
        body = box(part(b"1", b"x"))
        assert Walked(body, step, formats=two).parts == {"": body, "1": b"x", "whole": body[::-1]}
        failing = box(part(b"1", b"x"), frame(b"!"))
        assert set(Walked(failing, step, formats=two).parts) == {"", "1"}, "one that failed gets nothing more"


# Audiences


def test_nobody_scans_the_whole_of_what_its_parts_cover() -> None:
    covering = Registry([Entry(Toy(), covers=True)])
    body = box(part(b"1", b"x"))
    assert Walked(body, formats=covering).ready[""].audience is Audience.NOBODY
    assert Walked(body).ready[""].audience is Audience.ALL, "a format that does not say that it covers"
    assert Walked(box(), formats=covering).ready[""].audience is Audience.ALL, "nothing was found in it"
    for odd in (frame(b"?"), frame(b"!", b"2"), frame(b"!"), frame(b"X"), b"+"):
        walked = Walked(body + odd, formats=covering)
        assert walked.ready[""].audience is Audience.ALL, odd
        assert walked.failed or walked.anomalies
    twice = Registry([Entry(Toy(), covers=True), Entry(Toy("twin"), covers=True)])
    assert Walked(body, formats=twice).ready[""].audience is Audience.ALL, "two readings"


def test_trouble_in_a_part_is_no_trouble_of_its_container() -> None:
    covering = Registry([Entry(Toy(), covers=True)])
    walked = Walked(box(part(b"1", box(part(b"1", b"x"), frame(b"?")))), formats=covering)
    assert walked.ready[""].audience is Audience.NOBODY
    assert walked.ready["1"].audience is Audience.ALL
    assert walked.anomalies == [("odd", "1")]


def test_what_a_decoder_leaves_to_nobody_and_nobody_opens_is_for_all() -> None:
    walked = Walked(box(part(b"1", b"leaf")), formats=toys(audience=Audience.NOBODY))
    assert walked.ready["1"].audience is Audience.ALL
    walked = Walked(box(part(b"1", b"leaf")), formats=toys(audience=Audience.NOT_CLAMD))
    assert walked.ready["1"].audience is Audience.NOT_CLAMD


def test_what_was_made_for_clamd_is_not_opened() -> None:
    walked = Walked(DEEP, formats=toys(audience=Audience.CLAMD))
    assert set(walked.parts) == {"", "1"}
    assert walked.ready["1"].audience is Audience.CLAMD


# Failures


@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
@pytest.mark.parametrize("step", [1, WHOLE])
def test_a_decoder_that_raises_fails_its_part_and_the_others_go_on(magic: bytes, step: int) -> None:
    bad = box(part(b"1", b"before"), frame(b"+", b"2", b"half"), frame(b"X"), part(b"3", b"after"), magic=magic)
    walked = Walked(box(part(b"1", b"one"), part(b"2", bad), part(b"3", b"three")), step)
    assert walked.failed == [("2", Reason.MALFORMED)]
    assert "RuntimeError" in walked.details[0]
    assert walked.parts["2/1"] == b"before"
    assert walked.parts["2/2"] == b"half", "what there is of an open child is a part"
    assert walked.parts["1"] == b"one" and walked.parts["3"] == b"three"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("x"), Reason.MALFORMED),
        (Stop(Reason.ENCRYPTED, "x"), Reason.ENCRYPTED),
        (MemoryError(), Reason.ENGINE_FAILED),
        (ImportError("x"), Reason.UNSUPPORTED),
        (RecursionError(), Reason.MALFORMED),
    ],
)
def test_a_format_that_does_not_open_is_told(error: Exception, reason: Reason) -> None:
    class Refuses(Toy):
        def open(self, context: Context) -> Decoder | WholeDecoder:
            raise error

    walked = Walked(BOX_MAGIC, formats=Registry([Entry(Refuses()), BOX]))
    assert walked.failed == [("", reason)]


@pytest.mark.parametrize("mistake", [[PartData("1", b"x")], [PartEnd("1")], [PartBegin("1"), PartBegin("1")], [None]])
def test_a_decoder_that_breaks_the_contract_is_told(mistake: list[PartEvent]) -> None:
    class Wrong:
        name = "wrong"

        def bid(self, evidence: Evidence) -> Bid:
            return Bid.YES if evidence.first.startswith(BOX_MAGIC) else Bid.NO

        def open(self, context: Context) -> Decoder:
            return self

        def feed(self, data: bytes | memoryview) -> list[PartEvent]:
            return mistake

        def finish(self) -> list[PartEvent]:
            return []

    walked = Walked(BOX_MAGIC, formats=Registry([Entry(Wrong())]))
    assert walked.failed == [("", Reason.MALFORMED)]


@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_a_part_that_does_not_end_is_malformed_and_there(magic: bytes) -> None:
    walked = Walked(box(frame(b"+", b"1", b"half"), magic=magic))
    assert walked.failed == [("1", Reason.MALFORMED)]
    assert walked.parts["1"] == b"half"


@pytest.mark.parametrize("step", [1, WHOLE])
def test_a_failed_child_ends_and_its_siblings_go_on(step: int) -> None:
    walked = Walked(box(frame(b"+", b"1", BOX_MAGIC), frame(b"!", b"1"), part(b"2", b"x"), frame(b"!", b"9")), step)
    assert walked.failed == [("1", Reason.ENCRYPTED), ("9", Reason.ENCRYPTED)]
    assert walked.parts == {"": walked.parts[""], "1": BOX_MAGIC, "2": b"x"}


def test_no_room_for_a_part_is_our_failure_and_its_siblings_go_on() -> None:
    body = box(part(b"1", b"a"), part(b"2", box(frame(b"+", b"3", b"y" * 900)) + b"z" * 9000), part(b"4", b"b"))
    walked = Walked(body, purse=Purse(1500, 0))
    assert ("2", Reason.ENGINE_FAILED) in walked.failed
    assert walked.parts["1"] == b"a" and walked.parts["4"] == b"b"
    assert len(walked.parts["2"]) < 1500


def test_hostile_numbers_of_failures_and_anomalies_are_bounded() -> None:
    class Noisy(Toy):
        def open(self, context: Context) -> Decoder:
            return self

        def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
            from icapscan.findings import Anomaly
            from icapscan.unwrap.events import AnomalyFound, PartFailed

            for number in range(5000):
                yield PartFailed(str(number), Reason.ENCRYPTED, "locked")
                yield AnomalyFound(Anomaly("odd", str(number)))
            yield PartFailed("last", Reason.UNSUPPORTED, "a reason that was not told yet")

        def finish(self) -> list[PartEvent]:
            return []

    walked = Walked(BOX_MAGIC, formats=Registry([Entry(Noisy())]))
    assert len(walked.failed) == NOTES_MAX + 1 and walked.failed[-1] == ("last", Reason.UNSUPPORTED)
    assert len(walked.anomalies) == NOTES_MAX + 1 and walked.anomalies[-1][0] == "more-anomalies"


# Bounds


@pytest.mark.parametrize("step", [1, WHOLE])
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_e22_too_deep_is_over_the_limit_and_what_was_found_is_kept(step: int, magic: bytes) -> None:
    body = b"bottom"
    for _ in range(6):
        body = box(part(b"1", body), part(b"2", b"side"), magic=magic)
    walked = Walked(body, step, limits=Limits(depth=4))
    assert walked.failed == [("1/1/1/1/1", Reason.OVER_LIMIT), ("1/1/1/1/2", Reason.OVER_LIMIT)]
    assert walked.budget.spent is None
    assert walked.parts["1/1/1/1/1"] == box(part(b"1", b"bottom"), part(b"2", b"side"), magic=magic)
    assert {"2", "1/2", "1/1/2", "1/1/1/2"} <= set(walked.parts)
    assert Walked(body, step, limits=Limits(depth=6)).failed == []


@pytest.mark.parametrize("step", [1, 100, WHOLE])
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_e23_too_many_parts_are_over_the_limit(step: int, magic: bytes) -> None:
    body = box(part(b"0", box(*(part(b"%c" % number, b"x") for number in range(60, 90)))), magic=magic)
    walked = Walked(body, step, limits=Limits(parts=10))
    assert [reason for _, reason in walked.failed] == [Reason.OVER_LIMIT]
    assert walked.budget.spent == "parts"
    assert len(walked.parts) == 10
    assert all(one.audience is Audience.ALL for one in walked.ready.values())


@pytest.mark.parametrize("step", [1, 100, WHOLE])
@pytest.mark.parametrize("magic", [BOX_MAGIC, CHEST_MAGIC])
def test_output_over_the_limit_ends_everything_once(step: int, magic: bytes) -> None:
    inner = box(part(b"1", b"z" * 3000), part(b"2", b"x"))
    walked = Walked(box(part(b"1", inner), part(b"2", b"y"), magic=magic), step, limits=Limits(unpacked=2000))
    assert {reason for _, reason in walked.failed} == {Reason.OVER_LIMIT}
    assert sum(map(len, walked.parts.values())) - len(walked.parts[""]) < 8000


def test_a_spent_clock_ends_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("icapscan.limits.time.monotonic", lambda: now[0])
    budget = Budget(Limits(seconds=1.0))
    store = PartStore.of(NESTED)
    walker = Walker(budget, lambda: PartStore.of(b""), store, formats=TOYS)
    now[0] += 100.0  # a sender that takes its time spends nothing
    list(walker.feed(NESTED[:5000]))
    spent = [budget.spent]
    budget.work()
    now[0] += 2.0
    list(walker.feed(NESTED[5000:]))
    spent.append(budget.spent)
    assert spent == [None, "seconds"]
    events = [event for events in walker.finish() for event in events]
    assert isinstance(events[-1], PartReady) and events[-1].path == ""
    walker.close()


def test_closing_in_the_middle_frees_every_store() -> None:
    for cut in range(0, 300, 7):
        purse = Purse(1 << 20, 1 << 20)
        walker = Walker(Budget(Limits()), partial(PartStore, purse, Limits()), PartStore.of(b""), formats=TOYS)
        for at in range(cut):
            for event in walker.feed(NESTED[at : at + 1]):
                if isinstance(event, PartReady):
                    event.store.close()
        walker.close()
        walker.close()
        assert (purse.memory_left, purse.disk_left) == (1 << 20, 1 << 20)


def test_parts_are_read_whole_step_by_step() -> None:
    body = box(*(part(b"%d" % number, box(part(b"a", b"x"), magic=CHEST_MAGIC)) for number in range(5)))
    walker = Walker(Budget(Limits()), lambda: PartStore(Purse(9999, 0), Limits()), PartStore.of(body), formats=TOYS)
    busy = [walker.busy]
    list(walker.feed(body + b"-a000" * FIRST))
    busy.append(walker.busy)
    steps = sum(1 for _ in walker.steps())
    busy.append(walker.busy)
    assert busy == [False, True, False] and steps >= 5 * 4
    walker.close()


# Content codings


def test_a_coded_body_is_opened_like_any_other_part() -> None:
    for step in (1, 50, WHOLE):
        walked = Walked(gzip.compress(NESTED), step, coding=b"gzip")
        assert walked.parts["gzip"] == NESTED
        assert walked.parts["gzip/2/b/x"] == b"chest"
        assert walked.ready["gzip"].reading == 1 and walked.ready["gzip/1"].reading == 0
        assert not walked.failed


def test_e60_a_body_whose_declared_coding_was_not_applied_is_opened_as_it_is() -> None:
    walked = Walked(NESTED, 50, coding=b"gzip")
    assert walked.parts["2/b/x"] == b"chest"
    assert walked.anomalies == [("coding-not-applied", "")]


def test_a_format_that_is_the_declared_coding_is_not_undone_twice() -> None:
    other = Entry(Toy("gz", b"\x1f\x8b"), coding="gzip")
    body = gzip.compress(b"data")
    assert set(Walked(body, formats=Registry([other]), coding=b"gzip").parts) == {"", "gzip"}
    assert "box" in BOX.format.name and Walked(body, formats=Registry([other])).failed, "else it opens the body"


# The hot path


def test_a_body_that_nothing_opens_is_neither_copied_nor_stored() -> None:
    made: list[PartStore] = []
    body = bytes(64 * KIB)
    walker = Walker(Budget(Limits()), lambda: made.append(PartStore.of(b"")) or made[-1], PartStore.of(b""))  # type: ignore[func-returns-value]
    walker.feed(body)
    tracemalloc.start()
    try:
        for _ in range(1000):
            walker.feed(body)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grown < 4 * KIB and not made
    walker = Walker(Budget(Limits()), lambda: PartStore.of(b""), PartStore.of(b""), formats=Registry(()))
    walker.feed(body)
    assert walker.idle


def test_importing_the_walker_loads_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = {"yara", "asyncio", "pikepdf", "olefile", "oletools", "libarchive", "rich", "typer", "ssl", "socket"}
    code = f"import sys, icapscan.unwrap.walker as w; w.registry(); print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_the_toys_are_as_said() -> None:
    assert isinstance(CHEST.format.open(Context(Budget(Limits()), None, Declared(), Bid.YES)), WholeDecoder)  # type: ignore[arg-type]
    assert not isinstance(BOX.format.open(Context(Budget(Limits()), None, Declared(), Bid.YES)), WholeDecoder)  # type: ignore[arg-type]


def test_the_body_is_ready_last_also_where_its_decoder_gives_up_over_a_part() -> None:
    """That part is read whole after the decoder of the body has failed."""
    inner = box(part(b"x", b"inside"), magic=CHEST_MAGIC)
    walked = Walked(box(frame(b"+", b"a", inner), frame(b"!"), magic=CHEST_MAGIC))
    assert walked.order[-1] == "" and walked.parts["a/x"] == b"inside"
    assert walked.failed == [("", Reason.ENCRYPTED)]


class SlowDecoder(BoxDecoder):
    """Finds nothing before it has seen 6000 bytes."""

    def feed(self, data: bytes | memoryview) -> Iterator[PartEvent]:
        self._seen = getattr(self, "_seen", b"") + bytes(data)
        if len(self._seen) < 6000:
            return iter(())
        seen, self._seen = self._seen, b""
        return super().feed(seen)


class Slow(Toy):
    """Its format."""

    def open(self, context: Context) -> Decoder:
        return SlowDecoder(context, BOX_MAGIC, Audience.ALL, {})


def test_the_formats_of_a_part_stand_in_the_order_of_their_bids() -> None:
    """Not of what they found first, which depends on how the bytes arrived."""
    formats = Registry([Entry(Slow("slow"), prefixes=(BOX_MAGIC,)), Entry(Toy("quick"), prefixes=(BOX_MAGIC,))])
    body = box(part(b"1", b"\0" * 7000))
    for step in (WHOLE, 500, 1):
        walked = Walked(body, step, formats=formats)
        assert walked.ready[""].opened == ("slow", "quick")
