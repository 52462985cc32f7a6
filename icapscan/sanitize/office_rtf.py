"""RTF: the data of objects, DDE fields, templates from elsewhere and equations are cut out; all else stays as it is.

Word reads the data of an object over nearly everything that may stand between its digits. So what is cut is the rest of
the group in which ``\\objdata`` stands, and where the end of that group is not certain the file is not cleaned.
"""

from __future__ import annotations

import re

from icapscan.sanitize.contract import CannotSanitize, Cleaned
from icapscan.sanitize.documents_options import Work
from icapscan.sanitize.office_parts import is_dde

GROUPS_MAX = 2_000
"""Objects and fields of one file that are looked at."""
MARKS_MAX = 2_000_000
_MARK = re.compile(rb"[{}\\]")
_WORD = re.compile(rb"\\(?:([a-zA-Z]+)(-?\d{0,20})\x20?|'([0-9A-Fa-f]{2})|[\r\n]|[^a-zA-Z'])", re.S)
_STARTS = re.compile(rb"\\(objdata|fldinst|template|objclass|objname|objalias|objsect)(?![a-zA-Z])")
_ACTING = re.compile(rb"\\(?:objupdate|objautlink|objlink|objocx|objsub|objpub|objicemb)(?![a-zA-Z])-?\d{0,20}")
"""Words that say what kind of object it is and when it is loaded: without them and its data it is a picture."""
_ELSEWHERE = re.compile(rb"[/\\]{2}|:", re.I)


class _Cutter:
    def __init__(self, data: bytes, work: Work) -> None:
        self._data = data
        self._work = work
        self._marks = 0
        self.cuts: list[tuple[int, int]] = []
        self.what: dict[str, None] = {}

    def run(self) -> None:
        """Find what is to be cut."""
        for count, found in enumerate(_STARTS.finditer(self._data)):
            if count > GROUPS_MAX:
                raise CannotSanitize("There are too many objects and fields in the RTF file.")
            self._work.gate.room()
            word = found[1]
            if word == b"objdata":
                self._cut(found.start(), self._group(found.end())[0], "an embedded object")
                continue
            end, text = self._group(found.end())
            if word == b"fldinst" and is_dde(text.decode("latin-1")):
                self._cut(found.end(), end, "DDE")
            elif (
                word == b"template"
                and _ELSEWHERE.search(text.lstrip()[:8])
                and not re.match(rb"\s*[a-z]:[\\/]", text, re.I)
            ):
                self._cut(found.end(), end, "a template from elsewhere")
            elif word == b"objclass" and text.strip().lower().startswith(b"equation"):
                self._cut(found.end(), end, "an equation of the old editor")
        if "an embedded object" in self.what:
            for found in _ACTING.finditer(self._data):
                self.cuts.append(found.span())

    def result(self) -> bytes:
        """The file without what was cut."""
        out, at = [], 0
        for start, end in sorted(self.cuts):
            if start > at:
                out.append(self._data[at:start])
            at = max(at, end)
        return b"".join((*out, self._data[at:]))

    def _cut(self, start: int, end: int, what: str) -> None:
        self.cuts.append((start, end))
        self.what[what] = None

    def _group(self, at: int) -> tuple[int, bytes]:
        """Where the group ends that is open at ``at``, and the text in it with all groups in it.

        Raises `CannotSanitize` where Word might see another end: binary data, escapes that are none, no end at all.
        """
        data, depth, text = self._data, 0, []
        while True:
            found = _MARK.search(data, at)
            self._marks += 1
            if found is None or self._marks > MARKS_MAX:
                raise CannotSanitize("A group of the RTF file does not end.")
            text.append(data[at : found.start()])
            at = found.end()
            if found[0] == b"{":
                depth += 1
            elif found[0] == b"}":
                if not depth:
                    return found.start(), b"".join(text)
                depth -= 1
            else:
                word = _WORD.match(data, found.start())
                if word is None or word[1] == b"bin":
                    raise CannotSanitize("There is binary data in an object of the RTF file.")
                at = word.end()
                if word[3]:
                    text.append(bytes([int(word[3], 16)]))
                elif word[1] == b"u" and word[2].lstrip(b"-").isdigit():
                    text.append(bytes([int(word[2]) & 0xFF]))
                elif not word[1]:
                    text.append(word[0][1:])


def clean_rtf(data: bytes, work: Work) -> Cleaned | None:
    """The file without what acts in it; None where there is nothing of that. Raises `CannotSanitize`."""
    cutter = _Cutter(data, work)
    cutter.run()
    if not cutter.what:
        return None
    result = cutter.result()
    again = _Cutter(result, work)  # what was left may have moved together
    again.run()
    if again.what or b"\\objdata" in result:
        raise CannotSanitize("What acts in the RTF file cannot be cut out.")
    return Cleaned(result, "", tuple(cutter.what))
