"""The block pages of a configuration, made before the first person meets one."""

from __future__ import annotations

from icapscan.findings import Verdict
from icapscan.policy.decide import Decision
from icapscan.policy.page import BlockPage, PageFacts, facts_of
from icapscan.policy.page_texts import Kind
from icapscan.servers.generation import Page, RenderPage
from icapscan.servers.settings import PageSettings


def page_maker(settings: PageSettings) -> RenderPage:
    """Block pages as configured. Raises `ConfigError` for a template that does not work."""
    page = BlockPage(settings.template, settings.contact)
    for language in (b"en", b"ja"):  # so that the first person who meets a page does not wait for jinja2
        page.render(language, PageFacts(Kind.INFECTED, "-", "-", None, b"-"))

    def render(accept_language: bytes, decision: Decision, verdict: Verdict, url: bytes, reference: str) -> Page:
        rendered = page.render(accept_language, facts_of(decision, verdict, url, reference))
        return Page(rendered.html, rendered.language)

    return render
