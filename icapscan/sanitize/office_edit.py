"""Cuts elements out of XML and leaves every other byte as it is: expat says where they stand.

The XML of a package is in UTF-8 or UTF-16 and has no document type declaration (ECMA-376 part 2, 8.1.4). Anything else
is refused: the program that opens the document might read it in another way than the parser here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.parsers import expat

from icapscan.limits import MIB
from icapscan.sanitize.contract import CannotSanitize
from icapscan.unwrap.gate import Gate

XML_MAX = 48 * MIB
"""Bytes of XML that are parsed; parts that hold nothing of interest are not."""
TAG_MAX = 1 * MIB
"""Bytes of one tag: the parser makes objects of all its attributes at once."""
FOUND_MAX = 200_000
"""Elements of one part that are kept, some 500 bytes each. A book has some ten thousand fields."""
_CHUNK = 64 * 1024
_STEP = 4096
"""Elements between two looks at the clock."""
_TAG = re.compile(rb"<[^<>\"']*+(?:(?:\"[^\"]*+\"|'[^']*+')[^<>\"']*+)*>")
_DECLARED = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._\-]{1,40})[\"'][^>]*\?>")
RELATIONSHIPS = "/relationships"
"""How the namespace of attributes that name a relationship ends, in both variants of the standard."""
Wanted = Callable[[str, dict[str, str]], bool]


class Element:
    """An element that somebody wants to know of."""

    __slots__ = ("attributes", "children", "cut", "end", "gone", "head_end", "name", "parent", "start", "text")

    def __init__(
        self, name: str, attributes: dict[str, str], start: int, head_end: int, parent: Element | None
    ) -> None:
        self.name = name
        """Without its prefix."""
        self.attributes = attributes
        """By names without prefix; those that name a relationship have ``r:`` before them."""
        self.start = start
        self.head_end = head_end
        """Behind its start tag."""
        self.end = head_end
        self.parent = parent
        """The element that it stands in, where that one is wanted too."""
        self.children = 0
        """Elements in it."""
        self.text = ""
        self.gone = 0
        """Elements in it that were cut."""
        self.cut = False

    @property
    def relation(self) -> str:
        """The relationship that it names, or nothing."""
        return next((value for name, value in self.attributes.items() if name.startswith("r:")), "")


class Editor:
    """One part: find elements, cut them, change their attributes."""

    def __init__(self, data: bytes, gate: Gate) -> None:
        """Raises `CannotSanitize` where it is not XML as a package has it."""
        if len(data) > XML_MAX:
            raise CannotSanitize("An XML part is too large to be changed.")
        self._data = _as_utf8(data)
        self._gate = gate
        self._edits: list[tuple[int, int, bytes]] = []
        self.root = ""

    def find(self, wanted: Wanted) -> list[Element]:
        """The elements for which ``wanted`` says so, in order of their start tags."""
        return _Parse(self._data, wanted, self._gate, self).found

    def cut(self, element: Element, with_empty: frozenset[str] = frozenset()) -> None:
        """Take it out; and the elements around it, where they are called so and nothing else is in them."""
        if element.cut:
            return
        element.cut = True
        self._edits.append((element.start, element.end, b""))
        parent = element.parent
        if parent is not None:
            parent.gone += 1
            if parent.name in with_empty and (parent.gone == parent.children or element.name == "Choice"):
                self.cut(parent, with_empty)

    def empty(self, element: Element) -> None:
        """Take out what stands in it."""
        if element.end > element.head_end:
            end = self._data.rfind(b"</", element.head_end, element.end)
            self._edits.append((element.head_end, end, b""))

    def set(self, element: Element, name: str, value: str | None) -> None:
        """Another value for an attribute, by its name without prefix; None takes it away."""
        plain = re.escape(name.removeprefix("r:").encode())
        prefix = rb"[\w.\-]+:" if name.startswith("r:") else rb"(?:[\w.\-]+:)?"
        pattern = rb"\s+(" + prefix + plain + rb")\s*=\s*(?:\"[^\"]*\"|'[^']*')"
        found = re.compile(pattern).search(self._data, element.start, element.head_end)
        if found is None:
            raise CannotSanitize("An attribute of an XML part was not found.")
        new = b"" if value is None else b" " + found[1] + b'="' + _escaped(value) + b'"'
        self._edits.append((found.start(), found.end(), new))

    def rename(self, element: Element, name: bytes) -> None:
        """Another name for an element without content, its prefix kept and its attributes dropped."""
        found = re.compile(rb"<([\w.\-]+:)?").match(self._data, element.start)
        prefix = (found[1] or b"") if found is not None else b""
        self._edits.append((element.start, element.end, b"<" + prefix + name + b"/>"))

    @property
    def changed(self) -> bool:
        return bool(self._edits)

    def result(self) -> bytes:
        """The part with all edits made. An edit within another one is part of it."""
        out, at = [], 0
        for start, end, new in sorted(self._edits, key=lambda edit: (edit[0], -edit[1])):
            if start < at:
                if end > at:
                    raise CannotSanitize("Changes of an XML part overlap.")
                continue
            out += [self._data[at:start], new]
            at = end
        return b"".join((*out, self._data[at:]))


class _Parse:
    """One run of the parser."""

    def __init__(self, data: bytes, wanted: Wanted, gate: Gate, editor: Editor) -> None:
        self.found: list[Element] = []
        self._data = data
        self._wanted = wanted
        self._gate = gate
        self._editor = editor
        self._stack: list[Element | None] = []
        self._count = 0
        parser = self._parser = expat.ParserCreate("utf-8", " ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            for at in range(0, len(data), _CHUNK):
                parser.Parse(data[at : at + _CHUNK], False)
                if at - parser.CurrentByteIndex > TAG_MAX:
                    raise CannotSanitize("A tag of an XML part is too long.")
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise CannotSanitize(f"An XML part is damaged: {error}.") from None

    def _start(self, name: str, raw: dict[str, str]) -> None:
        self._count += 1
        if self._count % _STEP == 0:
            self._gate.room()
        stack = self._stack
        parent = stack[-1] if stack else None
        if parent is not None:
            parent.children += 1
        name = name.rpartition(" ")[2]
        attributes = {}
        for full, value in raw.items():
            space, _, local = full.rpartition(" ")
            attributes[f"r:{local}" if space.endswith(RELATIONSHIPS) else local] = value
        if not stack:
            self._editor.root = name
        element = None
        if self._wanted(name, attributes):
            start = self._parser.CurrentByteIndex
            tag = _TAG.match(self._data, start)
            if tag is None:
                raise CannotSanitize("A tag of an XML part was not found.")
            element = Element(name, attributes, start, tag.end(), parent)
            self.found.append(element)
            if len(self.found) > FOUND_MAX:
                raise CannotSanitize("There is too much in an XML part that is to be looked at.")
        stack.append(element)

    def _end(self, name: str) -> None:
        element = self._stack.pop()
        if element is not None and self._data[element.head_end - 2 : element.head_end] != b"/>":
            element.end = self._data.index(b">", self._parser.CurrentByteIndex) + 1

    def _text(self, text: str) -> None:
        element = self._stack[-1] if self._stack else None
        if element is not None:
            element.text += text

    def _doctype(self, *_: object) -> None:
        raise CannotSanitize("An XML part has a document type declaration.")


def _as_utf8(data: bytes) -> bytes:
    """The part in UTF-8, with a declaration that says so or says nothing."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16")
    elif data[:2] in (b"<\0", b"\0<"):
        text = data.decode("utf-16-le" if data[:1] == b"<" else "utf-16-be")
    else:
        found = _DECLARED.match(data.removeprefix(b"\xef\xbb\xbf"))
        if found is not None and found[1].lower() not in (b"utf-8", b"us-ascii", b"ascii"):
            raise CannotSanitize("An XML part is in an encoding that packages do not have.")
        return data
    return re.sub(r"^(\s*<\?xml[^>]*?encoding\s*=\s*[\"'])[^\"']*", r"\1UTF-8", text, count=1).encode()


def _escaped(value: str) -> bytes:
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), ('"', "&quot;")):
        value = value.replace(char, entity)
    return value.encode()
