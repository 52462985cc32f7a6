"""From another message to what an MTA is asked to change: header fields one by one, then the whole body. Pure.

A milter cannot replace a message. Fields are compared by name, in their order among those of one name; what a field
means does not depend on its place among others (RFC 5322 3.6). New fields go to the end of the header section.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from icapscan.store import PartStore
from icapscan.wire.milter_codes import PIECE
from icapscan.wire.milter_events import AddHeader, ChangeHeader, FromFilter, ReplaceBody

Field = tuple[bytes, bytes]
"""Name, and everything behind the colon with its white space; lines are joined by LF."""

HEAD_MOST = 1024 * 1024
"""Bytes of the header section of a message that is taken in place of another."""
_END = re.compile(rb"\A\r?\n|\n\r?\n")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\n]|\n(?=[ \t]))*)")
_LINE_END = re.compile(rb"\r?\n(?![ \t])")


def read_message(store: PartStore) -> tuple[list[Field], int] | None:
    """The header fields, and where the body begins; None for what is no message that an MTA could be told about."""
    head = b""
    for piece in store.pieces():
        head += bytes(piece)
        if (end := _END.search(head)) is not None:
            fields = read_fields(head[: end.start() + (1 if end.start() else 0)])
            return None if fields is None else (fields, end.end())
        if len(head) > HEAD_MOST:
            return None
    return None


def read_fields(head: bytes) -> list[Field] | None:
    """The fields of a header section (each line ended); None where a line is no field or a NUL is in it."""
    fields = []
    for line in _LINE_END.split(head):
        if not line:
            continue
        match = _FIELD.fullmatch(line.replace(b"\r\n", b"\n"))
        if match is None or b"\0" in line:
            return None
        fields.append((match[1], match[2]))
    return fields


def header_changes(before: Sequence[Field], after: Sequence[Field], *, leading_space: bool) -> list[FromFilter]:
    """What makes ``after`` of ``before``. ``leading_space``: values go with the white space behind the colon."""
    old, new = _by_name(before), _by_name(after)
    changes: list[FromFilter] = []
    for name, fields in old.items():
        wanted = new.get(name, [])
        for index, (ours, theirs) in enumerate(zip(fields, wanted, strict=False), 1):
            if _value(ours[1], leading_space) != (value := _value(theirs[1], leading_space)):
                changes.append(ChangeHeader(index, ours[0], value))
        for index in range(len(fields), len(wanted), -1):  # from the last, so that the others keep their numbers
            changes.append(ChangeHeader(index, fields[index - 1][0], b""))
    seen: defaultdict[bytes, int] = defaultdict(int)
    for name, value in after:
        key = name.lower()
        seen[key] += 1
        if seen[key] > len(old.get(key, ())):
            changes.append(AddHeader(name, _value(value, leading_space)))
    return changes


def body_changes(store: PartStore, start: int) -> Iterable[ReplaceBody]:
    """The bytes from ``start`` on as a new body; at least one piece, for an empty body is one, too."""
    if start >= store.size:
        yield ReplaceBody(b"")
    for piece in store.pieces(start, PIECE):
        yield ReplaceBody(bytes(piece))


def _by_name(fields: Sequence[Field]) -> dict[bytes, list[Field]]:
    found: defaultdict[bytes, list[Field]] = defaultdict(list)
    for field in fields:
        found[field[0].lower()].append(field)
    return found


def _value(value: bytes, leading_space: bool) -> bytes:
    """As it is sent. An empty one would delete the field."""
    if not leading_space and value[:1] == b" ":
        value = value[1:]
    return value or b" "
