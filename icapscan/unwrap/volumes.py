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
_CUT = re.compile(r"^x[a-z]{2,3}$|[._-]a[a-z]$|[._-]\d{2,4}$")
"""What `split` calls its pieces where the name before it says nothing. The last one may show what it is a piece of."""
_ENDS = (b"\xc4\x3d\x7b\0\x40\7\0", b"\x1d\x77\x56\x51\3\5\4\0")
"""The last block of a rar archive, of version 4 and 5."""
_KNOWN = (b"PK", b"Rar!", b"7z\xbc\xaf", b"MSCF")
"""First bytes of what other formats open; they find out about volumes themselves."""


class VolumeFormat:
    """Bids MAYBE on a part whose name is that of a piece, unless its content says what it is."""

    name = "volume"

    def bid(self, evidence: Evidence) -> Bid:
        names = evidence.declared.names
        if not names or evidence.first.startswith(_KNOWN):
            return Bid.NO
        for name in names:
            if _NAME.search(name) or _CUT.search(name):
                return Bid.MAYBE
        return Bid.NO

    def open(self, context: Context) -> VolumeDecoder:
        return VolumeDecoder(context, any(_NAME.search(name) for name in context.declared.names))


class VolumeDecoder:
    """Says that this is a piece of something: by its name alone where that is ``sure``, else by its end."""

    __slots__ = ("_members", "_sure")

    def __init__(self, context: Context, sure: bool) -> None:
        self._members = Members(context)
        self._sure = sure

    def read(self, store: PartStore) -> Iterator[PartEvent]:
        longest = max(map(len, _ENDS))
        end = b"".join(bytes(piece) for piece in store.pieces(max(0, store.size - longest)))
        if not self._sure and not end.endswith(_ENDS):
            return
        yield from self._members.anomaly("multi-volume")
        shown = "name" if self._sure else "name and its end"
        yield PartFailed("", Reason.UNSUPPORTED, f"By its {shown} this is one volume of an archive that has several.")
