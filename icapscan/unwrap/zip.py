"""Zip archives (PKWARE APPNOTE.TXT), read as both kinds of reader do: as a stream, and by the directory.

Members are emitted by the stream view as they arrive; when the part is complete the directory view adds what it
reaches beyond that (`zip_stream.py`, `zip_entries.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap import zip_headers as zh
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartBegin, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.ole_file import MAGIC as OLE_MAGIC
from icapscan.unwrap.streams import Buffer
from icapscan.unwrap.zip_directory import tail_archive
from icapscan.unwrap.zip_entries import DirectoryView
from icapscan.unwrap.zip_stream import StreamView

_STARTS = (zh.LOCAL, zh.END, zh.DESCRIPTOR, zh.NOT_SPANNED + zh.LOCAL, zh.END64)
_TAR_MAGIC = slice(257, 262)


_Event = TypeVar("_Event", PartEvent, PartEvent | Waiting)


class ZipFormat:
    """Bids YES on a part that begins like a zip, MAYBE on any other that may hold one further in (SFX, polyglots)."""

    name = "zip"

    def bid(self, evidence: Evidence) -> Bid:
        first, declared = evidence.first, evidence.declared
        if first.startswith(_STARTS):
            return Bid.YES
        if evidence.whole:
            return Bid.MAYBE if zh.LOCAL in first or zh.END in first else Bid.NO
        if declared.media_type.startswith(("message/", "multipart/")) or first[_TAR_MAGIC] == b"ustar":
            return Bid.NO  # those decoders hand out every byte, what stands before and behind included
        return Bid.MAYBE

    def open(self, context: Context) -> ZipDecoder | EmbeddedZipDecoder:
        return ZipDecoder(context) if context.bid is Bid.YES else EmbeddedZipDecoder(context)


class ZipDecoder:
    """Both views of one zip: `feed` and `finish` for the stream, then `read` for the directory."""

    __slots__ = ("_done", "_members", "_stream")

    def __init__(self, context: Context) -> None:
        self._members = Members(context)
        self._stream = StreamView(self._members, True)
        self._done = False
        """The budget is spent."""

    def feed(self, data: Buffer) -> Iterator[PartEvent]:
        return self._guarded(self._stream.feed(data))

    def finish(self) -> Iterator[PartEvent]:
        return self._guarded(self._stream.finish())

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        """The directory view."""
        yield from self._guarded(DirectoryView(self._members, self._stream).read(store))

    def _guarded(self, events: Iterator[_Event]) -> Iterator[_Event | PartEvent]:
        if self._done:
            return
        try:
            yield from events
        except Stop as stop:
            self._done = True
            yield spent(stop)


class EmbeddedZipDecoder:
    """A zip behind something else: only those that a reader would find, by an end record near the end of the part.

    A disk image is full of local headers that belong to the zips in it; they are found as those.
    """

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context)

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        """Both views, one after the other."""
        begin = tail_archive(store.reader())
        if begin is None:
            return
        events = self._views(store, begin)
        yield from self._scattered(events) if store.reader()[:8] == OLE_MAGIC else events

    def _scattered(self, events: Iterator[PartEvent | Waiting]) -> Iterator[PartEvent | Waiting]:
        """In an OLE2 file: an embedded document lies there in sectors of any order, so most of such a zip is no zip.

        The streams, with their sectors in order, are parts of their own. What no reader can decode from here is an
        anomaly, not a failure: else every presentation with an embedded document would be one that nobody can scan.
        """
        growing: set[str] = set()
        for event in events:
            if isinstance(event, PartBegin):
                growing.add(event.path)
            elif isinstance(event, PartEnd):
                growing.discard(event.path)
            if isinstance(event, PartFailed) and event.reason is Reason.MALFORMED:
                yield from self._members.anomaly("zip-scattered")
                if event.path in growing:
                    growing.discard(event.path)
                    yield PartEnd(event.path)
            else:
                yield event

    def _views(self, store: PartStore, begin: int) -> Iterator[PartEvent | Waiting]:
        stream = StreamView(self._members, True, begin)
        try:
            for piece in store.pieces(begin):
                yield from stream.feed(piece)
            yield from stream.finish()
            yield from DirectoryView(self._members, stream).read(store)
        except Stop as stop:
            yield spent(stop)
