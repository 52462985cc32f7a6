"""The configuration tables ``[engines.*]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from icapscan.limits import SECONDS, Bytes, Count, Seconds


class YaraSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[engines.yara]``"""

    enabled: bool = True
    rules: tuple[str, ...] = ()
    """Rule files (``.yar``, ``.yara``, or compiled ``.yac``) or their folders; empty = the shipped ``signatures/``."""
    inline: Bytes = 16 * 1024
    """Parts up to this size are matched on the event loop; larger ones in a thread (matching releases the GIL)."""
    threads: Count = 2
    """Threads for matching, per worker."""


class ClamdSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[engines.clamd]``"""

    enabled: Literal["auto"] | bool = "auto"
    """``auto``: used when an address is configured, or one of the usual ones answers at start."""
    address: tuple[Annotated[str, Meta(pattern="^(unix:/|tcp:).+")], ...] = ()
    """``unix:/path`` or ``tcp:host:port`` (IPv6 as ``tcp:[::1]:3310``); empty = the usual sockets."""
    connections: Count = 16
    """Most connections to each clamd from all workers together. A few more than clamd's MaxThreads (10), so that a part
    waits in clamd's own queue for the thread that becomes free and not for a turn of our event loop."""
    connect_timeout: Seconds = 2.0
    reply_timeout: Seconds = 60.0
    """Longest wait for one reply; the transaction's own deadline may be nearer."""
    hedge: Annotated[float, Meta(ge=0, extra=SECONDS)] = 0.0
    """Seconds without a reply after which another clamd, if one is free, is asked about the same part too, and the
    first whole answer counts; 0: never. It shortens the longest waits where one of several daemons is slow at times,
    and costs the others scans that nobody needs."""
    stream_max: Bytes = 100 * 1024 * 1024
    """clamd's StreamMaxLength: a larger part is not sent by INSTREAM (UNSCANNED over-limit)."""
    file_max: Bytes = 100 * 1024 * 1024
    """clamd's MaxFileSize: clamd says OK to a larger part without reading it, so it is UNSCANNED(over-limit) here."""
    poll: Seconds = 2.0
    """How often the version is asked, to notice a reload or a death."""


class HashSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[engines.hash]``: SHA-256 lists, one hex digest a line, optionally followed by a name."""

    deny: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


class EnginesSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[engines]``"""

    report: Literal["first", "all"] = "first"
    """``first``: the first INFECTED finding cancels the other engines; ``all``: every engine finishes."""
    yara: YaraSettings = YaraSettings()
    clamd: ClamdSettings = ClamdSettings()
    hash: HashSettings = HashSettings()
