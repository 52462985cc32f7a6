"""Key files: how they are made, which are refused, and what is derived from a key."""

from __future__ import annotations

import base64
import os
import secrets
import stat
from pathlib import Path

import pytest

from icapscan.errors import ConfigError, QuarantineFailed
from icapscan.quarantine.keys import KEY_SIZE, Key, Keys, read_key, write_key
from tests.quarantine.made import BODY, FILE, MAIL, content, opened, settings


def given(folder: Path, data: bytes, mode: int = 0o600) -> str:
    path = folder / "given"
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def test_a_new_key_file_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = write_key(str(tmp_path / "key"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert read_key(str(tmp_path / "key")).number == made.number
    assert len(base64.b64decode((tmp_path / "key").read_bytes())) == KEY_SIZE


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    write_key(str(tmp_path / "key"))
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(QuarantineFailed, match="never overwritten"):
        write_key(str(tmp_path / "key"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QuarantineFailed):
        write_key(str(tmp_path / "link"))
    assert (tmp_path / "key").read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(QuarantineFailed, match="No such file"):
        write_key(str(tmp_path / "no" / "key"))


def test_raw_and_base64_are_the_same_key(tmp_path: Path) -> None:
    master = bytes([200]) + secrets.token_bytes(KEY_SIZE - 1)
    numbers = {
        read_key(given(tmp_path, data)).number
        for data in (
            master,
            base64.b64encode(master),
            base64.b64encode(master) + b"\r\n",
            b"\n" + base64.b64encode(master),
        )
    }
    assert numbers == {Key(master).number}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o610, 0o620])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="only its owner can read; try: chmod 600"):
        read_key(given(tmp_path, secrets.token_bytes(KEY_SIZE), mode))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"correct horse battery staple 1234",
        b"correct horse battery staple 123",
        b"0123456789abcdef0123456789abcdef",
        b"0123456789abcdef" * 4,
        base64.b64encode(bytes(range(24))),
        base64.b64encode(bytes(range(31))),
        base64.b64encode(bytes(range(33))),
        base64.urlsafe_b64encode(b"\xff" * 16 + bytes(range(16))),
        bytes(KEY_SIZE),
        base64.b64encode(bytes(KEY_SIZE)),
        bytes(range(128, 159)),
        bytes(range(128, 161)),
        bytes(range(128, 160)) + b"\n",
        bytes(range(256)) * 40,
    ],
)
def test_what_is_no_random_key_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigError, match="32 random bytes, or their base64"):
        read_key(given(tmp_path, data))


def test_what_is_no_file_is_refused_and_waited_for_by_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "", "none", "nul\0"):
        with pytest.raises(ConfigError, match="expected a key file"):
            read_key(str(tmp_path / name))


def test_a_key_shows_nothing_of_itself() -> None:
    master = secrets.token_bytes(KEY_SIZE)
    shown = repr(Key(master))
    assert shown == f"Key({Key(master).number.hex()})"
    assert master.hex() not in shown
    assert Key(master).number not in master


def test_what_is_derived_differs_by_key_salt_and_id() -> None:
    one, two = Key(secrets.token_bytes(32)), Key(secrets.token_bytes(32))
    salt = secrets.token_bytes(32)
    derived = {
        one.number, two.number, one.of_item(salt, "a"), two.of_item(salt, "a"), one.of_item(salt, "b"),
        one.of_item(bytes(32), "a"), bytes.fromhex(one.release_code("a")), bytes.fromhex(two.release_code("a")),
        bytes.fromhex(one.release_code("b")),
    }  # fmt: skip
    assert len(derived) == 9


def test_release_codes_of_old_keys_hold(tmp_path: Path) -> None:
    old, new = Key(secrets.token_bytes(32)), Key(secrets.token_bytes(32))
    keys = Keys(new, (old,))
    assert keys.is_release_code("x", old.release_code("x")) and keys.is_release_code("x", new.release_code("x"))
    assert not keys.is_release_code("y", new.release_code("x"))
    assert not keys.is_release_code("x", "")
    assert not keys.is_release_code("x", "é\udc80")
    assert not Keys(new).is_release_code("x", old.release_code("x"))


def test_a_changed_key_writes_new_items_and_the_old_one_still_reads(tmp_path: Path) -> None:
    first = opened(tmp_path)
    before = first.keep([b"before"], FILE)
    write_key(str(tmp_path / "new"))
    changed = {"key_file": str(tmp_path / "new"), "old_key_files": (str(tmp_path / "key"),)}
    rotated = opened(tmp_path, **changed)
    after = rotated.keep([BODY], MAIL)
    assert content(rotated, before) == b"before" and content(rotated, after) == BODY
    assert rotated.show(before)[0].key != rotated.show(after)[0].key
    with pytest.raises(QuarantineFailed, match=r"neither quarantine\.key_file nor"):
        content(opened(tmp_path, key_file=str(tmp_path / "new")), before)


def test_a_key_that_is_gone_at_run_time_is_a_failure_of_the_item(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    os.unlink(settings(tmp_path).key_file or "")
    with pytest.raises(QuarantineFailed, match=r"quarantine\.key_file"):
        quarantine.keep([BODY], MAIL)
