"""The index of the quarantine: an SQLite file that several processes use at the same time.

Every call opens its own connection, so that any thread and any process may make it. Whatever SQLite cannot do is a
`QuarantineFailed` with a plain sentence.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec

from icapscan.errors import NoSuchItem, QuarantineFailed, QuarantineFull
from icapscan.quarantine.item import HELD, Act, Entry, State

VERSION = 1
BUSY_SECONDS = 10.0
"""Longest wait for another process's write. One takes milliseconds."""
_COLUMNS = Entry.__struct_fields__
_JSON = ("sender", "recipients", "findings")
"""Columns in JSON: a list, or an address, which may have bytes that are no text."""
_HELD = f"state IN ({', '.join(repr(state.value) for state in HELD)})"
_SCHEMA = f"""
CREATE TABLE items (
    id TEXT PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, service TEXT NOT NULL, direction TEXT NOT NULL,
    client TEXT NOT NULL, user TEXT NOT NULL, url TEXT NOT NULL, sender TEXT NOT NULL, recipients TEXT NOT NULL,
    name TEXT NOT NULL, media_type TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, findings TEXT NOT NULL,
    rule TEXT NOT NULL, reference TEXT NOT NULL, came_back TEXT NOT NULL, key TEXT NOT NULL, size INTEGER NOT NULL,
    stored INTEGER NOT NULL, sha256 TEXT NOT NULL, state TEXT NOT NULL, released INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX items_by_state ON items (state, time, stored);
CREATE INDEX items_by_time ON items (time);
CREATE TABLE acts (
    number INTEGER PRIMARY KEY, time REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, item TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX acts_by_item ON acts (item);
CREATE INDEX acts_by_time ON acts (time);
PRAGMA user_version = {VERSION};
"""


class Index:
    """The rows of items and acts in one file."""

    def __init__(self, path: str, busy: float = BUSY_SECONDS) -> None:
        """``busy``: seconds to wait for a lock of another process."""
        self._path = path
        self._busy = busy

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """Look at the rows."""
        with _plainly(), closing(self._connect()) as connection:
            yield Rows(connection)

    @contextmanager
    def writing(self) -> Iterator[Rows]:
        """One transaction: all of it is done, durably, or nothing. No other process writes meanwhile."""
        with _plainly(), closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield Rows(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        try:
            if not os.path.exists(self._path):
                _create(self._path)
        except OSError as error:
            raise QuarantineFailed(f"The index {self._path} cannot be made: {error.strerror}.") from error
        connection = sqlite3.connect(self._path, timeout=self._busy, isolation_level=None)
        try:
            version = _version(connection)
            if version == 0:
                self._prepare(connection)
            elif version != VERSION:
                raise QuarantineFailed(f"The index {self._path} was made by another release of icapscan ({version}).")
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables, one process at a time: SQLite does not wait when the mode of the journal changes."""
        descriptor = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _version(connection) == 0:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        finally:
            os.close(descriptor)


class Rows:
    """What can be asked of, and done in, one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Entry:
        """Raises `NoSuchItem`."""
        entry = self.find(name)
        if entry is None:
            raise NoSuchItem(f"There is no item {name} in the quarantine.")
        return entry

    def find(self, name: str) -> Entry | None:
        """The entry of that id, in whatever state."""
        return next(self._entries("WHERE id = ?", name), None)

    def newest(self, states: Iterable[State]) -> Iterator[Entry]:
        """Entries in these states, the newest first."""
        words = [state.value for state in states]
        return self._entries(f"WHERE state IN ({', '.join('?' * len(words))}) ORDER BY time DESC, id", *words)

    def oldest(self, before: float | None = None) -> Iterator[Entry]:
        """Entries whose bytes are there, the oldest first; only those kept before that time, where one is given."""
        if before is None:
            return self._entries(f"WHERE {_HELD} ORDER BY time, id")
        return self._entries(f"WHERE {_HELD} AND time < ? ORDER BY time, id", before)

    def totals(self) -> tuple[int, int]:
        """How many items are held, and the bytes of their files."""
        row = self._connection.execute(f"SELECT count(*), coalesce(sum(stored), 0) FROM items WHERE {_HELD}").fetchone()
        return int(row[0]), int(row[1])

    def states(self) -> dict[str, State]:
        """The state of every item, by id."""
        return {name: State(word) for name, word in self._connection.execute("SELECT id, state FROM items")}

    def insert(self, entry: Entry) -> None:
        """Add the row of a new item."""
        row = _row(entry)
        marks = ", ".join("?" * len(row))
        self._connection.execute(f"INSERT INTO items ({', '.join(_COLUMNS)}) VALUES ({marks})", row)

    def change(self, name: str, state: State, *, released: int = 0) -> None:
        """Give an item another state; ``released`` more releases."""
        self._connection.execute(
            "UPDATE items SET state = ?, released = released + ? WHERE id = ?", (state.value, released, name)
        )

    def add(self, act: Act) -> None:
        """Record who did what."""
        row = (act.time, act.who, act.what, act.item, act.detail)
        self._connection.execute("INSERT INTO acts (time, who, what, item, detail) VALUES (?, ?, ?, ?, ?)", row)

    def acts(self, name: str) -> list[Act]:
        """What was done with an item, in order."""
        rows = self._connection.execute(
            "SELECT time, who, what, item, detail FROM acts WHERE item = ? ORDER BY number", (name,)
        )
        return [Act(*row) for row in rows]

    def forget(self, before: float) -> int:
        """Drop the rows of items that are gone and were kept before that time, and acts of before; returns how many."""
        items = self._connection.execute(f"DELETE FROM items WHERE NOT {_HELD} AND time < ?", (before,)).rowcount
        acts = self._connection.execute(
            "DELETE FROM acts WHERE time < ? AND item NOT IN (SELECT id FROM items)", (before,)
        ).rowcount
        return items + acts

    def _entries(self, where: str, *values: object) -> Iterator[Entry]:
        for row in self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM items {where}", values):
            yield _entry(row)


def _row(entry: Entry) -> list[Any]:
    fields = msgspec.to_builtins(entry)
    return [json.dumps(fields[name]) if name in _JSON else fields[name] for name in _COLUMNS]


def _entry(row: Iterable[Any]) -> Entry:
    fields = dict(zip(_COLUMNS, row, strict=True))
    for name in _JSON:
        fields[name] = json.loads(fields[name])
    return msgspec.convert(fields, Entry)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(path: str) -> None:
    """An empty file with the right mode and owner: SQLite gives its other files those of this one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_to_owner_of(os.path.dirname(path), descriptor)
    finally:
        os.close(descriptor)


def give_to_owner_of(folder: str, descriptor: int) -> None:
    """Where root makes a file in the folder of the scanner's account, the file belongs to that account."""
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


@contextmanager
def _plainly() -> Iterator[None]:
    """SQLite's errors in our words."""
    try:
        yield
    except sqlite3.Error as error:
        raise _failure(error) from error
    except msgspec.ValidationError as error:
        raise QuarantineFailed(f"The index of the quarantine has a row that cannot be read ({error}).") from error


def _failure(error: sqlite3.Error) -> QuarantineFailed:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return QuarantineFailed("The index of the quarantine is locked by another process for too long.")
        case sqlite3.SQLITE_FULL:
            return QuarantineFull("There is no room left on the disk for the index of the quarantine.")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return QuarantineFailed(
                f"The index of the quarantine is damaged ({error}). Move it away and run icapscan quarantine sweep: "
                "it makes a new one from the items."
            )
    return QuarantineFailed(f"The index of the quarantine cannot be used: {error}.")
