"""Passwords that encrypted content is tried with: everybody's, one's own, and words of the mail (EVASION.md 85)."""

from __future__ import annotations

import hashlib
import os
import subprocess
from base64 import encodebytes
from io import BytesIO
from pathlib import Path

import pytest

from icapscan.findings import Reason
from icapscan.unwrap.passwords import COSTLY_MAX, STANDARD, WORDS_MAX, Passwords
from icapscan.unwrap.settings import UnwrapSettings
from tests.peers import require

from .archive_driver import Got, walk
from .ooxml_maker import docx

SECRET = "Sesam-auf_42"
CONTENT = b"what nobody should see" * 10
FOUND = hashlib.sha256(CONTENT).hexdigest()
SAID = {
    "a cue": ("text/plain", f"Hello,\n\nthe password for the file is: {SECRET}\n\nBye\n"),
    "the next line": ("text/plain", f"Das Kennwort:\n\n{SECRET}.\n"),
    "alone": ("text/plain", f"See the attachment.\n{SECRET}\n"),
    "html": ("text/html", f"<p>Passwort:&nbsp;<b>{SECRET}</b></p>"),
    "japanese": ("text/plain", f"添付ファイルのパスワードは「{SECRET}」です。"),
}


def mail(attachment: bytes, media_type: str, text: str, subject: str = "file", *, text_last: bool = False) -> bytes:
    said = f"--b\r\nContent-Type: {media_type}; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n"
    file = (
        "--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        f'Content-Disposition: attachment; filename="a.bin"\r\n\r\n{encodebytes(attachment).decode()}\r\n'
    )
    parts = file + said if text_last else said + file
    head = f"Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    return (head + parts + "--b--\r\n").encode()


def opened(body: bytes, **settings: object) -> Got:
    return walk(body, name="a.eml", passwords=Passwords(UnwrapSettings(**settings)))  # type: ignore[arg-type]


@pytest.fixture
def locked(tmp_path: Path, request: pytest.FixtureRequest) -> bytes:
    """An encrypted archive of one kind."""
    kind = request.param
    if kind == "docx":
        crypto = pytest.importorskip("msoffcrypto.format.ooxml")
        out = BytesIO()
        crypto.OOXMLFile(
            BytesIO(docx({"word/document.xml": b"<w/>", "noise.txt": CONTENT, "noise": os.urandom(9000)}))
        ).encrypt(SECRET, out)
        return out.getvalue()
    if kind == "pdf":
        pikepdf = pytest.importorskip("pikepdf")
        with pikepdf.new() as document:
            document.attachments["a.txt"] = pikepdf.AttachedFileSpec(document, CONTENT)
            out = BytesIO()
            document.save(out, encryption=pikepdf.Encryption(owner="x", user=SECRET))
        return out.getvalue()
    program = require("7zz", "7zip")
    (tmp_path / "secret.txt").write_bytes(CONTENT)
    command = [program, "a", f"-t{kind.partition('-')[0]}", f"-p{SECRET}"]
    command += ["-mem=AES256"] if kind == "zip" else ["-mhe=on"] if kind == "7z-names" else []
    subprocess.run([*command, "locked", "secret.txt"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    return next(tmp_path.glob("locked*")).read_bytes()


@pytest.mark.parametrize("locked", ["zip", "7z", "7z-names", "pdf", "docx"], indirect=True)
def test_evasion_85_words_of_the_mail_open_its_attachment_where_that_is_wanted(locked: bytes) -> None:
    body = mail(locked, *SAID["a cue"])
    closed = opened(body)
    assert closed.reasons == {Reason.ENCRYPTED} and FOUND not in closed.hashes
    got = opened(body, mail_words=True)
    assert not got.reasons and FOUND in got.hashes


@pytest.mark.parametrize("locked", ["zip"], indirect=True)
@pytest.mark.parametrize("how", SAID)
def test_evasion_85_however_the_mail_says_it(how: str, locked: bytes) -> None:
    for text_last in (False, True):
        got = opened(mail(locked, *SAID[how], text_last=text_last), mail_words=True)
        assert FOUND in got.hashes and not got.reasons


@pytest.mark.parametrize("locked", ["zip"], indirect=True)
def test_evasion_85_the_subject_says_it(locked: bytes) -> None:
    got = opened(mail(locked, "text/plain", "nothing", subject=f"your file, pw {SECRET}"), mail_words=True)
    assert FOUND in got.hashes and not got.reasons


@pytest.mark.parametrize("locked", ["zip"], indirect=True)
def test_evasion_85_a_password_of_ones_own(locked: bytes) -> None:
    assert FOUND in opened(mail(locked, "text/plain", "nothing"), passwords=(SECRET,)).hashes


def test_what_is_likely_comes_first_and_all_of_it_is_bounded() -> None:
    known = Passwords(UnwrapSettings(passwords=("ours",), mail_words=True))
    known.hear("\n".join(f"some words here w{number} and more" for number in range(500)).encode(), "text/plain")
    known.hear(b"nothing", "text/plain")
    assert known.cheap[: len(STANDARD) + 1] == ("ours", *STANDARD)
    assert len(known.cheap) <= WORDS_MAX + len(STANDARD) + 1 and len(known.costly) <= COSTLY_MAX
    likely = Passwords(UnwrapSettings(mail_words=True))
    likely.hear(b"some words here and more\nPassword: abc-123\n", "text/plain")
    assert likely.costly[len(STANDARD)] == "abc-123"
    for _ in range(100):
        likely.hear(b"\xff\xfe\0" * 50_000, "text/html", "no-such-charset")


def test_nothing_is_heard_where_it_was_not_asked_for() -> None:
    assert Passwords().cheap == Passwords(UnwrapSettings()).costly == STANDARD
    assert not Passwords().listening
