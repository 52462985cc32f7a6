"""The block page: from what was decided to HTML in the reader's language. Everything untrusted in it is escaped.

A template of one's own gets the same names as the shipped ``templates/block.html``: ``language title heading what todo
mistake labels footer kind threat reason url reference contact``, all of them text, all escaped by jinja2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from icapscan import templates
from icapscan.findings import Reason, Verdict
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.policy.page_texts import ENGLISH, JAPANESE, LANGUAGES, Kind, Said, Texts

if TYPE_CHECKING:
    from jinja2 import Template

URL_MAX = 300
THREAT_MAX = 120
_HEADER_MAX = 1024
"""Bytes of Accept-Language that are looked at."""
_SHIPPED = Path(__file__).parent / "templates" / "block.html"
_RANGE = re.compile(r"\s*([A-Za-z0-9*-]+)\s*(?:;\s*[qQ]\s*=\s*([01](?:\.\d{0,3})?)\s*)?")
"""A language range with its weight (RFC 9110 12.4.2 and 12.5.4)."""


class PageFacts(Struct, frozen=True):
    """What a page is about. ``threat`` and ``url`` are untrusted."""

    kind: Kind
    reference: str
    """The number by which an administrator finds the transaction in the log."""
    threat: str = ""
    reason: Reason | None = None
    url: bytes = b""
    rule: str = ""
    """Name of the rule that decided, where that is the reason."""


class RenderedPage(Struct, frozen=True):
    """A page, never empty, in UTF-8, and the value of its Content-Language."""

    html: bytes
    language: bytes


def facts_of(decision: Decision, verdict: Verdict, url: bytes, reference: str) -> PageFacts:
    """The facts for one blocked body."""
    if decision.action is Action.DEFER:
        return PageFacts(Kind.DEFERRED, reference, url=url, rule=decision.rule)
    kind = _KINDS.get(decision.cause, Kind.UNSCANNED)
    if kind is Kind.RULE:
        return PageFacts(kind, reference, url=url, rule=decision.rule or decision.cause.value)
    reason = decision.reason or verdict.reason
    return PageFacts(kind, reference, verdict.name or "", reason if kind is Kind.UNSCANNED else None, url)


_KINDS = {
    Cause.INFECTED: Kind.INFECTED, Cause.SUSPICIOUS: Kind.SUSPICIOUS, Cause.RULE: Kind.RULE, Cause.MACRO: Kind.RULE
}  # fmt: skip


class BlockPage:
    """Makes block pages from the shipped template or one's own."""

    def __init__(self, template: str | None = None, contact: str = "") -> None:
        """``template`` is a file; raises `ConfigError` when it cannot be read, compiled or rendered."""
        self._contact = contact
        self._skeletons: dict[tuple[object, ...], list[str]] = {}
        self._template = templates.own(template, "page", self._trials, escape=True) if template is not None else None

    def render(self, accept_language: bytes, facts: PageFacts) -> RenderedPage:
        """The page for ``facts`` in English or Japanese, as the Accept-Language value (may be empty) prefers.

        Never raises: where a template of one's own fails or gives nothing, the shipped one is used.
        """
        texts = LANGUAGES[language_of(accept_language[:_HEADER_MAX])]
        html = templates.rendered(self._template, self._names(texts, facts)) if self._template is not None else ""
        if not html.strip():
            html = self._shipped(texts, facts)
        return RenderedPage(html.encode("utf-8", "replace"), texts.language.encode("ascii"))

    def _shipped(self, texts: Texts, facts: PageFacts) -> str:
        """The shipped template: rendered once for each shape of page, then filled with escaped values."""
        from markupsafe import escape

        values = {"threat": shown(facts.threat, THREAT_MAX), "url": shown(_text(facts.url), URL_MAX)}
        values["reference"] = shown(facts.reference, THREAT_MAX) or "-"
        shape = (texts.language, facts.kind, facts.reason, facts.rule, *(bool(value) for value in values.values()))
        skeleton = self._skeletons.get(shape)
        if skeleton is None:
            marked = {name: f"\ue000{name}\ue000" if value else "" for name, value in values.items()}
            page = templates.shipped(_SHIPPED, escape=True).render(self._names(texts, facts) | marked)
            skeleton = self._skeletons[shape] = page.split("\ue000")
        return "".join(str(escape(values[piece])) if index % 2 else piece for index, piece in enumerate(skeleton))

    def _names(self, texts: Texts, facts: PageFacts) -> dict[str, object]:
        """Everything that a template may use."""
        said = said_of(texts, facts)
        contact = shown(self._contact, URL_MAX)
        return {
            "language": texts.language,
            "title": texts.title,
            "heading": said.heading,
            "what": said.what,
            "todo": said.todo,
            "mistake": texts.mistake.replace("{contact}", contact or texts.administrator),
            "labels": texts.labels,
            "footer": texts.footer,
            "kind": facts.kind.value,
            "threat": shown(facts.threat, THREAT_MAX),
            "reason": facts.reason.value if facts.reason is not None else shown(facts.rule, THREAT_MAX),
            "url": shown(_text(facts.url), URL_MAX),
            "reference": shown(facts.reference, THREAT_MAX) or "-",
            "contact": contact,
        }

    def _trials(self, template: Template) -> Iterator[str]:
        """Every kind of page."""
        for texts in (ENGLISH, JAPANESE):
            for kind in Kind:
                for reason in Reason if kind is Kind.UNSCANNED else (None,):
                    yield template.render(
                        self._names(texts, PageFacts(kind, "0", "Name", reason, b"http://example.com/"))
                    )


def said_of(texts: Texts, facts: PageFacts) -> Said:
    """The words for these facts."""
    said = {
        Kind.INFECTED: texts.infected, Kind.SUSPICIOUS: texts.suspicious, Kind.RULE: texts.rule,
        Kind.DEFERRED: texts.deferred,
    }.get(facts.kind)  # fmt: skip
    return said or texts.unscanned[facts.reason or Reason.ENGINE_FAILED]


@lru_cache(maxsize=256)
def language_of(accept_language: bytes) -> str:
    """``ja`` where an Accept-Language value prefers Japanese to English, else ``en``; the first of equals wins."""
    best, best_weight = "en", 0.0
    for element in accept_language.decode("latin-1").split(","):
        match = _RANGE.fullmatch(element)
        if match is None:
            continue
        weight = float(match[2]) if match[2] is not None else 1.0
        primary = match[1].lower().partition("-")[0]
        if primary in ("ja", "en", "*") and weight > best_weight:
            best, best_weight = "ja" if primary == "ja" else "en", weight
    return best


def _text(data: bytes) -> str:
    return data[: URL_MAX * 4].decode("utf-8", "replace")


def shown(text: str, most: int) -> str:
    """``text`` without characters that are invisible or turn the direction of writing, shortened."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[: most + 1])
    return clean if len(text) <= most else clean[:most] + "…"
