"""Request heads of an ICAP client: the ICAP head and the HTTP heads around a body (RFC 3507 4.3.2, 4.4.1; PROTOCOL C).

Nothing that a caller gives can become a line of its own: every value passes `Fields.compose`, every name a percent
encoding. Times come in from outside, there is no clock in here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from icapscan.errors import LocalProtocolError
from icapscan.wire.encapsulated import NO_BODY, BodyKind, Encapsulated
from icapscan.wire.fields import Fields
from icapscan.wire.icap_events import HttpHeads, RequestHead

Lines = Sequence[tuple[bytes, bytes]]

_WIRE_URI = re.compile(rb"icaps?://[^/?#@\x00-\x20\x7f-\xff]+/[^#\x00-\x20\x7f-\xff]*")
_MEDIA_TYPE = re.compile(r"[!#$&^_.+A-Za-z0-9-]+/[!#$&^_.+A-Za-z0-9-]+(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NAME_START = 160
_NAME_END = 40
"""Bytes kept of a longer file name: its beginning, and its end for the extension."""


class Described(Struct, frozen=True):
    """What the HTTP heads say about a body."""

    name: str = ""
    media_type: str = "application/octet-stream"
    size: int | None = 0
    """Bytes; None: not known yet."""
    host: str = "scan.invalid"
    """Host of the made-up URL; ``.invalid`` can never be a real one (RFC 2606)."""
    date: bytes = b""
    """HTTP-date (RFC 9110 5.6.7)."""
    mail_from: str | None = None
    """Reverse-path; None where the body is not a mail in transit, ``""`` the null reverse-path."""
    rcpt_to: tuple[str, ...] = ()


def percent_encoded(name: str) -> bytes:
    """A file name as one path segment of a URL: only unreserved characters, length-capped (PROTOCOL C51)."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > _NAME_START + _NAME_END:
        raw = raw[:_NAME_START] + raw[-_NAME_END:]
    return b"".join(b"%c" % byte if byte in _SAFE else b"%%%02X" % byte for byte in raw)


def respmod_heads(what: Described, *, request_head: bool = True) -> HttpHeads:
    """HTTP heads of a body on its way to a reader (PROTOCOL C49-C51).

    ``request_head``: also say what was asked for; some servers answer 418 without it. Raises `LocalProtocolError`
    for a value that could inject a line.
    """
    asked = None
    if request_head:
        asked = _head(b"GET " + _url(what) + b" HTTP/1.1", [(b"Host", what.host.encode()), *_envelope(what)])
    answered = _head(
        b"HTTP/1.1 200 OK",
        [(b"Date", what.date), *_content(what)] if what.date else _content(what),
    )
    return HttpHeads(asked, answered)


def reqmod_heads(what: Described) -> HttpHeads:
    """The HTTP head of a body on its way to a server, as g3proxy sends mail (PROTOCOL C52). Raises likewise."""
    start = b"PUT /" + percent_encoded(what.name) + b" HTTP/1.1"
    return HttpHeads(_head(start, [(b"Host", what.host.encode()), *_content(what), *_envelope(what)]), None)


def compose_request(
    method: bytes,
    uri: bytes,
    host: bytes,
    heads: HttpHeads,
    *,
    body: BodyKind = BodyKind.NULL,
    preview: int | None = None,
    allow: Sequence[bytes] = (),
    extra: Lines = (),
    close: bool = False,
) -> RequestHead:
    """The ICAP head of a request, ``Encapsulated`` last. An OPTIONS request has none (errata e1).

    ``preview`` in bytes is the exact length of the preview that will follow. Raises `LocalProtocolError` for a URI
    or a value that could inject a line.
    """
    if not _WIRE_URI.fullmatch(uri):
        raise LocalProtocolError(f"An ICAP request URI must not be {uri[:80]!r}.")
    lines: list[tuple[bytes, bytes]] = [(b"Host", host), *extra]
    if allow:
        lines.append((b"Allow", b", ".join(allow)))
    if preview is not None:
        lines.append((b"Preview", b"%d" % preview))
    if close:
        lines.append((b"Connection", b"close"))
    sections = NO_BODY
    if method != b"OPTIONS":
        sections = Encapsulated(_length(heads.req_hdr), _length(heads.res_hdr), body)
        lines.append((b"Encapsulated", sections.encode()))
    return RequestHead(
        method,
        uri,
        Fields.compose(lines),
        sections,
        preview if sections.has_body else None,
        allow_204=b"204" in allow,
        allow_206=b"206" in allow,
        allow_trailers=b"trailers" in allow,
        close=close,
    )


def _length(head: bytes | None) -> int | None:
    return None if head is None else len(head)


def _url(what: Described) -> bytes:
    return b"http://" + what.host.encode() + b"/" + percent_encoded(what.name)


def _head(start: bytes, lines: Lines) -> bytes:
    if b"\r" in start or b"\n" in start or b"\x00" in start:
        raise LocalProtocolError(f"A start line must not be {start[:80]!r}.")
    return start + b"\r\n" + Fields.compose(lines).raw + b"\r\n"


def _content(what: Described) -> list[tuple[bytes, bytes]]:
    if not _MEDIA_TYPE.fullmatch(what.media_type):
        raise LocalProtocolError(f"A media type must not be {what.media_type[:80]!r}.")
    lines = [(b"Content-Type", what.media_type.encode())]
    return lines if what.size is None else [*lines, (b"Content-Length", b"%d" % what.size)]


def _envelope(what: Described) -> list[tuple[bytes, bytes]]:
    if what.mail_from is None and not what.rcpt_to:
        return []
    lines = []
    if what.mail_from is not None:
        lines.append((b"X-SMTP-From", _text(what.mail_from) or b"<>"))
    return lines + [(b"X-SMTP-To", _text(recipient)) for recipient in what.rcpt_to]


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")
