"""What is to be taken out of a body, and what was taken out: the words that all of sanitising shares.

The caller decides which parts are bad and gives them as `Target`. What comes back is a `Sanitized`, or `CannotSanitize`
is raised: then nothing may be passed on, and the caller replaces or blocks the body whole.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from icapscan.findings import Level, PartPath
from icapscan.sanitize.edits import Edits


class CannotSanitize(Exception):
    """Something cannot be rewritten exactly. ``str(error)`` is one plain sentence for the log.

    Whoever catches it replaces or blocks the whole; it must never be passed on as it is.
    """


class Target(Struct, frozen=True):
    """One bad part."""

    path: PartPath
    """As the walker tells it: ``2``, ``3/report.docx/vbaProject.bin``, ``2/1/1``; ``""`` is the whole body."""
    names: tuple[str, ...] = ()
    """The file names it has; untrusted."""
    threat: str = ""
    """What was found, for the notice; untrusted, since it may come from a signature or hold a name."""
    level: Level = Level.INFECTED
    clean: bool = False
    """Try to clean the document before the notice takes its place."""


class Cleaned(Struct, frozen=True):
    """A document without what was bad in it."""

    data: bytes
    name: str = ""
    """The file name it has now where the type changed (``report.docm`` to ``report.docx``); empty: as before."""
    what: tuple[str, ...] = ()
    """What was taken out, in plain words."""


class Removed(Struct, frozen=True):
    """One thing that was done."""

    path: PartPath
    """Of the part that was rewritten: the innermost part that holds the target."""
    name: str
    """The file name of that part before, shown safely; empty where it has none."""
    threat: str
    how: Literal["replaced", "cleaned"]
    detail: str = ""
    """One plain sentence: what was taken out, or why the part was not cleaned."""


class Sanitized(Struct, frozen=True):
    """The body without its bad parts."""

    edits: Edits
    removed: tuple[Removed, ...]
    notes: tuple[str, ...] = ()
    """What else the change means, in plain sentences: a signature that no longer verifies."""


class Reference(Struct, frozen=True):
    """What a notice says besides the finding."""

    transaction: str
    """The number by which an administrator finds the transaction in the log."""
    quarantine: str = ""
    """Where the original is kept; empty: nowhere."""
    date: str = ""
    """Date and time as text; whoever calls has the clock."""
    host: str = ""
    contact: str = ""
    """Whom to ask; empty: the administrator."""
