"""``icapscan explain``: what a body is made of, as the walker sees it. Scans nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import chain

from msgspec import Struct

from icapscan.cli.app import EXIT_CLEAN, EXIT_UNSCANNED, EXIT_USAGE, Form
from icapscan.cli.http_file import pieces_of, response_in
from icapscan.cli.inputs import MAIL, Input, Inputs, Unreadable, missing_path
from icapscan.errors import StoreFull
from icapscan.findings import Anomaly
from icapscan.limits import Budget, Limits
from icapscan.servers.settings import Settings
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.events import Audience, PartFailed
from icapscan.unwrap.passwords import Passwords
from icapscan.unwrap.settings import UnwrapSettings
from icapscan.unwrap.tree import PartReady
from icapscan.unwrap.walker import Walker

_NUMBERS = re.compile(r"(\d+)")


class Shown(Struct, frozen=True):
    """One part. The first seven are what ``--json`` says of it."""

    path: str
    name: str | None
    media_type: str | None
    size: int
    sha256: str
    leaf: bool
    reading: int
    names: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    """Formats that found parts in it."""


class Explained(Struct):
    """What there is in one body."""

    path: str
    parts: list[Shown] = []
    anomalies: list[Anomaly] = []
    """Also what could not be opened, with the reason as its kind."""

    def add(self, other: Explained, below: str) -> None:
        """Put another reading of the same body under a path of its own."""

        def moved(path: str) -> str:
            return f"{below}/{path}" if path else below

        for part in other.parts:
            part = Shown(
                moved(part.path), part.name, part.media_type, part.size, part.sha256, part.leaf, part.reading + 1,
                part.names, part.opened,
            )  # fmt: skip
            self.parts.append(part)
        self.anomalies += [Anomaly(one.kind, moved(one.part), one.detail) for one in other.anomalies]


class Explainer:
    """Walks one body after the other within the same bounds as the server."""

    def __init__(self, limits: Limits, spool: str | None = None, unwrap: UnwrapSettings | None = None) -> None:
        self._limits = limits
        self._spool = spool
        self._unwrap = unwrap
        self._purse = Purse(limits.memory, limits.disk)

    def explain(self, item: Input, pieces: Iterable[bytes]) -> Explained:
        """The tree of one input. Raises `Unreadable` and `StoreFull`."""
        pieces = iter(pieces)
        first = next(pieces, b"")
        whole = chain((first,) if first else (), pieces)
        form = item.form_of(first)
        if form is Form.HTTP:
            return self._http(item, whole)
        return self.body(item.path, whole, Declared(_names(item.name), MAIL if form is Form.MAIL else ""))

    def body(
        self, path: str, pieces: Iterable[bytes | memoryview], declared: Declared, content_encoding: bytes = b""
    ) -> Explained:
        """The tree of one body."""
        explained = Explained(path)
        budget, virgin = Budget(self._limits), self._new_store()
        walker = Walker(
            budget,
            self._new_store,
            virgin,
            content_encoding=content_encoding,
            declared=declared,
            passwords=Passwords(self._unwrap),
        )
        try:
            for piece in pieces:
                within = budget.take_body(len(piece))
                virgin.append(piece)
                if within:
                    self._note(explained, walker.feed(piece), virgin)
                    for events in walker.steps():
                        self._note(explained, events, virgin)
            for events in walker.finish():
                self._note(explained, events, virgin)
        finally:
            walker.close()
            virgin.close()
        explained.parts.sort(key=lambda part: _natural(part.path))
        return explained

    def _new_store(self) -> PartStore:
        return PartStore(self._purse, self._limits, self._spool)

    def _note(self, explained: Explained, events: Iterable[object], virgin: PartStore) -> None:
        for event in events:
            if isinstance(event, PartReady):
                if event.audience is not Audience.CLAMD:  # those are made by us
                    explained.parts.append(_shown(event))
                if event.store is not virgin:
                    event.store.close()
            elif isinstance(event, PartFailed):
                explained.anomalies.append(Anomaly(event.reason.value, event.path, event.detail))
            else:
                explained.anomalies.append(event.anomaly)  # type: ignore[attr-defined]

    def _http(self, item: Input, pieces: Iterable[bytes]) -> Explained:
        """Each reading of the response; those beyond the first under a path of their own."""
        store = self._new_store()
        try:
            for piece in pieces:
                store.append(piece)
            response = response_in(store, sure=item.form is Form.HTTP)
            declared = Declared(_names(response.name or item.name), response.media_type)
            trees = [
                self.body(item.path, pieces_of(reading, store), declared, reading.content_encoding)
                for reading in response.readings
            ]
        finally:
            store.close()
        first, *others = trees
        for number, other in enumerate(others, 2):
            first.add(other, f"reading {number}")
        first.anomalies += [Anomaly(reason.value, "", sentence) for reason, sentence in response.problems]
        return first


def run(paths: Sequence[str], settings: Settings, form: Form, *, as_json: bool) -> int:
    """Explain files, folders and standard input (``-``); prints the trees and returns the exit code."""
    missing = missing_path(paths)
    if missing is not None:
        print(f"icapscan: {missing!r} does not exist.", file=sys.stderr)
        return EXIT_USAGE
    explainer = Explainer(settings.limits, settings.server.spool, settings.unwrap)
    code = EXIT_CLEAN
    with Inputs(paths, form, settings.server.spool) as inputs:
        for path in inputs.files:
            for item in inputs.of(path):
                try:
                    explained = explainer.explain(item, inputs.pieces(item))
                except (Unreadable, StoreFull) as error:
                    code = EXIT_UNSCANNED
                    explained = Explained(item.path, anomalies=[Anomaly("unreadable", "", str(error))])
                if as_json:
                    print(json_line(explained), flush=True)
                else:
                    from icapscan.cli.drawing import draw

                    draw(explained)
    return code


def json_line(explained: Explained) -> str:
    """One body as a JSON object on one line, all ASCII."""
    fields = ("path", "name", "media_type", "size", "sha256", "leaf", "reading")
    return json.dumps(
        {
            "path": explained.path,
            "parts": [{field: getattr(part, field) for field in fields} for part in explained.parts],
            "anomalies": [{"kind": one.kind, "part": one.part, "detail": one.detail} for one in explained.anomalies],
        }
    )


def _names(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def _shown(event: PartReady) -> Shown:
    declared, store = event.declared, event.store
    name = declared.names[0] if declared.names else None
    return Shown(
        event.path, name, declared.media_type or None, store.size, store.sha256(), event.leaf, event.reading,
        declared.names, event.opened,
    )  # fmt: skip


def _natural(path: str) -> list[tuple[int, str]]:
    """Part 10 comes behind part 9."""
    pieces = _NUMBERS.split(path)
    return [(int(piece[:18]) if number % 2 else -1, piece) for number, piece in enumerate(pieces)]
