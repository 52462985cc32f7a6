"""``icapscan quarantine``: what its commands do, and what they tell."""

from __future__ import annotations

import logging
import os
import pwd
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial

from icapscan.cli.app import EXIT_CLEAN, EXIT_UNSCANNED
from icapscan.cli.quarantine_view import print_entries, print_entry, to_json
from icapscan.cli.report import printable
from icapscan.errors import QuarantineFailed
from icapscan.quarantine.item import HELD, Entry, State
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.quarantine.vault import Quarantine


class Desk:
    """The quarantine as one person at the command line has it. Each method returns the exit code."""

    def __init__(self, settings: QuarantineSettings, log_level: str) -> None:
        """Raises `ConfigError` where folder or key cannot be used."""
        _log_to_stderr(log_level)
        self._quarantine = Quarantine(settings)
        self._who = whoever()

    def list(self, *, every: bool, match: str, limit: int, as_json: bool) -> int:
        """The newest ``limit`` items that match."""
        return _told(lambda: self._list(tuple(State) if every else HELD, match, limit, as_json))

    def _list(self, states: Sequence[State], match: str, limit: int, as_json: bool) -> None:
        entries = self._quarantine.list(states)
        if match:
            entries = [entry for entry in entries if match.casefold() in _searched(entry)]
        shown = entries[:limit]
        if as_json:
            for entry in shown:
                print(to_json(entry))
        else:
            print_entries(shown, len(entries))

    def show(self, name: str, *, as_json: bool) -> int:
        """One item with its history."""

        def run() -> None:
            entry, acts = self._quarantine.show(name)
            if as_json:
                print(to_json(entry, acts))
            else:
                print_entry(entry, acts)

        return _told(run)

    def export(self, name: str, path: str) -> int:
        """The bytes of an item into a new file, whole or not at all; standard output gets what verified."""
        return _told(lambda: self._export(name, path))

    def _export(self, name: str, path: str) -> None:
        pieces = self._quarantine.read(name)
        if path == "-":
            if sys.stdout.isatty():
                raise QuarantineFailed("A terminal would obey what is in the item; write it to a file or a pipe.")
            self._quarantine.record("export", name, who=self._who, detail="to standard output")
            _write(sys.stdout.buffer.fileno(), pieces)
            return
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            raise QuarantineFailed(f"{path} is there already, and nothing is overwritten.") from error
        except (OSError, ValueError) as error:
            raise QuarantineFailed(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.") from error
        try:
            self._quarantine.record("export", name, who=self._who, detail=f"to {os.path.abspath(path)}")
            try:
                _write(descriptor, pieces)
                os.fsync(descriptor)
            except OSError as error:
                raise QuarantineFailed(f"{path} cannot be written: {error.strerror}.") from error
        except BaseException:
            with suppress(OSError):
                os.unlink(path)  # half an item is worse than none
            raise
        finally:
            os.close(descriptor)
        print(f"The item {name} is in {printable(path)}.")

    def release(self, names: Sequence[str], sender: str | None, recipients: Sequence[str], *, force: bool) -> int:
        """Send each item on."""
        from icapscan.quarantine.release import release

        def run(name: str) -> None:
            done = release(self._quarantine, name, who=self._who, sender=sender, recipients=recipients, force=force)
            to = ", ".join(f"<{one}>" for one in done.recipients)
            print(printable(f"The item {name} was sent to {to}: {done.reply}"))

        return _each(names, run)

    def delete(self, names: Sequence[str]) -> int:
        """Remove each item."""

        def run(name: str) -> None:
            self._quarantine.delete(name, who=self._who)
            print(f"The item {name} is deleted.")

        return _each(names, run)

    def sweep(self, *, drop: bool) -> int:
        """Expire and mend."""
        from icapscan.quarantine.sweep import Swept, sweep

        swept: list[Swept] = []
        code = _told(lambda: swept.append(sweep(self._quarantine, who=self._who, drop=drop)))
        for one in swept:
            for sentence in one.unreadable:
                print(f"icapscan: {printable(sentence)}", file=sys.stderr)
            for name in one.lost:
                print(f"icapscan: The file of the item {name} is gone: the item is lost.", file=sys.stderr)
            print(
                f"{one.expired} expired, {one.removed} left over and removed, {len(one.adopted)} recovered, "
                f"{len(one.lost)} lost, {len(one.unreadable)} unreadable, {one.dropped} dropped."
            )
            if one.lost or one.unreadable:
                code = EXIT_UNSCANNED
        return code


def make_key(path: str) -> int:
    """A new key file; returns the exit code."""
    from icapscan.quarantine.keys import write_key

    def run() -> None:
        made = write_key(path)
        print(
            f"The key {made.number.hex()} is in {printable(path)}. Keep a copy: without it nothing can be read again."
        )

    return _told(run)


def whoever() -> str:
    """The name of the account that acts, and of who became it by sudo."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    before = os.environ.get("SUDO_USER", "")
    return f"{before} as {name}" if before and before != name else name


def _told(run: Callable[[], None]) -> int:
    """Run it; what fails is one sentence and the exit code."""
    try:
        run()
    except QuarantineFailed as error:
        print(f"icapscan: {printable(str(error))}", file=sys.stderr)
        return EXIT_UNSCANNED
    return EXIT_CLEAN


def _each(names: Iterable[str], run: Callable[[str], None]) -> int:
    """Run it for each; one that fails does not keep the others from theirs."""
    return max(_told(partial(run, name)) for name in dict.fromkeys(names))


def _searched(entry: Entry) -> str:
    texts = [entry.name, entry.url, entry.user, entry.client, entry.sender or "", entry.rule, entry.reference]
    return "\n".join([*texts, *entry.recipients, *(one.name for one in entry.findings)]).casefold()


def _write(descriptor: int, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]


def _log_to_stderr(level: str) -> None:
    """The lines of the acts, as the server writes them."""
    logging.basicConfig(format="%(asctime)s icapscan[%(process)d] %(levelname)s: %(message)s", level=logging.WARNING)
    logging.getLogger("icapscan").setLevel(level.upper())
