"""Heads of answers, made of parts that are prepared once a second: Date, Server, ISTag, and the OPTIONS answers."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping

from msgspec.structs import replace

from icapscan import __version__
from icapscan.servers.profiles import PROFILES
from icapscan.servers.replies import REASONS
from icapscan.servers.settings import ServiceSettings
from icapscan.wire.encapsulated import NO_BODY, BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import HttpHeads, ResponseHead

SERVER = f"icapscan/{__version__}".encode()
_SAFE = re.compile(r"[^A-Za-z0-9.-]")
VIA = b"ICAP/1.0 %s (icapscan)" % (_SAFE.sub("-", socket.gethostname()).encode() or b"localhost")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HEADS_MOST = 1024
"""Different heads that are kept for the rest of their second."""
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

    __slots__ = ("_base", "_date", "_heads", "_options", "_second", "istag")

    def __init__(self, istag: str) -> None:
        self.istag = istag
        self._date = b""
        self._second = -1
        self._base = (b"", b"")
        self._options: dict[tuple[str, bool], ResponseHead] = {}
        self._heads: dict[tuple[int, bytes, int | None, int | None, bool, bool], ResponseHead] = {}

    @property
    def date(self) -> bytes:
        """The time now, as a Date field has it."""
        self._refresh()
        return self._date

    def _refresh(self) -> None:
        """Bring the date up to now and throw away the heads that carry the old one."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._heads.clear()
            self._options.clear()
            self._date = http_date(second)
            start = b'Date: %s\r\nServer: %s\r\nISTag: "%s"\r\n' % (self._date, SERVER, self.istag.encode())
            self._base = (start + b"Connection: keep-alive\r\n", start + b"Connection: close\r\n")

    def head(self, status: int, fields: bytes, heads: HttpHeads, body: bool, close: bool) -> ResponseHead:
        """The ICAP head of an answer with these HTTP heads, and with or without a body.

        Encapsulated is its last field (PROTOCOL S80, S83-S85).
        """
        if int(time.time()) != self._second:
            self._refresh()
        request, response = heads.req_hdr, heads.res_hdr
        key = (
            status, fields, None if request is None else len(request), None if response is None else len(response),
            body, close,
        )  # fmt: skip
        head = self._heads.get(key)
        if head is None:
            sections = sections_of(heads, body)
            last = b"Encapsulated: %s\r\n" % sections.encode()
            block = Fields(b"".join((self._base[close], fields, last)))
            head = ResponseHead(status, REASONS[status], block, sections, False, close)
            head = replace(head, wire=head.encode())
            if len(self._heads) < _HEADS_MOST:
                self._heads[key] = head
        return head

    def options(
        self, name: str, service: ServiceSettings, connections: int, *, close: bool, partial: bool = False
    ) -> ResponseHead:
        """The answer to OPTIONS (RFC 3507 4.10.2; PROTOCOL S112-S124). ``partial``: the service may answer 206."""
        self._refresh()
        head = self._options.get((name, close))
        if head is None:
            fields = self._base[close] + options_fields(name, service, connections, partial=partial) + _NOTHING
            head = ResponseHead(200, b"OK", Fields(fields), NO_BODY, False, close)
            head = self._options[name, close] = replace(head, wire=head.encode())
        return head


def options_fields(name: str, service: ServiceSettings, connections: int, *, partial: bool = False) -> bytes:
    """What a service says about itself, without the fields that every answer has."""
    allow_out = PROFILES[service.profile].allow_out if service.kind == "scan" else b""
    lines: Mapping[bytes, bytes] = {
        b"Methods": ", ".join(sorted(service.methods, reverse=True)).encode(),
        b"Service": SERVER,
        b"Service-ID": _SAFE.sub("-", name).encode() or b"icapscan",
        b"Max-Connections": b"%d" % connections,
        b"Options-TTL": b"%d" % max(1, int(service.options_ttl)),
        b"Allow": b"204, 206" if partial else b"204",
        b"Preview": b"%d" % service.preview,
        b"Transfer-Preview": b"*",
        b"X-Include": b"X-Client-IP, X-Client-Username, X-Authenticated-User, X-Authenticated-Groups, X-Subscriber-ID",
        **({b"X-Allow-Out": allow_out} if allow_out else {}),
    }
    return Fields.compose(lines.items()).raw


def sections_of(heads: HttpHeads, body: bool) -> Encapsulated:
    """The Encapsulated list for heads of ours, with or without a body."""
    request, response = heads.req_hdr, heads.res_hdr
    if response is not None:
        return Encapsulated(None, len(response), BodyKind.RESPONSE if body else BodyKind.NULL)
    if request is not None:
        return Encapsulated(len(request), None, BodyKind.REQUEST if body else BodyKind.NULL)
    return NO_BODY
