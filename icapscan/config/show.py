"""Settings as TOML text with every key: what ``icapscan config show`` prints, and `load` reads back to the same.

But for secrets: whoever shows a configuration to somebody does not think of them.
"""

from __future__ import annotations

import json
import re

from msgspec import Struct
from msgspec import inspect as types

from icapscan.config.lines import Path, dotted
from icapscan.config.reader import Key, keys_of
from icapscan.config.units import format_bytes, format_seconds
from icapscan.servers.settings import Settings

_NOT_IN_TOML = re.compile("[\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def show(settings: Settings) -> str:
    """TOML text with every key of ``settings``, in the order of their definition; ends with a newline."""
    lines: list[str] = []
    _table(settings, (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def format_value(key: Key, value: object) -> str:
    """One value as TOML, with a unit where the key has one. What is not set is an empty text."""
    if isinstance(key.described, types.Metadata) and isinstance(value, int | float):
        unit = (key.described.extra or {}).get("unit")
        return _text(format_bytes(int(value)) if unit == "bytes" else format_seconds(float(value)))
    return _value(value)


def _table(table: Struct, path: Path, lines: list[str]) -> None:
    below: list[tuple[Path, Struct]] = []
    own: list[str] = []
    arrays: list[tuple[Path, tuple[dict[str, object], ...]]] = []
    for name, key in keys_of(type(table)).items():
        value = getattr(table, key.attribute)
        if isinstance(value, Struct):
            below.append(((*path, name), value))
        elif isinstance(value, dict):
            below += [((*path, name, entry), item) for entry, item in value.items()]
        elif isinstance(value, tuple) and value and isinstance(value[0], dict):
            arrays.append(((*path, name), value))
        elif value and isinstance(key.described, types.Metadata) and (key.described.extra or {}).get("secret"):
            own.append(f"# {name} is set, and not shown")
        else:
            own.append(f"{name} = {format_value(key, value)}")
    if own:
        lines += ["", f"[{dotted(path)}]", *own]
    for place, tables in arrays:
        for one in tables:
            lines += ["", f"[[{dotted(place)}]]", *(f"{dotted((key,))} = {_value(item)}" for key, item in one.items())]
    for deeper, struct in below:
        _table(struct, deeper, lines)


def _value(value: object) -> str:
    if value is None:
        return '""'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        inside = ", ".join(f"{dotted((str(key),))} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _text(text: str) -> str:
    """A TOML basic string. JSON escapes the same way, but for a few characters that a terminal should not see raw."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _NOT_IN_TOML.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
