"""The queue: bounded, tried again a bounded number of times, and never waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from icapscan.errors import NotDelivered
from icapscan.notify.contract import Channel, Outcome
from icapscan.notify.lane import Job, Lane
from icapscan.notify.tally import Tally
from tests.notify.made import PATIENCE, wait

SOON = (0.0, 0.0, 0.0)
MAIL = Channel.MAIL


class Script:
    """A delivery that fails as often as told."""

    def __init__(self, *failures: bool) -> None:
        """``failures``: for each try that fails, whether it is worth another one."""
        self.failures = list(failures)
        self.tries = 0

    def __call__(self) -> None:
        self.tries += 1
        if self.failures:
            raise NotDelivered("The relay is tired.", retry=self.failures.pop(0))


class Gate:
    """A delivery that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.go.wait(PATIENCE)


def job(deliver: Callable[[], None], reference: str = "r1", given_up: Callable[[], None] = lambda: None) -> Job:
    return Job(reference, "a@b", deliver, given_up)


def counts(tally: Tally) -> dict[str, int]:
    return {outcome: count for _, outcome, count in tally.rows()}


def test_no_thread_until_there_is_something_to_do() -> None:
    lane = Lane(Channel.WEBHOOK, 10, Tally())
    assert lane._thread is None
    lane.close(PATIENCE)


def test_jobs_are_delivered_in_their_order_by_one_daemon() -> None:
    tally, seen = Tally(), list[tuple[int, str, bool]]()
    lane = Lane(MAIL, 100, tally)

    def deliver(number: int) -> Callable[[], None]:
        return lambda: seen.append((number, threading.current_thread().name, threading.current_thread().daemon))

    assert all(lane.put(job(deliver(number))) for number in range(50))
    lane.close(PATIENCE)
    assert seen == [(number, "notify-mail", True) for number in range(50)]
    assert counts(tally) == {"sent": 50}


def test_a_temporary_failure_is_tried_again_and_then_it_is_sent() -> None:
    tally, script = Tally(), Script(True, True)
    lane = Lane(MAIL, 10, tally, SOON)
    lane.put(job(script))
    wait(lambda: counts(tally), "an outcome")
    assert script.tries == 3 and counts(tally) == {"sent": 1}


def test_the_tries_are_bounded_and_the_log_has_the_reference(caplog: pytest.LogCaptureFixture) -> None:
    tally, script, gone = Tally(), Script(*[True] * 100), list[int]()
    lane = Lane(MAIL, 10, tally, SOON)
    lane.put(job(script, "0123abcd", lambda: gone.append(1)))
    wait(lambda: counts(tally), "an outcome")
    wait(lambda: gone, "given up")
    assert script.tries == len(SOON) + 1 and counts(tally) == {"failed": 1} and gone == [1]
    (record,) = caplog.records
    said = record.getMessage()
    assert "reference=0123abcd" in said and "to=a@b" in said and "The relay is tired. Tries: 4." in said


def test_what_is_refused_for_good_is_not_tried_again() -> None:
    tally, script = Tally(), Script(False)
    lane = Lane(MAIL, 10, tally, SOON)
    lane.put(job(script))
    wait(lambda: counts(tally), "an outcome")
    assert script.tries == 1 and counts(tally) == {"failed": 1}


def test_a_job_that_waits_for_its_next_try_does_not_hold_up_the_others() -> None:
    tally, sick, well = Tally(), Script(True), Script()
    lane = Lane(MAIL, 10, tally, (3600.0,))
    lane.put(job(sick))
    lane.put(job(well))
    wait(lambda: well.tries, "the other one is sent")
    assert sick.tries == 1
    lane.close(PATIENCE)
    assert sick.tries == 2 and counts(tally) == {"sent": 2}, "at the end it is tried once more, without waiting"


def test_the_other_side_may_ask_for_more_time() -> None:
    lane = Lane(MAIL, 10, Tally(), SOON)
    asked = threading.Event()

    def deliver() -> None:
        asked.set()
        raise NotDelivered("Later.", retry=True, after=3600.0)

    lane.put(job(deliver))
    assert asked.wait(PATIENCE)
    wait(lambda: lane.length, "it waits")
    lane.close(PATIENCE)


def test_a_mistake_of_ours_ends_one_job_and_not_the_lane(caplog: pytest.LogCaptureFixture) -> None:
    tally, well = Tally(), Script()
    lane = Lane(MAIL, 10, tally)

    def broken() -> None:
        raise ZeroDivisionError("oops\r\nforged line")

    lane.put(job(broken))
    lane.put(job(well))
    lane.close(PATIENCE)
    assert counts(tally) == {"failed": 1, "sent": 1}
    said = caplog.records[0].getMessage()
    assert "ZeroDivisionError: oops" in said and "\n" not in said


def test_a_full_queue_takes_no_more_and_says_so_at_once(caplog: pytest.LogCaptureFixture) -> None:
    tally, gate, gone = Tally(), Gate(), list[int]()
    lane = Lane(MAIL, 3, tally)
    lane.put(job(gate))
    assert gate.begun.wait(PATIENCE)
    assert [lane.put(job(Script(), f"r{number}", lambda: gone.append(1))) for number in range(5)] == [True] * 3 + [
        False
    ] * 2
    assert counts(tally) == {"dropped": 2} and gone == [1, 1]
    assert [record.getMessage().split()[3] for record in caplog.records] == ["reference=r3", "reference=r4"]
    gate.go.set()
    lane.close(PATIENCE)
    assert counts(tally) == {"dropped": 2, "sent": 4}


def test_what_hangs_is_not_waited_for_beyond_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    tally, gate = Tally(), Gate()
    lane = Lane(MAIL, 10, tally)
    lane.put(job(gate, "hung"))
    assert gate.begun.wait(PATIENCE)
    lane.put(job(Script(), "next"))
    closing = threading.Thread(target=lane.close, args=(0.05,))
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive(), "close returned while the delivery hangs"
    assert counts(tally) == {"dropped": 2}
    assert [record.getMessage().split()[3] for record in caplog.records] == ["reference=hung", "reference=next"]
    assert lane.put(job(Script())) is False
    gate.go.set()
    wait(lambda: lane._thread is None, "the thread ends")
    assert counts(tally) == {"dropped": 3}, "nothing is counted twice"


def test_the_thread_ends_when_nothing_comes_and_another_one_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icapscan.notify.lane._IDLE_SECONDS", 0.0)
    tally = Tally()
    lane = Lane(MAIL, 10, tally)
    for number in (1, 2, 3):
        lane.put(job(Script()))
        wait(lambda: lane._thread is None, "the thread ends")
        assert counts(tally) == {"sent": number}


def test_many_threads_put_and_nothing_is_lost() -> None:
    tally = Tally()
    lane = Lane(MAIL, 10_000, tally)
    threads = [threading.Thread(target=lambda: [lane.put(job(Script())) for _ in range(200)]) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)
    lane.close(PATIENCE)
    assert tally.count(MAIL, Outcome.SENT) == 1600


def test_no_thread_to_be_had_is_no_failure_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()
    lane = Lane(MAIL, 10, tally)

    def start(self: threading.Thread) -> Any:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert lane.put(job(Script()))
    assert lane.put(job(Script()))
    lane.close(PATIENCE)
    assert counts(tally) == {"sent": 2}
