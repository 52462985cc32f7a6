"""Keeping, looking, reading, ending: with bounds, with permissions, and with a trace of every act."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from icapscan.errors import ConfigError, Damaged, NoSuchItem, QuarantineFailed, QuarantineFull, StoreFull
from icapscan.findings import Finding, summarize
from icapscan.quarantine.check import Mistake, check
from icapscan.quarantine.item import Item, Kind, State, is_id
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.quarantine.vault import Quarantine
from icapscan.store import PartStore
from tests.quarantine.made import BODY, FILE, MAIL, content, files, opened, settings


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return opened(tmp_path)


def test_what_is_kept_can_be_read_and_shown(quarantine: Quarantine) -> None:
    name = quarantine.keep([BODY[:10], BODY[10:]], MAIL)
    assert content(quarantine, name) == BODY
    entry, acts = quarantine.show(name)
    assert (entry.id, entry.kind, entry.state, entry.released, entry.came_back) == (name, Kind.MAIL, State.KEPT, 0, "")
    assert (entry.size, entry.sha256) == (len(BODY), hashlib.sha256(BODY).hexdigest())
    assert (entry.sender, entry.recipients) == ("a@example.org", ("b@example.org", "c@example.org"))
    assert (entry.verdict, entry.reason, entry.rule, entry.reference) == (
        "infected",
        "encrypted",
        "bad mail",
        "0123abcd",
    )
    assert [one.name for one in entry.findings] == ["Evil_Rule", "Win.Test.X"]
    assert (entry.service, entry.direction, entry.client) == ("avscan", "mail", "192.0.2.1:4711")
    assert entry.stored == os.stat(quarantine.path(name)).st_size
    assert [(act.who, act.what, act.item) for act in acts] == [("icapscan", "keep", name)]
    assert quarantine.list() == [entry]


def test_a_store_is_kept_as_it_is(quarantine: Quarantine) -> None:
    body = os.urandom(300_000)
    assert content(quarantine, quarantine.keep(PartStore.of(body).pieces(), FILE)) == body


def test_an_empty_body_is_kept_too(quarantine: Quarantine) -> None:
    assert content(quarantine, quarantine.keep([], MAIL)) == b""


def test_the_newest_comes_first(tmp_path: Path) -> None:
    times = iter(range(1000, 2000))
    quarantine = Quarantine(settings(tmp_path), now=lambda: float(next(times)))
    names = [quarantine.keep([b"x"], FILE) for _ in range(4)]
    assert [entry.id for entry in quarantine.list()] == names[::-1]


def test_only_the_owner_can_look_at_anything_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        quarantine = opened(tmp_path)
        quarantine.keep([BODY], MAIL)
        connection = sqlite3.connect(os.path.join(quarantine.folder, "index.sqlite"))
        connection.execute("SELECT count(*) FROM items").fetchone()  # so that the files of the journal are there
        modes = {
            os.path.relpath(os.path.join(above, name), quarantine.folder): os.lstat(os.path.join(above, name)).st_mode
            for above, folders, names in os.walk(quarantine.folder)
            for name in (*folders, *names)
        }
        connection.close()
    finally:
        os.umask(before)
    assert {"items", "index.sqlite", "index.sqlite-wal"} <= set(modes)
    assert {stat.S_IMODE(mode) & 0o077 for mode in modes.values()} == {0}
    assert stat.S_IMODE(os.stat(quarantine.folder).st_mode) == 0o700
    assert {stat.S_IMODE(mode) for mode in modes.values() if stat.S_ISREG(mode)} == {0o600}


def test_names_on_the_disk_are_ids_and_nothing_of_a_message_is_to_be_seen_in_files(quarantine: Quarantine) -> None:
    item = Item(kind=Kind.MAIL, name="../../etc/passwd", sender="../x", recipients=("/srv/y",), url="a/../b")
    name = quarantine.keep([b"Subject: ../../etc/passwd\r\n\r\nsecret"], item)
    assert files(quarantine) == [name]
    assert is_id(name)
    data = Path(quarantine.path(name)).read_bytes()
    assert b"passwd" not in data and b"secret" not in data


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../index.sqlite", "a" * 15, "a" * 17, "A" * 16, "../" * 5 + "a", "x\0" * 8]
)
def test_what_is_no_id_is_no_item(quarantine: Quarantine, name: str) -> None:
    for call in (quarantine.show, quarantine.read, lambda name: quarantine.delete(name, who="me")):
        with pytest.raises(NoSuchItem):
            call(name)


def test_an_id_that_is_not_there_is_no_item(quarantine: Quarantine) -> None:
    for call in (quarantine.show, quarantine.read, lambda name: quarantine.delete(name, who="me")):
        with pytest.raises(NoSuchItem, match="There is no item 0000000000000000"):
            call("0000000000000000")


TEXTS = st.text(alphabet=st.characters(exclude_categories=()), max_size=60)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    texts=st.lists(TEXTS, min_size=10, max_size=10), sender=st.none() | TEXTS, recipients=st.lists(TEXTS, max_size=3)
)
def test_whatever_a_peer_calls_it_it_is_kept(
    quarantine: Quarantine, texts: list[str], sender: str | None, recipients: list[str]
) -> None:
    a, b, c, d, e, f, g, h, i, j = texts
    verdict = summarize([Finding("clamd", g, h, tags=(i,))])
    name = quarantine.keep(
        [BODY],
        Item(
            kind=Kind.MAIL, service=a, direction=b, client=c, user=d, url=e, sender=sender,
            recipients=tuple(recipients),
            name=f, media_type=g, verdict=verdict, rule=h, reference=j,
        ),
    )  # fmt: skip
    entry, _ = quarantine.show(name)
    assert (entry.sender, list(entry.recipients)) == (sender, recipients), "an address is never changed"
    shown = [entry.service, entry.client, entry.user, entry.url, entry.name, entry.media_type, entry.findings[0].name]
    assert all(text.isprintable() for text in shown)
    assert content(quarantine, name) == BODY


def test_long_texts_are_cut(quarantine: Quarantine) -> None:
    findings = [Finding("yara", "n" * 5000)] * 1000
    item = Item(kind=Kind.FILE, name="x" * 100_000, url="u" * 100_000, verdict=summarize(findings))
    entry, _ = quarantine.show(quarantine.keep([b""], item))
    assert len(entry.name) <= 501 and len(entry.url) <= 2001
    assert len(entry.findings) == 100 and len(entry.findings[0].name) <= 501


# Bounds


def test_a_full_quarantine_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_items=2)
    names = [quarantine.keep([b"x"], FILE) for _ in range(2)]
    with pytest.raises(QuarantineFull, match="max_items"):
        quarantine.keep([b"y"], FILE)
    assert files(quarantine) == sorted(names) == sorted(entry.id for entry in quarantine.list())
    quarantine.delete(names[0], who="me")
    quarantine.keep([b"y"], FILE)


def test_the_size_on_disk_is_bounded(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_size=100_000)
    name = quarantine.keep([b"x" * 60_000], FILE)
    with pytest.raises(QuarantineFull, match="max_size"):
        quarantine.keep([b"y" * 60_000], FILE)
    assert files(quarantine) == [name]
    quarantine.keep([b"y" * 30_000], FILE)


def test_an_item_without_end_is_cut_off_at_the_bound(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_size=300_000)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 10_000
            yield bytes(10_000)

    with pytest.raises(QuarantineFull):
        quarantine.keep(endless(), FILE)
    assert taken < 500_000
    assert files(quarantine) == []


def test_nothing_is_read_of_a_body_for_which_there_is_no_room_at_all(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_items=1)
    quarantine.keep([b"x"], FILE)

    read = []

    def pieces() -> Iterator[bytes]:
        read.append(True)
        yield b""

    with pytest.raises(QuarantineFull):
        quarantine.keep(pieces(), FILE)
    assert not read


def test_the_oldest_make_room_where_that_is_wanted(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_size=100_000, full="oldest")
    names = [quarantine.keep([bytes(20_000)], FILE) for _ in range(4)]
    new = quarantine.keep([bytes(50_000)], FILE)
    assert [entry.id for entry in quarantine.list()] == [new, names[3], names[2]]
    assert files(quarantine) == sorted([new, names[2], names[3]])
    entry, acts = quarantine.show(names[0])
    assert entry.state is State.EXPIRED
    assert (acts[-1].what, acts[-1].detail) == ("expire", "to make room")
    with pytest.raises(NoSuchItem, match="it is expired"):
        quarantine.read(names[0])


def test_an_item_that_is_larger_than_everything_drives_nothing_out(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_size=100_000, full="oldest")
    names = [quarantine.keep([bytes(20_000)], FILE) for _ in range(4)]
    with pytest.raises(QuarantineFull):
        quarantine.keep([bytes(200_000)], FILE)
    assert files(quarantine) == sorted(names)
    assert len(quarantine.list()) == 4


def test_the_oldest_make_room_by_number_too(tmp_path: Path) -> None:
    quarantine = opened(tmp_path, max_items=3, full="oldest")
    names = [quarantine.keep([b"x"], FILE) for _ in range(5)]
    assert [entry.id for entry in quarantine.list()] == names[:1:-1]


def test_what_is_too_old_goes_and_is_forgotten_later(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    quarantine = Quarantine(settings(tmp_path, max_age=100.0, history=1000.0), now=lambda: clock[0])
    old = quarantine.keep([b"old"], FILE)
    clock[0] += 60
    young = quarantine.keep([b"young"], FILE)
    clock[0] += 60
    assert quarantine.expire() == 1
    assert quarantine.expire() == 0
    assert [entry.id for entry in quarantine.list()] == [young]
    assert files(quarantine) == [young]
    assert quarantine.show(old)[0].state is State.EXPIRED
    clock[0] += 900
    quarantine.expire()
    with pytest.raises(NoSuchItem):
        quarantine.show(old)
    assert quarantine.show(young)[0].state is State.EXPIRED
    with quarantine.index.reading() as rows:
        assert [act.what for act in rows.acts(old)] == ["expire"], "what was done lately is still to be seen"


def test_a_full_quarantine_first_lets_go_of_what_is_too_old(tmp_path: Path) -> None:
    clock = [1_000_000.0]
    quarantine = Quarantine(settings(tmp_path, max_age=100.0, max_items=1), now=lambda: clock[0])
    quarantine.keep([b"old"], FILE)
    clock[0] += 101
    new = quarantine.keep([b"new"], FILE)
    assert files(quarantine) == [new]


# Failures


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken(), StoreFull("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("item", [MAIL, FILE])
def test_a_body_that_breaks_off_leaves_nothing(quarantine: Quarantine, error: BaseException, item: Item) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"Subject: x\r\n\r\n" + bytes(200_000)
        raise error

    with pytest.raises(type(error)):
        quarantine.keep(pieces(), item)
    assert files(quarantine) == [] and quarantine.list() == []


def test_a_body_that_cannot_be_read_is_a_sentence(quarantine: Quarantine) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise OSError(5, "Input/output error")

    with pytest.raises(QuarantineFailed, match="Input/output error"):
        quarantine.keep(pieces(), FILE)
    assert files(quarantine) == []


def test_a_locked_index_is_a_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    quarantine = Quarantine(settings(tmp_path), busy=0.05)
    kept = quarantine.keep([b"x"], FILE)
    other = sqlite3.connect(os.path.join(quarantine.folder, "index.sqlite"), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QuarantineFailed, match="locked") as caught:
            quarantine.keep([BODY], MAIL)
        assert caught.value.retry
        with pytest.raises(QuarantineFailed, match="locked"):
            quarantine.delete(kept, who="me")
    finally:
        other.close()
    assert files(quarantine) == [kept], "neither half kept nor half deleted"
    assert content(quarantine, kept) == b"x"


def test_a_damaged_index_says_how_to_mend_it(quarantine: Quarantine) -> None:
    quarantine.keep([b"x"], FILE)
    Path(quarantine.folder, "index.sqlite").write_bytes(b"this is no index" * 1000)
    with pytest.raises(QuarantineFailed, match="icapscan quarantine sweep"):
        quarantine.list()
    with pytest.raises(QuarantineFailed):
        quarantine.keep([BODY], MAIL)
    assert len(files(quarantine)) == 1


def test_an_index_of_another_release_is_left_alone(quarantine: Quarantine) -> None:
    quarantine.list()
    connection = sqlite3.connect(os.path.join(quarantine.folder, "index.sqlite"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(QuarantineFailed, match="another release"):
        quarantine.keep([BODY], MAIL)


def test_a_file_that_is_gone_and_one_that_is_damaged(quarantine: Quarantine) -> None:
    gone, damaged = quarantine.keep([b"x"], FILE), quarantine.keep([bytes(200_000)], FILE)
    os.unlink(quarantine.path(gone))
    with pytest.raises(QuarantineFailed, match="is gone"):
        quarantine.read(gone)
    with open(quarantine.path(damaged), "r+b") as file:
        file.truncate(150_000)
    with pytest.raises(Damaged, match=damaged):
        content(quarantine, damaged)


def test_an_item_cannot_be_put_in_the_place_of_another(quarantine: Quarantine) -> None:
    one, two = quarantine.keep([b"x"], FILE), quarantine.keep([b"y"], FILE)
    os.replace(quarantine.path(one), quarantine.path(two))
    with pytest.raises(Damaged):
        content(quarantine, two)


def test_what_is_deleted_is_gone_but_not_its_row(quarantine: Quarantine) -> None:
    name = quarantine.keep([b"x"], FILE)
    quarantine.delete(name, who="jane as root")
    assert files(quarantine) == [] and quarantine.list() == []
    entry, acts = quarantine.show(name)
    assert entry.state is State.DELETED
    assert [(act.who, act.what) for act in acts] == [("icapscan", "keep"), ("jane as root", "delete")]
    with pytest.raises(NoSuchItem, match="it is deleted"):
        quarantine.delete(name, who="me")
    with pytest.raises(NoSuchItem, match="it is deleted"):
        quarantine.read(name)
    assert [entry.id for entry in quarantine.list([State.DELETED])] == [name]


def test_each_act_is_one_line_of_the_log(quarantine: Quarantine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "icapscan")
    name = quarantine.keep([BODY], MAIL)
    quarantine.record("export", name, who="jane\n2026 forged line", detail="to /srv/x\x1b[2J")
    quarantine.delete(name, who="jane")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f'quarantine act=keep item={name} who="icapscan"',
        f'quarantine act=export item={name} who="jane\\\\n2026 forged line" detail="to /srv/x\\\\x1b[2J"',
        f'quarantine act=delete item={name} who="jane"',
    ]


# Settings


def test_the_defaults_are_off_and_fine() -> None:
    check(QuarantineSettings())
    assert not QuarantineSettings().enabled


def test_good_settings_are_fine_before_and_after_the_folder_is_there(tmp_path: Path) -> None:
    check(settings(tmp_path))
    assert not (tmp_path / "q").exists(), "a check changes nothing"
    opened(tmp_path)
    check(settings(tmp_path))


def wrong(tmp_path: Path, /, **changes: Any) -> str:
    with pytest.raises(Mistake) as caught:
        check(settings(tmp_path, **changes))
    assert isinstance(caught.value, ConfigError)
    assert re.fullmatch(r"quarantine\.\w+: expected .*\.", str(caught.value))
    return str(caught.value)


def test_settings_that_cannot_be_used_name_their_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "short").write_bytes(b"x" * 31)
    (tmp_path / "short").chmod(0o600)
    (tmp_path / "open").mkdir(mode=0o750)
    assert wrong(tmp_path, folder=None).startswith("quarantine.folder: expected a folder for the kept items")
    assert "is not there and cannot be made" in wrong(tmp_path, folder=str(tmp_path / "no" / "q"))
    assert "is none" in wrong(tmp_path, folder=str(tmp_path / "file"))
    assert "chmod 700" in wrong(tmp_path, folder=str(tmp_path / "open"))
    assert wrong(tmp_path, folder="a\0b").startswith("quarantine.folder")
    assert "icapscan quarantine key FILE makes one" in wrong(tmp_path, key_file=None)
    assert "No such file" in wrong(tmp_path, key_file=str(tmp_path / "none"))
    assert "32 random bytes" in wrong(tmp_path, key_file=str(tmp_path / "short"))
    assert wrong(tmp_path, old_key_files=(str(tmp_path / "short"),)).startswith("quarantine.old_key_files: ")
    assert wrong(tmp_path, next_hop="mail:0").startswith("quarantine.next_hop: expected a port")
    assert wrong(tmp_path, next_hop="mail:65536").startswith("quarantine.next_hop: expected a port")
    assert wrong(tmp_path, helo="a b").startswith("quarantine.helo: expected a host name")


def test_a_quarantine_is_not_opened_in_a_folder_that_others_can_look_into(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        opened(tmp_path)
