"""What is cut out of one XML part of a document: DDE, fields that start programs, and what uses a cut relationship."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from msgspec import Struct

from icapscan.sanitize.office_edit import Editor, Element

FIELD_MAX = 64 * 1024
_CUT = frozenset(
    {
        "OLEObject", "control", "subDoc", "altChunk", "attachedTemplate", "sourceFileName", "oleLink", "oleObject",
    }
)  # fmt: skip
"""Elements that can go where the relationship that they use has to."""
_AROUND = frozenset({"Choice", "Fallback", "AlternateContent", "controls", "oleObjects", "object", "definedNames"})
"""Elements that go when all that is in them has gone."""
_TEXTS = ("instrText", "delInstrText")
_WANTED = _AROUND | frozenset({"fldSimple", "fldChar", "ddeLink", "oleLink", "link", *_TEXTS})
_DDE = re.compile(r"(?<![A-Za-z0-9])DDE(?:AUTO)?(?![A-Za-z0-9])", re.I)
_QUOTE = re.compile(r"QUOTE((?:\s+\d{1,3})+)", re.I)
_ACTIONS = ("ppaction://program", "ppaction://macro")


class Cuts(Struct):
    """What was found in one part."""

    dde: bool = False
    actions: bool = False
    used: frozenset[str] = frozenset()
    """Relationships that something still uses, so that they must stay, and lead nowhere."""


def clean_part(editor: Editor, gone: Collection[str], linked: bool) -> Cuts:
    """Cut a part; ``gone`` are the relationships of it that are to go.

    ``linked``: it is a sheet of a workbook whose links to objects go, and with them the objects in the sheet.
    """
    cuts = Cuts()
    elements = editor.find(
        lambda name, given: name in _WANTED or _acts(given) or _uses(given, gone) or (linked and name == "oleObject")
    )
    for element in elements:
        if element.name == "oleObject" and linked and "link" in element.attributes:
            editor.cut(element, _AROUND)
        elif element.name == "ddeLink":
            editor.cut(element, _AROUND)
            cuts.dde = True
        elif element.name == "fldSimple" and is_dde(element.attributes.get("instr", "")):
            editor.set(element, "instr", "")
            cuts.dde = True
        elif _acts(element.attributes):
            editor.set(element, "action", "ppaction://noaction")
            cuts.actions = True
    cuts.dde |= _fields(editor, elements)
    cuts.used = frozenset(_unused(editor, elements, gone))
    return cuts


def cut_automatic_names(editor: Editor) -> None:
    """Names of a workbook that run a macro when it is opened or closed."""
    for element in editor.find(lambda name, _: name in ("definedName", "definedNames")):
        called = element.attributes.get("name", "").lower().removeprefix("_xlnm.")
        if element.name == "definedName" and called.replace(".", "_").startswith(("auto_", "autoopen", "autoclose")):
            editor.cut(element, _AROUND)


def is_dde(text: str) -> bool:
    """Whether the instruction of a field is DDE, QUOTE fields in it evaluated as Word does."""
    plain = _QUOTE.sub(lambda found: "".join(chr(int(code) % 256) for code in found[1].split()), text[:FIELD_MAX])
    return _DDE.search(plain) is not None


class _Field:
    """A field whose end was not met yet."""

    def __init__(self) -> None:
        self.pieces: list[Element] = []
        self.instructs = True
        """What comes is its instruction; behind the separator it is its result."""


def _fields(editor: Editor, elements: Iterable[Element]) -> bool:
    """Empty the instructions of DDE fields. A field within an instruction is part of it (ECMA-376 part 1, 17.16.18)."""
    stack, done = [_Field()], list[_Field]()
    for element in elements:
        kind = element.attributes.get("fldCharType") if element.name == "fldChar" else ""
        if kind == "begin":
            stack.append(_Field())
        elif kind == "separate":
            stack[-1].instructs = len(stack) == 1
        elif kind == "end" and len(stack) > 1:
            done.append(stack.pop())
        elif element.name in _TEXTS:
            for field in stack[1:] or stack:  # outside of all fields it is one by itself
                if field.instructs:
                    field.pieces.append(element)
    emptied: dict[int, Element] = {}
    for field in (*done, *stack):
        if is_dde("".join(piece.text for piece in field.pieces)):
            emptied.update((piece.start, piece) for piece in field.pieces)
    for piece in emptied.values():
        editor.empty(piece)
    return bool(emptied)


def _unused(editor: Editor, elements: Iterable[Element], gone: Collection[str]) -> Iterable[str]:
    """Cut what uses the relationships that are to go; gives those that something else uses too."""
    objects = {}
    for element in elements:
        relation = element.relation
        if element.name == "oleObj" and relation in gone:  # a picture of it stays
            editor.set(element, next(name for name in element.attributes if name.startswith("r:")), None)
            objects[element.start] = element
        elif element.name in _CUT and relation in gone:
            editor.cut(element, _AROUND)
        elif relation in gone:
            yield relation
    for element in elements:
        if element.name == "link" and element.parent is not None and element.parent.start in objects:
            editor.rename(element, b"embed")


def _uses(given: dict[str, str], gone: Collection[str]) -> bool:
    return bool(gone) and any(name.startswith("r:") and value in gone for name, value in given.items())


def _acts(given: dict[str, str]) -> bool:
    return given.get("action", "").lower().startswith(_ACTIONS)
