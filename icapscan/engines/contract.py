"""The contract between the pipeline and a scanner. ``tests/conformance/engine.py`` is its executable form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from icapscan.findings import Finding, PartPath, Unscanned
from icapscan.store import PartStore
from icapscan.unwrap.events import Audience


class Part(Struct, frozen=True):
    """One complete part to scan. The store is owned by the pipeline and stays alive until the scan call returned."""

    path: PartPath
    store: PartStore
    name: str = ""
    """File name as declared, or empty. Untrusted text."""
    media_type: str = ""
    """Media type as declared, lower case, without parameters, or empty. Untrusted text."""
    audience: Audience = Audience.ALL
    """Which engines are to see it; `Fanout` keeps to that, an engine need not."""
    other_names: tuple[str, ...] = ()
    """Further names that some reader might show. What an engine says of a name it says of each of them."""


class Report(Struct, frozen=True):
    """What one engine says of one part: findings, or why it could not look, or both. Empty means scanned and clean."""

    engine: str
    findings: tuple[Finding, ...] = ()
    unscanned: tuple[Unscanned, ...] = ()
    allowed: bool = False
    """The part is known to be good, byte for byte: what other engines say of it does not count."""
    cached: bool = False
    """It is the answer of another scan of the same bytes (`icapscan.engines.cache`)."""


class Engine(Protocol):
    """A scanner. All methods are called on one event loop.

    A new engine is one file here that passes ``tests/conformance/engine.py``. Invariants:

    * ``scan`` never raises for anything a part, a daemon or a library does: it returns a `Report` whose
      ``unscanned`` says ENGINE_FAILED, TIMEOUT, OVER_LIMIT or ENCRYPTED. (`asyncio.CancelledError` passes through.)
    * An empty report is a promise that the whole part was looked at.
    * ``scan`` returns within ``seconds`` plus a small constant.

    An engine with the class attribute ``punctual = True`` promises that last point by itself, also when it hangs on
    others, so that the fan-out needs no watchdog (a task and a timer) around it.

    ``audience = "clamd"`` marks an engine that takes containers apart by itself: it is not given the members of an
    archive that it gets whole. ``audience = "every"`` marks one that looks every part up as a whole, whoever else
    sees it.
    """

    name: str
    """A short word: ``yara``, ``clamd``, ``hash``."""

    async def scan(self, part: Part, seconds: float) -> Report:
        """Scan one part; give up with TIMEOUT after ``seconds``."""
        ...

    async def version(self) -> str:
        """A text that changes whenever the same bytes may get another result (engine version, rules, database).

        Goes into the ISTag. Raises `icapscan.errors.IcapscanError` when the engine cannot say (it is down).
        """
        ...

    async def close(self) -> None:
        """Free sockets, threads and files. Idempotent."""
        ...


Cancel = Callable[[], None]
"""Ends a scan that is under way; nothing more is heard of it."""


class PromptEngine(Engine, Protocol):
    """An engine that waits for others, and can do so without a task: it calls back."""

    begins: bool
    """True."""

    def may_begin(self, part: Part) -> bool:
        """Whether `begin` would start on the part at once. True until the event loop goes on."""
        ...

    def begin(self, part: Part, seconds: float, then: Callable[[Report], None]) -> Report | Cancel | None:
        """The same as `scan`: a report that is known already, or a way to end the scan before ``then`` is called with
        its report, once and not from here. None: nothing was begun, `scan` is to be called.
        """
        ...


class QueueingEngine(Engine, Protocol):
    """An engine with a queue, which may be too long."""

    def hopeless(self, seconds: float) -> bool:
        """Whether a part that comes now would not be scanned within ``seconds``."""
        ...

    def overdue(self) -> Unscanned:
        """What is said of such a part."""
        ...


class InlineEngine(Engine, Protocol):
    """An engine that can also look at a few bytes at once, on the event loop, without waiting."""

    def scan_now(self, part: Part, seconds: float) -> Report | None:
        """The same as `scan` where that needs no waiting, else None: then `scan` is to be called."""
        ...

    def glance(self, data: bytes) -> tuple[Finding, ...]:
        """Findings in a prefix (a preview of at most a few KiB). No finding proves nothing."""
        ...
