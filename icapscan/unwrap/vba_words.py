"""What the source of VBA modules gives away: procedures that run by themselves, and statements that start programs."""

from __future__ import annotations

import re

OVERLAP = 128
"""Bytes of a piece that are looked at again with the next one."""
WORDS_MAX = 20
_AUTOMATIC = re.compile(
    rb"\bsub[ \t]+(auto_?(?:open|exec|close|new|exit|activate|deactivate)"
    rb"|(?:document|workbook|worksheet|presentation|slideshow|app|application|session|item|newmail|inkpicture\w*)_?"
    rb"(?:open|close|new|activate|beforeclose|beforesave|startup|load|change|calculate|painted|begin|next|send|ex)"
    rb"|\w+_(?:gotfocus|layout|mouseenter|resize|initialize|painted))\b",
    re.I,
)
_STARTS = re.compile(
    rb"wscript\.shell|shell\.application|shellexecute|win32_process|createprocess|powershell|\bmshta\b|rundll32|regsvr32"
    rb"|certutil|bitsadmin|urldownloadtofile|adodb\.stream|xmlhttp|winhttprequest|virtualalloc|createthread|winmgmts"
    rb"|macscript|doshellscript|\bcallbyname\b"
    rb"|(?:^|[=:]|\bcall\b|\bthen\b|\belse\b)[ \t]*shell[ \t]*[(\"\w]|createobject[ \t]*\([ \t]*[^\"\s)]",
    re.I | re.M,
)


class Words:
    """Gathers over all modules of a project: one may open, another may start."""

    def __init__(self) -> None:
        self.automatic: dict[str, None] = {}
        self.starts: dict[str, None] = {}
        self._before = b""

    def look(self, piece: bytes) -> None:
        """More source of a module."""
        text = self._before + piece
        for pattern, found in ((_AUTOMATIC, self.automatic), (_STARTS, self.starts)):
            if len(found) < WORDS_MAX:
                for one in pattern.finditer(text):
                    found.setdefault(one[one.re.groups and 1].decode("latin-1").strip(' \t\r\n:=("').lower())
                    if len(found) >= WORDS_MAX:
                        break
        self._before = text[-OVERLAP:]

    def end(self) -> None:
        """The module is complete."""
        self._before = b""
