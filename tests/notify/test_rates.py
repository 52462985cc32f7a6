"""Rates, on a clock of their own."""

from __future__ import annotations

from icapscan.notify.rates import ADDRESSES_MAX, Rates
from tests.notify.made import Clock


def test_so_many_a_minute_to_one_address_and_what_is_held_back_is_told() -> None:
    clock = Clock()
    rates = Rates(100, 3, clock)
    assert [rates.take("a@b") for _ in range(5)] == [0, 0, 0, None, None]
    assert rates.owed("A@b") == 2
    assert rates.take("c@d") == 0, "others are not touched"
    clock.now += 20  # a third of a minute: one more
    assert [rates.take("A@B") for _ in range(2)] == [2, None]
    clock.now += 3600
    assert [rates.take("a@b") for _ in range(4)] == [1, 0, 0, None], "an hour of rest is worth no more than a minute"


def test_so_many_a_minute_in_all() -> None:
    clock = Clock()
    rates = Rates(4, 3, clock)
    taken = [rates.take(f"{number}@b") for number in range(6)]
    assert taken == [0, 0, 0, 0, None, None]
    clock.now += 15
    assert rates.take("5@b") == 1 and rates.take("4@b") is None
    clock.now += 15
    assert rates.take("4@b") == 2


def test_a_share_of_less_than_one_a_minute() -> None:
    clock = Clock()
    rates = Rates(10, 0.5, clock)
    assert [rates.take("a@b") for _ in range(2)] == [0, None]
    clock.now += 60
    assert rates.take("a@b") is None
    clock.now += 60
    assert rates.take("a@b") == 2


def test_over_an_hour_there_are_no_more_than_the_rate_says() -> None:
    clock = Clock()
    rates = Rates(30, 10, clock)
    sent = 0
    for _ in range(3600):
        sent += sum(rates.take(f"{number}@b") is not None for number in range(5))
        clock.now += 1
    assert 30 * 60 <= sent <= 30 * 60 + 30


def test_what_a_lost_mail_should_have_told_the_next_one_tells() -> None:
    clock = Clock()
    rates = Rates(10, 1, clock)
    assert [rates.take("a@b") for _ in range(4)] == [0, None, None, None]
    clock.now += 60
    assert rates.take("a@b") == 3
    rates.give_back("a@b", 3)
    assert rates.take("a@b") is None
    clock.now += 60
    assert rates.take("a@b") == 4


def test_the_memory_is_bounded_and_addresses_at_rest_are_forgotten() -> None:
    clock = Clock()
    rates = Rates(10**9, 1, clock)
    for number in range(ADDRESSES_MAX):
        assert rates.take(f"{number}@b") == 0
    assert rates.take("0@b") is None
    assert rates.take("new@b") is None
    clock.now += 61
    assert rates.take("new@b") == 0
    assert rates.take("0@b") == 1, "what is owed is not forgotten"
