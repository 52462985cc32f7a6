"""Members of a zip that are not decoded in process: encrypted ones, and those packed by rare methods.

Encrypted ones are tried with the passwords that everybody knows, by libarchive (PKWARE's old encryption and AES); the
rare methods (implode, shrink, PPMd, …) by 7-Zip. What both cannot do is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap import libarchive, sevenzip
from icapscan.unwrap.events import Audience, PartEvent, PartFailed, Waiting
from icapscan.unwrap.members import Members


class Locked(Struct, frozen=True):
    """A member that was not decoded."""

    reason: Reason
    """ENCRYPTED or UNSUPPORTED."""
    names: tuple[str, ...]
    size: int
    """Bytes of the member as its header says."""
    detail: str


def other_ways(store: PartStore, members: Members, locked: list[Locked]) -> Iterator[PartEvent | Waiting]:
    """Try them, and tell what stays closed. Raises `Stop` when the budget is spent."""
    members.audience = Audience.ALL  # clamd has no passwords and knows few of these methods
    encrypted = [one for one in locked if one.reason is Reason.ENCRYPTED]
    if encrypted:
        yield from _encrypted(store, members, encrypted)
    others = [one for one in locked if one.reason is not Reason.ENCRYPTED]
    if others:
        yield from _rare(store, members, others)


def _encrypted(store: PartStore, members: Members, locked: list[Locked]) -> Iterator[PartEvent | Waiting]:
    outcome = yield from libarchive.unpack(store, members, ("zip",), only_encrypted=True)
    if outcome.done:
        yield from members.anomaly("opened-with-a-known-password")
    for key, _, _ in outcome.failed:
        yield PartFailed(key, Reason.ENCRYPTED, "It is encrypted.")
    for one in locked:
        told = outcome.failed or any(name in outcome.done for name in one.names)
        if not told:
            yield from members.failed(one.names, one.reason, one.detail)


def _rare(store: PartStore, members: Members, locked: list[Locked]) -> Iterator[PartEvent | Waiting]:
    results: list[tuple[Reason, str] | None] = [(one.reason, one.detail) for one in locked]
    if sevenzip.program() is not None:
        wanted = [(one.names[0] if one.names else "", one.size) for one in locked]
        tried = yield from sevenzip.unpack_named(store, members, wanted)
        results = [None if got is None else told for got, told in zip(tried, results, strict=True)]
    for one, result in zip(locked, results, strict=True):
        if result is not None:
            yield from members.failed(one.names, *result)
