"""Office documents up to 2003, and other OLE2 files: what acts is blanked in place, so that the file keeps its size.

A VBA project also leaves the directory, since Office complains of one that is there and empty, and does not of none.
"""

from __future__ import annotations

import re

from icapscan.limits import MIB
from icapscan.sanitize.contract import CannotSanitize, Cleaned
from icapscan.sanitize.documents_options import Inside, Work
from icapscan.sanitize.ole_biff import Workbook
from icapscan.sanitize.ole_edit import OleEditor, named
from icapscan.sanitize.ole_slides import clean_slides
from icapscan.unwrap import ole_facts, vba
from icapscan.unwrap.members import safe_key
from icapscan.unwrap.office_crypto import encrypted_by
from icapscan.unwrap.ole_file import MAGIC, Entry
from icapscan.unwrap.streams import Broken
from icapscan.unwrap.tree import shortened

STREAM_MAX = 64 * MIB
_PROJECT = ("project", "projectwm", "projectlk")
_MAIN = ("worddocument", "workbook", "book", "powerpoint document", "current user", "0table", "1table", "data")
"""Without these there is no document."""
_CLASS_STREAMS = ("\1ole", "\1compobj", "\3linkinfo")
_WORDS = {
    "equation-object": "an equation of the old editor",
    "ole-link": "a linked object",
    "url-moniker": "a linked object",
    "script-moniker": "a linked script",
    "flash-object": "Flash",
    "ole-package": "an embedded file",
}
_FIELD = re.compile(
    rb"\x13(?=[ \t]{0,20}dde(?:auto)?[ \t])([^\x13-\x15]{1,4096})"
    rb"|\x13\0(?=(?: \0){0,20}d\0d\0e\0(?:a\0u\0t\0o\0)? \0)((?:(?![\x13-\x15]\0)..){1,4096})",
    re.I | re.S,
)
"""The instruction of a DDE field in the text of Word, one or two bytes a character; see `ole_facts`."""


def clean_ole(data: bytes, inside: Inside, work: Work) -> Cleaned | None:
    """The file without what acts in it; None where there is nothing of that. Raises `CannotSanitize`."""
    return _Cleaning(data, work).cleaned(inside)


class _Cleaning:
    def __init__(self, data: bytes, work: Work) -> None:
        self._work = work
        self._editor = OleEditor(data)
        self._file = self._editor.file
        self._what: dict[str, None] = {}

    def cleaned(self, inside: Inside) -> Cleaned | None:
        """All steps, one after the other."""
        if encrypted_by(self._file) is not None:
            raise CannotSanitize("The document is encrypted.")
        self._projects()
        for entry in self._file.entries:
            self._work.gate.room()
            if entry.kind == 2 and entry.number not in self._editor.removed:
                self._stream(entry)
                self._stray(entry)
            if self._work.options.office_objects and entry.number not in self._editor.removed:
                self._class(entry)
        self._wanted(inside)
        result = self._editor.result()
        return Cleaned(result, "", tuple(self._what)) if self._what else None

    # VBA

    def _projects(self) -> None:
        """Storages that hold a VBA project, wherever they stand and whatever they are called."""
        editor = self._editor
        for entry in self._file.entries:
            if entry.kind != 1 or entry.number in editor.removed:
                continue
            self._work.gate.room()
            within = [editor.by_number[number] for number in editor.children.get(entry.number, ())]
            name = entry.name.lower()
            if (name == "vba" and named(within, "dir", "_vba_project")) or (
                name == "_vba_project" and not named(within, "vba")
            ):
                self._project(entry)

    def _project(self, storage: Entry) -> None:
        editor = self._editor
        editor.remove(storage)
        self._what["macros"] = None
        parent = editor.parents.get(storage.number)
        if parent is None:
            return
        for number in tuple(editor.children.get(parent, ())):
            one = editor.by_number[number]
            within = [editor.by_number[child] for child in editor.children.get(number, ())]
            if one.name.lower() in _PROJECT or named(within, "\3vbframe"):  # a designer: UserForm
                editor.remove(one)
        if parent and not editor.children.get(parent):
            editor.remove(editor.by_number[parent])

    def _stray(self, entry: Entry) -> None:
        """A module, or the directory of a project, where no project is."""
        if entry.number in self._editor.removed or self._editor.is_blank(entry):
            return
        head = bytes(self._editor.read(entry)[: vba.STREAM_MAX])
        found = vba.find_source(head) >= 0
        if not found and entry.name.lower() == "dir" and head[:1] == b"\x01":
            try:
                found = bool(vba.modules(b"".join(vba.decompress(head))))
            except Broken:
                found = True
        if found:
            self._blank(entry, "macros")

    # Streams

    def _stream(self, entry: Entry) -> None:
        name = entry.name.lower()
        editor, objects = self._editor, self._work.options.office_objects
        if entry.size > STREAM_MAX or editor.is_blank(entry):
            return
        if name in ("workbook", "book"):
            self._workbook(entry)
        elif name == "worddocument":
            stream = editor.read(entry)
            found = [
                (match.start(match.lastindex or 1), match[match.lastindex or 1]) for match in _FIELD.finditer(stream)
            ]
            for at, text in found:
                stream[at : at + len(text)] = b" " * len(text) if stream[at - 1] else b" \0" * (len(text) // 2)
            if found:
                self._write(entry, stream, "DDE")
        elif name == "powerpoint document":
            stream = editor.read(entry)
            for what in clean_slides(stream, self._work.gate, lambda data, called: self._work.inner(data, called, ())):
                self._write(entry, stream, what)
        elif objects and name.endswith("ole10native"):
            self._blank(entry, "an embedded file")
        elif objects and name == "equation native":
            self._editor.remove(entry)  # its name alone calls the editor
            self._what["an equation of the old editor"] = None
        else:
            self._document(entry)

    def _workbook(self, entry: Entry) -> None:
        stream = self._editor.read(entry)
        if stream[:2] == b"\x09\x08":
            book = Workbook(stream, self._work.gate)
            book.clean()
            if book.macro_sheets:
                self._write(entry, stream, "sheets of Excel 4 macros")
            if book.links:
                self._write(entry, stream, "DDE")
        elif bytes(stream[:2]) in (b"\x09\0", b"\x09\2", b"\x09\4"):
            raise CannotSanitize("A workbook of this version of Excel cannot be cleaned.")

    def _document(self, entry: Entry) -> None:
        """A document in a stream: cleaned where it keeps its size, as an OLE2 file does, else blanked."""
        head = self._file.head(entry, 8)
        if not head.startswith((MAGIC, b"PK\3\4", b"{\\rt")):
            return
        data = bytes(self._editor.read(entry))
        cleaned = self._work.inner(data, entry.name, ())
        if cleaned is None:
            return
        if len(cleaned.data) == len(data):
            for what in cleaned.what:
                self._write(entry, cleaned.data, what)
        else:
            self._blank(entry, "an embedded document with " + ", ".join(cleaned.what))

    def _class(self, entry: Entry) -> None:
        """Objects of classes that are attacked."""
        kinds = ole_facts.classes_in(entry.clsid)
        if kinds:
            self._editor.without_class(entry)
        if entry.kind == 2 and entry.name.lower() in _CLASS_STREAMS:
            found = ole_facts.classes_in(self._file.head(entry, 4096))
            if found:
                self._blank(entry, _WORDS[found[0]])
        for kind in kinds:
            self._what[_WORDS[kind]] = None

    def _wanted(self, inside: Inside) -> None:
        """Streams that offend and are still there; of a message of Outlook, the attached files."""
        names = ole_facts.attachment_names(self._file) if inside else {}
        for entry in self._file.entries:
            if entry.kind != 2 or self._editor.is_blank(entry) or entry.name.lower() in _MAIN:
                continue
            keys = {shortened(safe_key(ole_facts.stream_name(entry)))}
            if entry.name.lower().startswith(ole_facts.ATTACHMENT):
                keys |= {shortened(safe_key(name)) for name in names.get(entry.path.rpartition("/")[0], ())}
            for path in inside:
                if any(path == key or path.startswith(f"{key}/") for key in keys):
                    self._blank(entry, "an embedded object")
                    break

    def _blank(self, entry: Entry, what: str) -> None:
        if entry.name.lower() in _MAIN:
            raise CannotSanitize("What acts stands in the middle of the document.")
        if entry.size:
            self._editor.blank(entry)
            self._what[what] = None

    def _write(self, entry: Entry, stream: bytes | bytearray, what: str) -> None:
        self._editor.write(entry, stream)
        self._what[what] = None
