"""Files of the corpus walked in pieces: what comes of a body must not depend on how it was cut."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from icapscan.cli.http_file import pieces_of, read_response
from icapscan.findings import Anomaly
from icapscan.limits import KIB, Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.events import PartFailed
from icapscan.unwrap.tree import PartReady, WalkEvent
from icapscan.unwrap.walker import Walker

LARGE = 200 * KIB
"""Bytes of a file from which on it is walked in random pieces instead of byte by byte."""
_MAIL = Declared(media_type="message/rfc822")


class Body(Struct, frozen=True):
    """One body in a file; a raw HTTP response may be read as several."""

    data: bytes
    declared: Declared = Declared()
    coding: bytes = b""


class Outcome(Struct, frozen=True):
    """All that a walker says of a body."""

    parts: tuple[tuple[object, ...], ...]
    """Path, SHA-256, size, declared, reading, audience, who opened it; by path."""
    failures: frozenset[tuple[str, str, str]]
    anomalies: frozenset[Anomaly]
    spent: str

    def differs(self, other: Outcome) -> str:
        """What is not the same in another outcome; empty where nothing is.

        Where a bound was reached, how far the decoders came may differ by a step: then only the bound counts.
        """
        if self.spent or other.spent:
            return "" if self.spent == other.spent else f"spent: {self.spent!r}, {other.spent!r}"
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                only = [one for one in mine if one not in theirs], [one for one in theirs if one not in mine]
                return f"{name}: {only[0]!r:.700} / {only[1]!r:.700}"
        return ""


@lru_cache(maxsize=64)
def bodies(file: Path, kind: str) -> tuple[Body, ...]:
    """The bodies in a file of this kind of the manifest."""
    data = file.read_bytes()
    if kind.startswith("mime"):
        return (Body(data, _MAIL),)
    if kind in ("base64", "quoted-printable"):
        head = f"Content-Transfer-Encoding: {kind}\r\nMIME-Version: 1.0\r\n\r\n".encode()
        return (Body(head + data, _MAIL),)
    if kind == "http-response":
        response, store = read_response(data), PartStore.of(data)
        declared = Declared((response.name,) if response.name else (), response.media_type)
        return tuple(
            Body(b"".join(map(bytes, pieces_of(reading, store))), declared, reading.content_encoding)
            for reading in response.readings
        )
    return (Body(data, Declared((file.name,))),)


def outcome(body: Body, pieces: Iterable[bytes]) -> Outcome:
    """Walk a body that comes in these pieces."""
    limits = Limits()
    budget, purse = Budget(limits), Purse(limits.memory, limits.disk)

    def new_store() -> PartStore:
        return PartStore(purse, limits)

    virgin = new_store()
    walker = Walker(budget, new_store, virgin, declared=body.declared, content_encoding=body.coding)
    parts: list[tuple[object, ...]] = []
    failures: set[tuple[str, str, str]] = set()
    anomalies: set[Anomaly] = set()

    def take(events: Iterable[WalkEvent]) -> None:
        for event in events:
            if isinstance(event, PartReady):
                digest = hashlib.sha256(event.store.view() if event.store.size else b"").hexdigest()
                said = event.declared, event.reading, event.audience, event.opened
                parts.append((event.path, digest, event.store.size, *said))
                if event.path:
                    event.store.close()
            elif isinstance(event, PartFailed):
                failures.add((event.path, event.reason.value, event.detail))
            else:
                anomalies.add(event.anomaly)

    try:
        for piece in pieces:
            budget.take_body(len(piece))
            virgin.append(piece)
            if not walker.idle:
                take(walker.feed(piece))
        for events in walker.finish():
            take(events)
    finally:
        walker.close()
        virgin.close()
    by_path = tuple(sorted(parts, key=lambda part: str(part[0])))
    return Outcome(by_path, frozenset(failures), frozenset(anomalies), budget.spent or "")


@lru_cache(maxsize=256)
def whole(body: Body) -> Outcome:
    """The same in one piece."""
    return outcome(body, (body.data,) if body.data else ())


def single(data: bytes) -> Iterator[bytes]:
    """One byte after the other."""
    for at in range(len(data)):
        yield data[at : at + 1]


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The data, cut at these places."""
    last = 0
    for place in sorted({place for place in places if 0 < place < len(data)}):
        yield data[last:place]
        last = place
    if last < len(data):
        yield data[last:]
