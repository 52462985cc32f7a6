"""The conditions of a rule, read from its tables ``when`` and ``unless``: keys, values, what was expected of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from icapscan.findings import Level, Reason
from icapscan.policy.facts import Direction
from icapscan.policy.kinds import ALIASES, KINDS
from icapscan.policy.patterns import Globs, Network, Range, parse_network, parse_range


class RuleMistake(ValueError):
    """A rule that cannot be read. ``path``: the keys below ``policy.rules``, the index of the rule first."""

    def __init__(self, path: tuple[str, ...], sentence: str) -> None:
        super().__init__(sentence)
        self.path = path


class Conditions(Struct, frozen=True):
    """What must hold: everything that is asked for (not None); of each, one of its values."""

    service: Globs | None = None
    icap_method: frozenset[str] | None = None
    method: Globs | None = None
    direction: frozenset[Direction] | None = None
    client: tuple[Network, ...] | None = None
    icap_client: tuple[Network, ...] | None = None
    user: Globs | None = None
    group: Globs | None = None
    host: Globs | None = None
    path: Globs | None = None
    url: Globs | None = None
    size: tuple[Range, ...] | None = None
    parts: tuple[Range, ...] | None = None
    verdict: frozenset[str] | None = None
    reason: frozenset[Reason] | None = None
    engine: Globs | None = None
    threat: Globs | None = None
    tag: Globs | None = None
    anomaly: Globs | None = None
    file_name: Globs | None = None
    part: Globs | None = None
    media_type: Globs | None = None
    declared_type: Globs | None = None
    kind: frozenset[str] | None = None
    part_size: tuple[Range, ...] | None = None
    format: Globs | None = None
    of_body: tuple[str, ...] = ()
    """The attributes that are asked for of the body and the request."""
    of_parts: tuple[str, ...] = ()
    """Those that are asked for of one part together."""

    @property
    def on_findings(self) -> bool:
        """Whether it asks what an engine found."""
        return not (self.engine is None and self.threat is None and self.tag is None)

    @property
    def on_parts(self) -> bool:
        """Whether it asks for a part that all its conditions on parts hold for."""
        return bool(self.of_parts)

    @property
    def on_content(self) -> bool:
        """Whether it asks what parts are by content."""
        return self.media_type is not None or self.kind is not None

    def asked(self) -> tuple[str, ...]:
        """The attributes that are asked for."""
        return self.of_body + self.of_parts


PART_ATTRIBUTES = ("file_name", "part", "media_type", "declared_type", "kind", "part_size", "format")
VERDICTS = tuple(level.word for level in Level)
NOTHING = Conditions()


class _Key(Struct, frozen=True):
    read: Callable[[list[Any]], object]
    """From the values to what is compared with. Raises ValueError."""
    expected: str


def read_conditions(table: object, path: tuple[str, ...]) -> Conditions:
    """A table of conditions. Raises `RuleMistake`."""
    if not isinstance(table, Mapping):
        raise RuleMistake(path, f"expected a table of conditions, got {_shown(table)}")
    found: dict[str, object] = {}
    for name, value in table.items():
        here = (*path, name)
        key = _KEYS.get(name)
        if key is None:
            raise RuleMistake(here, f"unknown condition{_guess(name, _KEYS)}")
        values = value if isinstance(value, list | tuple) else [value]
        try:
            if not values:
                raise ValueError
            found[name.replace("-", "_")] = key.read(list(values))
        except (ValueError, TypeError, AttributeError) as error:
            raise RuleMistake(here, f"expected {key.expected}, got {_shown(value)}") from error
    of_parts = tuple(name for name in found if name in PART_ATTRIBUTES)
    of_body = tuple(name for name in found if name not in PART_ATTRIBUTES)
    return Conditions(**found, of_body=of_body, of_parts=of_parts)  # type: ignore[arg-type]


def condition_names() -> tuple[str, ...]:
    """Every key that a table of conditions may have."""
    return tuple(_KEYS)


def key_of(attribute: str) -> str:
    """An attribute of `Conditions` as it is written."""
    return attribute.replace("_", "-")


# Values


def _texts(values: list[Any]) -> list[str]:
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise ValueError
    return [value.strip() for value in values]


def _globs(values: list[Any]) -> Globs:
    return Globs(_texts(values))


def _hosts(values: list[Any]) -> Globs:
    """``.example.com`` is the domain and everything below it."""
    found: list[str] = []
    for text in _texts(values):
        if "/" in text:
            raise ValueError
        text = text.rstrip(".")
        found += [text[1:], f"*{text}"] if text.startswith(".") else [text]
    return Globs(found)


def _media_types(values: list[Any]) -> Globs:
    found = []
    for text in _texts(values):
        kind, slash, rest = text.partition("/")
        if not (kind and slash and rest) or ";" in text or " " in text:
            raise ValueError
        found.append(ALIASES.get(text.lower(), text))
    return Globs(found)


def _words(*allowed: str) -> Callable[[list[Any]], frozenset[str]]:
    def read(values: list[Any]) -> frozenset[str]:
        texts = frozenset(_texts(values))
        if not texts <= set(allowed):
            raise ValueError
        return texts

    return read


def _methods(values: list[Any]) -> frozenset[str]:
    return _words("REQMOD", "RESPMOD")([value.upper() for value in values])


def _directions(values: list[Any]) -> frozenset[Direction]:
    found: set[Direction] = set()
    for text in _texts(values):
        found |= {Direction.UPLOAD, Direction.DOWNLOAD} if text == "web" else {Direction(text)}
    return frozenset(found)


def _reasons(values: list[Any]) -> frozenset[Reason]:
    return frozenset(Reason(text) for text in _texts(values))


def _networks(values: list[Any]) -> tuple[Network, ...]:
    return tuple(parse_network(text) for text in _texts(values))


def _ranges(units: bool) -> Callable[[list[Any]], tuple[Range, ...]]:
    def read(values: list[Any]) -> tuple[Range, ...]:
        if any(isinstance(value, bool) or not isinstance(value, int | str) for value in values):
            raise ValueError
        return tuple(parse_range(value, units=units) for value in values)

    return read


def _or(words: tuple[str, ...]) -> str:
    return f"one or several of {', '.join(words)}"


_SIZES = 'a size such as "> 10 MB", "<= 64 KiB" or "1 MB .. 10 MB"'
_NAMES = 'a text or a list of texts, with * and ? as wildcards, e.g. "*.exe"'
_NETWORKS = 'an address or a network (no bits set behind the prefix), e.g. "192.0.2.0/24"'
_KEYS: dict[str, _Key] = {
    "service": _Key(_globs, 'the name of a service, e.g. "avscan"'),
    "icap-method": _Key(_methods, '"REQMOD" or "RESPMOD"'),
    "method": _Key(_globs, 'an HTTP method, e.g. "POST"'),
    "direction": _Key(_directions, _or(("upload", "download", "web", "mail"))),
    "client": _Key(_networks, _NETWORKS),
    "icap-client": _Key(_networks, _NETWORKS),
    "user": _Key(_globs, 'a user, with * and ? as wildcards, e.g. "bob" or "EXAMPLE\\\\*"'),
    "group": _Key(_globs, 'a group, with * and ? as wildcards, e.g. "administrators"'),
    "host": _Key(_hosts, 'a host such as "www.example.com", or a domain with all below it, ".example.com"'),
    "path": _Key(_globs, 'the path of a URL, with * and ? as wildcards, e.g. "/downloads/*"'),
    "url": _Key(_globs, 'a whole URL, with * and ? as wildcards, e.g. "http://www.example.com/*"'),
    "size": _Key(_ranges(True), _SIZES),
    "parts": _Key(_ranges(False), 'a number of parts such as "> 100"'),
    "verdict": _Key(_words(*VERDICTS), _or(VERDICTS)),
    "reason": _Key(_reasons, _or(tuple(reason.value for reason in Reason))),
    "engine": _Key(_globs, 'the name of an engine, e.g. "clamd"'),
    "threat": _Key(_globs, 'what an engine found, with * and ? as wildcards, e.g. "Win.*"'),
    "tag": _Key(_globs, 'a tag of the YARA rule that matched, e.g. "macro"'),
    "anomaly": _Key(_globs, 'a kind of anomaly, e.g. "vba-macro" (icapscan explain shows them)'),
    "file-name": _Key(_globs, _NAMES),
    "part": _Key(_globs, 'the path of a part, with * and ? as wildcards, e.g. "*/word/*"'),
    "media-type": _Key(_media_types, 'a media type such as "application/pdf" or "image/*"'),
    "declared-type": _Key(_media_types, 'a media type such as "application/pdf" or "image/*"'),
    "kind": _Key(_words(*KINDS), _or(tuple(KINDS))),
    "part-size": _Key(_ranges(True), _SIZES),
    "format": _Key(_globs, 'a format that found parts in it, e.g. "zip" (icapscan explain shows them)'),
}


def _guess(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the conditions are {', '.join(known)}"


def _shown(value: object) -> str:
    text = f'"{value}"' if isinstance(value, str) else "a table" if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= 80 else text[:80] + "…"
