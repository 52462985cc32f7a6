"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from icapscan.unwrap.contract import Declared
from icapscan.unwrap.formats import FORMATS, Entry
from tests.fuzz import oracle
from tests.fuzz.mutators import Mutator

KIB = 1024


class Target(Struct, frozen=True):
    """One target. The first line of ``check``'s docstring is its invariant."""

    check: Callable[[bytes], None]
    """Raises where the invariant does not hold."""
    words: tuple[bytes, ...] = ()
    """What the format's bytes are made of, for the dictionary and for the mutator."""
    mutator: Mutator | None = None
    longest: int = 8 * KIB
    """Bytes of an input."""
    formats: tuple[str, ...] = ()
    """Names of the formats that it drives."""
    children: bool = False
    """It starts child processes, which takes some hundred times as long."""
    corpus: tuple[str, ...] = ()
    """Folders of the corpus, or patterns in it, whose files are seeds too."""

    @property
    def name(self) -> str:
        return self.check.__name__.strip("_")

    @property
    def invariant(self) -> str:
        return (self.check.__doc__ or "").partition("\n")[0]


def entries(*names: str) -> tuple[Entry, ...]:
    """The lines of the registry for these formats."""
    found = tuple(entry for entry in FORMATS if entry.format.name in names)
    assert {entry.format.name for entry in found} == set(names), names
    return found


def every(data: bytes, lines: tuple[Entry, ...], declared: tuple[Declared, ...] = (oracle.NO_NAME,)) -> None:
    """Each of these formats on its own, with one of the declarations (by the length of the input)."""
    for entry in lines:
        oracle.check(entry, data, declared[len(data) % len(declared)])
