"""What is taken out of documents, and the bounds that one cleaning has, with all that is inside the document."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from icapscan.findings import PartPath
from icapscan.limits import MIB, Budget, Bytes, Limits
from icapscan.sanitize.contract import Cleaned, Target
from icapscan.unwrap.gate import Gate

DEPTH = 6
"""Documents within documents that are cleaned. A workbook in a letter in a zip in a zip is four."""
Inside = tuple[PartPath, ...]
"""Paths of what offends, from the document on; empty: the document itself."""


DOCUMENT_MAX = 64 * MIB
SECONDS = 30.0


class Removals(Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken out besides what always is: macros, scripts, DDE, launching, templates from elsewhere."""

    html_forms: bool = True
    """In HTML, forms and their fields."""
    office_controls: bool = True
    """ActiveX controls."""
    office_objects: bool = True
    """Embedded files (OLE packages), equations of the old editor, Flash, and linked objects."""
    pdf_remote: bool = True
    """Actions that send data, load data or open another file."""
    pdf_links: bool = False
    """Links to web pages."""
    pdf_files: bool = False
    """Embedded files; always, where one of them is what offends."""
    pdf_media: bool = True
    """Sound, films, 3D, and rich media."""
    pdf_xfa: bool = True
    """Forms in XML (XFA), which have scripts of their own."""


class CleanOptions(Removals, frozen=True, kw_only=True):
    """How documents are cleaned."""

    size: Bytes = DOCUMENT_MAX
    """A larger document is not cleaned but replaced. Its bytes are held in memory about three times."""
    limits: Limits = Limits(seconds=SECONDS, unpacked=8 * DOCUMENT_MAX)
    """What may be unpacked on the way, and how long it may take."""
    html: bool = True
    """Clean HTML. Only for mails: a page of the web does not work without its scripts, and must be replaced."""


class Work:
    """One cleaning: its options and what it may still spend."""

    __slots__ = ("_clean", "_depth", "budget", "gate", "options", "target")

    def __init__(
        self,
        options: CleanOptions,
        target: Target,
        size: int,
        clean: Callable[[bytes, str, Inside, Work], Cleaned | None],
    ) -> None:
        """``size``: bytes of the document; ``clean`` cleans one that is found in it."""
        self.options = options
        self.target = target
        self.budget = Budget(options.limits)
        self.budget.take_body(size)
        self.gate = Gate(self.budget)
        self._clean = clean
        self._depth = 0

    def inner(self, data: bytes, name: str, inside: Inside) -> Cleaned | None:
        """A document inside the one at hand without what is bad in it; None where nothing was taken out of it.

        None also where it cannot be read or stands too deep: the caller decides what becomes of it. Raises `Stop`
        when the budget is spent.
        """
        self.gate.room()
        if self._depth >= DEPTH:
            return None
        self._depth += 1
        try:
            return self._clean(data, name, inside, self)
        except Exception:  # whatever a bad document does to a reader: the caller takes it out
            self.gate.room()
            return None
        finally:
            self._depth -= 1
