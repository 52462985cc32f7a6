"""A quarantine in a temporary folder, and things to keep in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from icapscan.findings import Finding, Reason, Unscanned, summarize
from icapscan.quarantine.item import Item, Kind
from icapscan.quarantine.keys import write_key
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.quarantine.vault import Quarantine

BODY = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nOne line.\r\n.\r\nAnother.\r\n"
MAIL = Item(
    kind=Kind.MAIL,
    service="avscan",
    direction="mail",
    client="192.0.2.1:4711",
    sender="a@example.org",
    recipients=("b@example.org", "c@example.org"),
    name="hello",
    media_type="message/rfc822",
    verdict=summarize(
        [Finding("yara", "Evil_Rule", "2/a.exe"), Finding("clamd", "Win.Test.X", "2/a.exe")],
        [Unscanned(Reason.ENCRYPTED, "3")],
    ),
    rule="bad mail",
    reference="0123abcd",
)
FILE = Item(kind=Kind.FILE, direction="download", url="http://example.org/a.exe", user="jane", name="a.exe")


def settings(folder: Path, /, **changes: Any) -> QuarantineSettings:
    """Settings with a folder and a key below ``folder``; the key is made with the first ones."""
    key = folder / "key"
    if not key.exists():
        write_key(str(key))
    given: dict[str, Any] = {"enabled": True, "folder": str(folder / "q"), "key_file": str(key), **changes}
    return QuarantineSettings(**given)


def opened(folder: Path, /, **changes: Any) -> Quarantine:
    """A quarantine below ``folder``; a second call opens the same one."""
    return Quarantine(settings(folder, **changes), busy=30.0)


def files(quarantine: Quarantine) -> list[str]:
    """The names of the files of items, finished or not."""
    return sorted(os.listdir(quarantine.items))


def content(quarantine: Quarantine, name: str) -> bytes:
    """The whole body of an item."""
    return b"".join(quarantine.read(name))
