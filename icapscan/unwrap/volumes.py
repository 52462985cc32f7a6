"""Pieces of archives that were cut up. All but the first have no sign of a format in them, only their names tell."""

from __future__ import annotations

import re
from collections.abc import Iterator

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.unwrap.contract import Bid, Context, Evidence
from icapscan.unwrap.events import PartEvent, PartFailed
from icapscan.unwrap.members import Members

_KINDS = "rar|zip|zipx|7z|tar|tgz|tbz2?|txz|gz|bz2|xz|cpio|arj|ace|cab|iso"
_NAME = re.compile(
    rf"\.part\d{{1,4}}(?:\.(?:{_KINDS}))?$"  # x.part2.rar, x.part02
    rf"|\.(?:{_KINDS})\.(?:\d{{3}}|a[a-z])$"  # x.7z.002 (7-Zip), x.tar.gz.ab (split)
    rf"|[._](?:{_KINDS})_a[a-z]$"  # x_rar_ab
    r"|\.[rsz]\d\d$|\.[ac]\d\d$",  # x.r00 (rar), x.z01 (zip), x.a01 (arj), x.c00 (ace)
    re.I,
)
_KNOWN = (b"PK", b"Rar!", b"7z\xbc\xaf", b"MSCF")
"""First bytes of what other formats open; they find out about volumes themselves."""


class VolumeFormat:
    """Bids MAYBE on a part whose name is that of a piece, unless its content says what it is."""

    name = "volume"

    def bid(self, evidence: Evidence) -> Bid:
        names = evidence.declared.names
        if not names or evidence.first.startswith(_KNOWN):
            return Bid.NO
        return Bid.MAYBE if any(_NAME.search(name) for name in names) else Bid.NO

    def open(self, context: Context) -> VolumeDecoder:
        return VolumeDecoder(context)


class VolumeDecoder:
    """Says that this is a piece of something."""

    __slots__ = ("_members",)

    def __init__(self, context: Context) -> None:
        self._members = Members(context)

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        yield from self._members.anomaly("multi-volume")
        yield PartFailed("", Reason.UNSUPPORTED, "By its name this is one volume of an archive that has several.")
