"""Nothing bad is left in any reading: mails that were made to be misread, and mails that were damaged at random."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from icapscan.sanitize.contract import CannotSanitize
from tests.sanitize.mails import corpus_mails, sanitized, walked
from tests.unwrap.samples_mime import EICAR, TEXT, mail, multipart, part
from tests.unwrap.toys import Walked

ZIP = b'Content-Type: application/zip; name="a.zip"\r\n'


def bad_paths(tree: Walked) -> list[str]:
    """Every part with EICAR in it, however it was read; of a container that was opened, what stands in it.

    Without skeletons: what stands in no part but in a header, nobody who opens the mail can run.
    """
    return [
        path
        for path, data in tree.parts.items()
        if EICAR in data and "mime" not in tree.ready[path].opened and not path.endswith("skeleton")
    ]


def left(body: bytes) -> list[str] | None:
    """Paths that hold EICAR after sanitising; None where that is refused."""
    paths = bad_paths(walked(body))
    if not paths:
        return []
    try:
        return bad_paths(walked(sanitized(body, *paths).after))
    except CannotSanitize:
        return None


def test_no_reading_of_a_mail_made_to_be_misread_has_anything_bad_left(corpus: Path) -> None:
    rewritten = refused = 0
    for name, body in corpus_mails(corpus):
        if not bad_paths(walked(body)):
            continue
        rest = left(body)
        assert not rest, (name, rest)
        rewritten += rest is not None
        refused += rest is None
    assert rewritten > 100 and refused > 50


SAMPLES = [
    mail(multipart(TEXT, part(), TEXT)),
    mail(multipart(part(EICAR, encoding=b""), TEXT)).replace(b"\r\n", b"\n"),
    mail(multipart(TEXT, b"Content-Type: message/rfc822\r\n\r\n" + mail().replace(b"frontier", b"inner"), part())),
    mail(
        multipart(
            TEXT,
            b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b64encode(mail()),
            b'Content-Type: multipart/mixed; boundary="other"\r\n\r\n' + multipart(part(), boundary=b"other"),
        )
    ),
    mail(part(blank=b""), type=b"", more=b"Content-Transfer-Encoding: base64\r\n"),
]
BITS = [
    b"\r\n", b"\n", b"\r", b"--", b"--frontier", b"--frontier--", b"--inner\r\n", b"\r\n\r\n", b" ", b"=", b"\0", b":",
    b"Content-Type: text/plain\r\n", b"Content-Transfer-Encoding: 7bit\r\n", b"\r\n--frontier\r\n", b"boundary=x;",
    EICAR, b"junk\r\n", b'"', b"PK\3\4",
]  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 12), st.sampled_from([b"", *BITS])), max_size=4)


@given(st.sampled_from(SAMPLES), CHANGES)
def test_no_reading_of_a_damaged_mail_has_anything_bad_left(body: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    for at, length, bit in changes:
        at %= len(body) + 1
        body = body[:at] + bit + body[at + length :]
    assert not left(body)


def test_the_samples_can_be_rewritten() -> None:
    for body in SAMPLES:
        assert bad_paths(walked(body)) and left(body) == []
