"""A bounded queue and the one thread that works it off: who puts something in never waits and never fails.

There is a lane for mails and one for calls of the webhook, so that a relay that hangs does not hold up the other.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence

from icapscan.errors import NotDelivered
from icapscan.notify.contract import Channel, Outcome
from icapscan.notify.tally import Tally
from icapscan.templates import shown

RETRIES = (2.0, 15.0, 60.0)
"""Seconds before the second try and so on: about a restart of the other side. What lasts longer is in the log."""
_IDLE_SECONDS = 30.0
"""A thread with nothing to do for so long ends; the next job starts another one."""
_DETAIL_MAX = 600
_log = logging.getLogger("icapscan")


class Job:
    """One mail or one call. ``deliver`` does it, or raises `NotDelivered`; ``given_up`` is told when it stays undone.

    Both are called in the lane's thread, but for ``given_up`` when the lane is closed. ``whom`` and ``reference`` are
    harmless words for the log.
    """

    __slots__ = ("deliver", "given_up", "reference", "tries", "whom")

    def __init__(
        self, reference: str, whom: str, deliver: Callable[[], None], given_up: Callable[[], None] = lambda: None
    ) -> None:
        self.reference = reference
        self.whom = whom
        self.deliver = deliver
        self.given_up = given_up
        self.tries = 0


class Lane:
    """Delivers jobs in their order; one that may be tried again waits its time without holding up the others."""

    def __init__(
        self,
        channel: Channel,
        size: int,
        tally: Tally,
        retries: Sequence[float] = RETRIES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most ``size`` jobs wait, those that are tried again among them."""
        self._channel = channel
        self._size = size
        self._tally = tally
        self._retries = tuple(retries)
        self._now = now
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._working: Job | None = None
        self._closing = False
        self._abandoned = False

    def put(self, job: Job) -> bool:
        """Queue a job; False where there is no room, or the lane is closed. The log then has it."""
        with self._changed:
            room = not self._closing and len(self._waiting) < self._size
            if room:
                self._push(job, self._now())
                self._run_thread()
        if not room:
            self._give_up(job, Outcome.DROPPED, "The queue is closed." if self._closing else "The queue is full.")
        return room

    def stop(self) -> None:
        """Take nothing any more, and be quick with what is queued: `close` waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Try everything that is queued once more, for so long; the log has what could not be delivered. Idempotent."""
        until = time.monotonic() + seconds
        self.stop()
        with self._changed:
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            left = [job for _, _, job in sorted(self._waiting)]
            self._waiting.clear()
            self._abandoned = True
            if self._working is not None:
                left.insert(0, self._working)
        for job in left:
            self._give_up(job, Outcome.DROPPED, "The scanner ended before it could be delivered.")

    @property
    def length(self) -> int:
        """Jobs that wait, those that are being tried not counted."""
        with self._changed:
            return len(self._waiting)

    def _run_thread(self) -> None:
        """With the lock held."""
        if self._thread is None:
            name = f"notify-{self._channel.value}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no threads left: the next job tries again
                self._thread = None
        self._changed.notify_all()

    def _push(self, job: Job, due: float) -> None:
        heapq.heappush(self._waiting, (due, next(self._numbers), job))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job.tries += 1
            error: NotDelivered | None = None
            try:
                job.deliver()
            except NotDelivered as failed:
                error = failed
            except Exception as mistake:  # one of ours; the next job must not suffer for it
                error = NotDelivered(f"{type(mistake).__name__}: {mistake}", retry=False)
            self._end(job, error)

    def _next(self) -> Job | None:
        """The next job when it is due; None: the thread ends."""
        with self._changed:
            idle_until = self._now() + _IDLE_SECONDS
            while True:
                if self._waiting and (self._closing or self._waiting[0][0] <= self._now()):
                    self._working = heapq.heappop(self._waiting)[2]
                    return self._working
                if not self._waiting and (self._closing or self._now() >= idle_until):
                    self._thread = None
                    return None
                until = self._waiting[0][0] if self._waiting else idle_until
                self._changed.wait(max(0.0, until - self._now()))

    def _end(self, job: Job, error: NotDelivered | None) -> None:
        """What became of one try."""
        with self._changed:
            self._working = None
            if self._abandoned:
                return  # it was given up while it was tried, and counted
            if error is not None and error.retry and job.tries <= len(self._retries) and not self._closing:
                self._push(job, self._now() + max(self._retries[job.tries - 1], error.after))
                return
        if error is None:
            self._tally.add(self._channel, Outcome.SENT)
        else:
            self._give_up(job, Outcome.FAILED, f"{error} Tries: {job.tries}.")

    def _give_up(self, job: Job, outcome: Outcome, why: str) -> None:
        self._tally.add(self._channel, outcome)
        _log.warning(
            "notify channel=%s outcome=%s reference=%s to=%s detail=%s",
            self._channel.value, outcome.value, job.reference, job.whom, shown(why, _DETAIL_MAX),
        )  # fmt: skip
        job.given_up()
