"""jinja2 templates: those of an administrator are compiled and tried before they are used; loaded when needed only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from icapscan.errors import ConfigError

if TYPE_CHECKING:
    from jinja2 import Template

NAME_MAX = 120
"""Characters of a name of somebody else's making that are shown."""
TELL_SECONDS = 60.0
"""Between two lines in the log about one template."""
_told: dict[str, float] = {}
_log = logging.getLogger("icapscan")
TEXT_MAX = 32_768
"""Characters of a text for a person; a template of one's own that makes more is not used."""


def own(file: str, what: str, trials: Callable[[Template], Iterable[str]], *, escape: bool) -> Template:
    """The compiled template in ``file``. ``what`` it makes is e.g. a ``page``; ``trials`` renders it in every way.

    Raises `ConfigError` where it cannot be read, compiled or rendered, or makes nothing.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        template = _compiled(Path(file).read_text("utf-8"), escape)
        if not all(text.strip() for text in trials(template)):
            raise ConfigError(f"The template {file} makes an empty {what}.")
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ConfigError(f"The template {file} cannot be read: {words}.") from error
    except TemplateSyntaxError as error:
        raise ConfigError(f"The template {file}, line {error.lineno}: {error.message}.") from error
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"The template {file} cannot be rendered: {error}.") from error
    template.name = file
    return template


@lru_cache(maxsize=8)
def shipped(file: Path, *, escape: bool) -> Template:
    """A template of the package."""
    return _compiled(file.read_text("utf-8"), escape)


def rendered(template: Template, names: dict[str, object], *, tell: bool = True) -> str:
    """What an administrator's own template makes; nothing where it fails on these values, and then the log says so.

    ``tell`` False: whoever calls writes to the log.
    """
    try:
        text = template.render(names)
        if text.strip() or not tell:
            return text
        why = "It makes nothing."
    except Exception as error:  # whatever it does: the person gets the shipped text
        why = f"{type(error).__name__}: {error}"
    if tell:
        _tell(template.name or "of one's own", why)
    return ""


def _tell(name: str, why: str) -> None:
    """Not each time: whoever can make a page fail can do so often."""
    now = time.monotonic()
    if now - _told.get(name, -TELL_SECONDS) >= TELL_SECONDS:
        _told[name] = now
        _log.warning("The template %s failed, the shipped text is used: %s", name, shown(why, 2 * NAME_MAX))


def shown(text: str, most: int = NAME_MAX) -> str:
    """Untrusted text as one harmless line: no control characters, nothing that is invisible or turns the direction of
    writing, nothing that a mail program makes a link of; shortened with its end kept, since that tells the type.
    """
    if len(text) > most:
        text = f"{text[: most - 25]}…{text[-24:]}"
    plain = "".join(_printable(char) for char in text).strip()
    return plain.replace("://", "[:]//")


def tidy(text: str) -> str:
    """Line ends as LF, one at the end; nothing that UTF-8 cannot hold."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n") + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    if char.isspace() and char not in "\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def _compiled(source: str, escape: bool) -> Template:
    from jinja2 import Environment, StrictUndefined

    return Environment(autoescape=escape, undefined=StrictUndefined).from_string(source)
