"""The header section of a body that is a message."""

from __future__ import annotations

import pytest

from icapscan.servers.mail_head import MailHead
from icapscan.store import PartStore


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_fields_are_unfolded_and_those_of_the_body_are_none(end: bytes) -> None:
    text = b"From: a@b\r\nSUBJECT : =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\tan alle\r\n\r\nMessage-ID: <body@x>\r\n"
    head = MailHead(PartStore.of(text.replace(b"\r\n", end)))
    assert head.subject == "Grüße an alle" and head.message_id == "" and head.whole
    assert b"body" not in head.header


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", True),
        (b"\r\nSubject: body", True),
        (b"Subject: x", True),
        (b"A: " + b"x" * 65_000 + b"\r\n\r\n" + b"y" * 10_000_000, True),
        (b"A: " + b"x" * 66_000 + b"\r\n\r\n", False),
    ],
)
def test_whether_all_of_it_was_seen(data: bytes, whole: bool) -> None:
    assert MailHead(PartStore.of(data)).whole is whole


def test_an_empty_header_has_no_subject() -> None:
    assert MailHead(PartStore.of(b"\r\nSubject: body\r\n")).subject == ""
