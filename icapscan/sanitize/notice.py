"""The notice that takes the place of a bad part: one text, in English and Japanese, and nothing in it to be trusted.

A template of one's own gets the same names as the shipped ``templates/notice.txt``: ``one`` (a part of several, or the
whole content), ``name``, ``threats``, ``quarantine``, ``reference``, ``date``, ``host``, ``contact``, ``signed``. All
text in them is made harmless before (`shown`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from icapscan import templates
from icapscan.sanitize.contract import Reference
from icapscan.templates import NAME_MAX, TEXT_MAX, shown

if TYPE_CHECKING:
    from jinja2 import Template

THREATS_MAX = 10
"""Findings that are shown of one part."""
NOTICE_MAX = TEXT_MAX
_SHIPPED = Path(__file__).parent / "templates" / "notice.txt"


class Notice(Struct, frozen=True):
    """What a notice is about."""

    name: str
    """File name of the part that was removed; untrusted. Empty where it has none."""
    threats: tuple[str, ...]
    """What was found in it; untrusted."""
    one: bool = True
    """A part among others; False: the whole content of the message."""
    signed: bool = False
    """A digital signature was broken by the removal."""


class Notices:
    """Makes notices from the shipped template or one's own."""

    __slots__ = ("_template",)

    def __init__(self, template: str | None = None) -> None:
        """``template`` is a file; raises `ConfigError` when it cannot be read, compiled or rendered."""
        self._template = templates.own(template, "notice", _trials, escape=False) if template is not None else None

    def text(self, notice: Notice, reference: Reference) -> str:
        """The notice with LF line ends. Where a template of one's own fails or gives nothing, the shipped one is used.

        Not HTML: for a person who reads mail as text.
        """
        names = _names(notice, reference)
        text = templates.rendered(self._template, names) if self._template is not None else ""
        if not text.strip() or len(text) > NOTICE_MAX:
            text = templates.shipped(_SHIPPED, escape=False).render(names)
        return templates.tidy(text)


SHIPPED = Notices()


def _names(notice: Notice, reference: Reference) -> dict[str, object]:
    """Everything that a template may use."""
    threats = tuple(dict.fromkeys(said for threat in notice.threats if (said := shown(threat))))
    return {
        "one": notice.one,
        "name": shown(notice.name),
        "threats": threats[:THREATS_MAX] + (("…",) if len(threats) > THREATS_MAX else ()),
        "quarantine": shown(reference.quarantine),
        "reference": shown(reference.transaction) or "-",
        "date": shown(reference.date),
        "host": shown(reference.host),
        "contact": shown(reference.contact, 2 * NAME_MAX),
        "signed": notice.signed,
    }


def _trials(template: Template) -> Iterator[str]:
    for one in (True, False):
        yield template.render(_names(Notice("a.exe", ("Name",), one, not one), Reference("0", "0" * one)))
