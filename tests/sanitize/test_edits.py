"""A body with edits: pieces, size, tail and prefix, held against plain slicing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.limits import KIB, Limits
from icapscan.sanitize.edits import Edit, Edits
from icapscan.store import READ_SIZE, PartStore, Purse


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, list[Edit]]:
    """A body and edits that do not overlap, in any order."""
    body = draw(st.binary(max_size=200))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    edits = [
        Edit(start, end - start, draw(st.binary(max_size=20)))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    unique = [one for at, one in enumerate(edits) if not at or edits[at - 1].offset < one.offset]
    return body, draw(st.permutations(unique))


def spliced(body: bytes, edits: list[Edit]) -> bytes:
    """The reference: from the last edit to the first, so that no offset moves."""
    for edit in sorted(edits, key=lambda edit: (edit.offset, edit.length), reverse=True):
        body = body[: edit.offset] + edit.data + body[edit.offset + edit.length :]
    return body


def stores(body: bytes) -> list[PartStore]:
    """The body in memory, and in a file."""
    small = Limits(part_in_bytes=16, part_in_memory=64)
    file = PartStore(Purse(1 << 20, 1 << 20), small)
    file.append(body)
    return [PartStore.of(body), file]


@given(edited())
def test_the_pieces_are_the_body_with_the_edits(given: tuple[bytes, list[Edit]]) -> None:
    body, some = given
    edits = Edits(some)
    for store in stores(body):
        with_edits = b"".join(edits.pieces(store))
        assert with_edits == spliced(body, some)
        assert edits.size(len(body)) == len(with_edits)
        tail = edits.tail(len(body))
        assert b"".join(edits.prefix(store)) + body[tail:] == with_edits
        assert not some or tail == max(one.end for one in some)
        store.close()


@given(edited(), st.integers(0, 12))
def test_edits_merge(given: tuple[bytes, list[Edit]], cut: int) -> None:
    some = given[1]
    assert Edits(some[:cut]).merged(some[cut:]) == Edits(some)
    assert list(Edits(some)) == sorted(some, key=lambda edit: edit.offset)


def test_without_edits_nothing_changes() -> None:
    store = PartStore.of(b"body")
    edits = Edits()
    assert not len(edits) and edits.size(4) == 4 and edits.tail(4) == 0
    assert b"".join(edits.pieces(store)) == b"body" and b"".join(edits.prefix(store)) == b""


def test_an_insertion_stands_before_a_replacement_at_the_same_offset() -> None:
    edits = Edits([Edit(1, 2, b"two"), Edit(1, 0, b"one")])
    assert b"".join(edits.pieces(PartStore.of(b"abcd"))) == b"aonetwod"


def test_neighbours_do_not_overlap() -> None:
    edits = Edits([Edit(2, 2, b""), Edit(0, 2, b"x"), Edit(4, 0, b"y")])
    assert b"".join(edits.pieces(PartStore.of(b"abcd"))) == b"xy"
    assert edits.tail(4) == 4


@pytest.mark.parametrize(
    "some",
    [
        [Edit(0, 3, b""), Edit(2, 1, b"")],
        [Edit(0, 3, b""), Edit(1, 0, b"x")],
        [Edit(1, 2, b""), Edit(1, 2, b"")],
        [Edit(1, 0, b"a"), Edit(1, 0, b"b")],
        [Edit(-1, 1, b"")],
        [Edit(1, -1, b"")],
    ],
)
def test_edits_that_overlap_are_refused(some: list[Edit]) -> None:
    with pytest.raises(ValueError):
        Edits(some)


def test_an_edit_past_the_end_is_refused_before_the_first_piece() -> None:
    store = PartStore.of(b"abc")
    edits = Edits([Edit(2, 2, b"")])
    for use in (lambda: edits.size(3), lambda: edits.tail(3), lambda: edits.pieces(store), lambda: edits.prefix(store)):
        with pytest.raises(ValueError):
            use()


def test_pieces_are_bounded() -> None:
    body = bytes(700 * KIB)
    edits = Edits([Edit(5, 1, b"x" * (READ_SIZE + 1))])
    pieces = list(edits.pieces(PartStore.of(body)))
    assert max(map(len, pieces)) <= READ_SIZE
    assert b"".join(pieces) == spliced(body, list(edits))
