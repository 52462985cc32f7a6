"""The budget that all decoders of one body share."""

from __future__ import annotations

import msgspec
import pytest

from icapscan.limits import MIB, Budget, Limits


def test_the_defaults_have_the_right_order_of_size() -> None:
    limits = Limits()
    assert limits.part_in_bytes <= limits.part_in_memory <= limits.memory <= limits.disk
    assert limits.ratio_from < limits.unpacked


@pytest.mark.parametrize(
    "bad", [{"body": -1}, {"depth": 0}, {"ratio": 1.0}, {"seconds": 0}, {"parts": "many"}, {"nothing": 1}]
)
def test_values_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, Limits)


def test_the_body_may_have_its_limit_and_no_byte_more() -> None:
    budget = Budget(Limits(body=10))
    assert budget.take_body(4) and budget.take_body(6)
    assert budget.spent is None
    assert not budget.take_body(1)
    assert budget.spent == "body"


def test_output_is_bounded_by_the_limit_for_unpacked_bytes() -> None:
    budget = Budget(Limits(unpacked=100, ratio_from=1000))
    assert budget.output_left() == 100
    assert budget.take_output(100)
    assert budget.output_left() == 0
    assert not budget.take_output(1)
    assert budget.spent == "unpacked"


def test_the_ratio_counts_only_from_its_threshold_on() -> None:
    budget = Budget(Limits(ratio=2.0, ratio_from=1000))
    budget.take_body(1)
    assert budget.output_left() == 1000
    assert budget.take_output(1000)
    assert not budget.take_output(1)
    assert budget.spent == "ratio"


def test_the_ratio_grows_with_the_body() -> None:
    budget = Budget(Limits(ratio=2.0, ratio_from=10))
    budget.take_body(100)
    assert budget.output_left() == 200
    assert budget.take_output(200)
    budget.take_body(5)
    assert budget.output_left() == 10
    assert budget.take_output(10)


def test_a_spent_budget_gives_no_more_output() -> None:
    budget = Budget(Limits())
    budget.exhaust("window")
    assert budget.spent == "window"
    assert budget.output_left() == 0


def test_the_first_reason_stays() -> None:
    budget = Budget(Limits(parts=1, unpacked=MIB))
    budget.take_part()
    assert not budget.take_part()
    budget.exhaust("other")
    assert not budget.take_output(2 * MIB)
    assert budget.spent == "parts"


def test_parts_and_depth_are_bounded() -> None:
    budget = Budget(Limits(parts=3, depth=2))
    assert budget.may_open(2) and not budget.may_open(3)
    assert budget.spent is None
    assert budget.take_part() and budget.take_part() and budget.take_part()
    assert not budget.take_part()
    assert budget.spent == "parts"


def test_decoding_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("icapscan.limits.time.monotonic", lambda: now[0])
    budget = Budget(Limits(seconds=5.0))
    assert budget.take_time()
    now[0] += 4.9
    assert budget.take_time()
    now[0] += 0.2
    assert not budget.take_time()
    assert budget.spent == "seconds"
    now[0] -= 5
    assert budget.output_left() == 0
