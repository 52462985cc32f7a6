"""Release of mails to a server on the loopback address: the envelope, refusals, and the guard against loops."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from icapscan.errors import ConfigError, Damaged, NoSuchItem, QuarantineFailed, ReleaseRefused
from icapscan.quarantine.item import State
from icapscan.quarantine.marks import mark
from icapscan.quarantine.release import release
from icapscan.quarantine.vault import Quarantine
from tests.quarantine.made import BODY, FILE, MAIL, content, files, opened
from tests.quarantine.smtp_server import Behaviour, SmtpServer


def kept(folder: Path, server: SmtpServer, body: bytes = BODY, **changes: Any) -> tuple[Quarantine, str]:
    quarantine = opened(folder, next_hop=server.address, helo="scanner.example.org", smtp_timeout=60.0)
    return quarantine, quarantine.keep([body], replace(MAIL, **changes))


def refused(quarantine: Quarantine, name: str, **options: Any) -> str:
    """The sentence of a release that must fail and must leave the item as it was."""
    before = quarantine.show(name)[0]
    with pytest.raises(ReleaseRefused) as caught:
        release(quarantine, name, who="me", **options)
    assert quarantine.show(name)[0] == before
    return str(caught.value)


def test_a_mail_is_sent_as_it_was_but_for_the_mark(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        done = release(quarantine, name, who="jane")
    (mail,) = server.mails
    assert mail.data == mark(quarantine.keys, name) + BODY
    assert (mail.sender, mail.recipients) == ("a@example.org", ["b@example.org", "c@example.org"])
    assert done.recipients == ("b@example.org", "c@example.org") and done.reply == "250 2.0.0 taken as 4711"
    size = len(mail.data) + len(".") + len(".\r\n")
    assert server.lines == [
        "ehlo scanner.example.org", f"MAIL FROM:<a@example.org> SIZE={size}", "RCPT TO:<b@example.org>",
        "RCPT TO:<c@example.org>", "DATA", "QUIT",
    ]  # fmt: skip
    entry, acts = quarantine.show(name)
    assert (entry.state, entry.released) == (State.RELEASED, 1)
    assert [(act.who, act.what) for act in acts] == [("icapscan", "keep"), ("jane", "send"), ("jane", "release")]
    assert "<b@example.org>" in acts[1].detail and acts[2].detail == done.reply
    assert content(quarantine, name) == BODY, "it is still kept"


def test_another_envelope(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        release(quarantine, name, who="me", sender="", recipients=["d@example.org", "d@example.org", "postmaster"])
    assert (server.mails[0].sender, server.mails[0].recipients) == ("", ["d@example.org", "postmaster"])


def test_lone_line_feeds_and_dots_arrive_as_lines(tmp_path: Path) -> None:
    body = b"Subject: x\n\n.\n..\nMAIL FROM:<evil@example.org>\rno end"
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, body)
        release(quarantine, name, who="me")
    expected = b"Subject: x\r\n\r\n.\r\n..\r\nMAIL FROM:<evil@example.org>\r\nno end\r\n"
    assert server.mails[0].data == mark(quarantine.keys, name) + expected


def test_a_large_mail_of_eight_bits(tmp_path: Path) -> None:
    body = b"Subject: x\r\n\r\n" + ("héllo wörld " * 6 + "\r\n").encode() * 20_000
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, body)
        release(quarantine, name, who="me")
    assert server.mails[0].data == mark(quarantine.keys, name) + body
    size = len(server.mails[0].data) + len(".\r\n")
    assert server.lines[1].endswith(f" SIZE={size} BODY=8BITMIME")


def test_a_server_that_knows_only_helo(tmp_path: Path) -> None:
    with SmtpServer(Behaviour(ehlo="502 what?")) as server:
        quarantine, name = kept(tmp_path, server, b"Subject: \xe4\r\n\r\n")
        release(quarantine, name, who="me")
    assert server.lines[1:3] == ["helo scanner.example.org", "MAIL FROM:<a@example.org>"]


def test_addresses_that_are_not_ascii_need_a_server_that_takes_them(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, recipients=("jürgen@example.org",))
        assert "SMTPUTF8" in refused(quarantine, name)
        server.behaviour = Behaviour(extensions=("SMTPUTF8", "8BITMIME"))
        release(quarantine, name, who="me")
    assert server.mails[0].recipients == ["jürgen@example.org"]
    assert server.lines[-4] == "MAIL FROM:<a@example.org> SMTPUTF8"


@pytest.mark.parametrize(
    "address",
    [
        "a b@example.org",
        "<a@example.org>",
        "a@example.org\r\nRCPT TO:<x@example.org>",
        "a\0@b",
        "a@b@",
        "\udc80@b",
        "a>@b",
    ],
)
def test_what_is_no_address_is_not_given_to_a_server(tmp_path: Path, address: str) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, recipients=("b@example.org", address))
        assert "is no address" in refused(quarantine, name)
        assert "is no address" in refused(quarantine, name, recipients=["b@example.org"], sender=address)
    assert server.lines == []


def test_an_envelope_that_is_not_known_must_be_given(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, sender=None, recipients=())
        assert "--from" in refused(quarantine, name)
        assert "--to" in refused(quarantine, name, sender="")
        release(quarantine, name, who="me", sender="", recipients=["b@example.org"])
    assert len(server.mails) == 1


# Refusals


def test_a_refused_recipient_is_named_and_nobody_gets_it(tmp_path: Path) -> None:
    behaviour = Behaviour(rcpt=(("b@example.org", "550 5.1.1 no such user\x1b[2J"), ("d@example.org", "452 full")))
    with SmtpServer(behaviour) as server:
        quarantine, name = kept(tmp_path, server)
        said = refused(quarantine, name)
        assert "<b@example.org> (550 5.1.1 no such user\\x1b[2J)" in said
        assert "c@example.org" not in said and "nothing was sent" in said and "--to" in said
        said = refused(quarantine, name, recipients=["d@example.org"])
        assert "<d@example.org> (452 full)" in said and "--to" not in said
        release(quarantine, name, who="me", recipients=["c@example.org"])
    assert [mail.recipients for mail in server.mails] == [["c@example.org"]]
    acts = quarantine.show(name)[1]
    assert [act.what for act in acts] == ["keep", "send", "refuse", "send", "refuse", "send", "release"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (Behaviour(banner="554 go away"), "does not take mails (554 go away); nothing was sent"),
        (Behaviour(mail="550 not you"), "refuses the sender <a@example.org> (550 not you)"),
        (Behaviour(data="451 later"), "does not take the data (451 later)"),
        (Behaviour(end="554 5.7.1 spam"), "refuses the mail (554 5.7.1 spam)"),
        (Behaviour(end="452 disk full"), "refuses the mail (452 disk full)"),
        (Behaviour(end="354 what"), "refuses the mail (354 what)"),
        (Behaviour(cut="EHLO"), "nothing was sent"),
        (Behaviour(cut="MAIL"), "nothing was sent"),
        (Behaviour(cut="RCPT"), "nothing was sent"),
        (Behaviour(cut="DATA"), "nothing was sent"),
        (Behaviour(cut="end"), "it may have taken the mail, or not"),
        (Behaviour(banner="nonsense"), "nothing was sent"),
    ],
)
def test_until_the_server_says_250_nothing_is_released(tmp_path: Path, behaviour: Behaviour, words: str) -> None:
    with SmtpServer(behaviour) as server:
        quarantine, name = kept(tmp_path, server)
        said = refused(quarantine, name)
    assert words in said and server.address in said
    assert server.mails == []
    assert [act.what for act in quarantine.show(name)[1]] == ["keep", "send", "refuse"]


def test_a_connection_that_is_cut_within_the_data(tmp_path: Path) -> None:
    with SmtpServer(Behaviour(cut="data")) as server:
        quarantine, name = kept(tmp_path, server, b"Subject: x\r\n\r\n" + b"a line of text\r\n" * 1_000_000)
        assert "the mail was not sent" in refused(quarantine, name)
    assert server.mails == []


def test_250_counts_even_when_the_server_leaves_without_a_word(tmp_path: Path) -> None:
    with SmtpServer(Behaviour(cut="QUIT")) as server:
        quarantine, name = kept(tmp_path, server)
        release(quarantine, name, who="me")
    assert quarantine.show(name)[0].state is State.RELEASED


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
    assert "cannot be reached" in refused(quarantine, name)


def test_without_a_next_hop_it_is_the_configuration_that_is_wrong(tmp_path: Path) -> None:
    quarantine = opened(tmp_path)
    name = quarantine.keep([BODY], MAIL)
    with pytest.raises(ConfigError, match=r"quarantine\.next_hop: expected"):
        release(quarantine, name, who="me")


def test_what_is_no_mail_is_exported_and_not_released(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, _ = kept(tmp_path, server)
        name = quarantine.keep([b"x"], FILE)
        for force in (False, True):
            assert f"icapscan quarantine export {name}" in refused(quarantine, name, force=force)
    assert server.lines == []


def test_what_is_damaged_is_not_even_begun(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, BODY + b"x" * 200_000)
        os.truncate(quarantine.path(name), 150_000)
        with pytest.raises(Damaged):
            release(quarantine, name, who="me")
    assert server.lines == []


def test_what_breaks_while_it_is_sent_is_not_taken_for_a_whole_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server, BODY + b"a line of text\r\n" * 20_000)
        read = quarantine.read
        times = []

        def breaks(name: str) -> Any:
            times.append(name)
            pieces = read(name)
            if len(times) == 1:
                return pieces

            def some() -> Any:
                yield next(pieces)
                yield next(pieces)
                raise Damaged("broken")

            return some()

        monkeypatch.setattr(quarantine, "read", breaks)
        with pytest.raises(Damaged):
            release(quarantine, name, who="me")
    assert server.lines[-1] == "DATA" and server.mails == []
    assert quarantine.show(name)[0].state is State.KEPT


def test_a_release_that_could_not_be_noted_says_that_the_mail_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        quarantine.index._busy = 0.05
        path = os.path.join(quarantine.folder, "index.sqlite")
        act = quarantine.act

        def lock(*arguments: Any) -> Any:
            if arguments[1] == "release":
                import sqlite3

                held.append(sqlite3.connect(path, isolation_level=None))
                held[0].execute("BEGIN IMMEDIATE")
            return act(*arguments)

        held: list[Any] = []
        monkeypatch.setattr(quarantine, "act", lock)
        with pytest.raises(QuarantineFailed, match="was sent, but that could not be noted"):
            release(quarantine, name, who="me")
        held[0].close()
    assert len(server.mails) == 1


@pytest.mark.parametrize("what", ["delete", "expire"])
def test_what_is_gone_is_not_released(tmp_path: Path, what: str) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        if what == "delete":
            quarantine.delete(name, who="me")
        else:
            quarantine.now = lambda: 1e12
            quarantine.expire()
        with pytest.raises(NoSuchItem):
            release(quarantine, name, who="me", force=True)
    assert server.lines == [] and files(quarantine) == []


# Loops


def test_a_mail_that_comes_back_is_known_and_not_released_again(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        release(quarantine, name, who="me")
        looped = b"Received: from x by y; Tue, 24 Nov 2026 00:00:00 +0000\r\n" + server.mails[0].data
        again = quarantine.keep([looped[:40], looped[40:]], MAIL)
        entry, acts = quarantine.show(again)
        assert entry.came_back == name
        assert acts[0].detail == f"came back after the release of {name}"
        said = refused(quarantine, again)
        assert name in said and "--force" in said
        release(quarantine, again, who="me", force=True)
    assert len(server.mails) == 2


def test_the_mark_within_a_mail_or_of_another_scanner_is_no_loop(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        other = opened_elsewhere(tmp_path)
        for body in (BODY + mark(quarantine.keys, name), mark(other.keys, name) + BODY):
            assert quarantine.show(quarantine.keep([body], MAIL))[0].came_back == ""
        inside = quarantine.keep([mark(quarantine.keys, name) + BODY], FILE)
        assert quarantine.show(inside)[0].came_back == ""


def opened_elsewhere(folder: Path) -> Quarantine:
    (folder / "other").mkdir()
    return opened(folder / "other")


def test_a_mail_is_released_three_times_at_most(tmp_path: Path) -> None:
    with SmtpServer() as server:
        quarantine, name = kept(tmp_path, server)
        for _ in range(3):
            release(quarantine, name, who="me")
        assert "3 times already" in refused(quarantine, name)
        release(quarantine, name, who="me", force=True)
    assert len(server.mails) == 4
    assert quarantine.show(name)[0].released == 4
