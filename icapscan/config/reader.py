"""From the merged tree to frozen `Settings`: unknown keys, wrong types and values out of range are placed errors."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import Struct
from msgspec import inspect as types

from icapscan.config.checks import check
from icapscan.config.every import EverySettings
from icapscan.config.lines import Path, dotted
from icapscan.config.smtp import check_smtp
from icapscan.config.sources import Given, Sources, Tree, read_sources
from icapscan.config.units import BYTES_MAX, BYTES_WORDS, SECONDS_WORDS, parse_bytes, parse_seconds
from icapscan.errors import ConfigError
from icapscan.servers.settings import Settings

S = TypeVar("S", bound=Struct)
_SHOWN_MAX = 80
_WORDS_OF_PATTERNS = (
    ("inet:", '"inet:port@host" or "unix:/path"'),
    ("tcp:", '"unix:/path" or "tcp:host:port"'),
    (r":\d{1,5}", '"host:port" (IPv6 as "[::1]:1344")'),
)


class Key(Struct, frozen=True):
    """One key of a settings struct."""

    attribute: str
    annotation: Any
    described: types.Type


def load(file: str | None, sets: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """The settings from ``file`` (TOML; None = none), ``ICAPSCAN_A__B`` of ``environ`` and ``A.B=value`` in ``sets``.

    What ``icapscan serve`` needs of them. ``sets`` wins over ``environ``, which wins over ``file``, which wins over the
    defaults. Files and folders that the settings name are looked at. Raises `ConfigError`: the sentence names key,
    place and what was expected.
    """
    every = load_every(file, sets, environ)
    return Settings(**{name: getattr(every, name) for name in Settings.__struct_fields__})


def load_every(file: str | None, sets: Sequence[str], environ: Mapping[str, str]) -> EverySettings:
    """The same with the tables of the mail adapters. Raises `ConfigError` likewise."""
    sources = read_sources(file, sets, environ, known_keys(EverySettings()))
    settings = _struct(EverySettings(), sources.tree, (), sources)
    check(settings, sources)
    check_smtp(settings.smtp, sources)
    return settings


@lru_cache
def keys_of(kind: type[Struct]) -> dict[str, Key]:
    """The keys of a settings struct by the name that the configuration uses."""
    described = types.type_info(kind)
    assert isinstance(described, types.StructType)
    hints = get_type_hints(kind, include_extras=True)
    return {field.encode_name: Key(field.name, hints[field.name], field.type) for field in described.fields}


def known_keys(settings: Struct) -> dict[str, object]:
    """All key names as a tree; the keys of any table of a dict of tables (``[services.NAME]``) stand under ``*``."""
    keys: dict[str, object] = {}
    for name, key in keys_of(type(settings)).items():
        value = getattr(settings, key.attribute)
        if isinstance(value, Struct):
            keys[name] = known_keys(value)
        elif isinstance(value, dict):
            keys[name] = {
                "*": known_keys(_new_entry(key)),
                **{entry: known_keys(item) for entry, item in value.items()},
            }
        else:
            keys[name] = None
    return keys


def expected(kind: types.Type) -> str:
    """What a key of this type takes, in words."""
    match kind:
        case types.Metadata(type=inner, extra={"unit": "bytes"}):
            return f'a size such as 4096 or "64 KiB"{_bounds(inner)} (units: {BYTES_WORDS})'
        case types.Metadata(type=inner, extra={"unit": "seconds"}):
            return f'a time such as 2.5 (seconds) or "250 ms"{_bounds(inner)} (units: {SECONDS_WORDS})'
        case types.Metadata(type=inner):
            return expected(inner)
        case types.IntType():
            return f"a whole number{_bounds(kind)}"
        case types.FloatType():
            return f"a number{_bounds(kind)}"
        case types.BoolType():
            return "true or false"
        case types.StrType(pattern=pattern):
            return next((words for part, words in _WORDS_OF_PATTERNS if pattern and part in pattern), "a text")
        case types.LiteralType(values=(False,)):
            return "false: this is not in this release"
        case types.LiteralType(values=values):
            return " or ".join(map(_shown, values))
        case types.VarTupleType(item_type=item):
            return f"a list of {expected(item)}"
        case types.UnionType(types=several):
            return " or ".join(expected(one) for one in several if not isinstance(one, types.NoneType))
        case _:
            return "a table"


def _bounds(kind: types.Type) -> str:
    if not isinstance(kind, types.IntType | types.FloatType):
        return ""
    if kind.ge is not None and kind.le is not None:
        return f" from {kind.ge} to {kind.le}"
    words = (("of at least", kind.ge or None), ("above", kind.gt), ("of at most", kind.le), ("below", kind.lt))
    return "".join(f" {word} {bound:g}" for word, bound in words if bound is not None)


def _struct(base: S, tree: Tree | Given, path: Path, sources: Sources) -> S:
    """``base`` with what ``tree`` says changed."""
    if isinstance(tree, Given):
        raise _error(path, sources, "a table", tree.value)
    keys = keys_of(type(base))
    changes: dict[str, object] = {}
    for name, node in tree.items():
        here = (*path, name)
        key = keys.get(name)
        if key is None:
            raise ConfigError(f"{_where(here, sources)}: unknown key{_did_you_mean(here, keys)}")
        old = getattr(base, key.attribute)
        if isinstance(old, Struct):
            changes[key.attribute] = _struct(old, node, here, sources)
        elif isinstance(old, dict):
            changes[key.attribute] = _tables(old, key, node, here, sources)
        else:
            changes[key.attribute] = _leaf(key, node, here, sources)
    return msgspec.structs.replace(base, **changes)


def _tables(old: dict[str, Struct], key: Key, tree: Tree | Given, path: Path, sources: Sources) -> dict[str, Struct]:
    """A dict of tables: those of the defaults, changed or joined by those of the sources."""
    if isinstance(tree, Given):
        raise _error(path, sources, "a table of tables", tree.value)
    merged = dict(old)
    for name, node in tree.items():
        merged[name] = _struct(old.get(name) or _new_entry(key), node, (*path, name), sources)
    return merged


def _new_entry(key: Key) -> Struct:
    assert isinstance(key.described, types.DictType) and isinstance(key.described.value_type, types.StructType)
    kind: type[Struct] = key.described.value_type.cls
    return kind()


def _leaf(key: Key, node: Tree | Given, path: Path, sources: Sources) -> object:
    if not isinstance(node, Given):
        raise _error(path, sources, expected(key.described), node)
    try:
        return _convert(key, node.value)
    except ValueError as error:
        if node.text is not None and not isinstance(node.value, str):
            try:
                return _convert(key, node.text)
            except ValueError:
                pass
        raise _error(path, sources, expected(key.described), node.value) from error


def _convert(key: Key, value: object) -> object:
    """``value`` as the key's type. Raises ValueError (`msgspec.ValidationError` is one)."""
    kind: types.Type | None = key.described
    if isinstance(kind, types.Metadata):
        unit = (kind.extra or {}).get("unit")
        if unit and isinstance(value, str):
            value = parse_bytes(value) if unit == "bytes" else parse_seconds(value)
        kind = kind.type
    kinds = kind.types if isinstance(kind, types.UnionType) else (kind,)
    if value == "" and any(isinstance(one, types.NoneType) for one in kinds):
        return None  # TOML has no null: an empty text is "not set"
    if isinstance(value, str) and any(isinstance(one, types.VarTupleType) for one in kinds):
        value = [value]
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= BYTES_MAX):
        raise ValueError("out of range")
    return msgspec.convert(value, key.annotation)


def _error(path: Path, sources: Sources, what: str, got: object) -> ConfigError:
    given = "a table" if isinstance(got, dict) else _shown(got)
    return ConfigError(f"{_where(path, sources)}: expected {what}, got {given}.")


def _where(path: Path, sources: Sources) -> str:
    return f"{dotted(path)} ({sources.origin(path)})"


def _shown(value: object) -> str:
    """A value as TOML would write it, shortened."""
    if isinstance(value, bool | str | int | float | list):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def _did_you_mean(path: Path, keys: Mapping[str, object]) -> str:
    """A guess at the key that was meant: one of the same table, else one of that name anywhere."""
    name = path[-1].lower()
    near = difflib.get_close_matches(name.replace("_", "-"), [key.replace("_", "-") for key in keys], n=1)
    if near:
        found = next(key for key in keys if key.replace("_", "-") == near[0])
        return f"; did you mean {dotted((*path[:-1], found))}?"
    elsewhere = [
        whole for whole in _all_paths(known_keys(EverySettings()), ()) if whole[-1] == name and "*" not in whole
    ]
    if elsewhere:
        return f"; did you mean {' or '.join(map(dotted, elsewhere[:3]))}?"
    return f"; the keys here are {', '.join(sorted(keys))}."


def _all_paths(tree: Mapping[str, object], above: Path) -> Iterator[Path]:
    for name, below in tree.items():
        yield (*above, name)
        if isinstance(below, Mapping):
            yield from _all_paths(below, (*above, name))
