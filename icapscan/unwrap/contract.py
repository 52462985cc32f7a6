"""The contract of a decoder: what the walker tells it, what it says, and how a decoder comes to a part.

The walker (`walker.py`) owns the tree. Each part has the store that its bytes go to, and the decoders that opened it.
Decoders *bid* on a part's first bytes; every one that bids opens it, and each of them beyond the first is another
*reading*. What a decoder emits are the events of `events.py` with **relative** paths of one segment: the key of the
child, unique within this decoder. The walker makes them absolute, opens the child, and feeds it in turn.

A new format is one file with one `Format`, one line in `formats.py`, and its tests. See docs/architecture.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from msgspec import Struct

from icapscan.limits import KIB, Budget
from icapscan.store import PartStore
from icapscan.unwrap.events import PartEvent, Waiting
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.passwords import Passwords

FIRST = 4 * KIB
"""Bytes of a part that bids are made on; fewer only where the part is shorter."""


class Declared(Struct, frozen=True):
    """What a container says about a part. All of it is untrusted."""

    names: tuple[str, ...] = ()
    """Every file name that some reader might show, the most plausible first."""
    media_type: str = ""
    """Lower case, without parameters; empty where nothing is said."""
    charset: str = ""
    within: str = ""
    """Name of the format that this part stands in, e.g. ``mime``, ``zip``; empty for the body itself."""
    content_type: bytes = b""
    """The Content-Type with its parameters as written, unfolded; of several field lines the values joined by LF. A
    multipart needs it for its boundary: of an HTTP body it is the field of the HTTP head, of a part it is
    `PartBegin.content_type`. Where it is empty the boundary is looked for in the content."""
    in_skeleton: bool = False
    """`PartBegin.in_skeleton` of this part."""


class Evidence(Struct, frozen=True):
    """What a bid is made on: content first, what is declared as a hint."""

    first: bytes
    """At most `FIRST` bytes."""
    whole: bool
    """``first`` is the whole part."""
    declared: Declared


class Bid(enum.IntEnum):
    """How sure a format is that it can open a part."""

    NO = 0
    MAYBE = 1
    """Declared so, or weak evidence. Opened too; when it then finds nothing of its kind it says nothing at all."""
    YES = 2
    """The bytes say so. When it then fails, that is damage: `PartFailed` with MALFORMED."""


class Context(Struct, frozen=True):
    """What a decoder is given."""

    budget: Budget
    gate: Gate
    """Every produced byte goes through it: ask `Gate.room` before, tell `Gate.took` after."""
    declared: Declared
    bid: Bid
    passwords: Passwords = Passwords()
    """What encrypted content is tried with; complete when the body is."""


@runtime_checkable
class Decoder(Protocol):
    """One format, fed with the bytes of one part as they arrive. Neither method raises for anything in the input.

    Both give an iterable whose events are made while it is iterated over, so that output is bounded before it is
    produced; the walker iterates over all of it before the next call. Any split of the input gives the same events,
    neighbouring `PartData` joined. Trouble is graded: `AnomalyFound` and going on; `PartFailed` for one child, whose
    siblings go on; `PartFailed` with the path ``""`` for this part itself: its decoder then gets nothing more.
    """

    def feed(self, data: bytes | memoryview) -> Iterable[PartEvent]:
        """More input. ``data`` is only valid during the iteration."""
        ...

    def finish(self) -> Iterable[PartEvent]:
        """The part is complete; truncation becomes a `PartFailed` or an `AnomalyFound`."""
        ...


@runtime_checkable
class WholeDecoder(Protocol):
    """A format that can only be read with the whole part at hand (directories at the end, sector tables)."""

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        """The events of the complete part. The store is open for as long as the iteration lasts, and not written.

        One that works with a child process says so (`Waiting`) before it starts it and before each read that may
        block. The iteration may be given up at any event: the generator's ``close`` ends the child at once.
        """
        ...


class TwoViews(Decoder, WholeDecoder, Protocol):
    """A format with two views of the same bytes, of which the second must know what the first gave: zip."""


class Format(Protocol):
    """How a decoder comes to a part."""

    name: str
    """A short word: ``zip``, ``mime``, ``tnef``."""

    def bid(self, evidence: Evidence) -> Bid:
        """Cheap, and never raises."""
        ...

    def open(self, context: Context) -> Decoder | WholeDecoder:
        """A decoder for one part.

        One that has both faces (`TwoViews`) is fed as the bytes arrive, and after `finish` reads the whole part.
        """
        ...
