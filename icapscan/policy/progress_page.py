"""The page with a bar: HTML in pieces, each of which a browser shows as it comes. Without scripts.

`ProgressPage.begin`, any number of `ProgressPage.step`, then one of `ProgressPage.done` and `ProgressPage.stopped`.
A step is a style rule that is newer than the last one. Everything untrusted is escaped.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from icapscan import templates
from icapscan.policy.page import THREAT_MAX, URL_MAX, PageFacts, language_of, said_of, shown
from icapscan.policy.page_texts import LANGUAGES
from icapscan.policy.progress_texts import PROGRESS

_SHIPPED = Path(__file__).parent / "templates" / "progress.html"
_MARK = "\ue000"
"""Between the part of the template that is sent first and the rest."""
_BUSY = "#bar{width:100%;animation:wait 1.4s infinite}"
_ENDED = "#steps .step,#head{display:none}#steps{order:-1}#details{margin-top:.5rem}"
_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_URL_SAFE = "".join(chr(code) for code in range(33, 127) if chr(code) not in "\"<>\\^`{|}'")


class ProgressPage:
    """One page for one reader."""

    def __init__(self, accept_language: bytes) -> None:
        """``accept_language``: the value of that field, may be empty."""
        self._code = language_of(accept_language[:1024])
        self._texts = PROGRESS[self._code]
        self._rest = ""
        self._steps = 0

    @property
    def language(self) -> bytes:
        """For Content-Language."""
        return self._code.encode("ascii")

    def begin(self, name: str, url: bytes) -> bytes:
        """The page as far as the bar. ``name`` and ``url`` of the download are untrusted."""
        names = {
            "language": self._code, "texts": self._texts, "name": shown(name, THREAT_MAX),
            "url": shown(url[: URL_MAX * 4].decode("utf-8", "replace"), URL_MAX), "mark": _MARK,
        }  # fmt: skip
        first, self._rest = templates.shipped(_SHIPPED, escape=True).render(names).split(_MARK)
        return first.encode("utf-8", "replace")

    def step(self, received: int, total: int | None, *, complete: bool) -> bytes:
        """What changed: ``received`` bytes of ``total`` (None: nobody knows) are there, or it is complete."""
        texts = self._texts
        if complete:
            return self._piece(_BUSY, texts.checking)
        if total:
            share = min(100.0, 100 * received / total)
            said = texts.arriving_of.format(received=_size(received), total=_size(total))
            return self._piece(f"#bar{{width:{share:.1f}%}}", said)
        said = texts.arriving.format(received=_size(received))
        return self._piece(_BUSY, said)

    def done(self, url: bytes) -> bytes:
        """The end: the download is at ``url`` and begins by itself."""
        from markupsafe import escape

        texts = self._texts
        place = escape(quote(url.decode("latin-1"), safe=_URL_SAFE, encoding="latin-1"))
        link = f'<p><a id="save" href="{place}">{escape(texts.link)}</a></p>'
        words = f"<h1>{escape(texts.ready)}</h1><p>{escape(texts.done)}</p>{link}<p>{escape(texts.expires)}</p>"
        said = f'<div id="end" class="done">{words}</div>'
        refresh = f'<meta http-equiv="refresh" content="1;url={place}">'
        return self._end(_ENDED + "#bar{width:100%;animation:none}", said + refresh)

    def stopped(self, facts: PageFacts) -> bytes:
        """The end: it is not passed on, and why."""
        from markupsafe import escape

        texts = LANGUAGES[self._code]
        said = said_of(texts, facts)
        threat = shown(facts.threat, THREAT_MAX)
        rows = [(texts.labels["threat"], threat)] if threat else []
        rows.append((texts.labels["reference"], shown(facts.reference, THREAT_MAX) or "-"))
        details = "".join(f"<dt>{escape(name)}</dt><dd class=code>{escape(value)}</dd>" for name, value in rows)
        text = (
            f'<div id="end" class="stopped"><h1>{escape(said.heading)}</h1><p>{escape(said.what)}</p>'
            f"<p>{escape(said.todo)}</p><dl>{details}</dl></div>"
        )
        return self._end(_ENDED + "#rail{display:none}main{border-top-color:#b42318}", text)

    def _piece(self, style: str, text: str) -> bytes:
        """A browser does not know yet which step is the last one, so each hides the one before it."""
        from markupsafe import escape

        self._steps += 1
        hides = f".s{self._steps - 1}{{display:none}}"
        return f'<style>{style}{hides}</style><p class="step s{self._steps}">{escape(text)}</p>\n'.encode()

    def _end(self, style: str, html: str) -> bytes:
        return f"<style>{style}</style>{html}{self._rest}".encode("utf-8", "replace")


def _size(count: int) -> str:
    """Bytes in words, as file managers have it: powers of 1000."""
    number, unit = float(count), 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{count:,} {_UNITS[0]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"
