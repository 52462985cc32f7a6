"""PDF: embedded files with their names, scripts, the objects and the data behind the filters, and what acts by itself.

A plain scan for ``stream`` and ``endstream`` sees every revision and does not care for damaged tables. Where that does
not do, because the file is encrypted or uses rare filters, a library rewrites it in a child process, and what it
gives is a part that is scanned again.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Generator, Iterator

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap import pdf_child, pdf_syntax
from icapscan.unwrap.active_content import reported
from icapscan.unwrap.children import Child, python, why
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import Audience, PartBegin, PartData, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.pdf_filters import OURS, PICTURES, Decoded
from icapscan.unwrap.pdf_syntax import DICTIONARY_MAX, Head

MAGIC_WITHIN = 1024
"""Bytes among which viewers look for ``%PDF``."""
STREAMS_MAX = 100_000
"""Streams of one file; a book of a thousand pages has some ten thousand."""
REWRITTEN = "rewritten.pdf"
"""Name of the part that the library makes."""
REWRITTEN_TYPE = "application/pdf+rewritten"
"""Its type. Nothing in a PDF file can declare a type, so none can pass for it."""
_PIECE = 64 * KIB
_GAP_MAX = 8 * KIB * KIB
_STREAM = re.compile(rb"(?<!end)stream[ \t]*(?:\r\n|\n|\r)")
_OPENABLE = (
    b"MZ", b"PK\3\4", b"\xd0\xcf\x11\xe0", b"%PDF", b"Rar!", b"7z\xbc\xaf", b"\x7fELF", b"{\\rt", b"\x1f\x8b", b"MSCF",
    b"\xe4\x52\x5c\x7b", b"L\0\0\0\1\x14\2\0", b"ITSF",
)  # fmt: skip
"""First bytes of data that is worth a part of its own wherever it stands."""
Data = bytes | mmap.mmap


class PdfFormat:
    """Bids on ``%PDF`` where viewers find it."""

    name = "pdf"

    def bid(self, evidence: Evidence) -> Bid:
        at = evidence.first.find(b"%PDF", 0, MAGIC_WITHIN + 4)
        if at < 0:
            return Bid.NO
        return Bid.YES if at == 0 else Bid.MAYBE

    def open(self, context: Context) -> PdfDecoder:
        return PdfDecoder(context)


class _Stream:
    """Where the data of a stream is."""

    __slots__ = ("end", "head", "start")

    def __init__(self, head: Head, start: int, end: int) -> None:
        self.head = head
        self.start = start
        self.end = end


class PdfDecoder:
    """One PDF file, read whole."""

    def __init__(self, context: Context) -> None:
        self._members = Members(context)
        self._gate = context.gate
        self._bid = context.bid
        self._files: dict[int, tuple[str, ...]] = {}
        """Objects that file specifications point to, with names."""
        self._scripts: set[int] = set()
        self._joined = ""
        """Key of the part that the data of ordinary streams is put together in."""
        self._foreign = ""
        """A filter that is not ours, or another reason to let the library rewrite the file."""
        self._number = 0
        self._seen: set[bytes] = set()
        """Scripts that were given: forms repeat theirs for every field."""
        declared = context.declared
        self._again = declared.within == PdfFormat.name and declared.media_type == REWRITTEN_TYPE
        """The library has had its turn."""

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        return reported(self._events(store), self._members)

    def _events(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        data = store.view()
        if self._bid is not Bid.YES and data.find(b"obj") < 0:
            return
        try:
            yield from self._read(store, data)
        except Stop as stop:
            if self._joined:
                yield PartFailed(self._joined, stop.reason, stop.detail)
            yield spent(stop)
        finally:
            store.relax()

    def _read(self, store: PartStore, data: Data) -> Iterator[PartEvent | Waiting]:
        if not self._again and _encrypted(data):
            plain = yield from self._rewritten(store, True)
            if not plain:
                return
        streams = []
        for found in self._walk(data):
            if isinstance(found, _Stream):
                streams.append(found)
            else:
                yield from self._objects(found)
        for stream in streams:
            if stream.head.has(b"ObjStm"):
                yield from self._object_stream(data, stream)
        for stream in streams:
            yield from self._stream(data, stream)
        if self._joined:
            yield PartEnd(self._joined)
            self._joined = ""
        if self._foreign:
            yield from self._rewritten(store, False)

    # The scan

    def _walk(self, data: Data) -> Iterator[_Stream | bytes]:
        """The streams, and the text between them, in order."""
        at = count = 0
        for found in _STREAM.finditer(data):
            if found.start() < at:
                continue  # within the data of another
            head = pdf_syntax.head(data[max(at, found.start() - DICTIONARY_MAX) : found.start()])
            if head is None:
                continue
            count += 1
            self._gate.room()
            if count > STREAMS_MAX:
                self._gate.stop("streams of a PDF file")
            yield from _cut(data, at, found.start())
            stream = _Stream(head, found.end(), _end(data, found.end(), head.length))
            yield stream
            at = stream.end
        yield from _cut(data, at, len(data))

    def _objects(self, text: bytes) -> Iterator[PartEvent]:
        """What the text of some objects says."""
        self._gate.room()
        plain = pdf_syntax.without_comments(pdf_syntax.plain(text))
        for one in (plain, text) if plain != text else (text,):
            for kind in pdf_syntax.actions(one):
                yield from self._members.anomaly(kind)
            for script in pdf_syntax.scripts(one):
                yield from self._members.anomaly("pdf-javascript")
                if isinstance(script, int):
                    self._scripts.add(script)
                elif script and script not in self._seen:
                    self._seen.add(script)
                    yield from self._look(script)
                    yield from self._whole(script, self._script_name())
            for chunk in one.split(b"endobj"):
                for number, names in pdf_syntax.file_objects(chunk):
                    self._files[number] = self._files.get(number, ()) or names

    def _script_name(self) -> str:
        self._number += 1
        return f"javascript{self._number}.js"

    def _look(self, script: bytes) -> Iterator[PartEvent]:
        """A script that does more than to reckon in a form."""
        found = pdf_syntax.ACTING.search(script)
        if found is not None:
            yield from self._members.anomaly("pdf-javascript-acts", found[0].decode("latin-1"))

    def _whole(self, data: bytes, name: str) -> Iterator[PartEvent]:
        key, begin = self._members.begin((name,))
        yield begin
        try:
            yield from self._members.data(key, data)
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)

    def _object_stream(self, data: Data, stream: _Stream) -> Iterator[PartEvent]:
        """Objects in a stream (7.5.7): their text is looked at like the file's own, and is a part."""
        if stream.head.predicted or not OURS.issuperset(stream.head.filters):
            self._foreign = self._foreign or "an object stream"
            return
        key, begin = self._members.begin((f"objects{max(stream.head.number, 0)}",))
        yield PartBegin(key, begin.name, "application/pdf", audience=begin.audience)
        text = bytearray()
        try:
            for piece in self._decoded(data, stream)[1]:
                yield PartData(key, piece)
                if len(text) < _GAP_MAX:
                    text += piece
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            if stop.reason is Reason.OVER_LIMIT:
                raise
            self._foreign = self._foreign or stop.detail
        else:
            yield PartEnd(key)
        yield from self._objects(bytes(text))

    # Streams

    def _decoded(self, data: Data, stream: _Stream) -> tuple[Decoded, Iterator[bytes]]:
        filters = stream.head.filters
        if stream.head.predicted and not stream.head.has(b"Image", b"XRef"):
            raise Stop(Reason.UNSUPPORTED, "The data of a stream are differences.")
        decoded = Decoded(self._gate, filters)
        raw = (data[at : min(at + _PIECE, stream.end)] for at in range(stream.start, stream.end, _PIECE))
        return decoded, decoded.pieces(raw if filters else self._counted(raw))

    def _counted(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        for piece in raw:
            self._gate.room()
            if not self._gate.took(len(piece)):
                self._gate.stop()
            yield piece

    def _stream(self, data: Data, stream: _Stream) -> Iterator[PartEvent]:
        """The data of one stream: as a part of its own, joined to that of others, or left alone."""
        head = stream.head
        names: tuple[str, ...] | None = None
        if head.number in self._files or head.has(b"EmbeddedFile"):
            names = self._files.get(head.number, ()) or (f"file{max(head.number, 0)}",)
            yield from self._members.anomaly("pdf-embedded-file", names[0])
        elif head.number in self._scripts:
            names = (self._script_name(),)
        elif head.has(b"ObjStm", b"XRef"):
            return
        ours = OURS | PICTURES
        if any(name not in ours for name in head.filters):
            if names is None and self._again:  # the library could not undo it, and no viewer can
                yield from self._members.anomaly("pdf-damaged-stream", f"filters {head.filters}")
            elif names is not None or not head.has(b"Image"):
                self._foreign = self._foreign or f"filter {head.filters}"
            return
        if head.predicted and names is not None:
            self._foreign = self._foreign or "predictor"
            return
        if names is not None:
            yield from self._own(data, stream, names)
        else:
            yield from self._ordinary(data, stream)

    def _own(self, data: Data, stream: _Stream, names: tuple[str, ...]) -> Iterator[PartEvent]:
        key, begin = self._members.begin(names)
        yield begin
        try:
            looked = stream.head.number in self._scripts
            for piece in self._decoded(data, stream)[1]:
                if piece:
                    if looked:
                        yield from self._look(piece)
                    yield PartData(key, piece)
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            if stop.reason is Reason.OVER_LIMIT:
                raise
        else:
            yield PartEnd(key)

    def _ordinary(self, data: Data, stream: _Stream) -> Iterator[PartEvent]:
        """Pages, fonts, forms, metadata. Pictures, and what stands plainly in the file, is not decoded for nothing."""
        head = stream.head
        filters = head.filters
        try:
            decoded, pieces = self._decoded(data, stream)
            first = next(pieces, b"")
            if first.startswith(_OPENABLE):
                key, begin = self._members.begin((f"stream{max(head.number, 0)}",))
                yield begin
                yield PartData(key, first)
                try:
                    for piece in pieces:
                        yield PartData(key, piece)
                finally:
                    yield PartEnd(key)
            elif not filters or filters[0] in PICTURES:
                if stream.end - stream.start < _GAP_MAX and not head.has(b"Image"):
                    yield from self._objects(data[stream.start : stream.end])
            elif not head.has(b"Image"):
                yield from self._join(first)
                for piece in pieces:
                    yield from self._join(piece)
            if len(decoded.left) > _MUCH:
                yield from self._members.anomaly("pdf-data-behind-stream")
                yield from self._objects(decoded.left)
        except Stop as stop:
            if stop.reason is Reason.OVER_LIMIT:
                raise
            yield from self._members.anomaly("pdf-damaged-stream", stop.detail)
            yield from self._objects(data[stream.start : min(stream.end, stream.start + _GAP_MAX)])

    def _join(self, piece: bytes) -> Iterator[PartEvent]:
        if not piece:
            return
        if not self._joined:
            self._joined, begin = self._members.begin(("streams",))
            yield begin
        yield PartData(self._joined, piece)

    # The library

    def _rewritten(self, store: PartStore, encrypted: bool) -> Generator[PartEvent | Waiting, None, bool]:
        """The file as the library writes it, decrypted with the empty password or a known one.

        Returns whether a file that looked ``encrypted`` is not: then it was not rewritten.
        """
        failure = Reason.UNSUPPORTED, f"There is data in this PDF file that cannot be read: {self._foreign}"
        if encrypted:
            failure = Reason.ENCRYPTED, "The PDF file is encrypted."
        if self._again:
            raise Stop(*failure)
        members = Members(self._members.context, Audience.ALL)
        key = ""
        yield Waiting()
        command = python("icapscan.unwrap.pdf_child", "decrypt" if encrypted else "rewrite")
        with Child(command, store, self._members.context.passwords.costly) as child:
            try:
                while piece := (yield from child.more()):
                    if not key:
                        key, begin = members.begin((REWRITTEN,))
                        yield PartBegin(key, begin.name, REWRITTEN_TYPE, reading=0 if encrypted else 1)
                    yield from members.data(key, piece)
            except Stop as stop:
                if key:
                    yield PartFailed(key, stop.reason, stop.detail)
                raise
            status, _ = child.end()
        if key:
            yield PartEnd(key)
        if status == pdf_child.PLAIN:
            return True
        if encrypted:
            yield from self._members.anomaly("encrypted-document", "PDF")
        if status == 0 and key:
            return False
        if status == pdf_child.NOT_INSTALLED:
            failure = failure[0], f"{failure[1]} What would read it is not installed."
        yield PartFailed("", *(why(status) or failure))
        return False


_MUCH = 64
"""Bytes behind compressed data beyond which they are something else than line ends."""


def _encrypted(data: Data) -> bool:
    """Whether a trailer, plain or in a cross-reference stream, says that the file is encrypted."""
    at = data.find(b"/Encrypt")
    while at >= 0:
        if re.match(rb"/Encrypt[\s\0]*(?:<<|\d{1,10}[\s\0]+\d{1,5}[\s\0]+R)", data[at : at + 60]):
            return True
        at = data.find(b"/Encrypt", at + 1)
    return False


def _end(data: Data, start: int, length: int) -> int:
    """Where the data of a stream ends: as declared where ``endstream`` follows there, else before the next one."""
    if length >= 0 and data[start + length : start + length + 20].lstrip(b" \t\r\n").startswith(b"endstream"):
        return start + length
    end = data.find(b"endstream", start)
    if end < 0:
        end = data.find(b"endobj", start)
    return end if end >= 0 else len(data)


def _cut(data: Data, start: int, end: int) -> Iterator[bytes]:
    """Text between streams in pieces that overlap a little."""
    while start < end:
        yield data[start : min(end, start + _GAP_MAX)]
        start += _GAP_MAX - 4 * KIB
