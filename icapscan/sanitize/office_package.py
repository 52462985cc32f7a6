"""An OOXML package (ECMA-376 part 2): its parts, their relationships and types, and the changes that are to be made."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from icapscan.sanitize.archive_zip import Member, New, ZipArchive
from icapscan.sanitize.contract import CannotSanitize
from icapscan.sanitize.documents_options import Work
from icapscan.sanitize.office_edit import Editor, Element

TYPES = "[content_types].xml"
RELATIONS_MAX = 100_000
NOWHERE = "about:blank"
"""Where a link leads that had to stay."""
_WORDS = (b"macrosheet", b"nstrText", b"fldSimple", b"ddeLink", b"ppaction:")
"""What an XML part is looked through for before it is parsed."""
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")
_RELS = re.compile(r"(?:(.*)/)?_rels/([^/]*)\.rels")


class Relation:
    """One relationship."""

    __slots__ = ("cut", "element", "external", "id", "kind", "part", "rels", "source", "target")

    def __init__(self, rels: str, source: str, element: Element, part: str) -> None:
        self.rels = rels
        """The part that it stands in."""
        self.source = source
        """The part that has it; empty for the package itself."""
        self.element = element
        self.id = element.attributes.get("Id", "")
        self.kind = element.attributes.get("Type", "").rpartition("/")[2]
        """The last word of its type; the rest names the version of the standard."""
        self.target = element.attributes.get("Target", "")
        self.external = element.attributes.get("TargetMode", "").strip().lower() == "external"
        self.part = part
        """The part of the package that it leads to, or nothing."""
        self.cut = False


class Package:
    """The parts by their names in lower case, as the standard compares them."""

    def __init__(self, archive: ZipArchive, work: Work) -> None:
        """Raises `CannotSanitize` where it is no proper package."""
        self.archive = archive
        self.work = work
        self.members: dict[str, Member] = {}
        for member in archive.members:
            key = member.name.lstrip("/").replace("\\", "/").lower()
            if (
                key in self.members
                or member.central.locked
                or not (archive.heads[member.name] or not member.central.size)
            ):
                raise CannotSanitize("The parts of the document cannot be told apart, or are encrypted.")
            self.members[key] = member
        self.dropped: set[str] = set()
        self.replaced: dict[str, bytes] = {}
        self.what: dict[str, None] = {}
        """What was taken out and acts by itself, in plain words."""
        self._editors: dict[str, Editor] = {}
        self.types = tuple(self.editor(TYPES).find(lambda name, _: name in ("Override", "Default")))
        self._typed: dict[str, list[str]] = {}
        self._by_extension: dict[str, list[str]] = {}
        for element in self.types:
            given = element.attributes.get("ContentType", "").strip().lower()
            if element.name == "Override":
                self._typed.setdefault(part_name(element.attributes.get("PartName", "")), []).append(given)
            else:
                extension = element.attributes.get("Extension", "").lower()
                self._by_extension.setdefault(extension, []).append(given)
        self._words: dict[str, frozenset[str]] = {}
        self.relations = tuple(self._relations())
        self._to: dict[str, list[Relation]] = {}
        self._from: dict[str, list[Relation]] = {}
        for relation in self.relations:
            self._to.setdefault(relation.part, []).append(relation)
            self._from.setdefault(relation.source, []).append(relation)
        self._live = Counter(relation.part for relation in self.relations)
        """How many relationships lead to a part and are not cut."""

    def took(self, what: str) -> None:
        """Something that acts is taken out."""
        self.what[what] = None

    def head(self, part: str) -> bytes:
        """Its first bytes."""
        return self.archive.heads[self.members[part].name]

    def data(self, part: str) -> bytes:
        """Its bytes as they were."""
        return self.archive.read(self.members[part])

    def editor(self, part: str) -> Editor:
        """An XML part, to be changed."""
        found = self._editors.get(part)
        if found is None:
            found = self._editors[part] = Editor(self.data(part), self.work.gate)
        return found

    def is_xml(self, part: str) -> bool:
        """Whether it begins as XML."""
        return self.head(part).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").startswith(b"<")

    def words(self, part: str) -> frozenset[str]:
        """Which of `_WORDS` an XML part has in it."""
        found = self._words.get(part)
        if found is None:
            data = self.data(part)
            data = data if data[:2] not in _WIDE else data.replace(b"\0", b"")
            found = frozenset(word.decode() for word in _WORDS if word in data)
            self._words[part] = found
        return found

    def names(self, part: str, relations: Iterable[str]) -> bool:
        """Whether one of these relationships is written in an XML part, so that something there may use it."""
        wanted = [one.encode() for one in relations if one]
        if not wanted:
            return False
        data = self.data(part)
        data = data if data[:2] not in _WIDE else data.replace(b"\0", b"")
        return any(b'"%s"' % one in data or b"'%s'" % one in data for one in wanted)

    def typed(self, part: str, word: str) -> bool:
        """Whether its content type has this word in it; by its own entries, else by those of its extension."""
        given = self._typed.get(part) or self._by_extension.get(part.rpartition(".")[2], [])
        return any(word in one for one in given)

    def leading_to(self, part: str) -> list[Relation]:
        """The relationships that lead to a part."""
        return self._to.get(part, [])

    def cut(self, relation: Relation, gone: bool = True) -> None:
        """A relationship goes, or stays after all."""
        if relation.cut is not gone:
            relation.cut = gone
            self._live[relation.part] += -1 if gone else 1

    def drop(self, part: str) -> None:
        """Take out a part, with what only it leads to. Raises `CannotSanitize` where that is the document itself."""
        waiting = [part]
        while waiting:
            one = waiting.pop()
            if one in self.dropped or one not in self.members:
                continue
            leading = self.leading_to(one)
            if any(relation.kind == "officeDocument" for relation in leading):
                raise CannotSanitize("What is to be taken out is the document itself.")
            self.dropped.add(one)
            for relation in leading:
                self.cut(relation)
            waiting += self.drop_relations(one)

    def drop_relations(self, part: str) -> list[str]:
        """Take out the relationships of a part; gives the parts that nothing else leads to."""
        folder, _, last = part.rpartition("/")
        rels = f"{folder}/_rels/{last}.rels" if folder else f"_rels/{last}.rels"
        if rels in self.members:
            self.dropped.add(rels)
        mine = self._from.get(part, [])
        for one in mine:
            self.cut(one)
        return [one.part for one in mine if one.part and not self._live[one.part]]

    def rebuilt(self) -> bytes:
        """The package with all changes made."""
        changes: dict[str, New | None] = {}
        for part, editor in self._editors.items():
            if editor.changed:
                changes[self.members[part].name] = New("", editor.result())
        for part, data in self.replaced.items():
            changes[self.members[part].name] = New("", data)
        for part in self.dropped:
            changes[self.members[part].name] = None
        return self.archive.rebuilt(changes)

    def _relations(self) -> Iterator[Relation]:
        count = 0
        for rels in self.members:
            found = _RELS.fullmatch(rels)
            if found is None:
                continue
            folder = found[1] or ""
            source = f"{folder}/{found[2]}" if folder else found[2]
            for element in self.editor(rels).find(lambda name, _: name == "Relationship"):
                count += 1
                if count > RELATIONS_MAX:
                    raise CannotSanitize("There are too many relationships in the document.")
                part = part_name(element.attributes.get("Target", ""), folder)
                yield Relation(rels, source, element, part if part in self.members else "")


def part_name(target: str, folder: str = "") -> str:
    """The part that a target leads to from a part in ``folder``, in lower case."""
    path = unquote(target.partition("#")[0]).replace("\\", "/").strip()
    path = path if path.startswith("/") else f"/{folder}/{path}"
    return posixpath.normpath(path).lstrip("/").lower()
