"""Several processes at the same time, processes that die at the worst moment, and a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from icapscan.errors import ReleaseRefused
from icapscan.quarantine.item import Act, Entry, State
from icapscan.quarantine.release import release
from icapscan.quarantine.sweep import Swept, sweep
from icapscan.quarantine.vault import Quarantine
from tests.conftest import ROOT
from tests.quarantine.made import BODY, FILE, MAIL, content, files, opened

GUARD = 150
"""Seconds after which a process that hangs is given up."""


def start(quarantine: Quarantine, what: str, *numbers: int) -> subprocess.Popen[str]:
    given = json.dumps(msgspec.to_builtins(quarantine.settings))
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/quarantine/child.py"), what, given, *map(str, numbers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finished(process: subprocess.Popen[str], code: int = 0) -> list[str]:
    out, err = process.communicate(timeout=GUARD)
    assert process.returncode == code, err
    return out.splitlines()


# Several at a time


def test_several_processes_keep_while_others_look_and_sweep(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    keepers = [start(quarantine, "keep_many", 15) for _ in range(3)]
    looker = start(quarantine, "look_around", 10)
    names = [name for keeper in keepers for name in finished(keeper)]
    assert finished(looker) == ["looked"]
    assert len(set(names)) == 45
    entries = quarantine.list()
    assert sorted(names) == files(quarantine) == sorted(entry.id for entry in entries)
    for entry in entries:
        body = content(quarantine, entry.id)
        assert body.startswith(entry.name.encode() + b" ") and len(body) == entry.size
        assert entry.stored == os.stat(quarantine.path(entry.id)).st_size
    assert sweep(quarantine, who="me") == Swept()


def test_the_folder_and_the_index_may_be_made_by_several_at_once(tmp_path: Path) -> None:
    settings = opened(tmp_path)
    os.rmdir(settings.items)
    os.rmdir(settings.folder)
    keepers = [start(settings, "keep_many", 1) for _ in range(4)]
    names = [name for keeper in keepers for name in finished(keeper)]
    assert sorted(names) == sorted(entry.id for entry in settings.list())


@pytest.mark.parametrize("full", ["refuse", "oldest"])
def test_several_processes_together_keep_the_bounds(tmp_path: Path, full: str) -> None:
    quarantine = opened(tmp_path, max_items=20, max_size=500_000, full=full)
    keepers = [start(quarantine, "keep_many", 12) for _ in range(3)]
    outcomes = [name for keeper in keepers for name in finished(keeper)]
    assert len(outcomes) == 36
    entries = quarantine.list()
    assert 0 < len(entries) <= 20
    assert sum(entry.stored for entry in entries) <= 500_000
    assert files(quarantine) == sorted(entry.id for entry in entries)
    kept = {name for name in outcomes if name != "full"}
    if full == "refuse":
        assert kept == {entry.id for entry in entries}
    else:
        assert outcomes.count("full") == 0
        with quarantine.index.reading() as rows:
            assert set(rows.states()) == kept


# Deaths


def test_a_file_whose_row_was_never_written_gets_it_with_all_that_was_known(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    finished(start(quarantine, "die_before_the_row"), -signal.SIGKILL)
    (name,) = files(quarantine)
    assert quarantine.list() == []
    assert sweep(quarantine, who="jane") == Swept(adopted=(name,))
    entry, acts = quarantine.show(name)
    assert (entry.name, entry.recipients, entry.state) == ("x", ("b@example.org",), State.KEPT)
    assert entry.size == len(content(quarantine, name)) == len(b"Subject: x\r\n\r\nall of it")
    assert entry.stored == os.stat(quarantine.path(name)).st_size
    assert [(act.who, act.what) for act in acts] == [("jane", "recover")]
    assert sweep(quarantine, who="jane") == Swept()


def test_a_file_that_was_never_finished_is_removed_but_not_at_once(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    finished(start(quarantine, "die_before_the_name"), -signal.SIGKILL)
    (name,) = files(quarantine)
    assert name.endswith(".new")
    assert sweep(quarantine, who="me") == Swept(), "its writer might just have made it"
    path = os.path.join(quarantine.items, name)
    os.utime(path, (time.time() - 3600,) * 2)
    assert sweep(quarantine, who="me") == Swept(removed=1)
    assert files(quarantine) == []


def test_a_sweep_leaves_alone_what_is_just_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = opened(tmp_path)
    seen = []

    def pieces() -> Iterator[bytes]:
        yield bytes(200_000)
        (name,) = files(quarantine)
        os.utime(os.path.join(quarantine.items, name), (time.time() - 3600,) * 2)
        seen.append(sweep(quarantine, who="me"))
        yield b"x"

    enter = quarantine._enter

    def between(entry: Entry, who: str) -> list[Act]:
        seen.append(sweep(quarantine, who="me"))
        return enter(entry, who)

    monkeypatch.setattr(quarantine, "_enter", between)
    name = quarantine.keep(pieces(), FILE)
    assert seen == [Swept(), Swept()]
    assert files(quarantine) == [name] == [entry.id for entry in quarantine.list()]


@pytest.mark.parametrize("ended", [False, True])
def test_a_sweep_is_not_misled_by_what_is_kept_or_ended_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    quarantine = opened(tmp_path)
    names = [quarantine.keep([b"x"], FILE)]
    listdir = os.listdir

    def late(path: str) -> list[str]:
        """The rows have been read, the files not yet."""
        if ended:
            quarantine.delete(names[0], who="other")
        names.append(quarantine.keep([b"y"], FILE))
        return listdir(path)

    with monkeypatch.context() as patched:
        patched.setattr("icapscan.quarantine.sweep.os.listdir", late)
        assert sweep(quarantine, who="me") == Swept()
    assert [act.what for act in quarantine.show(names[0])[1]] == ["keep", "delete"][: 1 + ended]
    assert [act.what for act in quarantine.show(names[1])[1]] == ["keep"]


def test_a_row_whose_file_is_gone_is_lost_and_can_be_found_again(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    name = quarantine.keep([BODY], MAIL)
    os.rename(quarantine.path(name), tmp_path / "elsewhere")
    assert sweep(quarantine, who="me") == Swept(lost=(name,))
    assert quarantine.show(name)[0].state is State.LOST
    os.rename(tmp_path / "elsewhere", quarantine.path(name))
    assert sweep(quarantine, who="me") == Swept(adopted=(name,))
    assert [act.what for act in quarantine.show(name)[1]] == ["keep", "lose", "recover"]
    assert content(quarantine, name) == BODY


def test_a_file_that_should_be_gone_is_removed(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    name = quarantine.keep([BODY], MAIL)
    os.link(quarantine.path(name), tmp_path / "elsewhere")
    quarantine.delete(name, who="me")
    os.rename(tmp_path / "elsewhere", quarantine.path(name))
    assert sweep(quarantine, who="me") == Swept(removed=1)
    assert files(quarantine) == []
    assert quarantine.show(name)[0].state is State.DELETED


def test_a_lost_index_is_made_again_from_the_items(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    names = {quarantine.keep([BODY], MAIL), quarantine.keep([b"x"], FILE)}
    before = {entry.id: entry for entry in quarantine.list()}
    for name in os.listdir(quarantine.folder):
        if name.startswith("index"):
            os.unlink(os.path.join(quarantine.folder, name))
    assert set(sweep(quarantine, who="me").adopted) == names
    assert {entry.id: entry for entry in quarantine.list()} == before


def test_a_damaged_file_without_a_row_stays_until_it_is_dropped_on_purpose(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    name = quarantine.keep([bytes(100_000)], FILE)
    other = quarantine.keep([b"locked with another key"], FILE)
    for one in os.listdir(quarantine.folder):
        if one.startswith("index"):
            os.unlink(os.path.join(quarantine.folder, one))
    os.truncate(quarantine.path(name), 50_000)
    Path(quarantine.items, "README").touch()
    (tmp_path / "key").rename(tmp_path / "old")
    strange = opened(tmp_path)  # with a new key
    for _ in range(2):
        assert len(sweep(strange, who="me", drop=True).unreadable) == 3, "a missing key is no damage"
    rotated = opened(tmp_path, old_key_files=(str(tmp_path / "old"),))
    swept = sweep(rotated, who="me")
    assert swept.adopted == (other,) and any(name in sentence for sentence in swept.unreadable)
    assert files(rotated) == sorted([name, other, "README"])
    swept = sweep(rotated, who="me", drop=True)
    assert swept.dropped == 1 and files(rotated) == sorted([other, "README"])
    with rotated.index.reading() as rows:
        assert [act.what for act in rows.acts(name)] == ["drop"]


def test_two_people_do_not_release_at_the_same_time(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, next_hop="127.0.0.1:1")
    name = quarantine.keep([BODY], MAIL)
    with open(quarantine.path(name), "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ReleaseRefused, match="somebody else"):
            release(quarantine, name, who="me")


# A full disk


@pytest.mark.parametrize("size", [300_000, 3_000_000])
def test_a_full_disk_is_a_sentence_and_nothing_is_left(tmp_path: Path, size: int) -> None:
    quarantine = opened(tmp_path)
    kept = quarantine.keep([b"x"], FILE)
    (said,) = finished(start(quarantine, "fill", size, 200_000))
    assert said == "QuarantineFull: There is no room left on the disk of the quarantine."
    assert files(quarantine) == [kept] == [entry.id for entry in quarantine.list()]
    assert sweep(quarantine, who="me") == Swept()


def test_no_room_for_the_row_leaves_no_file(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    kept = quarantine.keep([b"x"], FILE)
    (said,) = finished(start(quarantine, "fill", 100, 3000))
    assert said.startswith(("QuarantineFull: ", "QuarantineFailed: ")) and "index" in said
    assert files(quarantine) == [kept] == [entry.id for entry in quarantine.list()]
    assert quarantine.keep([b"y"], FILE)
