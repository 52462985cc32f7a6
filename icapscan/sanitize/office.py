"""Word, Excel and PowerPoint documents since 2007: macros, and what loads or starts something, taken out.

Parts that do not change keep their exact bytes, and in the parts that do, every byte that is not cut. A sheet of
Excel 4 macros becomes an empty worksheet, so that the numbers of the other sheets stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from icapscan.sanitize.archive import keys_of, resolve
from icapscan.sanitize.archive_zip import ZipArchive
from icapscan.sanitize.contract import CannotSanitize, Cleaned
from icapscan.sanitize.documents_options import Inside, Work
from icapscan.sanitize.office_edit import Element
from icapscan.sanitize.office_package import NOWHERE, TYPES, Package, Relation, part_name
from icapscan.sanitize.office_parts import clean_part, cut_automatic_names
from icapscan.unwrap.active_content import is_remote
from icapscan.unwrap.ole_file import MAGIC as OLE

_MACROS = ("vbaproject", "wordvbadata", "vbaprojectsignature", "vbaprojectsignatureagile", "vbaprojectsignaturev3")
_MACRO_TYPES = ("vnd.ms-office.vbaproject", "vnd.ms-word.vbadata")
_WORDS = {"extensibility": "macros", "webextensiontaskpanes": "an add-in of the web"}
"""Buttons that call macros, and may name the document that the macros are in; and programs that the web gives."""
_CONTROLS = ("control", "activexcontrolbinary")
_MACRO_SHEETS = ("xlmacrosheet", "xlintlmacrosheet")
_LOADED = {
    "attachedtemplate": "a template from elsewhere",
    "oleobject": "a linked object",
    "package": "a linked object",
    "frame": "a frame from elsewhere",
    "subdocument": "a part from elsewhere",
    "control": "a control from elsewhere",
    "afchunk": "a part from elsewhere",
    "vbaproject": "macros",
}
"""Relationships that make Office load something from elsewhere by itself."""
_OBJECTS = ("oleobject", "package")
_BOOKS = ("externallinkpath", "externallink", "xlpathmissing", "externallinklong")
_MONIKERS = ("mhtml:", "script:", "ms-msdt:", "search-ms:", "javascript:", "vbscript:")
_EMBEDDED = ("oleobject", "package", "afchunk", *_CONTROLS)
"""What an offending part may be to the part that it is embedded in, so that it can be cut out."""
_MAIN_TYPES = {
    "application/vnd.ms-word.document.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
    "application/vnd.ms-word.template.macroenabledtemplate.main+xml":
        "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    "application/vnd.ms-excel.sheet.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml",
    "application/vnd.ms-excel.template.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.spreadsheetml.template.main+xml",
    "application/vnd.ms-excel.addin.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml",
    "application/vnd.ms-powerpoint.presentation.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml",
    "application/vnd.ms-powerpoint.template.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.presentationml.template.main+xml",
    "application/vnd.ms-powerpoint.slideshow.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml",
    "application/vnd.ms-powerpoint.addin.macroenabled.main+xml":
        "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml",
}  # fmt: skip
_EXTENSIONS = {
    ".docm": ".docx", ".dotm": ".dotx", ".xlsm": ".xlsx", ".xltm": ".xltx", ".xlam": ".xlsx", ".pptm": ".pptx",
    ".potm": ".potx", ".ppsm": ".ppsx", ".ppam": ".pptx",
}  # fmt: skip
_SHEET = (
    b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n'
    b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData/></worksheet>'
)
_BINARY_SHEET = bytes.fromhex("810100 910100 920100 820100")
"""BrtBeginSheet, BrtBeginSheetData and their ends, without content (MS-XLSB 2.1.7.62)."""
_SHEET_TYPES = {
    False: "application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml",
    True: "application/vnd.ms-excel.worksheet",
}


def clean_office(archive: ZipArchive, name: str, inside: Inside, work: Work) -> Cleaned | None:
    """The document without what acts in it; None where there is nothing of that. Raises `CannotSanitize`."""
    package = Package(archive, work)
    _macros(package)
    _sheets(package)
    _relations(package)
    _embedded(package, name, inside)
    _texts(package)
    if not package.what:
        return None
    _types(package)
    for relation in package.relations:
        if relation.cut and relation.rels not in package.dropped:
            package.editor(relation.rels).cut(relation.element)
    return Cleaned(package.rebuilt(), _plain_name(name), tuple(package.what))


def _macros(package: Package) -> None:
    """VBA projects with their signatures and data, the ribbon that calls them, and controls."""
    for relation in package.relations:
        kind = relation.kind.lower()
        controls = kind in _CONTROLS and package.work.options.office_controls
        if not relation.external and (kind in _MACROS or kind in _WORDS or controls):
            package.cut(relation)
            if relation.part:
                package.drop(relation.part)
            package.took("ActiveX controls" if controls else _WORDS.get(kind, "macros"))
    for element in package.types:
        if any(word in element.attributes.get("ContentType", "").lower() for word in _MACRO_TYPES):
            part = part_name(element.attributes.get("PartName", "")) if element.name == "Override" else ""
            if part in package.members:
                package.drop(part)
                package.took("macros")


def _sheets(package: Package) -> None:
    """Sheets of Excel 4 macros become empty worksheets."""
    sheets = {one.part for one in package.relations if one.kind.lower() in _MACRO_SHEETS and one.part}
    for part in package.members:
        macro = package.typed(part, "macrosheet")
        if not macro and package.is_xml(part) and "macrosheet" in package.words(part):
            editor = package.editor(part)
            editor.find(lambda *_: False)
            macro = editor.root == "macrosheet"
        if macro:
            sheets.add(part)
    for part in sheets - package.dropped:
        package.took("sheets of Excel 4 macros")
        package.replaced[part] = _SHEET if package.is_xml(part) else _BINARY_SHEET
        for alone in package.drop_relations(part):
            package.drop(alone)
        for relation in package.leading_to(part):
            if relation.kind.lower() in _MACRO_SHEETS:
                whole = relation.element.attributes["Type"]
                kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"
                if whole != kind:
                    package.editor(relation.rels).set(relation.element, "Type", kind)
                if relation.source in package.members and package.is_xml(relation.source):
                    cut_automatic_names(package.editor(relation.source))


def _relations(package: Package) -> None:
    """What is loaded from elsewhere. A template on the writer's own disk goes too, but is nothing that acts."""
    for relation in package.relations:
        kind, target = relation.kind.lower(), relation.target.strip().lower()
        moniker = target.startswith(_MONIKERS)
        if relation.external and kind in _LOADED and (package.work.options.office_objects or kind not in _OBJECTS):
            package.cut(relation)
            if kind != "attachedtemplate" or moniker or not _on_a_disk(target):
                package.took(_LOADED[kind])
        elif moniker or (relation.external and kind in _BOOKS and is_remote(target)):
            _lead_nowhere(package, relation)
            package.took("a link that starts a program" if moniker else "a link to a workbook elsewhere")


def _on_a_disk(target: str) -> bool:
    """A path with a drive letter; a relative one may be a file that comes along with the document."""
    plain = target.removeprefix("file:").replace("\\", "/").lstrip("/")
    return plain[1:3] in (":/", "|/") and not is_remote(target)


def _lead_nowhere(package: Package, relation: Relation) -> None:
    if relation.target != NOWHERE:
        package.editor(relation.rels).set(relation.element, "Target", NOWHERE)
    if not relation.external:
        raise CannotSanitize("A relationship within the document leads out of it.")


def _texts(package: Package) -> None:
    """DDE, and what uses the relationships that go."""
    linked = any(
        one.cut and one.kind.lower() == "oleobject" and "externallink" in one.source for one in package.relations
    )
    cut: dict[str, list[Relation]] = {}
    for one in package.relations:
        if one.cut and one.rels not in package.dropped:
            cut.setdefault(one.source, []).append(one)
    for part in package.members:
        gone = cut.get(part, [])
        if part in package.dropped or part in package.replaced or part == TYPES or part.endswith(".rels"):
            continue
        if not package.is_xml(part):
            for relation in gone:
                if relation.external:
                    package.cut(relation, False)
                    _lead_nowhere(package, relation)
            continue
        sheet = linked and "worksheets/" in part
        if not (sheet or package.words(part) - {"macrosheet"} or package.names(part, [one.id for one in gone])):
            continue
        cuts = clean_part(package.editor(part), {one.id for one in gone if one.id}, sheet)
        if cuts.dde:
            package.took("DDE")
        if cuts.actions:
            package.took("actions that start programs or macros")
        for relation in gone:
            if relation.id in cuts.used:
                if relation.part or not relation.external:
                    raise CannotSanitize("What is to be taken out is used in a way that is not known.")
                package.cut(relation, False)
                _lead_nowhere(package, relation)


def _embedded(package: Package, name: str, inside: Inside) -> None:
    """Documents within the document; and the parts that offend, where they are embedded files."""
    members = {member.name: part for part, member in package.members.items()}
    keys = keys_of(package.archive)
    wanted: dict[str, tuple[str, ...]] = {}
    for path in inside:
        member, rest = resolve(keys, name, path)
        if member is not None:
            part = members[member.name]
            wanted[part] = (*wanted.get(part, ()), rest)
    for part in package.members:
        if part in package.dropped or part in package.replaced:
            continue
        head = package.head(part)
        if head.startswith((OLE, b"PK\3\4", b"{\\rt")):
            last = package.members[part].name.rpartition("/")[2]
            cleaned = package.work.inner(package.data(part), last, wanted.get(part, ()))
            if cleaned is not None:
                package.replaced[part] = cleaned.data
                for one in cleaned.what:
                    package.took(f"{one} (in {last})")
                continue
        if part in wanted:
            _cut_embedded(package, part)


def _cut_embedded(package: Package, part: str) -> None:
    """An embedded file that offends and could not be cleaned."""
    leading = package.leading_to(part)
    if leading and all(one.kind.lower() in _EMBEDDED for one in leading):
        package.drop(part)
        package.took("an embedded file")


def _types(package: Package) -> None:
    """Content types: of parts that are gone, of sheets that changed, and of a document that has no macros any more."""
    editor = package.editor(TYPES)
    for element in package.types:
        package.work.gate.room()
        given = element.attributes.get("ContentType", "")
        low = given.strip().lower()
        part = part_name(element.attributes.get("PartName", "")) if element.name == "Override" else ""
        if part and part in package.dropped:
            editor.cut(element)
        elif "macrosheet" in low:
            binary = part in package.members and not package.is_xml(part)
            editor.set(element, "ContentType", _SHEET_TYPES[binary])
        elif low in _MAIN_TYPES:
            editor.set(element, "ContentType", _MAIN_TYPES[low])
        elif low.removesuffix(".12").endswith(".macroenabled") and _changed(package, element, part):
            plain = _MAIN_TYPES.get(f"{low.removesuffix('.12')}.main+xml", "")
            if plain:
                editor.set(element, "ContentType", plain.replace(".main+xml", ""))
        elif element.name == "Default" and any(word in low for word in _MACRO_TYPES):
            if _ending(element, set(package.members) - package.dropped):
                editor.set(element, "ContentType", "application/octet-stream")
            else:
                editor.cut(element)


def _changed(package: Package, element: Element, part: str) -> bool:
    """Whether this is the type of a document within this one that has no macros any more."""
    return part in package.replaced or (not part and _ending(element, package.replaced))


def _ending(element: Element, parts: Iterable[str]) -> bool:
    """Whether one of the parts has the extension that this type is for."""
    ending = "." + element.attributes.get("Extension", "").lower()
    return any(part.endswith(ending) for part in parts)


def _plain_name(name: str) -> str:
    """The name that a document without macros has; empty where it is the same."""
    stem, dot, extension = name.rpartition(".")
    plain = _EXTENSIONS.get(f".{extension.lower().strip()}", "") if dot else ""
    return stem + plain if plain else ""
