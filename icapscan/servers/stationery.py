"""Heads of answers, made of parts that are prepared once a second: Date, Server, ISTag, and the OPTIONS answers."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping

from icapscan import __version__
from icapscan.servers.settings import ServiceSettings
from icapscan.wire.encapsulated import NO_BODY, BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import HttpHeads, ResponseHead

SERVER = f"icapscan/{__version__}".encode()
_SAFE = re.compile(r"[^A-Za-z0-9.-]")
VIA = b"ICAP/1.0 %s (icapscan)" % (_SAFE.sub("-", socket.gethostname()).encode() or b"localhost")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NOTHING = b"Encapsulated: null-body=0\r\n"


def http_date(seconds: float) -> bytes:
    """IMF-fixdate of RFC 9110 5.6.7, in GMT, whatever the locale."""
    when = time.gmtime(seconds)
    return (
        f"{_DAYS[when.tm_wday]}, {when.tm_mday:02d} {_MONTHS[when.tm_mon - 1]} {when.tm_year} "
        f"{when.tm_hour:02d}:{when.tm_min:02d}:{when.tm_sec:02d} GMT"
    ).encode()


class Stationery:
    """The parts of answer heads that do not depend on the request, for one ISTag."""

    __slots__ = ("_base", "_options", "_second", "date", "istag")

    def __init__(self, istag: str) -> None:
        self.istag = istag
        self.date = b""
        self._second = -1
        self._base = (b"", b"")
        self._options: dict[str, tuple[int, bytes, bytes]] = {}

    def refresh(self) -> int:
        """Bring the date up to now; returns the second."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.date = http_date(second)
            start = b'Date: %s\r\nServer: %s\r\nISTag: "%s"\r\n' % (self.date, SERVER, self.istag.encode())
            self._base = (start + b"Connection: keep-alive\r\n", start + b"Connection: close\r\n")
        return second

    def head(self, status: int, reason: bytes, fields: bytes, sections: Encapsulated, *, close: bool) -> ResponseHead:
        """An answer head; Encapsulated is its last field (PROTOCOL S80, S83-S85)."""
        self.refresh()
        if sections is NO_BODY:
            last = _NOTHING
        else:
            last = b"Encapsulated: %s\r\n" % sections.encode()
        return ResponseHead(status, reason, Fields(b"".join((self._base[close], fields, last))), sections, False, close)

    def options(self, name: str, service: ServiceSettings, connections: int, *, close: bool) -> ResponseHead:
        """The answer to OPTIONS (RFC 3507 4.10.2; PROTOCOL S112-S124)."""
        second = self.refresh()
        kept = self._options.get(name)
        if kept is None or kept[0] != second:
            fields = options_fields(name, service, connections)
            open_head, close_head = (base + fields + _NOTHING for base in self._base)
            kept = (second, open_head, close_head)
            self._options[name] = kept
        return ResponseHead(200, b"OK", Fields(kept[2] if close else kept[1]), NO_BODY, False, close)


def options_fields(name: str, service: ServiceSettings, connections: int) -> bytes:
    """What a service says about itself, without the fields that every answer has."""
    lines: Mapping[bytes, bytes] = {
        b"Methods": ", ".join(sorted(service.methods, reverse=True)).encode(),
        b"Service": SERVER,
        b"Service-ID": _SAFE.sub("-", name).encode() or b"icapscan",
        b"Max-Connections": b"%d" % connections,
        b"Options-TTL": b"%d" % max(1, int(service.options_ttl)),
        b"Allow": b"204",
        b"Preview": b"%d" % service.preview,
        b"Transfer-Preview": b"*",
        b"X-Include": b"X-Client-IP, X-Client-Username, X-Authenticated-User, X-Subscriber-ID",
    }
    return Fields.compose(lines.items()).raw


def sections_of(heads: HttpHeads, body: BodyKind) -> Encapsulated:
    """The Encapsulated list for heads of ours."""
    if heads.req_hdr is None and heads.res_hdr is None and body is BodyKind.NULL:
        return NO_BODY
    return Encapsulated(
        None if heads.req_hdr is None else len(heads.req_hdr),
        None if heads.res_hdr is None else len(heads.res_hdr),
        body,
    )
