"""What a header says of whether anybody may be told by mail."""

from __future__ import annotations

import pytest

from icapscan.notify.guard import FIELD, Marks, marks_of

HEAD = b"From: a@example.org\r\nSubject: x\r\n"


@pytest.mark.parametrize(
    ("line", "marks"),
    [
        (b"", Marks()),
        (b"Auto-Submitted: no\r\n", Marks()),
        (b"auto-submitted: NO; x=y\r\n", Marks()),
        (b"Auto-Submitted: auto-generated\r\n", Marks(automatic=True)),
        (b"Auto-Submitted:\r\n auto-replied\r\n", Marks(automatic=True)),
        (b"AUTO-SUBMITTED : auto-notified (x)\r\n", Marks(automatic=True)),
        (b"Auto-Submitted:\r\n", Marks(automatic=True)),
        (b"Auto-Submitted: no\r\nAuto-Submitted: auto-replied\r\n", Marks(automatic=True)),
        (b"X-Icapscan-Notice: 1\r\n", Marks(own=True)),
        (b"x-icapscan-notice:\r\n", Marks(own=True)),
        (b"Precedence: bulk\r\n", Marks(bulk=True)),
        (b"Precedence: first-class\r\n", Marks()),
        (b"List-Id: <x.example.org>\r\n", Marks(bulk=True)),
        (b"X-Auto-Submitted: auto-replied\r\nX-Y: Auto-Submitted: a\r\n", Marks()),
        (b"X-Folded: a\r\n Auto-Submitted: auto-replied\r\n", Marks()),
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
def test_marks_of_a_header_with_any_line_ends(line: bytes, marks: Marks, end: bytes) -> None:
    assert marks_of((HEAD + line).replace(b"\r\n", end)) == marks
    assert marks_of((line + HEAD).replace(b"\r\n", end)) == marks


def test_our_own_field_is_the_one_that_is_looked_for() -> None:
    assert marks_of(f"{FIELD}: x\n".encode()).own
