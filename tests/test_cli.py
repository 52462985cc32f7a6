"""The command line without a server: exit codes, JSON, tables, sentences instead of tracebacks."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import brotli
import pytest

from icapscan.cli import main
from icapscan.cli.http_file import read_response
from icapscan.config import load
from icapscan.findings import Finding, Level, Reason, Unscanned, summarize
from icapscan.servers.settings import Settings
from tests.conftest import corpus_rows

# The EICAR test string, cut in two so that this file is not taken for it.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + rb"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
KEYS = ["path", "verdict", "reason", "findings", "anomalies", "size", "sha256"]


@pytest.fixture(autouse=True)
def without_clamd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clamd that happens to run on the machine stays out of it."""
    monkeypatch.setenv("ICAPSCAN_ENGINES__CLAMD__ENABLED", "false")


class Run:
    """One run of the command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> None:
        self.code = main([str(argument) for argument in arguments])
        self.out, self.err = capsys.readouterr()
        assert "Traceback" not in self.err

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


MBOX = (
    b"From a@example.org Mon Jan  1 00:00:00 2024\nSubject: one\n\nhello\nFrom me to you\n\n"
    b"From Russia with love at 10:00 in 1963\nand text\n\n"
    b"From b@example.org Mon Jan  1 00:00:00 2024\r\nSubject: two\n\n" + EICAR + b"\n"
)
SECOND = MBOX.rindex(b"From b")


# Help and usage


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "--help")
    assert run.code == 0
    for command in ("serve", "scan", "explain", "config"):
        assert f"\n  {command} " in run.out


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["serve"], ["scan"], ["explain"], ["config"], ["config", "check"], ["config", "show"]):
        run = Run(capsys, *command, "--help")
        assert run.code == 0 and "Usage: icapscan" in run.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "--version")
    assert run.code == 0 and run.out.startswith("icapscan 0.")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from icapscan.cli import main; main(['--help']); "
        "print(sorted({'yara', 'uvloop', 'jinja2', 'prometheus_client', 'asyncio', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["scan"], ["scan", "--frob", "x"], ["scan", "--as", "zip", "x"], ["serve", "--workers", "many"]],
)
def test_wrong_usage_is_one_sentence_and_3(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    run = Run(capsys, *arguments)
    assert run.code == 3
    assert run.err.startswith("icapscan: ") and run.err.count("\n") == 1
    assert not run.out


@pytest.mark.parametrize("arguments", [[], ["config"]])
def test_no_command_shows_help_and_is_3(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    run = Run(capsys, *arguments)
    assert run.code == 3
    assert "Commands:" in run.out + run.err


@pytest.mark.parametrize("command", [["scan", "/dev/null"], ["serve"], ["config", "check"], ["config", "show"]])
def test_a_bad_configuration_is_one_sentence_and_3(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    file = tmp_path / "icapscan.toml"
    file.write_text("[server]\n\nworkers = 'x'\n")
    run = Run(capsys, *command, "--config", file)
    assert run.code == 3
    assert run.err == f'icapscan: server.workers ({file}, line 3): expected a whole number from 0 to 256, got "x".\n'
    run = Run(capsys, *command, "--set", "server.listn=x")
    assert run.code == 3
    assert "did you mean server.listen?" in run.err and run.err.count("\n") == 1


def test_a_rule_that_does_not_compile_is_one_sentence_and_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rule = tmp_path / "bad.yar"
    rule.write_text("rule x {\n  condition: nothing\n}\n")
    for command in (["scan", "/dev/null"], ["config", "check"]):
        run = Run(capsys, *command, "--set", f"engines.yara.rules={rule}")
        assert run.code == 3
        assert str(rule) in run.err and "line 2" in run.err and run.err.count("\n") == 1


# config


def test_config_check_says_that_it_is_good(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(capsys, "config", "check")
    assert run.code == 0
    assert run.out.startswith("The configuration is good. ")


def test_config_show_reads_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Run(capsys, "config", "show", "--set", "server.workers=7")
    assert run.code == 0
    file = tmp_path / "shown.toml"
    file.write_text(run.out)
    settings = load(str(file), (), {})
    assert settings.server.workers == 7
    assert settings.limits == Settings().limits


# scan


def test_a_clean_file_is_0(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "clean.txt"
    file.write_bytes(b"hello\n")
    run = Run(capsys, "scan", "--json", file)
    assert run.code == 0
    assert run.objects == [
        {
            "path": str(file),
            "verdict": "clean",
            "reason": None,
            "findings": [],
            "anomalies": [],
            "size": 6,
            "sha256": hashlib.sha256(b"hello\n").hexdigest(),
        }
    ]
    assert list(run.objects[0]) == KEYS


def test_an_infected_file_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "eicar.com"
    file.write_bytes(EICAR)
    run = Run(capsys, "scan", "--json", file)
    assert run.code == 1
    (found,) = run.objects
    assert (found["verdict"], found["reason"], found["size"]) == ("infected", None, 68)
    assert [(finding["engine"], finding["part"]) for finding in found["findings"]] == [("yara", "")]
    assert set(found["findings"][0]) == {"engine", "name", "part"}


def test_an_empty_file_is_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    run = Run(capsys, "scan", "--json", file)
    assert (run.code, run.objects[0]["verdict"], run.objects[0]["size"]) == (0, "clean", 0)


def test_a_suspicious_file_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rule = tmp_path / "odd.yar"
    rule.write_text('rule Odd { meta: verdict = "suspicious" strings: $a = "odd" condition: $a }')
    file = tmp_path / "file"
    file.write_bytes(b"this is odd")
    run = Run(capsys, "scan", "--json", file, "--set", f"engines.yara.rules={rule}")
    assert (run.code, run.objects[0]["verdict"]) == (1, "suspicious")


def test_what_is_over_a_limit_is_2_and_never_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 5000)
    run = Run(capsys, "scan", "--json", file, "--set", "limits.body=4096")
    assert run.code == 2
    assert (run.objects[0]["verdict"], run.objects[0]["reason"], run.objects[0]["size"]) == (
        "unscanned", "over-limit", 5000,
    )  # fmt: skip


def test_no_room_to_keep_a_file_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 5000)
    for form in ("file", "http"):
        run = Run(
            capsys, "scan", "--json", "--as", form, file, "--set", "limits.memory=1000", "--set", "limits.disk=1000"
        )
        assert run.code == 2
        assert (run.objects[0]["verdict"], run.objects[0]["reason"]) == ("unscanned", "engine-failed")


def test_a_dead_clamd_is_2_and_infected_still_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clean, eicar = tmp_path / "a", tmp_path / "b"
    clean.write_bytes(b"clean")
    eicar.write_bytes(EICAR)
    dead = ["--set", "engines.clamd.enabled=true", "--set", f"engines.clamd.address=unix:{tmp_path}/none"]
    dead += ["--set", "engines.report=all"]
    run = Run(capsys, "scan", "--json", clean, *dead)
    assert run.code == 2
    assert (run.objects[0]["verdict"], run.objects[0]["reason"]) == ("unscanned", "engine-failed")
    assert "the self-test of clamd failed" in run.err
    run = Run(capsys, "scan", "--json", clean, eicar, *dead)
    assert run.code == 1
    assert [one["verdict"] for one in run.objects] == ["unscanned", "infected"]


def test_infected_beside_unscanned_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(EICAR)
    (tmp_path / "b").write_bytes(b"x" * 5000)
    run = Run(capsys, "scan", "--json", tmp_path, "--set", "limits.body=4096")
    assert run.code == 1
    assert [one["verdict"] for one in run.objects] == ["infected", "unscanned"]


def test_folders_are_walked_in_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a/z/3", "c"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())
    run = Run(capsys, "scan", "--json", tmp_path)
    assert run.code == 0
    names = [os.path.relpath(one["path"], tmp_path) for one in run.objects]
    assert names == ["c", "a/z/3", "b/1", "b/2"]


def test_many_files_keep_their_order(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for index in range(40):
        (tmp_path / f"{index:02d}").write_bytes(bytes(40_000 if index % 3 else 10))
    run = Run(capsys, "scan", "--json", tmp_path)
    assert [Path(one["path"]).name for one in run.objects] == [f"{index:02d}" for index in range(40)]


def test_a_folder_without_files_is_0(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Run(capsys, "scan", tmp_path)
    assert run.code == 0
    assert "nothing to scan" in run.out


def test_a_path_that_is_not_there_is_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = Run(capsys, "scan", tmp_path / "none")
    assert run.code == 3
    assert "does not exist" in run.err


def test_what_cannot_be_read_is_2_and_never_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    run = Run(capsys, "scan", "--json", tmp_path)
    assert run.code == 2
    assert [(one["verdict"], one["reason"]) for one in run.objects] == [
        ("unscanned", "engine-failed"),
        ("unscanned", "unsupported"),
    ]


def test_standard_input_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for data, code in ((EICAR, 1), (b"", 0), (b"clean", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "icapscan", "scan", "--json", "-"], input=data, capture_output=True, timeout=60
        )
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["path"] == "-"
        assert json.loads(done.stdout)["size"] == len(data)


def test_a_pause_in_standard_input_is_not_its_end() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    process = subprocess.Popen(
        [sys.executable, "-m", "icapscan", "scan", "--json", "-"], stdin=reader, stdout=subprocess.PIPE
    )
    os.close(reader)
    try:
        os.write(writer, EICAR[:30])
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for more
            process.wait(1.5)
        os.write(writer, EICAR[30:])
        os.close(writer)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert json.loads(out)["size"] == 68


def test_a_reader_that_goes_away_gives_no_traceback(tmp_path: Path) -> None:
    for index in range(300):
        (tmp_path / f"{index}").write_bytes(b"x")
    command = f"'{sys.executable}' -m icapscan scan --json '{tmp_path}' | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert done.stdout.count("\n") == 1


# The table


def test_people_get_a_table_with_a_summary(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"clean")
    (tmp_path / "b.com").write_bytes(EICAR)
    run = Run(capsys, "scan", tmp_path)
    assert run.code == 1
    assert "clean" in run.out and "infected" in run.out and "b.com" in "".join(run.out.split())
    assert "2 files: 1 clean, 1 infected; " in run.out and "with yara." in run.out


def test_hostile_names_reach_no_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = b"\x1b[31m[bold]\xff\n\xe2\x80\xae.txt"
    (tmp_path / os.fsdecode(name)).write_bytes(EICAR)
    run = Run(capsys, "scan", tmp_path)
    assert not any(char in run.out for char in "\x1b\u202e\udcff")
    assert "[bold]" in "".join(run.out.split())
    run = Run(capsys, "scan", "--json", tmp_path)
    assert run.out.isascii() and len(run.out.splitlines()) == 1
    assert os.fsencode(run.objects[0]["path"]).endswith(name)


def test_why_names_what_was_found_and_what_failed() -> None:
    from icapscan.cli.report import why

    verdict = summarize(
        [Finding("yara", "Odd", "gzip", Level.SUSPICIOUS)], [Unscanned(Reason.TIMEOUT, "", "clamd", "Too slow.")]
    )
    assert why(verdict) == "Odd (yara in gzip); timeout: Too slow."


def test_a_terminal_gets_a_progress_bar_for_many_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["scan", "--json", str(tmp_path)]) == 0
    assert "Scanning" in terminal.getvalue() and "3/3" in terminal.getvalue()
    assert len(capsys.readouterr().out.splitlines()) == 3


# Raw HTTP responses


def response(body: bytes, *lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([status, *lines, b"", body])


def chunked(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part]
    return b"".join(parts) + b"0\r\n\r\n"


TE = b"Transfer-Encoding: chunked"


def test_http_bodies_are_dechunked_and_decoded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = {
        "plain": response(EICAR, b"Content-Length: 68"),
        "until-close": response(EICAR, b"Content-Type: text/plain"),
        "gzip": response(gzip.compress(EICAR), b"Content-Encoding: gzip"),
        "chunked": response(chunked(EICAR), TE),
        "both": response(chunked(brotli.compress(gzip.compress(EICAR))), b"Content-Encoding: gzip, br", TE),
        "two-lines": response(
            brotli.compress(gzip.compress(EICAR)), b"content-encoding: gzip", b"CONTENT-ENCODING:\tbr"
        ),
        "interim": response(response(EICAR, b"Content-Length: 68"), b"Link: </x>", status=b"HTTP/1.1 103 Early Hints"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        run = Run(capsys, "scan", "--json", "--as", "http", tmp_path / name)
        assert (run.code, run.objects[0]["verdict"], run.objects[0]["reason"]) == (1, "infected", None), name
        assert run.objects[0]["size"] == len(data)
        assert run.objects[0]["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_clean_http_response_is_clean(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    body = b"hello" * 1000
    files = [
        response(body, b"Content-Length: 5000"),
        response(chunked(gzip.compress(body)), TE, b"Content-Encoding: gzip", b"X-Folded: a", b" b"),
        response(b"", b"Content-Length: 0"),
        response(b"", status=b"HTTP/1.1 304 Not Modified"),
        response(body, status=b"HTTP/1.0 200"),
    ]
    for index, data in enumerate(files):
        (tmp_path / f"{index}").write_bytes(data)
    run = Run(capsys, "scan", "--json", "--as", "http", tmp_path)
    assert [one["verdict"] for one in run.objects] == ["clean"] * len(files)
    assert run.code == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no head at all",
        response(b"x", status=b"HTTP/2 200"),
        response(b"x", status=b"HTTP/1.1 2xx"),
        response(b"x", status=b"HTTP/1.1  200 OK"),
        response(b"x", status=b"HTTP/1.1 204 No Content"),
        response(b"x", b"Content-Length: 2"),
        response(b"xyz", b"Content-Length: 2"),
        response(b"x", b"Content-Length: 1", b"Content-Length: 2"),
        response(b"x", b"Content-Length: +1"),
        response(b"x", b"Content-Length: 0x1"),
        response(b"x", b"Content-Length : 1"),
        response(b"x", b"bad line"),
        response(b"x", b"A: b\x00c"),
        response(b"x", b"A: b\rTransfer-Encoding: chunked"),
        response(b"x", b"A: b\n Transfer-Encoding: chunked"),
        response(chunked(b"xy"), TE, b"Content-Length: 2"),
        response(chunked(b"xy"), TE, status=b"HTTP/1.0 200 OK"),
        response(chunked(b"xy"), b"Transfer-Encoding: gzip, chunked"),
        response(chunked(b"xy"), b"Transfer-Encoding: xchunked"),
        response(chunked(b"xy")[:-2], TE),
        response(chunked(b"xy") + b"z", TE),
        response(b"2\r\nxyz\r\n0\r\n\r\n", TE),
        response(b"2\nxy\n0\n\n", TE),
        response(b" 2\r\nxy\r\n0\r\n\r\n", TE),
        response(b"0x2\r\nxy\r\n0\r\n\r\n", TE),
        response(b"2\r\nxy\r\n0\r\nbad line\r\n\r\n", TE),
        response(b"x", b"A: b").replace(b"\r\n", b"\n"),
        b"\r\n" + response(b"x", b"A: b"),
        response(b"x", status=b"HTTP/1.1 206 Partial Content"),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    ],
)
def test_http_that_clients_read_differently_is_never_clean(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: bytes
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    run = Run(capsys, "scan", "--json", "--as", "http", file)
    assert run.code == 2
    assert run.objects[0]["verdict"] == "unscanned"
    assert run.objects[0]["reason"] in ("malformed", "unsupported")


@pytest.mark.parametrize(
    "data",
    [
        response(chunked(EICAR).replace(b"\r\n", b"\n"), TE),
        response(chunked(EICAR), TE, b"Content-Length: 3"),
        response(EICAR, TE),
        response(EICAR, b"Content-Length: 3"),
        response(EICAR + b"junk", b"Content-Length: 68"),
        response(gzip.compress(EICAR), b"Transfer-Encoding: gzip"),
        response(gzip.compress(EICAR), b"Content-Encoding : gzip"),
        response(gzip.compress(EICAR), b"A: b\rContent-Encoding: gzip"),
        response(EICAR, b"A: b").replace(b"\r\n", b"\n"),
        b"\r\n\r\n" + response(chunked(EICAR), TE),
        EICAR,
    ],
)
def test_every_reading_of_doubtful_http_is_scanned(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, data: bytes
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    run = Run(capsys, "scan", "--json", "--as", "http", file)
    assert (run.code, run.objects[0]["verdict"], run.objects[0]["reason"]) == (1, "infected", "malformed")


def test_a_proper_response_has_one_reading() -> None:
    found = read_response(response(chunked(b"abcd"), TE, b'Content-Disposition: attachment; filename="a b.zip"'))
    assert not found.problems
    assert len(found.readings) == 1
    assert found.name == "a b.zip"


def test_auto_sees_http_where_it_is_proper_and_never_holds_text_for_broken_http(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cases = [
        (response(chunked(gzip.compress(EICAR)), TE, b"Content-Encoding: gzip"), "infected"),
        (b"HTTP/1.1 is the version of HTTP that this text is about.\n\nMore.\n", "clean"),
        (EICAR, "infected"),
    ]
    for data, verdict in cases:
        file = tmp_path / "file"
        file.write_bytes(data)
        assert Run(capsys, "scan", "--json", file).objects[0]["verdict"] == verdict
    rule = tmp_path / "raw.yar"
    rule.write_text('rule Raw { strings: $a = "HTTP/1.1" condition: $a at 0 }')
    (tmp_path / "file").write_bytes(response(b"x", b"Content-Length: 1"))
    run = Run(capsys, "scan", "--json", tmp_path / "file", "--set", f"engines.yara.rules={rule}")
    assert run.objects[0]["verdict"] == "infected", "the file as it is counts too"


# Mailboxes, and what is in a file


def test_a_mailbox_is_scanned_message_by_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    box = tmp_path / "file.mbox"
    box.write_bytes(MBOX)
    run = Run(capsys, "scan", "--json", box)
    assert run.code == 1
    assert [(one["path"], one["verdict"], one["size"]) for one in run.objects] == [
        (f"{box}:1", "clean", SECOND),
        (f"{box}:2", "infected", len(MBOX) - SECOND),
    ], "no byte is lost, and text that begins with From is no separator"
    assert [one["path"] for one in Run(capsys, "explain", "--json", box).objects] == [f"{box}:1", f"{box}:2"]
    assert len(Run(capsys, "scan", "--json", "--as", "mail", box).objects) == 2
    for name, arguments in (("file.mbox", ["--as", "file"]), ("one.eml", []), ("one.eml", ["--as", "mail"])):
        (tmp_path / name).write_bytes(MBOX)
        assert len(Run(capsys, "scan", "--json", tmp_path / name, *arguments).objects) == 1


def test_a_mailbox_on_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "icapscan", "scan", "--json", "-"], input=MBOX, capture_output=True, timeout=60
    )
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == ["-:1", "-:2"]


def test_one_message_with_a_from_line_keeps_its_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(MBOX[:SECOND])
    assert [one["path"] for one in Run(capsys, "scan", "--json", tmp_path).objects] == [str(tmp_path / "mail")]


def test_what_lies_in_a_maildir_is_mail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rule = tmp_path / "mail.yar"
    rule.write_text('rule Mail { condition: filetype == "message/rfc822" }')
    for name in ("cur", "new", "tmp", "other"):
        (tmp_path / "md" / name).mkdir(parents=True)
        (tmp_path / "md" / name / "1.a:2,S").write_bytes(b"X-Nothing: known\n\nbody\n")
    run = Run(capsys, "scan", "--json", tmp_path / "md", "--set", f"engines.yara.rules={rule}")
    infected = {Path(one["path"]).parent.name for one in run.objects if one["verdict"] == "infected"}
    assert infected == {"cur", "new"}


PART_KEYS = ["path", "name", "media_type", "size", "sha256", "leaf", "reading"]


def test_explain_gives_one_object_for_each_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\0nothing known")
    run = Run(capsys, "explain", "--json", file)
    (one,) = run.objects
    assert run.code == 0 and list(one) == ["path", "parts", "anomalies"]
    (part,) = one["parts"]
    assert list(part) == PART_KEYS
    digest = hashlib.sha256(b"\0nothing known").hexdigest()
    assert one == {
        "path": str(file),
        "parts": [dict(zip(PART_KEYS, ["", "a.bin", None, 14, digest, True, 0], strict=True))],
        "anomalies": [],
    }


def test_explain_shows_the_readings_of_a_coded_response(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    body = gzip.compress(b"\0plain")
    file = tmp_path / "x"
    file.write_bytes(response(body, b"Content-Encoding: gzip", b"Content-Length: %d" % len(body)))
    (one,) = Run(capsys, "explain", "--json", "--as", "http", file).objects
    assert [(part["path"], part["size"], part["leaf"], part["reading"]) for part in one["parts"]] == [
        ("", len(body), False, 0),
        ("gzip", 6, True, 1),
    ]
    assert one["anomalies"] == []
    file.write_bytes(response(body[:-6], b"Content-Encoding: gzip", b"Content-Length: 3"))
    (one,) = Run(capsys, "explain", "--json", "--as", "http", file).objects
    assert {part["path"] for part in one["parts"]} >= {"", "gzip", "reading 2", "reading 2/gzip"}
    assert {(odd["kind"], odd["part"]) for odd in one["anomalies"]} >= {("malformed", "gzip"), ("malformed", "")}


def test_explain_draws_a_tree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    body = gzip.compress(b"\0plain") + b"\x1b[31m"
    file = tmp_path / "x\x1b[31m"
    file.write_bytes(response(body, b"Content-Encoding: gzip", b"Content-Length: %d" % len(body)))
    out = Run(capsys, "explain", "--as", "http", file).out
    assert "opened as content-coding" in out and "reading 1" in out and "junk-after-coding: gzip" in out
    assert "6 bytes" in out and "\x1b" not in out


def test_explain_scans_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "eicar").write_bytes(EICAR)
    run = Run(capsys, "explain", "--json", tmp_path)
    assert run.code == 0 and "findings" not in run.out


def test_explain_of_what_cannot_be_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    run = Run(capsys, "explain", "--json", tmp_path)
    assert run.code == 2 and run.objects[0]["parts"] == []
    assert run.objects[0]["anomalies"][0]["kind"] == "unreadable"
    assert Run(capsys, "explain", tmp_path / "none").code == 3


def test_auto_and_mail_give_the_media_type_of_mail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rule = tmp_path / "mail.yar"
    rule.write_text('rule Mail { condition: filetype == "message/rfc822" }')
    mail, text = tmp_path / "mail", tmp_path / "text"
    mail.write_bytes(b"X-A: b\r\n c\r\nReceived: from x\r\n\r\nbody\r\n")
    text.write_bytes(b"Dear all:\nfrom: me\n")
    options = ["--set", f"engines.yara.rules={rule}"]
    assert Run(capsys, "scan", mail, *options).code == 1
    assert Run(capsys, "scan", text, *options).code == 0
    assert Run(capsys, "scan", "--as", "mail", text, *options).code == 1
    assert Run(capsys, "scan", "--as", "file", mail, *options).code == 0


def test_corpus_http_responses_are_found_or_refused(capsys: pytest.CaptureFixture[str], corpus: Path) -> None:
    """All of the corpus but multipart mail in HTTP, whose unwrapping is not in this release."""
    folders = [corpus / "http" / name for name in ("broken", "chunked", "clen", "compressed", "range")]
    run = Run(capsys, "scan", "--json", "--as", "http", *folders)
    verdicts = {os.path.relpath(one["path"], corpus): one["verdict"] for one in run.objects}
    wrong = {}
    for row in corpus_rows(corpus):
        if row["path"] in verdicts:
            allowed = ("infected",) if row["verdict"] == "eicar" else ("infected", "unscanned")
            if verdicts[row["path"]] not in allowed:
                wrong[row["path"]] = verdicts[row["path"]]
    assert len(verdicts) > 400
    assert not wrong
