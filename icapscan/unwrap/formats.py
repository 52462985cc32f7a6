"""The registry of formats: one line each, in an explicit tuple; and the bids they make on the first bytes of a part.

A bid is asked for only where the line says so, because almost every body of the web is no container at all and must
pass at the cost of two look-ups. Format modules are light; what is heavy in them loads when a part is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from msgspec import Struct

from icapscan.unwrap.activemime import ActiveMimeFormat
from icapscan.unwrap.charset import CHARSET
from icapscan.unwrap.closed import ClosedFormat
from icapscan.unwrap.contract import Bid, Evidence, Format
from icapscan.unwrap.embedded import TEXT
from icapscan.unwrap.libarchive import LIBARCHIVE_FORMATS
from icapscan.unwrap.lnk import LnkFormat
from icapscan.unwrap.mbox import MBOX
from icapscan.unwrap.mime import MIME, UNDECLARED, is_text
from icapscan.unwrap.office_xml import OfficeXmlFormat
from icapscan.unwrap.ole import OleFormat
from icapscan.unwrap.onenote import OneNoteFormat
from icapscan.unwrap.openpgp import ARMORED, OPENPGP
from icapscan.unwrap.pdf import PdfFormat
from icapscan.unwrap.quoted import QUOTED
from icapscan.unwrap.rtf import RtfFormat
from icapscan.unwrap.selfextract import SelfExtractFormat
from icapscan.unwrap.sevenzip import SEVENZIP_FORMATS
from icapscan.unwrap.single import SINGLE_FORMATS
from icapscan.unwrap.sis import SisFormat
from icapscan.unwrap.smime import SMIME
from icapscan.unwrap.tar import TarFormat
from icapscan.unwrap.tnef import TNEF
from icapscan.unwrap.urlencoded import MEDIA_TYPE as URLENCODED_TYPE
from icapscan.unwrap.urlencoded import URLENCODED
from icapscan.unwrap.volumes import VolumeFormat
from icapscan.unwrap.warc import WarcFormat
from icapscan.unwrap.zip import ZipFormat

MAGIC = 2
"""Bytes that the look-up is made with; no prefix is shorter."""


_NO, _MAYBE = Bid.NO, Bid.MAYBE
NEED_MOST = 32
"""Bytes of the longest of what formats need."""


class Entry(Struct, frozen=True):
    """A format, and when it is asked for a bid: where a prefix or a declared type fits. With neither: always."""

    format: Format
    prefixes: tuple[bytes, ...] = ()
    """First bytes, two or more; the bid itself looks closer."""
    types: tuple[str, ...] = ()
    """Declared media types, lower case: ``application/zip``, or ``multipart/*`` for all of a kind."""
    needs: tuple[bytes, ...] = ()
    """A part that is there as a whole and has none of these, behind a line feed put before it, is not opened."""
    text: bool = False
    """Asked only where the part is text by its type or its first bytes (`is_text`), or one of ``marks`` is in them."""
    marks: tuple[bytes, ...] = ()
    least: int = 0
    """First bytes below which it has no bid to make."""
    coding: str = ""
    """The content coding that undoes the same format: a body that declares it is not opened by both."""
    covers: bool = False
    """The parts it finds hold every byte of the container. Where it met no anomaly, nobody scans the whole again."""


class Offer(Struct, frozen=True):
    """A format that wants to open a part."""

    entry: Entry
    bid: Bid


class Registry:
    """Formats in the order in which they become readings where their bids are equal."""

    __slots__ = ("_always", "_by_kind", "_by_magic", "_by_type", "_entries", "_rows")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        self._rows = tuple(
            (entry, entry.least, entry.text, entry.format.bid, getattr(entry.format, "excludes", None))
            for entry in self._entries
        )
        self._by_magic: dict[bytes, list[int]] = {}
        self._by_type: dict[str, list[int]] = {}
        self._by_kind: dict[str, list[int]] = {}
        self._always: list[int] = []
        for number, entry in enumerate(self._entries):
            if any(len(need) > NEED_MOST for need in entry.needs):
                raise ValueError(f"what {entry.format.name} needs is longer than {NEED_MOST} bytes")
            for prefix in entry.prefixes:
                if len(prefix) < MAGIC:
                    raise ValueError(f"a prefix of {entry.format.name} is shorter than {MAGIC} bytes")
                self._by_magic.setdefault(prefix[:MAGIC], []).append(number)
            for media_type in entry.types:
                if media_type.endswith("/*"):
                    self._by_kind.setdefault(media_type[:-2], []).append(number)
                else:
                    self._by_type.setdefault(media_type, []).append(number)
            if not (entry.prefixes or entry.types):
                self._always.append(number)

    def offers(
        self, evidence: Evidence, without: frozenset[str] = frozenset(), whole: bytes | None = None
    ) -> list[Offer]:
        """Who wants to open a part, the surest first, then in the order of the registry.

        ``without``: content codings that are being undone already. ``whole``: all of the part where it is longer than
        the evidence and there already, so that whoever would look for something further on need not. Never raises.
        """
        first, media_type = evidence.first, evidence.declared.media_type
        fitting: tuple[int, ...] | list[int] = self._by_magic.get(first[:MAGIC], ())
        if media_type in self._by_type or self._by_kind:
            kind = self._by_kind.get(media_type.partition("/")[0], ())
            fitting = [*fitting, *self._by_type.get(media_type, ()), *kind]
        if whole is None and evidence.whole:
            whole = first
        text: bool | None = None  # looked at once, and only if somebody asks
        offers = []
        size = len(first)
        for number in sorted({*self._always, *fitting}) if fitting else self._always:
            entry, least, texts, ask, excludes = self._rows[number]
            if size < least:
                continue
            if texts:
                if text is None:
                    text = is_text(evidence)
                if not text and not _has(first, entry.marks):
                    continue
            try:
                bid = ask(evidence)
            except Exception:
                bid = Bid.YES  # a mistake of ours; opening the part shows it, or finds what is there
            # What is needed is searched for behind the bid, which is cheaper almost always.
            if bid is _NO or (entry.coding and entry.coding in without):
                continue
            if whole is not None:
                if entry.needs and not (_has(whole, entry.needs) or _has(b"\n" + first[:NEED_MOST], entry.needs)):
                    continue
                if excludes is not None and bid is _MAYBE and excludes(whole, 0, len(whole)):
                    continue
            offers.append(Offer(entry, bid))
        if len(offers) > 1:
            offers.sort(key=lambda offer: -offer.bid)
        return offers


def _has(data: bytes, needs: tuple[bytes, ...]) -> bool:
    for need in needs:  # noqa: SIM110 - any() with a generator takes three times as long
        if need in data:
            return True
    return False


@cache
def registry() -> Registry:
    """All formats that are built in."""
    return Registry(FORMATS)


# Mail and text first, then archives, then documents: the order of equally sure readings.
FORMATS: tuple[Entry, ...] = (
    # mail, form-data, text
    Entry(MIME, covers=True),
    Entry(UNDECLARED, needs=(b"\n--",), text=True),
    Entry(TEXT, text=True, marks=(b"=ybegin ",)),
    Entry(QUOTED, needs=(b"=",), text=True),
    Entry(CHARSET),
    Entry(MBOX, (b"From ",), covers=True),
    Entry(URLENCODED, types=(URLENCODED_TYPE,)),
    Entry(TNEF, TNEF.prefixes),
    Entry(SMIME, SMIME.prefixes),
    Entry(OPENPGP, OPENPGP.prefixes, types=(ARMORED,)),
    # archives
    Entry(ZipFormat(), needs=(b"PK\3\4", b"PK\5\6")),  # always: a zip may begin anywhere
    Entry(TarFormat(), least=512),  # always: its magic does not stand at the start, and old ones have none
    *(Entry(one, one.prefixes, coding=one.coding) for one in SINGLE_FORMATS),
    Entry(WarcFormat(), WarcFormat.prefixes),
    *(Entry(one, one.prefixes, needs=one.needs) for one in LIBARCHIVE_FORMATS),
    *(Entry(one, one.prefixes) for one in SEVENZIP_FORMATS),
    Entry(SelfExtractFormat(), SelfExtractFormat.prefixes),
    Entry(SisFormat(), needs=(b"\x19\4\0\x10",)),  # always: its third number tells
    Entry(ClosedFormat(), needs=ClosedFormat.needs),
    Entry(VolumeFormat()),  # always: only names tell
    # documents
    Entry(OleFormat(), OleFormat.prefixes),
    Entry(OfficeXmlFormat(), needs=(b"xml", b"x\0m\0l")),  # always: XML begins in several ways
    Entry(RtfFormat(), RtfFormat.prefixes),
    Entry(ActiveMimeFormat(), ActiveMimeFormat.prefixes),
    Entry(PdfFormat(), needs=(b"%PDF",)),  # always: its magic may stand anywhere in the first KiB
    Entry(OneNoteFormat(), OneNoteFormat.prefixes),
    Entry(LnkFormat(), LnkFormat.prefixes),
)
