"""A body with a few places changed, as a list of replacements: nothing is copied that did not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from icapscan.store import READ_SIZE, PartStore


class Edit(Struct, frozen=True):
    """``data`` takes the place of ``length`` bytes of the virgin body at ``offset``; a length of 0 inserts."""

    offset: int
    length: int
    data: bytes

    @property
    def end(self) -> int:
        """The first offset behind what is replaced."""
        return self.offset + self.length


class Edits:
    """Replacements in one virgin body, in order of their offsets, none overlapping another."""

    __slots__ = ("_edits",)

    def __init__(self, edits: Iterable[Edit] = ()) -> None:
        """In any order; of two at the same offset, one that only inserts comes first.

        Raises ValueError where two overlap, where two insert at the same offset (nobody could tell which comes first),
        or where an offset or a length is negative.
        """
        ordered = sorted(edits, key=lambda edit: (edit.offset, edit.length))
        before: Edit | None = None
        for edit in ordered:
            if edit.offset < 0 or edit.length < 0:
                raise ValueError("an edit has a negative offset or length")
            if before is not None and (edit.offset < before.end or (edit.offset == before.offset and not edit.length)):
                raise ValueError(f"two edits overlap at offset {edit.offset}")
            before = edit
        self._edits = tuple(ordered)

    def __iter__(self) -> Iterator[Edit]:
        return iter(self._edits)

    def __len__(self) -> int:
        return len(self._edits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Edits) and self._edits == other._edits

    def __hash__(self) -> int:
        return hash(self._edits)

    def size(self, virgin_size: int) -> int:
        """Bytes of the adapted body. Raises ValueError where an edit goes past the end of the virgin body."""
        self._check(virgin_size)
        return virgin_size + sum(len(edit.data) - edit.length for edit in self._edits)

    def tail(self, virgin_size: int) -> int:
        """The offset in the virgin body from which on nothing changes; ``virgin_size`` where the end itself changes.

        An ICAP 206 answer sends the adapted bytes up to here (`prefix`) and then says ``use-original-body=<offset>``.
        Raises ValueError as `size` does.
        """
        self._check(virgin_size)
        return self._edits[-1].end if self._edits else 0

    def pieces(self, store: PartStore) -> Iterator[bytes | memoryview]:
        """The adapted body, in pieces of at most `READ_SIZE`. Raises ValueError as `size` does, before the first."""
        self._check(store.size)
        return self._pieces(store, store.size)

    def prefix(self, store: PartStore) -> Iterator[bytes | memoryview]:
        """The adapted body up to `tail`. Raises ValueError as `size` does, before the first piece."""
        return self._pieces(store, self.tail(store.size))

    def merged(self, others: Iterable[Edit]) -> Edits:
        """These and others together. Raises ValueError where they overlap."""
        return Edits((*self._edits, *others))

    def _check(self, virgin_size: int) -> None:
        if self._edits and self._edits[-1].end > virgin_size:
            raise ValueError("an edit goes past the end of the body")

    def _pieces(self, store: PartStore, end: int) -> Iterator[bytes | memoryview]:
        at = 0
        for edit in self._edits:
            yield from virgin(store, at, edit.offset)
            for start in range(0, len(edit.data), READ_SIZE):
                yield memoryview(edit.data)[start : start + READ_SIZE]
            at = edit.end
        yield from virgin(store, at, end)


def virgin(store: PartStore, start: int, end: int) -> Iterator[bytes | memoryview]:
    """The bytes of a body from ``start`` to ``end``, in pieces of at most `READ_SIZE`."""
    if start >= end:
        return
    left = end - start
    for piece in store.pieces(start):
        if len(piece) >= left:
            yield piece[:left]
            return
        yield piece
        left -= len(piece)
    raise OSError("a stored part became shorter")
