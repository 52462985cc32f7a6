"""Finds the line on which each key of a TOML file stands, because `tomllib` does not tell.

Only for text that `tomllib` has accepted, so there is nothing to validate here: strings and brackets are skipped,
headers and keys are noted (TOML 1.0: keys, tables, arrays of tables).
"""

from __future__ import annotations

import json
import re
import tomllib

Path = tuple[str, ...]
"""A key as its parts; tables of an array are told apart by an index as a part, e.g. ``("policy", "rules", "0")``."""

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
DOTTED_KEY = re.compile(rf"[ \t]*({_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART})*)[ \t]*")
"""A dotted key with the blanks around it."""

_SKIP = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'  # a multi-line string may end in one or two quotes of its own
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\[\]{}\n\"'#]+",
    re.DOTALL,
)


def split_key(text: str) -> Path:
    """The parts of a dotted key. Raises ValueError (`tomllib.TOMLDecodeError`) for what is none."""
    parts = []
    value: object = tomllib.loads(f"{text} = 0")
    while isinstance(value, dict):
        if len(value) != 1:
            raise ValueError("this is not one key")
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)


def dotted(path: Path) -> str:
    """A path as it is written in TOML."""
    return ".".join(part if part.replace("-", "").replace("_", "").isalnum() else json.dumps(part) for part in path)


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every table and key of ``text``, a TOML document that `tomllib` has accepted."""
    text = text.replace("\r\n", "\n")
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    at, line = 0, 1
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        stripped = text[at:end].strip(" \t")
        if not stripped or stripped.startswith("#"):
            after = end
        elif stripped.startswith("["):
            table = _table(stripped, counts)
            _note(lines, table, line)
            after = end
        else:
            key = DOTTED_KEY.match(text, at)
            if key is None:
                return lines
            _note(lines, table + split_key(key[1]), line)
            after = _value_end(text, key.end())
        line += text.count("\n", at, after) + 1
        at = after + 1
    return lines


def _table(header: str, counts: dict[Path, int]) -> Path:
    """The path that a ``[table]`` or ``[[array of tables]]`` header opens."""
    array = header.startswith("[[")
    key = DOTTED_KEY.match(header, 2 if array else 1)
    parts = split_key(key[1]) if key else ()
    path: Path = ()
    for index, part in enumerate(parts):
        path = (*path, part)
        if array and index == len(parts) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, str(counts[path] - 1))
    return path


def _note(lines: dict[Path, int], path: Path, line: int) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], line)


def _value_end(text: str, at: int) -> int:
    """Where the value that begins at ``at`` ends: its newline, or the end of the text."""
    depth = 0
    while at < len(text):
        token = _SKIP.match(text, at)
        if token is None:
            return len(text)
        first = token[0][0]
        if first == "\n" and depth == 0:
            return at
        if token[0] in ("[", "{"):
            depth += 1
        elif token[0] in ("]", "}"):
            depth -= 1
        at = token.end()
    return at
