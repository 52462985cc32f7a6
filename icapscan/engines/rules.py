"""YARA rules from files and folders, compiled once and handed to the workers as bytes."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yara
from msgspec import Struct

import icapscan
from icapscan.errors import RuleError
from icapscan.findings import Level

SOURCES = (".yar", ".yara")
COMPILED = ".yac"
EXTERNALS = ("filename", "filepath", "filetype", "extension", "owner")
"""External variables, all texts. ``filetype`` is the media type, ``extension`` has its dot; ``owner`` is always empty
and only there because public rule sets (signature-base) name it."""
VERDICTS = {"infected": Level.INFECTED, "suspicious": Level.SUSPICIOUS}
SELF_TEST = "icapscan.self-test"
"""Namespace of the EICAR rule that is always there, so that the self-test works with any rules."""

_UNDEFINED = dict.fromkeys(EXTERNALS, "")
_ERROR = re.compile(r"(?P<file>.*)\((?P<line>[0-9]+)\): (?P<what>.*)", re.DOTALL)


class CompiledRules(Struct, frozen=True):
    """Compiled rules as bytes: what the supervisor makes and each worker loads.

    Only for our own processes: YARA's compiled form is trusted by YARA, so it must never come from outside.
    """

    fingerprint: str
    """Changes whenever a rule, an included file, or YARA itself does."""
    count: int
    """How many rules, the self-test's own one not counted."""
    blobs: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """All of it in one piece; `load_rules` is the way back."""
        return msgspec.msgpack.encode(self)

    def open(self) -> tuple[yara.Rules, ...]:
        """Ready to match. Raises `RuleError` when YARA does not take them."""
        try:
            return tuple(yara.load(file=io.BytesIO(blob)) for blob in self.blobs)
        except yara.Error as error:
            raise RuleError(f"The compiled rules cannot be loaded: {error}") from error


def load_rules(data: bytes) -> CompiledRules:
    """The way back from `CompiledRules.to_bytes`. Raises `RuleError` for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=CompiledRules)
    except msgspec.MsgspecError as error:
        raise RuleError(f"These are no compiled rules: {error}") from error


def shipped_rules() -> Path:
    """The folder ``signatures`` that comes with icapscan: inside an installed package, or beside a source checkout."""
    package = Path(icapscan.__file__).parent
    for folder in (package / "_signatures", package.parent / "signatures"):
        if folder.is_dir():
            return folder
    raise RuleError("The shipped signatures are missing from this installation.")


def compile_rules(paths: Sequence[str | os.PathLike[str]] = ()) -> CompiledRules:
    """Compile rule files and folders of them (searched to any depth); none = the shipped ones.

    The namespace of a rule is its file. Raises `RuleError` naming file and line for a rule that does not compile,
    an unreadable file, a folder without rules, or a ``verdict`` that is none.
    """
    roots = [Path(path) for path in paths] or [shipped_rules()]
    sources: dict[str, str] = {}
    loaded: list[tuple[str, bytes]] = []
    for file in _files(roots):
        if file.suffix == COMPILED:
            loaded.append((str(file), _read(file)))
        else:
            sources.setdefault(str(file), _text(file))
    eicar = _text(shipped_rules() / "eicar.yar")
    includes = _Includes()
    rules = _compile({**sources, SELF_TEST: eicar}, includes)
    count = _check_verdicts(rules, sources) - 1
    blobs = [_save(rules)]
    for name, data in loaded:
        count += _check_compiled(name, data)
        blobs.append(data)
    digest = hashlib.sha256(f"{yara.__version__}\0{icapscan.__version__}\0".encode())
    seen = [(name, text.encode()) for name, text in sources.items()] + loaded + [("", eicar.encode())]
    for name, data in seen + sorted(includes.texts.items()):
        digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape") + data)
    return CompiledRules(digest.hexdigest()[:16], count, tuple(blobs))


def _files(roots: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        if root.is_dir():
            found = [
                Path(folder, name)
                for folder, _, names in os.walk(root)
                for name in names
                if name.endswith((*SOURCES, COMPILED)) and not name.startswith(".")
            ]
            if not found:
                raise RuleError(f"{root}: the folder has no rule file (.yar, .yara or .yac).")
            yield from sorted(found)
        elif root.suffix not in (*SOURCES, COMPILED):
            raise RuleError(f"{root}: expected a file .yar, .yara or .yac, or a folder of them.")
        else:
            yield root


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RuleError(f"{file}: the rule file cannot be read: {error.strerror}.") from error


def _text(file: Path) -> str:
    data = _read(file)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RuleError(f"{file}, line {line}: the rule file is not UTF-8.") from error
    if (nul := text.find("\0")) >= 0:  # YARA would end there, and the rules behind it would be lost in silence
        line = text.count("\n", 0, nul) + 1
        raise RuleError(f"{file}, line {line}: the rule file holds a NUL byte.")
    return text


class _Includes:
    """Reads included files, relative to the including one, and remembers them for the fingerprint."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}
        self.paths: dict[str, Path] = {}
        self.failure: RuleError | None = None

    def read(self, requested: str, including: str | None, namespace: str) -> str | None:
        base = self.paths.get(including or "", Path(including or namespace))
        path = base.parent / requested
        try:
            text = _text(path)
        except RuleError as error:
            self.failure = self.failure or error
            return None
        self.paths[requested] = path
        self.texts[str(path)] = text.encode()
        return text


def _compile(sources: dict[str, str], includes: _Includes) -> yara.Rules:
    """All sources in one; YARA names no file for a source, so on an error each is tried alone."""
    try:
        return yara.compile(sources=sources, externals=_UNDEFINED, include_callback=includes.read)
    except yara.Error as error:
        if len(sources) > 1:
            for name, text in sources.items():
                _compile({name: text}, includes)
            raise RuleError(f"The rules do not compile together: {error}.") from error
        if includes.failure:
            raise includes.failure from error
        raise RuleError(_located(str(error), next(iter(sources)), includes)) from error


def _located(message: str, file: str, includes: _Includes) -> str:
    """YARA's ``line N: what`` (or ``included(N): what``) as a sentence that begins with the file."""
    if match := _ERROR.fullmatch(message):
        named = match["file"]
        return f"{includes.paths.get(named, named)}, line {match['line']}: {match['what']}."
    if message.startswith("line "):
        line, _, what = message.partition(": ")
        return f"{file}, {line}: {what}."
    return f"{file}: {message}."


def _check_verdicts(rules: yara.Rules, sources: dict[str, str]) -> int:
    bad = _bad_verdict(rules)
    if bad is not None:
        for name, text in sources.items():  # a rule does not know its namespace: find the file
            if _bad_verdict(_compile({name: text}, _Includes())) is not None:
                raise RuleError(f"{name}, {_line_of(text, bad)}{bad}")
        raise RuleError(bad)
    return sum(1 for _ in rules)


def _bad_verdict(rules: yara.Rules) -> str | None:
    for rule in rules:
        verdict: Any = rule.meta.get("verdict", "infected")
        if verdict not in VERDICTS:
            return f'rule {rule.identifier}: verdict = {verdict!r}; expected "infected" or "suspicious".'
    return None


def _line_of(text: str, sentence: str) -> str:
    rule = sentence.split(":")[0].removeprefix("rule ")
    match = re.search(rf"\brule\s+{re.escape(rule)}\b", text)
    return f"line {text.count(chr(10), 0, match.start()) + 1}: " if match else ""


def _check_compiled(name: str, data: bytes) -> int:
    try:
        rules = yara.load(file=io.BytesIO(data))
    except yara.Error as error:
        raise RuleError(f"{name}: not compiled rules of YARA {yara.YARA_VERSION}: {error}.") from error
    bad = _bad_verdict(rules)
    if bad is not None:
        raise RuleError(f"{name}, {bad}")
    return sum(1 for _ in rules)


def _save(rules: yara.Rules) -> bytes:
    target = io.BytesIO()
    rules.save(file=target)
    return target.getvalue()
