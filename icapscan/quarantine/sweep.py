"""Finds and mends what a crash left behind: files without a row, rows without a file, files never finished."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from icapscan.errors import Damaged, QuarantineFailed
from icapscan.quarantine.item import HELD, Entry, State, is_id
from icapscan.quarantine.sealed import Sealed
from icapscan.quarantine.vault import Quarantine, described

_UNFINISHED = ".new"
_YOUNG_SECONDS = 60.0
"""A file is locked by its writer at once, but not in the same moment in which it is made."""


class Swept(Struct, frozen=True):
    """What a sweep found and did."""

    expired: int = 0
    """Items that were too old."""
    adopted: tuple[str, ...] = ()
    """Files without a row that got one, and lost files that are back."""
    lost: tuple[str, ...] = ()
    """Rows without a file: what they tell of is gone."""
    removed: int = 0
    """Files that were never finished, or should have been gone."""
    unreadable: tuple[str, ...] = ()
    """Sentences about files that have no row and cannot be read either. They stay, unless they were to be dropped."""
    dropped: int = 0


def sweep(quarantine: Quarantine, *, who: str, drop: bool = False) -> Swept:
    """Mend files and rows, and remove what is too old. ``drop``: remove files that cannot be read and have no row.

    Safe while other processes keep items. Raises `QuarantineFailed` where folder or index cannot be used.
    """
    expired = quarantine.expire()
    with quarantine.index.reading() as rows:
        states = rows.states()
    try:
        names = os.listdir(quarantine.items)
    except OSError as error:
        raise QuarantineFailed(f"The folder {quarantine.items} cannot be read: {error.strerror}.") from error
    adopted, unreadable, removed, dropped = [], [], 0, 0
    for name in names:
        path = os.path.join(quarantine.items, name)
        try:
            if is_id(name.removesuffix(_UNFINISHED)) and name.endswith(_UNFINISHED):
                removed += _remove_unfinished(path)
            elif not is_id(name):
                unreadable.append(f"{path} is none of our files.")
            elif states.get(name, State.LOST) is State.LOST:
                if _adopt(quarantine, name, path, who):
                    adopted.append(name)
            elif states[name] not in HELD:
                os.unlink(path)
                removed += 1
        except FileNotFoundError:
            pass  # another process has just removed it
        except (QuarantineFailed, OSError) as error:
            if drop and isinstance(error, Damaged):  # and not for a key that is missing, or an index that is locked
                _drop(quarantine, name, path, who)
                dropped += 1
            else:
                unreadable.append(str(error))
    lost = _lost(quarantine, {name for name, state in states.items() if state in HELD} - set(names), who)
    return Swept(expired, tuple(adopted), tuple(lost), removed, tuple(unreadable), dropped)


def _remove_unfinished(path: str) -> bool:
    """Remove the file of a writer that is no longer there; a living one holds its lock."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not _lock(descriptor) or time.time() - os.fstat(descriptor).st_mtime < _YOUNG_SECONDS:
            return False
        os.unlink(path)
        return True
    finally:
        os.close(descriptor)


def _adopt(quarantine: Quarantine, name: str, path: str, who: str) -> bool:
    """Give a whole file its row: its writer died before the row was written, or the index was lost.

    Raises `QuarantineFailed` for a file that cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb", buffering=0) as file:
        if not _lock(descriptor):
            return False  # its writer is about to write the row
        with quarantine.index.reading() as rows:
            row = rows.find(name)
        if row is not None and row.state is not State.LOST:
            return False  # it just has
        entry = _verified(quarantine, name, Sealed(file, name, quarantine.keys), os.fstat(descriptor).st_size)
        act = quarantine.act(who, "recover", name, "a file without a row" if row is None else "its file is back")
        with quarantine.index.writing() as rows:
            if row is None:
                rows.insert(entry)
            else:
                rows.change(name, State.KEPT)
            rows.add(act)
    quarantine.log(act)
    return True


def _verified(quarantine: Quarantine, name: str, sealed: Sealed, stored: int) -> Entry:
    """The entry of a file whose every byte verifies."""
    digest = hashlib.sha256()
    size = 0
    for piece in sealed.pieces():
        digest.update(piece)
        size += len(piece)
    try:
        entry = described(sealed.description)
    except ValueError as error:
        raise QuarantineFailed(f"The item {name} was written by another release of icapscan.") from error
    return replace(entry, size=size, stored=stored, sha256=digest.hexdigest())


def _drop(quarantine: Quarantine, name: str, path: str, who: str) -> None:
    act = quarantine.act(who, "drop", name, "a file without a row that cannot be read")
    with quarantine.index.writing() as rows:
        rows.add(act)
    with suppress(FileNotFoundError):
        os.unlink(path)
    quarantine.log(act)


def _lost(quarantine: Quarantine, suspects: set[str], who: str) -> list[str]:
    """Mark the rows whose file is gone."""
    acts = []
    if suspects:
        with quarantine.index.writing() as rows:
            for name in sorted(suspects):
                entry = rows.find(name)
                if entry is not None and entry.state in HELD and not os.path.lexists(quarantine.path(name)):
                    acts.append(quarantine.end(rows, entry, State.LOST, who, "lose", "its file is gone"))
    for act in acts:
        quarantine.log(act)
    return [act.item for act in acts]


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
