"""``icapscan policy test`` and what ``config check`` says of rules."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icapscan.cli import main

# The EICAR test string, cut in two so that this file is not taken for it.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + rb"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
EXE = b"MZ" + bytes(58) + b"\x40\0\0\0" + b"PE\0\0" + bytes(200)
RULES = """
[[policy.rules]]
name = "administrators"
when = { group = "admins", client = "192.0.2.0/24" }
action = "allow"

[[policy.rules]]
name = "watch"
when = { size = "> 10 B" }
action = ["block", "monitor"]

[[policy.rules]]
name = "programs in mail"
when = { direction = "mail", kind = "program" }
unless = { file-name = "setup.exe" }
action = "block"

[[policy.rules]]
name = "marked"
when = { url = "http://www.example.com/*" }
action = "tag"
tag = "from us"
"""


@pytest.fixture(autouse=True)
def without_clamd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICAPSCAN_ENGINES__CLAMD__ENABLED", "false")


class Try:
    """One run of ``policy test`` with the rules above, as JSON."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, rules: str = RULES) -> None:
        config = folder / "c.toml"
        config.write_text(rules, "utf-8")
        self.code = main(["policy", "test", "--config", str(config), "--json", *arguments])
        self.out, self.err = capsys.readouterr()
        assert "Traceback" not in self.err

    @property
    def one(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        found: dict[str, Any] = json.loads(line)
        return found


def mail(*attachments: tuple[str, bytes]) -> bytes:
    parts = [
        b"From: a@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
        b"--x\r\n\r\nhi\r\n"
    ]
    for name, data in attachments:
        head = f'--x\r\nContent-Type: x/y; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        parts.append(head.encode() + base64.encodebytes(data))
    return b"".join(parts) + b"--x--\r\n"


def put(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_the_rule_that_decides_and_why_the_others_do_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.exe", EXE)
    tried = Try(capsys, tmp_path, put(tmp_path, "m.eml", mail(("b.zip", out.getvalue()))))
    assert tried.code == 1
    found = tried.one
    assert (found["decision"], found["cause"], found["rule"], found["verdict"]) == (
        "block", "rule", "programs in mail", "clean",
    )  # fmt: skip
    assert found["direction"] == ["mail"] and found["monitored"] == ["watch=block"]
    first, second, third, fourth = found["rules"]
    assert not first["matched"] and first["why"] == "group: it is not known"
    assert second["matched"] and second["monitor"]
    assert third["matched"] and third["parts"] == ["2/b.zip/a.exe"]
    assert not fourth["matched"] and fourth["why"].startswith("url: ")


@pytest.mark.parametrize(
    ("arguments", "decision", "rule", "tags"),
    [
        ((), "allow", None, []),
        (("--as", "mail"), "allow", None, []),
        (("--url", "http://www.example.com/a"), "allow", None, ["from us"]),
        (("--client", "192.0.2.7", "--group", "admins"), "allow", "administrators", []),
        (("--client", "192.0.2.7", "--group", "LDAP://dc/CN=admins,DC=x"), "allow", "administrators", []),
        (("--client", "192.0.2.7", "--group", "staff"), "allow", None, []),
        (("--service", "virus_scan", "--method", "post"), "allow", None, []),
    ],
)
def test_what_is_said_of_the_request(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], decision: str, rule: str | None,
    tags: list[str],
) -> None:  # fmt: skip
    found = Try(capsys, tmp_path, put(tmp_path, "a.txt", b"hello"), *arguments).one
    assert (found["decision"], found["rule"], found["tags"]) == (decision, rule, tags)


def test_the_exit_code_is_that_of_the_gravest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clean, bad = put(tmp_path, "a.txt", b"hello"), put(tmp_path, "b.com", EICAR)
    gone = str(tmp_path / "gone")
    assert Try(capsys, tmp_path, clean).code == 0
    infected = Try(capsys, tmp_path, bad, "--client", "192.0.2.7", "--group", "admins")
    assert infected.code == 1 and infected.one["rule"] is None
    assert infected.one["rules"][0]["why"] == 'it does not say verdict = "infected"'
    assert Try(capsys, tmp_path, clean, bad).code == 1
    assert Try(capsys, tmp_path, gone).code == 3
    (tmp_path / "pipe").symlink_to(tmp_path / "nowhere")
    unread = Try(capsys, tmp_path, str(tmp_path / "pipe"))
    assert (unread.code, unread.one["decision"]) == (2, "error")


def test_a_raw_http_response_is_a_download(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rules = '[[policy.rules]]\nname = "exe"\nwhen = { file-name = "*.exe" }\naction = "defer"\n'
    raw = b'HTTP/1.1 200 OK\r\nContent-Disposition: attachment; filename="a.exe"\r\nContent-Length: 5\r\n\r\nhello'
    tried = Try(capsys, tmp_path, put(tmp_path, "x.http", raw), rules=rules)
    assert (tried.code, tried.one["decision"], tried.one["rule"]) == (1, "defer", "exe")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--service", "nothing"), "expected a service that scans: avscan"),
        (("--service", "echo"), "expected a service that scans: avscan"),
        (("--client", "here"), "--client here: expected an IP address"),
    ],
)
def test_what_cannot_be_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    tried = Try(capsys, tmp_path, put(tmp_path, "a.txt", b"hello"), *arguments)
    assert tried.code == 3 and words in tried.err


def test_the_table_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = put(tmp_path, "c.toml", RULES.encode())
    name = put(tmp_path, "m\x1b[31m.eml", mail(("a.exe", EXE), ("setup.exe", EXE)))
    assert main(["policy", "test", name, "--config", config]) == 1
    out = capsys.readouterr().out
    assert "BLOCK" in out and 'by rule "programs in mail"' in out and "\x1b[31m" not in out
    rows = {line.split()[0]: line for line in out.splitlines() if line[:1].isdigit()}
    assert "group: it is not known" in rows["1"] and "watches" in rows["2"]
    assert "decides" in rows["3"] and rows["3"].rstrip().endswith("2")
    assert "not asked" in rows["4"] and "the defaults" in out


def test_a_setup_that_is_excepted_does_not_excuse_the_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    alone = Try(capsys, tmp_path, put(tmp_path, "m.eml", mail(("setup.exe", EXE))))
    assert alone.one["decision"] == "allow"
    both = Try(capsys, tmp_path, put(tmp_path, "n.eml", mail(("setup.exe", EXE), ("evil.exe", EXE))))
    assert (both.one["decision"], both.one["rules"][2]["parts"]) == ("block", ["3"])


# config check


def test_config_check_names_rules_that_never_match(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dead = RULES + '\n[[policy.rules]]\nwhen = { service = "old" }\naction = "block"\n'
    assert main(["config", "check", "--config", put(tmp_path, "good.toml", RULES.encode())]) == 0
    assert capsys.readouterr().out.startswith("The configuration is good.")
    assert main(["config", "check", "--config", put(tmp_path, "dead.toml", dead.encode())]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("The configuration can be used.")
    assert err == 'Rule 5 ("rule 5") never matches: there is no such service that scans; there is avscan.\n'


def test_config_check_refuses_what_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = put(tmp_path, "c.toml", b'[[policy.rules]]\nname = "x"\nwhen = { kind = "exe" }\naction = "block"\n')
    assert main(["config", "check", "--config", config]) == 3
    assert (
        f"policy.rules[1].when.kind ({config}, line 3): expected one or several of program" in capsys.readouterr().err
    )
