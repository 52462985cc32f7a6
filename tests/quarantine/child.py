"""What tests run in processes of their own: ``python child.py WHAT SETTINGS …``. Each line is one outcome."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any

from icapscan.errors import QuarantineFailed, QuarantineFull
from icapscan.quarantine.item import Entry, Item, Kind
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.quarantine.sweep import sweep
from icapscan.quarantine.vault import Quarantine


def keep_many(quarantine: Quarantine, count: int) -> None:
    """Keep so many bodies, each of another size."""
    for number in range(count):
        body = f"{os.getpid()} {number} ".encode() * (1 + number * 997 % 9000)
        try:
            print(quarantine.keep([body], Item(kind=Kind.FILE, name=f"{os.getpid()} {number}")), flush=True)
        except QuarantineFull:
            print("full", flush=True)


def look_around(quarantine: Quarantine, count: int) -> None:
    """What the command line does while workers keep: everything that is listed can be read."""
    for _ in range(count):
        swept = sweep(quarantine, who="child")
        assert not (swept.adopted or swept.lost or swept.unreadable), swept
        for entry in quarantine.list()[:3]:
            assert sum(map(len, quarantine.read(entry.id))) == entry.size
    print("looked", flush=True)


def die_before_the_row(quarantine: Quarantine) -> None:
    """The machine stops after the file has its name and before it has its row."""

    def enter(entry: Entry, who: str) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    quarantine._enter = enter  # type: ignore[method-assign]
    quarantine.keep([b"Subject: x\r\n\r\nall of it"], Item(kind=Kind.MAIL, name="x", recipients=("b@example.org",)))


def die_before_the_name(quarantine: Quarantine) -> None:
    """The machine stops while the file is written."""

    def pieces() -> Any:
        yield bytes(200_000)
        os.kill(os.getpid(), signal.SIGKILL)

    quarantine.keep(pieces(), Item(kind=Kind.FILE))


def fill(quarantine: Quarantine, size: int, bound: int) -> None:
    """Keep so many bytes where no file may grow past the bound: what the system says then is as good as a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))
    try:
        print(quarantine.keep([bytes(size)], Item(kind=Kind.FILE)))
    except QuarantineFailed as error:
        print(f"{type(error).__name__}: {error}")


def main() -> None:
    """Run one of the above."""
    what, given, *numbers = sys.argv[1:]
    quarantine = Quarantine(QuarantineSettings(**json.loads(given)), busy=60.0)
    globals()[what](quarantine, *map(int, numbers))


if __name__ == "__main__":
    main()
