"""What a decoder found that acts: also as a small text of its own, so that rules can be written on it.

An engine sees bytes, not anomalies. A field that Word puts together from five pieces, a macro sheet in a record, a
name that a PDF file writes with escapes: no rule on the raw bytes finds them for certain, and the decoder just has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from icapscan.unwrap.events import AnomalyFound, PartBegin, PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members

Event = TypeVar("Event", PartEvent, PartEvent | Waiting)
NAME = "active-content.txt"
MEDIA_TYPE = "text/x-icapscan-active-content"
"""What the declared type of the text begins with; rules see it as ``filetype``. The kinds follow, each behind a plus
sign, so that a rule needs no string that would be searched for in every body. Each line of the text is
``kind: detail``."""
KINDS = frozenset(
    {
        "dde", "encrypted-document", "equation-object", "external-link", "external-moniker", "external-object",
        "external-template", "flash-object", "odf-macro", "ole-link", "ole-package", "onenote-file",
        "onenote-program", "pdf-automatic-actions", "pdf-embedded-file", "pdf-javascript", "pdf-javascript-acts",
        "pdf-launch", "pdf-open-action", "pdf-remote", "pdf-rich-media", "pdf-xfa", "remote-template", "rtf-control",
        "rtf-obfuscated-object", "rtf-objupdate", "script-moniker", "shortcut", "standard-password", "url-moniker",
        "vba-auto-run", "vba-macro", "vba-no-source", "vba-starts-program", "xlm-macro",
    }
)  # fmt: skip


def reported(events: Iterator[Event], members: Members) -> Iterator[Event | PartEvent]:
    """``events``, and before their end the text where there is something to tell."""
    told: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, AnomalyFound) and event.anomaly.kind in KINDS:
            told.append((event.anomaly.kind, " ".join(event.anomaly.detail.split())))
        elif isinstance(event, PartFailed) and not event.path:
            yield from _text(told, members)  # nothing is heard of a decoder behind this
            told.clear()
        yield event
    yield from _text(told, members)


def _text(told: list[tuple[str, str]], members: Members) -> Iterator[PartEvent]:
    if not told:
        return
    try:
        key, begin = members.begin((NAME,))
    except Stop:
        return  # the budget is spent, and has been told
    kinds = sorted({kind for kind, _ in told})
    yield PartBegin(key, begin.name, "+".join((MEDIA_TYPE, *kinds)), audience=begin.audience)
    text = "".join(f"{kind}: {detail}\n" for kind, detail in told)
    try:
        yield from members.data(key, text.encode("utf-8", "replace"))
    except Stop as stop:
        yield PartFailed(key, stop.reason, stop.detail)
    else:
        yield PartEnd(key)


def is_remote(target: str) -> bool:
    """Whether a target is loaded over the net: a URL, or a path on another machine; not one on the writer's disk."""
    plain = target.strip().replace("\\", "/").lower()
    if plain.startswith("file:"):
        slashes = len(plain) - 5 - len(plain[5:].lstrip("/"))
        return slashes == 2 or slashes > 3  # one or three: a path on this machine
    return "://" in plain or plain.startswith(("//", "mhtml:"))
