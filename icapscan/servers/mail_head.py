"""What the envelope and the header section of a mail say; all of it is somebody's word."""

from __future__ import annotations

import re

from icapscan.servers.facts import ENVELOPE
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore
from icapscan.unwrap.names import readings

RECIPIENTS_MAX = 1000
_HEADER_MAX = 64 * 1024
"""Bytes of a header section that are looked at."""
_HEADER_END = re.compile(rb"(?:^|\n)\r?\n|\r\r")


class MailHead:
    """The header section of a body that is a message."""

    __slots__ = ("header", "whole")

    def __init__(self, store: PartStore) -> None:
        start = bytes(next(store.pieces(0, _HEADER_MAX), b""))
        end = _HEADER_END.search(start)
        self.header = start[: end.start()] if end is not None else start
        self.whole = end is not None or len(start) == store.size
        """The header section ends within the bytes that were looked at."""

    @property
    def subject(self) -> str:
        """As a reader shows it; empty where there is none."""
        return next(iter(readings(self._field(b"subject"))), "")

    @property
    def message_id(self) -> str:
        """As it is written; empty where there is none."""
        return self._field(b"message-id").decode("utf-8", "replace")

    def _field(self, name: bytes) -> bytes:
        """The first field of that name, unfolded."""
        pattern = rb"^%s[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)" % re.escape(name)
        found = re.search(pattern, self.header, re.IGNORECASE | re.MULTILINE)
        return b" ".join(found[1].split()) if found is not None else b""


def is_mail(media_type: str) -> bool:
    """Whether a body of this declared type is a message, with its header section at its beginning."""
    return media_type.startswith("message/")


def envelope(now: Transaction) -> tuple[str | None, tuple[str, ...]]:
    """Reverse-path and forward-paths as an ICAP client of a relay gives them, in its own head or the HTTP head."""
    sender: str | None = None
    recipients: list[str] = []
    heads = [now.head.fields.raw if now.head is not None else b"", now.heads.req_hdr or b""]
    for found in (match for head in heads for match in ENVELOPE.finditer(head)):
        value = found[2].decode("utf-8", "replace")
        if found[1].lower() == b"from":
            sender = _address(value) if sender is None else sender
        else:
            recipients += [address for one in value.split(",") if (address := _address(one))]
    return sender, tuple(dict.fromkeys(recipients))[:RECIPIENTS_MAX]


def _address(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">").strip()
