"""What the tests of mails share: sanitising in one call, mails of the corpus, and an independent reader."""

from __future__ import annotations

import email
from collections.abc import Callable, Iterator
from email.message import Message
from functools import cache
from pathlib import Path

from msgspec import Struct

from icapscan.sanitize.contract import Cleaned, Reference, Sanitized, Target
from icapscan.sanitize.mail import FIELD, sanitize_mail
from icapscan.store import PartStore
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.events import Audience
from icapscan.unwrap.formats import registry
from icapscan.unwrap.tree import PartReady
from tests.conftest import corpus_rows
from tests.unwrap.samples_mime import MAIL
from tests.unwrap.toys import Walked

REFERENCE = Reference("TEST-1", "Q-2", "2026-11-24 08:00", "mx.example.org", "help@example.org")
NOTICE = b"[English] "
KINDS = ("mime", "mime-evasion", "mime-filename")


def never(data: bytes, target: Target) -> None:
    """Cleans nothing."""


class Result(Struct, frozen=True):
    """A mail after sanitising."""

    before: bytes
    after: bytes
    done: Sanitized

    @property
    def without_field(self) -> bytes:
        """The result without the one field that is added."""
        inserted = next(edit for edit in self.done.edits if edit.data.startswith(FIELD) and not edit.length)
        at = inserted.offset
        assert self.after[at : at + len(inserted.data)] == inserted.data
        return self.after[:at] + self.after[at + len(inserted.data) :]


def sanitized(
    body: bytes,
    *targets: Target | str,
    clean: Callable[[bytes, Target], Cleaned | None] = never,
    declared: Declared = MAIL,
    reference: Reference = REFERENCE,
) -> Result:
    """The mail without its targets; of a path alone, one that is to be replaced."""
    wanted = [one if isinstance(one, Target) else Target(one, (), "Eicar-Test") for one in targets]
    store = PartStore.of(body)
    try:
        done = sanitize_mail(store, wanted, reference, clean, declared=declared)
        after = b"".join(done.edits.pieces(store))
        assert len(after) == done.edits.size(len(body))
    finally:
        store.close()
    return Result(body, after, done)


def walked(body: bytes, declared: Declared = MAIL) -> Walked:
    """Everything the walker finds, with all formats there are."""
    return Walked(body, formats=registry(), declared=declared)


def mime_parts(tree: Walked) -> dict[str, PartReady]:
    """The parts of messages and multiparts in the strict reading, leaves and containers, by path."""
    return {
        path: ready
        for path, ready in tree.ready.items()
        if ready.declared.within == "mime"
        and ready.audience is not Audience.CLAMD
        and "~" not in path
        and path.rpartition("/")[2].isdigit()
    }


@cache
def corpus_mails(folder: Path) -> tuple[tuple[str, bytes], ...]:
    """Names and bytes of all mails of the corpus."""
    rows = [row["path"] for row in corpus_rows(folder) if row["kind"] in KINDS]
    return tuple((path, (folder / path).read_bytes()) for path in rows)


def leaves(body: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded bytes of every leaf, as Python's email package reads the mail."""
    return [(part.get_content_type(), payload(part)) for part in _walk(email.message_from_bytes(body))]


def payload(part: Message) -> bytes:
    """The decoded bytes of a leaf."""
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def boundaries(body: bytes) -> list[bytes]:
    """All boundaries of a mail, as Python's email package reads it."""
    found = [part.get_boundary() for part in email.message_from_bytes(body).walk() if part.is_multipart()]
    return [one.encode("utf-8", "surrogateescape") for one in found if one]


def is_notice(leaf: tuple[str, bytes]) -> bool:
    """Whether a leaf is one of ours."""
    return leaf[0] == "text/plain" and leaf[1].startswith(NOTICE)


def _walk(message: Message) -> Iterator[Message]:
    for part in message.walk():
        if not part.is_multipart():
            yield part
