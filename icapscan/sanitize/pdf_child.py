"""The child process that takes what acts out of a PDF file on standard input. Run by `pdf.py` only.

The new file goes to standard output, what was taken out to standard error, a line each; the exit status says why there
is none. Arguments are the kinds that are taken out besides scripts and launching: remote, links, files, media, xfa.
"""

from __future__ import annotations

import re
import sys
import warnings

import pikepdf
from pikepdf import Array, Dictionary, Name, Stream, String

from icapscan.sanitize.documents_child import TOOK
from icapscan.unwrap import bounded

LOCKED, DAMAGED = 4, 5
"""Exit statuses: the empty password does not fit; the library cannot read or write it."""
NODES_MAX = 5_000_000
_STEP = 1000
_ALWAYS = {"/JavaScript": "JavaScript", "/Launch": "an action that starts a program"}
_REMOTE = {
    "/SubmitForm": "an action that sends data", "/ImportData": "an action that loads data",
    "/GoToR": "an action that opens another file", "/GoToE": "an action that opens an embedded file",
    "/Thread": "an action that opens another file",
}  # fmt: skip
_MEDIA = {
    "/Rendition": "an action that plays media", "/Movie": "an action that plays media",
    "/Sound": "an action that plays media", "/RichMediaExecute": "an action that plays media",
    "/GoTo3DView": "an action that plays media",
}  # fmt: skip
_STARTING = ("javascript:", "vbscript:", "data:", "file:", "mhtml:", "ms-msdt:", "search-ms:", "script:", "\\\\")
_LINKS = {"/URI": "a link"}
_MEDIA_ANNOTATIONS = ("/RichMedia", "/Movie", "/Sound", "/Screen", "/3D")
_TRIGGERS = {
    "/E", "/X", "/D", "/U", "/Fo", "/Bl", "/PO", "/PC", "/PV", "/PI", "/O", "/C", "/K", "/F", "/V",
    "/WC", "/WS", "/DS", "/WP", "/DP",
}  # fmt: skip
"""Events that may have an action of their own (ISO 32000-2, tables 197 to 200)."""


class Cleaner:
    """One document."""

    def __init__(self, document: pikepdf.Pdf, kinds: frozenset[str]) -> None:
        self._document = document
        self._kinds = kinds
        self._actions = dict(_ALWAYS)
        for name, more in (("remote", _REMOTE), ("media", _MEDIA), ("links", _LINKS)):
            if name in kinds:
                self._actions |= more
        self._count = 0
        self.what: dict[str, None] = {}

    def clean(self) -> None:
        """Every object of the file, and what the catalog names."""
        self._catalog()
        for number, one in enumerate(self._document.objects):
            if number % _STEP == 0:
                bounded.alive()
            self._tree(one)

    def _catalog(self) -> None:
        root = self._document.Root
        names = _mapping(root, "/Names")
        if names is not None:
            self._take(names, "/JavaScript", "JavaScript")
            if "files" in self._kinds:
                self._take(names, "/EmbeddedFiles", "an embedded file")
            if "media" in self._kinds:
                self._take(names, "/Renditions", "media")
        if "files" in self._kinds:
            self._take(root, "/Collection", "an embedded file")
        form = _mapping(root, "/AcroForm")
        if form is not None and "xfa" in self._kinds:
            self._take(form, "/XFA", "a form in XML")

    def _tree(self, top: pikepdf.Object) -> None:
        """An object, and those that stand directly in it."""
        waiting: list[object] = [top]
        while waiting:
            one = waiting.pop()
            self._count += 1
            if self._count > NODES_MAX:
                raise ValueError("too many objects")
            if isinstance(one, Array):
                self._array(one)
                waiting += [item for item in one if _within(item)]
            elif isinstance(one, (Dictionary, Stream)):
                self._dictionary(one)
                waiting += [item for item in one.values() if _within(item)]

    def _take(self, one: pikepdf.Object, key: str, what: str) -> None:
        if key in one:
            del one[key]
            if what:
                self.what[what] = None

    # What acts

    def _array(self, array: Array) -> None:
        """Annotations that play media or hold a file, and actions one after the other."""
        for at in range(len(array) - 1, -1, -1):
            item = array[at]
            what = self._annotation(item) or self._forbidden(item)
            if what:
                del array[at]
                self.what[what] = None

    def _annotation(self, one: object) -> str:
        subtype = _name(one, "/Subtype")
        if subtype in _MEDIA_ANNOTATIONS and "media" in self._kinds and _has(one, "/Rect"):
            return "media"
        return "an embedded file" if subtype == "/FileAttachment" and "files" in self._kinds else ""

    def _forbidden(self, one: object) -> str:
        """What an action is, if it is one that has to go; else nothing."""
        said = _name(one, "/S")
        if said == "/URI" and isinstance(one, Dictionary) and _starts(one.get("/URI")):
            return "a link that starts something"
        return self._actions.get(said, "") if said and _name(one, "/Type") != "/StructElem" else ""

    def _dictionary(self, one: pikepdf.Object) -> None:
        own = self._forbidden(one)
        if own:  # whoever still leads to it finds nothing
            for key in list(one.keys()):
                if key != "/Length":
                    del one[key]
            self.what[own] = None
            return
        self._take(one, "/JS", "JavaScript")
        for key in ("/A", "/PA", "/Next"):
            what = self._forbidden(one.get(key))
            if what:
                self._take(one, key, what)
        if "/AA" in one and _automatic(one.get("/AA")):
            self._take(one, "/AA", "actions that run by themselves")
        if "/OpenAction" in one:
            opened = one.get("/OpenAction")
            what = "" if _moves(opened) else self._forbidden(opened) or "an action that runs by itself"
            self._take(one, "/OpenAction", what)
        if "files" in self._kinds:
            self._take(one, "/EF", "an embedded file")
            self._take(one, "/AF", "an embedded file")


def _within(item: object) -> bool:
    """Whether it is an object that stands directly in another one."""
    return isinstance(item, (Array, Dictionary, Stream)) and not item.is_indirect


def _mapping(one: pikepdf.Object, key: str) -> pikepdf.Object | None:
    value = one.get(key)
    return value if isinstance(value, (Dictionary, Stream)) else None


def _automatic(value: object) -> bool:
    """Additional actions; the same name may be that of a font or a picture."""
    if not isinstance(value, Dictionary):
        return False
    keys = set(value.keys())
    return keys <= _TRIGGERS or any(_has(value.get(key), "/S") for key in keys)


def _moves(value: object) -> bool:
    """Whether it only shows a place in the same document: nothing that acts."""
    return not isinstance(value, Dictionary) or (_name(value, "/S") == "/GoTo" and "/Next" not in value)


def _name(one: object, key: str) -> str:
    value = one.get(key) if isinstance(one, (Dictionary, Stream)) else None
    return str(value) if isinstance(value, Name) else ""


def _starts(address: object) -> bool:
    """Whether an address is none of the web or of mail, but starts something here."""
    plain = re.sub(r"[\s\0-\x20]+", "", str(address))[:40].lower() if isinstance(address, String) else ""
    return plain.startswith(_STARTING)


def _has(one: object, key: str) -> bool:
    return isinstance(one, (Dictionary, Stream)) and key in one


def main(kinds: frozenset[str]) -> int:
    """Clean standard input."""
    bounded.apply()
    warnings.simplefilter("ignore")
    bounded.alive()
    try:
        with pikepdf.open(bounded.PART, password="", suppress_warnings=True) as document:
            cleaner = Cleaner(document, kinds)
            cleaner.clean()
            document.save(
                bounded.Out(),  # type: ignore[arg-type]
                fix_metadata_version=False,
                encryption=False,
                deterministic_id=True,
            )
    except pikepdf.PasswordError:
        return LOCKED
    except Exception as error:  # whatever a damaged file does to the library
        sys.stderr.write(f"{type(error).__name__}: {error}")
        return DAMAGED
    sys.stderr.write("".join(f"{TOOK}{what}\n" for what in cleaner.what))
    return 0


if __name__ == "__main__":
    sys.exit(main(frozenset(sys.argv[1:])))
