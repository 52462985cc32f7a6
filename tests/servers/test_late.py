"""Cut downloads and finished ones: bounded, for whoever asked, for a while, and with room given back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from icapscan.errors import StoreFull
from icapscan.findings import CLEAN
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.servers import late
from icapscan.servers.late import Asker, Cut, Kept, LateAnswers, sweep, ticket_in, with_ticket
from icapscan.servers.threads import Threads
from icapscan.store import PartStore, Purse

URL = b"http://www.example.org/a?b=c#d"
BLOCK = Decision(Action.BLOCK, Cause.INFECTED)


def cut(asker: Asker, seconds: float = 60.0) -> Cut:
    return Cut(asker, "tag", time.time() + seconds, BLOCK, CLEAN, "reference")


def keep(answers: LateAnswers, body: bytes, asker: Asker, purse: Purse, seconds: float = 60.0) -> str:
    kept = Kept(seconds, purse, Threads().run)
    return asyncio.run(answers.keep(b"HTTP/1.1 200 OK\r\n\r\n", PartStore.of(body), asker, "tag", kept))


def test_a_cut_is_remembered_for_a_while_and_told_to_others() -> None:
    told: list[Cut] = []
    answers = LateAnswers(tell=told.append)
    assert not answers.has_cuts
    one, other = cut(Asker(URL)), cut(Asker(URL, b"192.0.2.1"), -1.0)
    answers.cut(one)
    answers.cut(other)
    assert told == [one, other]
    assert answers.cut_before(Asker(URL), "tag") == one
    assert answers.cut_before(Asker(URL), "another") is None
    assert answers.cut_before(Asker(URL), "tag") is None, "it belongs to engines that are gone"
    assert answers.cut_before(Asker(URL, b"192.0.2.1"), "tag") is None
    assert not answers.has_cuts


def test_cuts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "CUTS_MOST", 3)
    answers = LateAnswers()
    for number in range(5):
        answers.remember(cut(Asker(b"%d" % number)))
    found = [number for number in range(5) if answers.cut_before(Asker(b"%d" % number), "tag")]
    assert found == [2, 3, 4]


def test_a_finished_download_can_be_fetched_by_any_worker(tmp_path: Path) -> None:
    mine, purse = LateAnswers(str(tmp_path)), Purse(0, 1000)
    asker = Asker(URL, b"192.0.2.1", b"user")
    ticket = keep(mine, b"body", asker, purse)
    assert purse.disk_left == 996
    place = with_ticket(URL, ticket)
    assert place == b"http://www.example.org/a?b=c&icapscan-download=" + ticket.encode()
    for answers in (mine, LateAnswers(str(tmp_path))):
        fetched = answers.fetch(Asker(place, b"192.0.2.1", b"user"), "tag")
        assert fetched is not None and fetched.head == b"HTTP/1.1 200 OK\r\n\r\n"
        assert b"".join(fetched.store.pieces()) == b"body" and fetched.store.size == 4
        fetched.store.close()
    for wrong in (Asker(place), Asker(place, b"192.0.2.1"), Asker(URL, b"192.0.2.1", b"user")):
        assert mine.fetch(wrong, "tag") is None
    assert mine.fetch(Asker(place, b"192.0.2.1", b"user"), "another") is None


def test_what_waited_too_long_is_gone_and_its_room_is_back(tmp_path: Path) -> None:
    answers, purse = LateAnswers(str(tmp_path)), Purse(0, 1000)
    place = with_ticket(URL, keep(answers, b"body", Asker(URL), purse, seconds=0.01))
    time.sleep(0.02)
    assert answers.fetch(Asker(place), "tag") is None
    answers.tidy()
    assert list(tmp_path.iterdir()) == [] and purse.disk_left == 1000


def test_where_there_is_no_room_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    purse = Purse(0, 3)
    with pytest.raises(StoreFull):
        keep(LateAnswers(str(tmp_path)), b"body", Asker(URL), purse)
    with pytest.raises(StoreFull):
        keep(LateAnswers(), b"body", Asker(URL), Purse(0, 1000))
    purse = Purse(0, 1000)
    with pytest.raises(StoreFull):
        keep(LateAnswers(str(tmp_path / "missing")), b"body", Asker(URL), purse)
    assert purse.disk_left == 1000
    monkeypatch.setattr(late, "WAITING_MOST", 0)
    with pytest.raises(StoreFull):
        keep(LateAnswers(str(tmp_path)), b"body", Asker(URL), purse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        b"", b"icapscan-download=", b"icapscan-download=../../../../etc/passwd0000000000",
        b"x?icapscan-download=" + b"A" * 32, b"x?icapscan-download=" + b"a" * 31, b"x?icapscan-download=" + b"a" * 33,
        b"x?icapscan-download=" + b"a" * 32 + b"&y",
    ],
)  # fmt: skip
def test_what_is_no_ticket_names_no_file(url: bytes) -> None:
    assert ticket_in(url) is None


def test_what_dead_workers_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x")
    sweep(str(tmp_path), time.time() - 60)
    assert (tmp_path / "old").exists()
    sweep(str(tmp_path), time.time() + 60)
    assert list(tmp_path.iterdir()) == []
