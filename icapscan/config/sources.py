"""Where settings come from: TOML file, environment and ``--set``, merged into one tree that knows its origins."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Struct

from icapscan.config.lines import DOTTED_KEY, Path, key_lines, split_key
from icapscan.errors import ConfigError

PREFIX = "ICAPSCAN_"
_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")


class Given(Struct, frozen=True):
    """One value as it was given, and where."""

    value: object
    origin: str
    text: str | None = None
    """The raw text of an environment variable or ``--set``: taken as it is where ``value`` does not fit the key."""


Tree: TypeAlias = "dict[str, Tree | Given]"


class Sources(Struct, frozen=True):
    """The merged tree, and the places of the tables of the file."""

    tree: Tree
    file: str = ""
    lines: dict[Path, int] = {}

    def origin(self, path: Path) -> str:
        """Where ``path``, or the nearest table above it, was given; "default" where it was not."""
        node: Tree | Given | None = self.tree
        for part in path:
            if not isinstance(node, dict) or part not in node:
                break
            node = node[part]
            if isinstance(node, Given):
                return node.origin
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.file}, line {self.lines[path[:length]]}"
        given = _first(node)
        return given.origin if given and path else "default"


def read_sources(
    file: str | None, sets: Sequence[str], environ: Mapping[str, str], known: Mapping[str, object]
) -> Sources:
    """Merge the sources; ``--set`` wins over the environment, the environment over the file.

    ``known`` is the tree of all key names, by which the names of environment variables (upper case, no hyphens)
    are found. Raises `ConfigError` for a file that cannot be read or parsed and for a malformed ``--set``.
    """
    tree: Tree = {}
    lines: dict[Path, int] = {}
    if file is not None:
        document, lines = _read_file(file)
        tree = _from_file(document, file, lines, ())
    for name in sorted(environ):
        if name.startswith(PREFIX) and "__" in name:
            path = _environment_path(name, tree, known)
            _put(tree, path, _from_text(environ[name], f"environment variable {name}"))
    for item in sets:
        path, text = _split_set(item)
        _put(tree, path, _from_text(text, f"--set {'.'.join(path)}"))
    return Sources(tree, file or "", lines)


def _read_file(file: str) -> tuple[dict[str, object], dict[Path, int]]:
    try:
        with open(file, "rb") as opened:
            raw = opened.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"The configuration file {file} cannot be read: {reason}.") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: expected text in UTF-8.") from error
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.rstrip().count("\n") + 1
        what = _TOML_PLACE.sub("", str(error))
        raise ConfigError(f"{file}, line {line}: this is not TOML: {what}.") from error
    except RecursionError as error:
        raise ConfigError(f"The configuration file {file} is nested too deeply.") from error


def _from_file(document: Mapping[str, object], file: str, lines: Mapping[Path, int], above: Path) -> Tree:
    tree: Tree = {}
    for key, value in document.items():
        path = (*above, key)
        if isinstance(value, dict):
            tree[key] = _from_file(value, file, lines, path)
        else:
            near = next((path[:length] for length in range(len(path), 0, -1) if path[:length] in lines), None)
            tree[key] = Given(value, f"{file}, line {lines[near]}" if near else file)
    return tree


def _from_text(text: str, origin: str) -> Given:
    """A value as TOML where it is one line of TOML, else the text itself."""
    try:
        document = tomllib.loads(f"value = {text}") if "\n" not in text else {}
    except (tomllib.TOMLDecodeError, RecursionError):
        document = {}
    return Given(document.get("value", text), origin, text)


def _split_set(item: str) -> tuple[Path, str]:
    key = DOTTED_KEY.match(item)
    if key is None or item[key.end() : key.end() + 1] != "=":
        raise ConfigError(f"--set {item}: expected KEY=VALUE, e.g. --set server.workers=2.")
    return split_key(key[1]), item[key.end() + 1 :].strip()


def _environment_path(name: str, tree: Tree, known: Mapping[str, object]) -> Path:
    """``ICAPSCAN_POLICY__UNSCANNED__OVER_LIMIT`` → ``("policy", "unscanned", "over-limit")``."""
    path: list[str] = []
    keys: object = known
    given: object = tree
    for part in name.removeprefix(PREFIX).lower().split("__"):
        names = [*(keys if isinstance(keys, Mapping) else ()), *(given if isinstance(given, dict) else ())]
        found = next((key for key in names if key.lower().replace("-", "_") == part), part)
        path.append(found)
        # a table such as [services] has names of the user's own, which all have the keys of "*"
        keys = keys.get(found, keys.get("*")) if isinstance(keys, Mapping) else None
        given = given.get(found) if isinstance(given, dict) else None
    return tuple(path)


def _put(tree: Tree, path: Path, given: Given) -> None:
    for part in path[:-1]:
        below = tree.get(part)
        if not isinstance(below, dict):
            below = tree[part] = {}
        tree = below
    tree[path[-1]] = given


def _first(node: Tree | Given | None) -> Given | None:
    if isinstance(node, dict):
        return next((found for found in map(_first, _values(node)) if found), None)
    return node


def _values(node: Tree) -> Iterable[Tree | Given]:
    return node.values()
