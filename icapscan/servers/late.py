"""What outlives its transaction: downloads that were cut, for the page on the next try, and those yet to be fetched.

All workers know both: a cut is told to the others by the supervisor, and what waits lies in a folder that they share.
Neither is used once the ISTag changed: whoever comes then is scanned for.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from icapscan.errors import StoreFull
from icapscan.findings import CLEAN, Verdict
from icapscan.policy.decision import Decision
from icapscan.servers.threads import Run
from icapscan.store import PartStore, Purse

CUTS_MOST = 1000
"""Cut downloads that are remembered."""
WAITING_MOST = 1000
"""Downloads of one worker that wait to be fetched."""
TICKET_FIELD = b"icapscan-download="
"""What the URL of a finished download has behind its own query."""
_TICKET_LENGTH = 32
_WORD = frozenset(b"0123456789abcdef")


class Asker(Struct, frozen=True):
    """Who asked for what: another client at the same URL may get another body."""

    url: bytes
    client: bytes = b""
    """X-Client-IP as sent, or empty."""
    user: bytes = b""


class Cut(Struct, frozen=True, tag="cut"):
    """A download that was cut when a part of it was out already."""

    asker: Asker
    istag: str
    until: float
    """Seconds of the epoch."""
    decision: Decision | None = None
    """For the page; None: the next try is scanned before anything is sent, since there is an adapted body to be had."""
    verdict: Verdict = CLEAN
    reference: str = ""


class _Meta(Struct, frozen=True):
    head: bytes
    client: bytes
    user: bytes
    istag: str
    until: float


class Fetched(Struct, frozen=True):
    """A finished download. Whoever gets it closes the store."""

    head: bytes
    """HTTP response head."""
    store: PartStore


class Kept(Struct, frozen=True):
    """How a finished download is kept."""

    seconds: float
    purse: Purse
    """That its bytes are taken from."""
    run: Run
    """For the writing."""


class LateAnswers:
    """Both memories of one worker."""

    __slots__ = ("_cuts", "_folder", "_mine", "tell")

    def __init__(self, folder: str | None = None, tell: Callable[[Cut], None] = lambda cut: None) -> None:
        """``folder``: of this program alone, the same for all workers; ``tell`` lets the others know of a cut."""
        self._folder = folder
        self._cuts: OrderedDict[Asker, Cut] = OrderedDict()
        self._mine: dict[str, tuple[float, int, Purse]] = {}
        self.tell = tell

    @property
    def has_cuts(self) -> bool:
        """Whether there may be any."""
        return bool(self._cuts)

    @staticmethod
    def ticket_in(req_hdr: bytes | None) -> bool:
        """Whether a request head may ask for a finished download: a quick look."""
        return req_hdr is not None and TICKET_FIELD in req_hdr

    # Cut downloads

    def cut(self, cut: Cut) -> None:
        """Remember, and tell the others."""
        self.remember(cut)
        self.tell(cut)

    def remember(self, cut: Cut) -> None:
        """Remember what another worker cut."""
        self._cuts[cut.asker] = cut
        self._cuts.move_to_end(cut.asker)
        while len(self._cuts) > CUTS_MOST:
            self._cuts.popitem(last=False)

    def cut_before(self, asker: Asker, istag: str) -> Cut | None:
        """What became of an earlier try, if it was cut."""
        if not self._cuts:
            return None
        found = self._cuts.get(asker)
        if found is None:
            return None
        if found.istag == istag and time.time() < found.until:
            return found
        del self._cuts[asker]
        return None

    # Finished downloads

    async def keep(self, head: bytes, store: PartStore, asker: Asker, istag: str, kept: Kept) -> str:
        """Put a scanned body where it can be fetched; returns its ticket. Raises `StoreFull`."""
        self.tidy()
        size = store.size
        if self._folder is None or len(self._mine) >= WAITING_MOST or kept.purse.disk_left < size:
            raise StoreFull("There is no room left to keep this download.")
        ticket = secrets.token_hex(_TICKET_LENGTH // 2)
        until = time.time() + kept.seconds
        kept.purse.disk_left -= size
        self._mine[ticket] = until, size, kept.purse
        meta = msgspec.json.encode(_Meta(head, asker.client, asker.user, istag, until))
        try:
            await kept.run(_write, Path(self._folder, ticket), store, meta)
        except BaseException as error:
            self._remove(ticket)
            if isinstance(error, OSError):
                raise StoreFull("There is no room left on the disk to keep this download.") from error
            raise
        return ticket

    def fetch(self, asker: Asker, istag: str) -> Fetched | None:
        """The download whose ticket is in the URL: for whoever asked for it, as long as it is kept."""
        ticket = ticket_in(asker.url)
        if ticket is None or self._folder is None:
            return None
        try:
            meta = msgspec.json.decode(Path(self._folder, f"{ticket}.meta").read_bytes(), type=_Meta)
            if (meta.client, meta.user, meta.istag) != (asker.client, asker.user, istag) or time.time() > meta.until:
                return None
            descriptor = os.open(Path(self._folder, ticket), os.O_RDONLY | os.O_CLOEXEC)
            return Fetched(meta.head, PartStore.of_file(descriptor))
        except (OSError, msgspec.DecodeError):
            return None

    def tidy(self) -> None:
        """Remove those of this worker that waited too long. Whoever reads one goes on reading."""
        now = time.time()
        for ticket in [one for one, (until, _, _) in self._mine.items() if until < now]:
            self._remove(ticket)

    def _remove(self, ticket: str) -> None:
        _, size, purse = self._mine.pop(ticket)
        purse.disk_left += size
        if self._folder is not None:
            for name in (f"{ticket}.meta", ticket):
                Path(self._folder, name).unlink(missing_ok=True)


def _write(path: Path, store: PartStore, meta: bytes) -> None:
    """In a thread. Nobody finds the one file before the other is whole."""
    with open(path, "xb") as file:
        for piece in store.pieces():
            file.write(piece)
    path.with_suffix(".meta").write_bytes(meta)


def ticket_in(url: bytes) -> str | None:
    """The ticket at the end of a URL."""
    _, found, ticket = url.rpartition(TICKET_FIELD)
    if not found or len(ticket) != _TICKET_LENGTH or not _WORD.issuperset(ticket):
        return None
    return ticket.decode("ascii")


def with_ticket(url: bytes, ticket: str) -> bytes:
    """The URL under which a finished download is fetched: the same place, so that no name, port or scheme is new."""
    place, _, _ = url.partition(b"#")
    return place + (b"&" if b"?" in place else b"?") + TICKET_FIELD + ticket.encode()


def sweep(folder: str, oldest: float) -> None:
    """Remove what workers left behind that are gone: files last changed before ``oldest``, in seconds of the epoch."""
    for path in Path(folder).iterdir():
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:
            continue
