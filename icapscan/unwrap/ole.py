"""OLE2 compound files: Office documents up to 2003, vbaProject.bin, MSI, Outlook messages, embedded objects.

Each stream is a part. Beside the streams come the source of VBA modules, the files in OLE packages, the objects of
presentations, and the document itself where it opens with a standard password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.limits import KIB
from icapscan.store import PartStore
from icapscan.unwrap import ole_facts, vba
from icapscan.unwrap.active_content import reported
from icapscan.unwrap.biff import workbook
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartData, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members, spent
from icapscan.unwrap.office_crypto import decrypted, encrypted_by
from icapscan.unwrap.ole_file import MAGIC, Broken, Entry, OleFile
from icapscan.unwrap.ole_package import STRING_MAX, package
from icapscan.unwrap.streams import Inflate
from icapscan.unwrap.unpack import Unpacker
from icapscan.unwrap.vba_project import Projects

_LOOK = 4 * KIB
_GLOBALS_MAX = 1024 * KIB
_SHAPE = re.compile("_[0-9]{6,12}")
"""Name of an object in the oledata.mso of a document saved as XML: four bytes of its size, then zlib."""


class OleFormat:
    """Bids on the magic number."""

    name = "ole"
    prefixes = (MAGIC,)

    def bid(self, evidence: Evidence) -> Bid:
        return Bid.YES if evidence.first.startswith(MAGIC) else Bid.NO

    def open(self, context: Context) -> OleDecoder:
        return OleDecoder(context)


class OleDecoder:
    """One compound file, read whole."""

    __slots__ = ("_attachments", "_encrypted", "_failed", "_members")

    def __init__(self, context: Context) -> None:
        self._members = Members(context)
        self._attachments: dict[str, tuple[str, ...]] = {}
        self._encrypted = False
        self._failed: tuple[Reason, str] | None = None

    def read(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        return reported(self._events(store), self._members)

    def _events(self, store: PartStore) -> Iterator[PartEvent | Waiting]:
        try:
            file = OleFile(store.reader())
        except Broken as error:
            yield PartFailed("", Reason.MALFORMED, f"This OLE2 file cannot be read: {error}")
            return
        try:
            yield from self._document(store, file)
        except Stop as stop:
            yield spent(stop)
            return
        for sentence in dict.fromkeys(file.damage):
            yield from self._members.anomaly("ole-damaged", sentence)
        if self._failed is not None:
            yield PartFailed("", *self._failed)
        elif file.damage:
            yield PartFailed("", Reason.MALFORMED, f"This OLE2 file is damaged: {file.damage[0]}")

    def _document(self, store: PartStore, file: OleFile) -> Iterator[PartEvent | Waiting]:
        locked = encrypted_by(file)
        self._encrypted = locked is not None
        if locked is not None:
            yield from self._members.anomaly("encrypted-document", locked.name)
            self._failed = yield from decrypted(store, file, self._members)
        for entry in file.entries:
            for kind in ole_facts.classes_in(entry.clsid):
                yield from self._members.anomaly(kind, ole_facts.stream_name(entry) or "the document")
        self._attachments = ole_facts.attachment_names(file)
        sources = yield from Projects(file, self._members).sources()
        for entry in file.entries:
            if entry.kind == 2:
                yield from self._stream(file, entry, entry.number not in sources)

    def _stream(self, file: OleFile, entry: Entry, may_have_source: bool) -> Iterator[PartEvent]:
        """A stream as it is, then what is known to be in it."""
        members = self._members
        name = entry.name.lower()
        names: tuple[str, ...] = (ole_facts.stream_name(entry),)
        if name.startswith(ole_facts.ATTACHMENT):
            names = self._attachments.get(entry.path.rpartition("/")[0], ()) + names
        key, begin = members.begin(names)
        yield begin
        dde = source = False
        before = b""
        try:
            for piece in file.read(entry):
                joined = before + piece
                dde = dde or (name == "worddocument" and ole_facts.dde_field(joined))
                source = source or (may_have_source and vba.SOURCE_START in joined)
                before = piece[-64:]
                yield from members.data(key, piece)
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)
        if dde:
            yield from members.anomaly("dde", "A field of this document starts a program by DDE.")
        if source:
            yield from Projects(file, members).stray(entry)
        yield from self._special(file, entry, name)

    def _special(self, file: OleFile, entry: Entry, name: str) -> Iterator[PartEvent]:
        members = self._members
        if _SHAPE.fullmatch(name) is not None:
            yield from self._inflated(_skipping(file.read(entry), 4), f"{entry.name}.bin")
        elif name.endswith("ole10native"):
            yield from self._package(file, entry)
        elif name in ("workbook", "book") and not self._encrypted:
            yield from self._workbook(file.head(entry, _GLOBALS_MAX))
        elif name == "powerpoint document" and not self._encrypted:
            yield from self._slides(file, entry)
        elif name == "equation native":
            yield from members.anomaly("equation-object", ole_facts.stream_name(entry))
        elif name in ("\1ole", "\1compobj", "\3linkinfo"):
            for kind in ole_facts.classes_in(file.head(entry, _LOOK)):
                yield from members.anomaly(kind, ole_facts.stream_name(entry))

    def _package(self, file: OleFile, entry: Entry) -> Iterator[PartEvent]:
        """The file in an OLE package: behind four bytes of its size, which some writers leave out."""
        members = self._members
        head = file.head(entry, 4 * STRING_MAX)
        found = package(head, 4) or package(head)
        if found is None:
            yield from self._part(file, entry, ("native",), 4, entry.size)
            return
        yield from members.anomaly("ole-package", found.names[0] if found.names else "")
        yield from self._part(file, entry, found.names or ("package",), found.start, found.size)
        if found.start + found.size > entry.size:
            yield from members.anomaly("ole-package-short", found.names[0] if found.names else "")

    def _part(self, file: OleFile, entry: Entry, names: tuple[str, ...], start: int, size: int) -> Iterator[PartEvent]:
        """Some bytes of a stream as a part."""
        members = self._members
        key, begin = members.begin(names)
        yield begin
        try:
            for piece in file.read(entry):
                wanted = piece[start : start + size]
                size -= len(wanted)
                start = max(0, start - len(piece))
                if wanted:
                    yield from members.data(key, wanted)
                if size <= 0:
                    break
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            raise
        yield PartEnd(key)

    def _workbook(self, data: bytes) -> Iterator[PartEvent]:
        said = workbook(data)
        members = self._members
        if said.encrypted:  # one of many, behind those that were asked at first
            self._failed = Reason.ENCRYPTED, "There is an encrypted workbook in this file."
        if said.macro_sheets:
            yield from members.anomaly("xlm-macro", ", ".join((*said.macro_sheets, *said.automatic)))
        for link in said.dde:
            yield from members.anomaly("dde", link)
        if said.incomplete:
            yield from members.anomaly("xls-too-many-records")

    def _slides(self, file: OleFile, entry: Entry) -> Iterator[PartEvent]:
        """The OLE objects of a presentation, its VBA project among them."""
        members = self._members
        for number, (compressed, pieces) in enumerate(ole_facts.slide_objects(file.read(entry)), 1):
            if compressed:
                yield from self._inflated(pieces, f"object{number}")
                for _ in pieces:
                    pass  # whatever stands behind its end
                continue
            key, begin = members.begin((f"object{number}",))
            yield begin
            try:
                for piece in pieces:
                    yield from members.data(key, piece)
            except Stop as stop:
                yield PartFailed(key, stop.reason, stop.detail)
                raise
            yield PartEnd(key)

    def _inflated(self, pieces: Iterator[bytes], name: str) -> Iterator[PartEvent]:
        """A zlib stream as a part."""
        members = self._members
        key, begin = members.begin((name,))
        yield begin
        unpacker = Unpacker(Inflate(15), members.context.gate)
        try:
            for piece in pieces:
                for out in unpacker.run(piece):  # counts by itself
                    yield PartData(key, out)
                if unpacker.eof:
                    break
        except Stop as stop:
            yield PartFailed(key, stop.reason, stop.detail)
            if stop.reason is Reason.OVER_LIMIT:
                raise
        else:
            yield PartEnd(key)


def _skipping(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """``pieces`` without the first bytes."""
    for piece in pieces:
        yield piece[count:]
        count = max(0, count - len(piece))
