"""Histograms, bodies, rows, ratios, tables and pictures: what needs no server."""

from __future__ import annotations

import email
import email.policy
import random
from email.message import EmailMessage
from pathlib import Path

import pytest

from benchmarks import bounds
from benchmarks.bodies import NONCE, Body, Sample, compose
from benchmarks.histogram import SUB_BITS, Histogram, merged, middle_ns
from benchmarks.load import MARKER, Load
from benchmarks.report import lines
from benchmarks.results import Figure, Measured, Round, read, save
from benchmarks.rows import KIB, Check, Kind, Row, rows, size_name
from benchmarks.sides import Name
from benchmarks.table import markdown


def bucket_of(ns: int) -> int:
    """As ``load.c`` counts."""
    if ns < 1 << SUB_BITS:
        return ns
    shift = ns.bit_length() - 1 - SUB_BITS
    return ((shift + 1) << SUB_BITS) + ((ns >> shift) & ((1 << SUB_BITS) - 1))


def histogram(values: list[int]) -> Histogram:
    counts: dict[int, int] = {}
    for value in values:
        counts[bucket_of(value)] = counts.get(bucket_of(value), 0) + 1
    return Histogram(len(values), sum(values), max(values), sorted(counts.items()))


def test_a_bucket_is_less_than_one_percent_wide() -> None:
    for ns in (0, 1, 127, 128, 255, 256, 1_000_003, 123_456_789_012):
        assert abs(middle_ns(bucket_of(ns)) - ns) <= max(0.5, 0.004 * ns)


def test_percentiles_and_merging() -> None:
    values = [random.Random(6).randrange(1000, 10_000_000) for _ in range(5000)]
    whole = histogram(values)
    assert merged([histogram(values[:1000]), histogram(values[1000:])]) == whole
    for part in (0.5, 0.9, 0.99):
        exact = sorted(values)[int(part * len(values)) - 1] / 1000
        assert whole.percentile_us(part) == pytest.approx(exact, rel=0.005)
    assert Histogram(0, 0, 0, []).percentile_us(0.99) == 0.0


def attachments(mail: bytes) -> list[bytes]:
    parsed = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert not parsed.defects
    return [part.get_content() for part in parsed.iter_attachments()]


def texts(mail: bytes) -> str:
    parsed = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    body = parsed.get_body(("plain",))
    assert body is not None
    return str(body.get_content()) + str(parsed["Subject"]) + str(parsed["Message-ID"])


def sample(new: bool) -> Sample:
    return compose(Body(attachments=(5000, 370_001), new_attachments=new))


def test_unique_mails_differ_down_to_every_attachment() -> None:
    made = sample(True)
    one, two = made.fresh(), made.fresh()
    assert len(one) == len(two) == len(made.clean) == len(made.marked)
    assert texts(one) != texts(two)
    first, second = attachments(one), attachments(two)
    assert [len(content) for content in first] == [5000, 370_001]
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_a_campaign_has_the_same_attachments_in_new_mails() -> None:
    made = sample(False)
    one, two = made.fresh(), made.fresh()
    assert texts(one) != texts(two)
    assert attachments(one) == attachments(two)


@pytest.mark.parametrize("new", [True, False])
def test_the_marker_is_in_the_decoded_attachment_only(new: bool) -> None:
    made = sample(new)
    assert MARKER.encode() not in made.marked
    assert attachments(made.marked)[-1].endswith(MARKER.encode())
    assert not any(MARKER.encode() in content for content in attachments(made.clean))
    assert all(made.marked[at : at + NONCE] == made.clean[at : at + NONCE] == b"0" * NONCE for at in made.nonces)


def test_names_of_rows_are_unique_and_checks_name_sides() -> None:
    every = rows(full=True)
    assert len({row.name for row in every}) == len(every)
    for row in every:
        if row.kind is Kind.RATE:
            names = {side.value for side in row.sides}
            assert all({check.ours, *check.peers} <= names for check in row.checks)
            assert row.every or row.service == "echo" or row.mode == "options"


@pytest.mark.parametrize(
    ("name", "peer", "target"),
    [
        ("echo, 200 B, copy", "c-icap", 2.0),
        ("echo, 4 KiB, copy", "c-icap", 2.5),
        ("echo, 32 KiB, copy", "c-icap", 3.5),
        ("OPTIONS", "c-icap", 1.2),
        ("scan, 200 B", "c-icap", 1.1),
        ("scan, 4 KiB", "c-icap", 1.1),
        *((f"scan, {size}", "c-icap", 1.0) for size in ("32 KiB", "256 KiB", "1 MiB", "10 MB")),
        *(
            (f"scan, {size}", "clamd, FILDES", 0.9)
            for size in ("200 B", "4 KiB", "32 KiB", "256 KiB", "1 MiB", "10 MB")
        ),
        ("mail, 75 KB", "c-icap", 2.2),
        ("mail, 2 x 370 KB", "c-icap", 2.2),
        ("mail, campaign, 75 KB", "c-icap", 5.0),
        ("mail, campaign, 740 KB", "c-icap", 5.0),
        ("repeated, 4 KiB", "c-icap", 8.0),
        ("repeated, 1 MiB", "c-icap", 8.0),
        ("pyicap, 4 KiB", "pyicap, our scanner", 3.0),
        ("100-part mail", "icapscan, at once", 0.3),
        ("p99, 32 KiB", "c-icap", 0.5),
        ("workers, 16 KiB", "icapscan, YARA, 1 worker", 1.8),
    ],
)
def test_the_short_run_has_every_target(name: str, peer: str, target: float) -> None:
    row = next(row for row in rows(full=False) if row.name == name)
    assert target in [check.target for check in row.checks if peer in check.peers]


def test_ratios() -> None:
    figures = {"a": 10.0, "b": 4.0, "c": 5.0}
    assert Check("a", ("b", "c"), 2.0).ratio(figures) == 2.0  # the best peer counts
    assert Check("a", ("b", "c"), 2.0, lower=True).ratio(figures) == 2.5
    assert Check("a").ratio(figures) == 10.0
    assert Check("a", ("b",), 2.0).kept(2.0) and not Check("a", ("b",), 2.0).kept(1.99)
    assert Check("a", ("b",), 0.5, lower=True).kept(0.5) and not Check("a", ("b",), 0.5, lower=True).kept(0.51)


def measured(ours: list[float], peer: list[float], target: float = 2.0) -> Measured:
    check = Check(Name.OURS.value, (Name.CICAP.value,), target)
    row = Row("echo, 4 KiB, copy", Kind.RATE, (Name.CICAP, Name.OURS), (check,), Body(4 * KIB))
    pairs = zip(ours, peer, strict=True)
    return Measured(
        row, [Round({Name.CICAP.value: Figure(b, "1/s"), Name.OURS.value: Figure(a, "1/s")}) for a, b in pairs]
    )


def test_a_row_is_the_median_of_its_pairs() -> None:
    one = measured([100.0, 300.0, 90.0], [50.0, 100.0, 60.0])
    check = one.row.checks[0]
    assert one.ratio(check) == 2.0 and one.kept(check)
    assert one.worst(check) == 1.5
    assert not measured([100.0], [51.0]).kept(check)


def test_a_file_of_results_and_its_table(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    one = measured([100.0, 300.0, 90.0], [50.0, 100.0, 60.0])
    save(path, "0123abc", [one], {"cpu": "x"}, {"full": False})
    saved = read(path)
    assert saved.rows == [one]
    assert lines(saved.rows[0])[0][-3:] == ["2.00", "1.50", ">= 2 kept"]
    table = markdown(path).splitlines()
    assert len(table) == 3
    assert table[2].startswith("| echo, 4 KiB, copy | c-icap | 60.0 1/s |")


def figure(rate: float, server: float, clamd: float, load: float) -> Figure:
    """One second at ``rate``, with microseconds for each answer."""
    empty = Histogram(0, 0, 0, [])
    made = Load(
        int(rate), 1.0, 0, rate, 0, int(rate), 0, 0, 0, 0, 0, 0, 0, 0, empty, empty, rate * load / 1e6, 0.0, {}, 0, ""
    )
    return Figure(rate, "1/s", made, server, clamd)


def test_what_a_row_could_reach_if_our_server_cost_nothing() -> None:
    assert bounds.bound(bounds.Cost(300, 300, 20), bounds.Cost(200, 350, 10)) == pytest.approx(560 / 320)
    assert bounds.bound(bounds.Cost(300, 0, 0), bounds.Cost(200, 0, 0)) == float("inf")
    row = measured([1.0], [1.0]).row
    rounds = [
        Round({Name.CICAP.value: figure(2000, 200, 350, 10), Name.OURS.value: figure(1500, ours, 300, 20)})
        for ours in (900.0, 300.0, 320.0)
    ]
    (line,) = bounds.lines(Measured(row, rounds))
    assert line[:2] == ["echo, 4 KiB, copy", "c-icap"]
    assert line[2:4] + line[5:] == ["200", "350", "320", "300", "20", "0.75", "1.75", "2"]


@pytest.mark.parametrize(("size", "name"), [(200, "200 B"), (4096, "4 KiB"), (1 << 20, "1 MiB"), (10**7, "10 MB")])
def test_sizes(size: int, name: str) -> None:
    assert size_name(size) == name


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install icapscan[bench]")
    from benchmarks.plots import draw

    path = tmp_path / "results.json"
    scaling = Row("workers, 16 KiB", Kind.RATE, (Name.ONE_WORKER, Name.TWO_WORKERS), ())
    figures = {Name.ONE_WORKER.value: Figure(10.0, "1/s"), Name.TWO_WORKERS.value: Figure(19.0, "1/s")}
    save(path, "0123abc", [Measured(scaling, [Round(figures)])], {"cpu": "a processor", "cores": 2}, {})
    (picture,) = draw([read(path)], tmp_path)
    assert picture.name == "bench-workers.svg"
    text = picture.read_text()
    assert "1.90 ×" in text and "a processor" in text and "0123abc" in text
