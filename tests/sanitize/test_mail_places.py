"""Where parts stand: held against the walker, part by part, over the whole corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from icapscan.limits import Limits
from icapscan.sanitize.mail_places import Container, Opaque, Place, locate
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.mime_entity import Encoding
from icapscan.unwrap.transfer import Identity, Transfer
from icapscan.unwrap.transfer_base64 import Base64Reading, base64
from icapscan.unwrap.transfer_quoted import QuotedPrintable
from icapscan.unwrap.uu import Uuencode
from tests.sanitize.mails import corpus_mails, mime_parts, walked
from tests.unwrap.samples_mime import MAIL, TEXT, mail, multipart, part
from tests.unwrap.toys import Walked


def decoded(data: bytes, encoding: Encoding) -> bytes:
    """What a strict reader of a transfer encoding gives, whatever it doubts."""
    transfer: Transfer = Identity()
    if encoding is Encoding.BASE64:
        transfer = base64(Base64Reading.LENIENT)
    elif encoding is Encoding.QUOTED_PRINTABLE:
        transfer = QuotedPrintable()
    elif encoding is Encoding.UUENCODE:
        transfer = Uuencode()
    return transfer.feed(data) + transfer.finish()


def located(body: bytes, declared: Declared, base: str = "") -> Iterator[tuple[str, Place, bytes]]:
    """Path, place and decoded content of every part that can be located, however deep."""
    try:
        box = locate(PartStore.of(body), 0, len(body), declared)
    except Opaque:
        return
    for place in box.places:
        content = decoded(body[place.body : place.end], place.encoding)
        yield place.path(base), place, content
        yield from located(content, place.declared, place.base(base))


def in_one_way(tree: Walked) -> bool:
    """Whether the walker read a mail in one way, with nothing declared as what it is not."""
    if {kind for kind, _ in tree.anomalies} - {"names-differ", "base64-cut"} or tree.ready[""].opened != ("mime",):
        return False
    types = [ready.declared for ready in tree.ready.values() if "mime" in ready.opened]
    return not any(b"boundary" in one.content_type and not one.media_type.startswith("multipart/") for one in types)


def test_every_located_part_is_the_part_of_the_walker(corpus: Path) -> None:
    mails = parts = read_in_one_way = 0
    for name, body in corpus_mails(corpus):
        tree = walked(body)
        expected = {path: tree.parts[path] for path in mime_parts(tree)}
        found = {path: content for path, _, content in located(body, MAIL)}
        for path, content in found.items():
            assert path in expected, (name, path)
            assert hashlib.sha256(content).digest() == hashlib.sha256(expected[path]).digest(), (name, path)
        if in_one_way(tree):
            read_in_one_way += 1
            assert set(found) == set(expected), name
        mails += bool(found)
        parts += len(found)
    assert mails > 400 and parts > 1200 and read_in_one_way > 300


@pytest.mark.parametrize("limits", [Limits(), Limits(part_in_bytes=16, part_in_memory=64)])
def test_spans_are_exact(limits: Limits) -> None:
    first, second = part(b"AAAA\r\n\r\n"), part(b"", blank=b"")
    body = mail(b"preamble\r\n" + multipart(first, second, TEXT) + b"epilogue\r\n")
    store = PartStore(Purse(1 << 20, 1 << 20), limits)
    store.append(body)
    box = locate(store, 0, len(body), MAIL)
    store.close()
    spans = [(body[one.start : one.body], body[one.body : one.end]) for one in box.places]
    text_header, _, text_body = TEXT.partition(b"\r\n\r\n")
    assert spans == [
        (first.removesuffix(b"AAAA\r\n\r\n"), b"AAAA\r\n\r\n"),
        (second, b""),  # what could be its blank line belongs to the delimiter
        (text_header + b"\r\n\r\n", text_body),
    ]
    assert box.line_end == b"\r\n" and box.boundary == b"frontier"
    assert body[: box.body] == box.header


def test_a_single_body_shares_the_header() -> None:
    body = b"From here on Mon\nSubject: x\n\nhello\n"
    box = locate(PartStore.of(body), 0, len(body), MAIL)
    (place,) = box.places
    assert (place.key, place.start, place.header, body[place.body : place.end]) == (
        "1",
        17,
        b"Subject: x\n\n",
        b"hello\n",
    )
    assert box.line_end == b"\n" and box.boundary is None and box.first_field == 17


def container(body: bytes, declared: Declared = MAIL) -> Container:
    return locate(PartStore.of(body), 0, len(body), declared)


NESTED = multipart(TEXT, boundary=b"inner")
OPEN_NESTED = b'Content-Type: multipart/mixed; boundary="inner"\r\n\r\n' + multipart(TEXT, boundary=b"inner", close=b"")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"),
        (b"just a text", "not a mail"),
        (mail(type=b"Content-Type: multipart/mixed\r\n"), "type or its boundary"),
        (mail(type=b"Content-Type: multipart/mixed; boundary=frontier; boundary=other\r\n"), "type or its boundary"),
        (mail(type=b"Content-Type: multipart/mixed; boundary=frontier\r\nContent-Type: text/plain\r\n"), "its header"),
        (mail(more=b"Content-Transfer-Encoding: base64\r\n"), "type or its boundary"),
        (mail(more=b"no field\r\n"), "its header"),
        (mail(more=b"X: a\rContent-Type: text/plain\r\n"), "its header"),
        (mail(b"no delimiter at all\r\n"), "no delimiter"),
        (mail(multipart(TEXT) + b"--frontierX\r\n"), "its delimiters"),
        (mail(multipart(TEXT, b"\r\nx --frontier\r\n")), "its delimiters"),
        (mail(multipart(TEXT, b"\r\nx\r--frontier\r\n")), "its delimiters"),
        (mail(multipart(OPEN_NESTED, TEXT)), "not closed"),
    ],
)
def test_what_readers_do_not_agree_about_is_not_located(body: bytes, why: str) -> None:
    with pytest.raises(Opaque, match=why):
        container(body, Declared() if why == "not a mail" else MAIL)


def test_what_another_format_could_open_is_not_located() -> None:
    body = mail() + bytes(40_000)
    assert len(container(body, Declared()).places) == 2
    assert len(container(body + b"CD001", Declared()).places) == 2
    for stray, at in ((b"PK\3\4", len(body)), (b"CD001", 32769)):
        with pytest.raises(Opaque, match="can also be read as"):
            container(body[:at] + stray + body[at + len(stray) :], Declared())


def test_a_header_with_doubts_does_not_matter_for_where_the_part_stands() -> None:
    box = container(mail(multipart(TEXT, part(more=b"junk line\r\nX: y\r\n"), TEXT)))
    assert [place.certain for place in box.places] == [True, False, True]
