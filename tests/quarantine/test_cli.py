"""``icapscan quarantine`` as people and programs call it: in a process of its own."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from icapscan.quarantine.item import State
from icapscan.quarantine.vault import Quarantine
from tests.conftest import ROOT
from tests.quarantine.made import BODY, FILE, MAIL, files, opened
from tests.quarantine.smtp_server import Behaviour, SmtpServer

GUARD = 150


class Run:
    """One call in the folder ``above`` that of the quarantine. ``settings`` are keys of ``[quarantine]``."""

    def __init__(self, above: Path, /, *arguments: str, **settings: object) -> None:
        given: dict[str, object] = {"folder": above / "q", "key_file": above / "key", **settings}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ICAPSCAN_")}
        environ |= {f"ICAPSCAN_QUARANTINE__{name.upper()}": str(value) for name, value in given.items()}
        environ |= {"PYTHONPATH": str(ROOT), "SUDO_USER": "jane"}
        done = subprocess.run(
            [sys.executable, "-m", "icapscan", "quarantine", *arguments],
            capture_output=True,
            timeout=GUARD,
            env=environ,
            cwd=above,
        )
        self.code = done.returncode
        self.bytes = done.stdout
        self.out, self.err = done.stdout.decode("utf-8", "replace"), done.stderr.decode()
        assert "Traceback" not in self.err, self.err

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def said(self) -> str:
        """What went wrong, without the log."""
        return "\n".join(line for line in self.err.splitlines() if line.startswith("icapscan: "))


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return opened(tmp_path)


def test_a_key_is_made_once_and_the_quarantine_begins_empty(tmp_path: Path) -> None:
    made = Run(tmp_path, "key", "key")
    assert made.code == 0 and "Keep a copy" in made.out
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    again = Run(tmp_path, "key", "key")
    assert again.code == 2 and "never overwritten" in again.said
    assert Run(tmp_path, "list").out.startswith("0 items")
    assert Run(tmp_path, "list", "--json").out == ""


def test_list_for_programs_and_for_people(tmp_path: Path, quarantine: Quarantine) -> None:
    first, second = quarantine.keep([BODY], MAIL), quarantine.keep([b"x"], FILE)
    run = Run(tmp_path, "list", "--json")
    assert run.code == 0 and run.out.isascii()
    assert [one["id"] for one in run.objects] == [second, first]
    mail = run.objects[1]
    assert mail["findings"][0] == {"engine": "yara", "name": "Evil_Rule", "part": "2/a.exe"}
    assert (mail["kind"], mail["state"], mail["sender"], mail["size"]) == ("mail", "kept", "a@example.org", len(BODY))
    assert (mail["recipients"], mail["verdict"], mail["came_back"]) == (
        ["b@example.org", "c@example.org"],
        "infected",
        None,
    )
    assert mail["time"].endswith("Z")
    people = Run(tmp_path, "list")
    assert people.code == 0 and not people.err
    for word in (first, second, "hello", "<a@example.org>", "Evil_Rule", "http://example.org/a.exe", "2 items."):
        assert word in people.out


def test_list_can_be_narrowed(tmp_path: Path, quarantine: Quarantine) -> None:
    first, second = quarantine.keep([BODY], MAIL), quarantine.keep([b"x"], FILE)
    assert [one["id"] for one in Run(tmp_path, "list", "--json", "--match", "EVIL_rule").objects] == [first]
    assert [one["id"] for one in Run(tmp_path, "list", "--json", "--match", "example.org/a").objects] == [second]
    assert Run(tmp_path, "list", "--json", "--match", "nowhere").objects == []
    one = Run(tmp_path, "list", "--limit", "1")
    assert second in one.out and first not in one.out and "2 items; the newest 1 are shown" in one.out
    quarantine.delete(first, who="me")
    assert [one["id"] for one in Run(tmp_path, "list", "--json").objects] == [second]
    states = {one["id"]: one["state"] for one in Run(tmp_path, "list", "--json", "--all").objects}
    assert states == {first: "deleted", second: "kept"}


def test_show(tmp_path: Path, quarantine: Quarantine) -> None:
    name = quarantine.keep([BODY], MAIL)
    (shown,) = Run(tmp_path, "show", name, "--json").objects
    assert shown["sha256"] == quarantine.show(name)[0].sha256
    assert [(act["who"], act["what"]) for act in shown["acts"]] == [("icapscan", "keep")]
    people = Run(tmp_path, "show", name)
    for word in (
        name,
        shown["sha256"],
        "bad mail",
        "0123abcd",
        "<c@example.org>",
        "Evil_Rule (yara in 2/a.exe)",
        "(partly unscanned: encrypted)",
    ):
        assert word in people.out


def test_nothing_that_a_terminal_obeys_is_shown(tmp_path: Path, quarantine: Quarantine) -> None:
    evil = "\x1b]0;x\x07\u202e[bold]x[/bold]\udc80\n"
    item = replace(MAIL, name=evil, sender=evil, recipients=(evil,), url=evil, user=evil, rule=evil)
    name = quarantine.keep([BODY], item)
    for arguments in (["list"], ["show", name], ["list", "--json"], ["show", name, "--json"]):
        run = Run(tmp_path, *arguments)
        assert run.code == 0
        assert all(char.isprintable() or char == "\n" for char in run.out)
        assert "[bold]x[/bold]" in run.out, "it is shown, not obeyed"


def test_export_writes_a_new_file_for_its_owner_only(tmp_path: Path, quarantine: Quarantine) -> None:
    body = os.urandom(300_000)
    name = quarantine.keep([body], FILE)
    run = Run(tmp_path, "export", name, "out")
    assert run.code == 0 and "out" in run.out
    assert (tmp_path / "out").read_bytes() == body
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    assert "act=export" in run.err and "jane as " in run.err and str(tmp_path / "out") in run.err
    assert quarantine.show(name)[1][-1].what == "export"
    (tmp_path / "out").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in ("out", "link"):
        again = Run(tmp_path, "export", name, path)
        assert again.code == 2 and "is there already" in again.said
    assert (tmp_path / "out").read_bytes() == b"mine" and not (tmp_path / "target").exists()
    assert Run(tmp_path, "export", name, "no/out").code == 2
    piped = Run(tmp_path, "export", name, "-")
    assert piped.code == 0 and piped.bytes == body


def test_a_damaged_item_leaves_no_file(tmp_path: Path, quarantine: Quarantine) -> None:
    name = quarantine.keep([os.urandom(300_000)], FILE)
    os.truncate(quarantine.path(name), 200_000)
    run = Run(tmp_path, "export", name, "out")
    assert run.code == 2 and "damaged" in run.said
    assert not (tmp_path / "out").exists()
    assert Run(tmp_path, "export", name, "-").code == 2


def test_release_and_refusal(tmp_path: Path, quarantine: Quarantine) -> None:
    mail, other, thing = quarantine.keep([BODY], MAIL), quarantine.keep([BODY], MAIL), quarantine.keep([b"x"], FILE)
    with SmtpServer() as server:
        run = Run(tmp_path, "release", mail, thing, "0" * 16, other, next_hop=server.address)
    assert run.code == 2, "one that is refused is told by the exit code"
    assert [taken.sender for taken in server.mails] == ["a@example.org"] * 2, "and does not keep the others back"
    assert f"The item {mail} was sent to <b@example.org>, <c@example.org>: 250" in run.out and other in run.out
    assert f"icapscan quarantine export {thing} FILE" in run.said and "There is no item" in run.said
    assert {one["id"]: one["state"] for one in Run(tmp_path, "list", "--json").objects} == {
        mail: "released", other: "released", thing: "kept",
    }  # fmt: skip
    with SmtpServer(Behaviour(rcpt=(("d@example.org", "550 no"),))) as server:
        run = Run(tmp_path, "release", mail, "--to", "d@example.org", "--from", "", next_hop=server.address)
        assert run.code == 2 and "<d@example.org> (550 no)" in run.said
        run = Run(tmp_path, "release", mail, "--to", "e@example.org", "--from", "", next_hop=server.address)
        assert run.code == 0
    assert (server.mails[0].sender, server.mails[0].recipients) == ("", ["e@example.org"])
    run = Run(tmp_path, "release", mail)
    assert run.code == 3 and "quarantine.next_hop: expected" in run.said


def test_what_came_back_needs_force(tmp_path: Path, quarantine: Quarantine) -> None:
    name = quarantine.keep([BODY], MAIL)
    with SmtpServer() as server:
        assert Run(tmp_path, "release", name, next_hop=server.address).code == 0
        again = quarantine.keep([server.mails[0].data], MAIL)
        assert "came back" in Run(tmp_path, "list").out
        assert Run(tmp_path, "release", again, next_hop=server.address).code == 2
        assert Run(tmp_path, "release", again, "--force", next_hop=server.address).code == 0


def test_delete(tmp_path: Path, quarantine: Quarantine) -> None:
    names = [quarantine.keep([b"x"], FILE) for _ in range(3)]
    run = Run(tmp_path, "delete", names[0], "../key", names[1], names[0])
    assert run.code == 2 and "There is no item ../key" in run.said
    assert files(quarantine) == [names[2]]
    assert (tmp_path / "key").exists()
    assert quarantine.show(names[0])[1][-1].who.startswith("jane as ")


def test_sweep(tmp_path: Path, quarantine: Quarantine) -> None:
    lost, kept = quarantine.keep([b"x"], FILE), quarantine.keep([b"x"], FILE)
    assert Run(tmp_path, "sweep").code == 0
    os.unlink(quarantine.path(lost))
    run = Run(tmp_path, "sweep")
    assert run.code == 2 and lost in run.said and "1 lost" in run.out
    assert Run(tmp_path, "sweep").code == 0
    assert quarantine.show(lost)[0].state is State.LOST
    run = Run(tmp_path, "sweep", max_age="1 ms")
    assert run.code == 0 and "1 expired" in run.out
    assert files(quarantine) == [] and kept not in Run(tmp_path, "list").out


def test_looking_and_deleting_need_no_key(tmp_path: Path, quarantine: Quarantine) -> None:
    name = quarantine.keep([b"x"], FILE)
    os.unlink(tmp_path / "key")
    assert name in Run(tmp_path, "list").out
    assert Run(tmp_path, "show", name).code == 0
    run = Run(tmp_path, "export", name, "out")
    assert run.code == 3 and run.said.startswith("icapscan: quarantine.key_file: expected a key file")
    assert Run(tmp_path, "delete", name).code == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folder": ""}, "quarantine.folder: expected a folder for the kept items"),
        ({"folder": "/dev/null"}, "quarantine.folder: expected a folder"),
        (
            {"max_size": "lots"},
            "quarantine.max_size (environment variable ICAPSCAN_QUARANTINE__MAX_SIZE): expected a size",
        ),
        ({"max_size": "0"}, "quarantine.max_size"),
        ({"full": "newest"}, 'expected "oldest" or "refuse"'),
        ({"next_hop": "mail"}, 'expected "host:port"'),
        ({"next_hop": "mail:99999"}, "expected a port from 1 to 65535"),
    ],
)
def test_settings_that_cannot_be_used_are_3(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    run = Run(tmp_path, "list", **settings)
    assert run.code == 3 and words in run.said and len(run.said.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["nonsense"], ["show"], ["export", "x"], ["list", "--limit", "0"], ["release"]])
def test_wrong_usage_is_3(tmp_path: Path, arguments: list[str]) -> None:
    run = Run(tmp_path, *arguments)
    assert run.code == 3 and run.said


def serve_or_check(tmp_path: Path, *command: str, **settings: object) -> subprocess.CompletedProcess[str]:
    sets = [f"--set=quarantine.{name}={value}" for name, value in settings.items()]
    sets += ["--set=engines.clamd.enabled=false", "--set=server.listen=127.0.0.1:0", "--set=admin.listen=127.0.0.1:0"]
    return subprocess.run(
        [sys.executable, "-m", "icapscan", *command, *sets], capture_output=True, text=True, timeout=GUARD, cwd=ROOT
    )


@pytest.mark.parametrize("command", [["serve"], ["config", "check"]])
def test_nothing_starts_with_a_key_that_others_can_read(
    tmp_path: Path, quarantine: Quarantine, command: list[str]
) -> None:
    key = tmp_path / "key"
    key.chmod(0o644)
    done = serve_or_check(tmp_path, *command, enabled="true", folder=tmp_path / "q", key_file=key)
    assert done.returncode == 3
    assert done.stderr == (
        "icapscan: quarantine.key_file (--set quarantine.key_file): expected a key file that only its owner can read; "
        f"try: chmod 600 {key}.\n"
    )
    done = serve_or_check(tmp_path, *command, enabled="true", folder=tmp_path / "no" / "q", key_file=key)
    assert done.returncode == 3 and "quarantine.folder (--set quarantine.folder): expected a folder" in done.stderr


def test_what_is_heavy_is_loaded_only_when_it_is_used(tmp_path: Path, quarantine: Quarantine) -> None:
    code = (
        "import os, sys; from icapscan.cli import main; from icapscan.config import load; load(None, [], {}); "
        "main(['--help']); print(sorted({'cryptography', 'sqlite3', 'smtplib'} & set(sys.modules))); "
        f"main(['quarantine', 'list', '--set', 'quarantine.folder={quarantine.folder}']); "
        "print(sorted({'cryptography', 'smtplib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=GUARD)
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == ["[]", "[]"]


def test_a_good_quarantine_is_good_and_checking_makes_nothing(tmp_path: Path) -> None:
    Run(tmp_path, "key", "key")
    settings = {"enabled": "true", "folder": tmp_path / "q", "key_file": tmp_path / "key"}
    done = serve_or_check(tmp_path, "config", "check", **settings)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "q").exists()
