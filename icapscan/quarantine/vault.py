"""The quarantine: bodies are kept encrypted, within bounds, and each of them has a row in the index.

Synchronous: servers call it in a thread. Several processes may use one folder at the same time. What cannot be kept
is a `QuarantineFailed`, and then nothing of it stays behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property

import msgspec
from msgspec.structs import replace

from icapscan.errors import ConfigError, NoSuchItem, QuarantineFailed, QuarantineFull
from icapscan.quarantine.check import load_keys, usable_folder
from icapscan.quarantine.index import BUSY_SECONDS, Index, Rows, give_to_owner_of
from icapscan.quarantine.item import HELD, Act, Entry, Item, Kind, State, entry_of, is_id, new_id, printable
from icapscan.quarantine.keys import Keys
from icapscan.quarantine.marks import marked, peek
from icapscan.quarantine.sealed import Sealed, seal
from icapscan.quarantine.settings import QuarantineSettings

SCANNER = "icapscan"
"""Who acts where no person does."""
_log = logging.getLogger("icapscan")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_DESCRIBED = ("size", "stored", "sha256", "state", "released")
"""What an item's file does not say of itself: it is not known when the file is begun, or changes."""


class Quarantine:
    """One folder of kept items, and its index."""

    def __init__(
        self, settings: QuarantineSettings, *, busy: float = BUSY_SECONDS, now: Callable[[], float] = time.time
    ) -> None:
        """Makes the folder where only it is missing. Raises `ConfigError`.

        Keys are read when they are first needed (`keys`). ``busy``: seconds to wait for another process's lock.
        """
        self.settings = settings
        self.folder = usable_folder(settings, make=True)
        self.items = os.path.join(self.folder, "items")
        self.index = Index(os.path.join(self.folder, "index.sqlite"), busy)
        self.now = now
        try:
            if not os.path.isdir(self.items):
                self._make_items()
        except OSError as error:
            raise QuarantineFailed(f"The folder {self.items} cannot be made: {error.strerror}.") from error

    @cached_property
    def keys(self) -> Keys:
        """The configured keys. Raises `ConfigError`."""
        return load_keys(self.settings)

    def path(self, name: str) -> str:
        """The file of the item with that id. Raises `NoSuchItem` for what is no id."""
        if not is_id(name):
            raise NoSuchItem(f"There is no item {printable(name, 40)} in the quarantine.")
        return os.path.join(self.items, name)

    # Keeping

    def keep(self, pieces: Iterable[bytes | memoryview], item: Item, *, who: str = SCANNER) -> str:
        """Keep a body; returns its id when file and row are safely on the disk.

        Raises `QuarantineFull` where bounds or disk leave no room, `QuarantineFailed` where it cannot be written or the
        index is locked; the sentence is plain. What ``pieces`` raises goes through, but for OSError. In each case
        nothing of the item stays.
        """
        try:
            keys = self.keys
            came_back = ""
            if item.kind is Kind.MAIL:
                head, pieces = peek(pieces)
                came_back = marked(head, keys)
            entry = entry_of(item, new_id(), self.now(), keys.current.number.hex(), came_back)
            with self._written(entry, pieces) as whole:
                acts = self._enter(whole, who)
        except OSError as error:
            raise _failure(error) from error
        except ConfigError as error:  # a key file that changed since the start
            raise QuarantineFailed(str(error)) from error
        for act in acts:
            if act.item != entry.id:
                self._remove(act.item)
            self.log(act)
        return entry.id

    @contextmanager
    def _written(self, entry: Entry, pieces: Iterable[bytes | memoryview]) -> Iterator[Entry]:
        """The entry with its file in place; where the context fails, the file is removed again.

        The file stays locked meanwhile, by which `sweep` knows that it is not an orphan.
        """
        path = self.path(entry.id)
        new = f"{path}.new"
        place = new
        room = self._room()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            give_to_owner_of(self.folder, descriptor)
            entry = self._fill(descriptor, entry, pieces, room)
            os.rename(new, path)
            place = path
            self._sync_folder()
            yield entry
        except BaseException:
            with suppress(OSError):  # what cannot be removed is found by `sweep`
                os.unlink(place)
            raise
        finally:
            os.close(descriptor)

    def _fill(self, descriptor: int, entry: Entry, pieces: Iterable[bytes | memoryview], room: int) -> Entry:
        digest = hashlib.sha256()
        size = stored = 0

        def counted() -> Iterator[bytes | memoryview]:
            nonlocal size
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                yield piece

        for data in seal(counted(), self.keys.current, entry.id, describe(entry)):
            stored += len(data)
            if stored > room:
                raise self._full()
            _write_all(descriptor, data)
        os.fsync(descriptor)
        return replace(entry, size=size, stored=stored, sha256=digest.hexdigest())

    def _room(self) -> int:
        """Bytes that the next item may have, before anything is written. Raises `QuarantineFull`."""
        settings = self.settings
        if settings.full == "oldest":
            return settings.max_size
        with self.index.reading() as rows:
            items, size = rows.totals()
            if items < settings.max_items and size < settings.max_size:
                return settings.max_size - size
            aged = next(rows.oldest(self.now() - settings.max_age), None)
        if aged is None:
            raise self._full()
        self.expire()
        with self.index.reading() as rows:
            items, size = rows.totals()
        if items >= settings.max_items or size >= settings.max_size:
            raise self._full()
        return settings.max_size - size

    def _enter(self, entry: Entry, who: str) -> list[Act]:
        """Add the row, within the bounds; returns what was done for it. Raises `QuarantineFull`."""
        acts: list[Act] = []
        with self.index.writing() as rows:
            items, size = rows.totals()
            settings = self.settings
            if items + 1 > settings.max_items or size + entry.stored > settings.max_size:
                if settings.full == "refuse":
                    raise self._full()
                acts = self._make_room(rows, items, size + entry.stored)
            rows.insert(entry)
            detail = f"came back after the release of {entry.came_back}" if entry.came_back else ""
            acts.append(self.act(who, "keep", entry.id, detail))
            rows.add(acts[-1])
        return acts

    def _make_room(self, rows: Rows, items: int, size: int) -> list[Act]:
        """Expire the oldest items until one more fits; ``size`` has it counted already."""
        gone: list[Entry] = []
        for one in rows.oldest():
            if items < self.settings.max_items and size <= self.settings.max_size:
                break
            gone.append(one)
            items -= 1
            size -= one.stored
        return [self.end(rows, one, State.EXPIRED, SCANNER, "expire", "to make room") for one in gone]

    def _full(self) -> QuarantineFull:
        return QuarantineFull(
            "The quarantine is full: quarantine.max_size or quarantine.max_items leaves no room for this item."
        )

    # Looking and reading

    def list(self, states: Sequence[State] = HELD) -> list[Entry]:
        """The items in these states, the newest first."""
        with self.index.reading() as rows:
            return list(rows.newest(states))

    def show(self, name: str) -> tuple[Entry, Sequence[Act]]:
        """An item and what was done with it. Raises `NoSuchItem`."""
        self.path(name)
        with self.index.reading() as rows:
            return rows.get(name), rows.acts(name)

    def read(self, name: str) -> Iterator[bytes]:
        """The body of an item, in pieces.

        Raises `NoSuchItem` at once; `Damaged`, at once or at a later piece, where its file is not as it was written.
        What came before was good, but whoever wants all or nothing reads it twice.
        """
        entry = self.held(name)
        try:
            file = open(self.path(name), "rb", buffering=0)  # closed by the generator
        except FileNotFoundError as error:
            raise QuarantineFailed(f"The file of the item {name} is gone. Run icapscan quarantine sweep.") from error
        except OSError as error:
            raise QuarantineFailed(f"The file of the item {name} cannot be read: {error.strerror}.") from error
        try:
            sealed = Sealed(file, entry.id, self.keys)
        except BaseException:
            file.close()
            raise

        def pieces() -> Iterator[bytes]:
            with file:
                try:
                    yield from sealed.pieces()
                except OSError as error:
                    raise QuarantineFailed(f"The file of the item {name} cannot be read: {error.strerror}.") from error

        return pieces()

    def held(self, name: str) -> Entry:
        """The entry of an item whose bytes should be there. Raises `NoSuchItem`."""
        self.path(name)
        with self.index.reading() as rows:
            entry = rows.get(name)
        if entry.state not in HELD:
            raise NoSuchItem(f"The item {name} is no longer there: it is {entry.state.value}.")
        return entry

    # Ending

    def delete(self, name: str, *, who: str, detail: str = "") -> None:
        """Remove the bytes of an item; its row stays for a while. Raises `NoSuchItem`."""
        self.path(name)
        with self.index.writing() as rows:
            entry = rows.get(name)
            if entry.state not in HELD:
                raise NoSuchItem(f"The item {name} is no longer there: it is {entry.state.value}.")
            act = self.end(rows, entry, State.DELETED, who, "delete", detail)
        self._remove(name)
        self.log(act)

    def expire(self) -> int:
        """Remove what is older than ``max_age``, and rows older than ``history``; returns how many items went."""
        now = self.now()
        with self.index.writing() as rows:
            aged = list(rows.oldest(now - self.settings.max_age))
            acts = [self.end(rows, one, State.EXPIRED, SCANNER, "expire", "too old") for one in aged]
            rows.forget(now - max(self.settings.history, self.settings.max_age))
        for act in acts:
            self._remove(act.item)
            self.log(act)
        return len(acts)

    def end(self, rows: Rows, entry: Entry, state: State, who: str, what: str, detail: str) -> Act:
        """The row of an item that goes. Its file is removed when the row is safe, so that no row lacks its file."""
        rows.change(entry.id, state)
        act = self.act(who, what, entry.id, detail)
        rows.add(act)
        return act

    def act(self, who: str, what: str, name: str, detail: str = "") -> Act:
        """An act of now."""
        return Act(self.now(), printable(who), what, name, printable(detail))

    def record(self, what: str, name: str, *, who: str, detail: str = "") -> None:
        """Note an act that changes nothing in the quarantine itself (an export, a failed release)."""
        act = self.act(who, what, name, detail)
        with self.index.writing() as rows:
            rows.add(act)
        self.log(act)

    def log(self, act: Act) -> None:
        """One line for an act."""
        detail = f" detail={json.dumps(act.detail)}" if act.detail else ""
        _log.info("quarantine act=%s item=%s who=%s%s", act.what, act.item or "-", json.dumps(act.who), detail)

    def _remove(self, name: str) -> None:
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            pass  # gone is what it should be
        except OSError as error:
            _log.warning(
                "quarantine: the file of the removed item %s is still there (%s); the next sweep tries again.",
                name,
                error.strerror,
            )

    def _sync_folder(self) -> None:
        descriptor = os.open(self.items, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _make_items(self) -> None:
        os.makedirs(self.items, 0o700, exist_ok=True)
        descriptor = os.open(self.items, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            give_to_owner_of(self.folder, descriptor)
        finally:
            os.close(descriptor)


def describe(entry: Entry) -> bytes:
    """What an item's file says of itself, encrypted: all that the index has but for size, digest and state."""
    fields = {key: value for key, value in msgspec.to_builtins(entry).items() if key not in _NOT_DESCRIBED}
    return json.dumps(fields).encode("ascii")


def described(description: bytes) -> Entry:
    """The entry that an item's file describes. Raises ValueError for what is none."""
    return msgspec.convert(json.loads(description), Entry)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _failure(error: OSError) -> QuarantineFailed:
    if error.errno in _FULL:
        return QuarantineFull("There is no room left on the disk of the quarantine.")
    return QuarantineFailed(f"The quarantine cannot be written: {error.strerror or error}.")
