"""ICAP start lines and what their fields mean for framing (RFC 3507 4.2, 4.3)."""

from __future__ import annotations

import base64
import binascii
import re

from icapscan.errors import ProtocolError
from icapscan.wire.encapsulated import NO_BODY, Encapsulated, check_request_form, parse_encapsulated
from icapscan.wire.fields import Fields, parse_fields
from icapscan.wire.icap_events import RequestHead, ResponseHead
from icapscan.wire.limits import DEFAULT, WireLimits

METHODS = frozenset({b"REQMOD", b"RESPMOD", b"OPTIONS"})
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_URI = re.compile(rb"icaps?://[^/?\x00-\x20\x7f]*(/[^?\x00-\x20\x7f]*)?(?:\?[^\x00-\x20\x7f]*)?", re.IGNORECASE)
_VERSION = re.compile(rb"ICAP/[0-9]{1,10}\.[0-9]{1,10}")
_STATUS = re.compile(rb"ICAP/1\.[0-9] ([0-9]{3})(?: ([^\x00\r\n]*))?")
_UNRESERVED = re.compile(rb"%([0-9A-Fa-f]{2})")
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PREVIEW = re.compile(rb"[0-9]{1,19}")
_CLOSE = re.compile(rb"(?:^|[, \t])close(?:$|[, \t])", re.IGNORECASE)
_ITEM = re.compile(rb"[ \t,]+")
_TOLD_MOST = 256
"""Bytes of a user or an address that are kept for the log."""
_KNOWN_LENGTH = 1024
_KNOWN_MOST = 1024
_known: dict[bytes, RequestHead] = {}
START_BYTE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]")
"""What a start line may begin with."""
_LONG_URI = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32} ")


def parse_request(head: bytes, limits: WireLimits) -> RequestHead:
    """An ICAP request head without its final empty line. Raises `ProtocolError` with 400, 414, 501 or 505.

    Clients send the same head again and again (an OPTIONS before each part, bodies of one kind), so the last few short
    ones are remembered with their meaning. A meaning never changes: it is frozen and depends on the bytes alone.
    """
    if limits is not DEFAULT or len(head) > _KNOWN_LENGTH:
        return _parse_request(head, limits)
    request = _known.get(head)
    if request is None:
        request = _parse_request(head, limits)
        if len(_known) >= _KNOWN_MOST:
            _known.clear()
        _known[head] = request
    return request


def _parse_request(head: bytes, limits: WireLimits) -> RequestHead:
    line, _, block = head.partition(b"\r\n")
    if len(line) > limits.line or b"\n" in line:
        raise line_error(line, limits)
    method, uri, path = check_request_line(line)
    fields = parse_fields(block, limits.fields)
    value = fields.get(b"encapsulated")
    if value is None:
        if method != b"OPTIONS":
            raise ProtocolError(f"A {method.decode()} request needs an Encapsulated header.")
        encapsulated = NO_BODY
    else:
        if fields.repeated(b"encapsulated"):
            raise ProtocolError("There is more than one Encapsulated header.")
        encapsulated = parse_encapsulated(value, limits.http_head)
        check_request_form(method, encapsulated)
    preview = _parse_preview(fields) if method != b"OPTIONS" else None
    allow = _items(fields.get(b"allow"))
    return RequestHead(
        method,
        uri,
        fields,
        encapsulated,
        preview,
        path,
        b"204" in allow,
        b"206" in allow,
        b"trailers" in allow,
        _asks_close(fields),
        _user(fields),
        (fields.get(b"x-client-ip") or b"")[:_TOLD_MOST],
    )


def _user(fields: Fields) -> bytes:
    coded = fields.get(b"x-authenticated-user")
    if coded:
        try:
            return base64.b64decode(coded[: 4 * _TOLD_MOST], validate=True)[:_TOLD_MOST]
        except (binascii.Error, ValueError):
            return coded[:_TOLD_MOST]
    return (fields.get(b"x-client-username") or b"")[:_TOLD_MOST]


def line_error(line: bytes, limits: WireLimits) -> ProtocolError:
    """What is wrong with a start line, given from its first byte on, that is too long or ends with a bare LF."""
    first, newline, _ = line.partition(b"\n")
    if newline and len(first) <= limits.line + 1:
        return ProtocolError("A line of the head ends with a bare LF.")
    # 414 speaks of the URI (RFC 2616 10.4.15); other long garbage is no request line at all.
    return ProtocolError(f"The start line is longer than {limits.line} bytes.", 414 if _LONG_URI.match(line) else 400)


def check_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Method, URI and normal path of a request line. Raises `ProtocolError` (PROTOCOL S20-S23, D7-D19)."""
    words = line.split(b" ")
    if len(words) != 3:
        raise ProtocolError("The request line must be a method, a URI and a version, with one space between them.")
    method, uri, version = words
    if not _METHOD.fullmatch(method):
        raise ProtocolError("The method is not a token.")
    if version != b"ICAP/1.0":
        if _VERSION.fullmatch(version):
            raise ProtocolError("Only ICAP/1.0 is spoken here.", 505)
        raise ProtocolError("The version in the request line is not an ICAP version.")
    if method not in METHODS:
        raise ProtocolError("This method is not known here.", 501)
    match = _URI.fullmatch(uri)
    if match is None:
        raise ProtocolError("The request URI must be an absolute icap:// URI.")
    return method, uri, normal_path(match[1] or b"")


def normal_path(path: bytes) -> bytes:
    """The path with unreserved characters decoded and one trailing slash taken off (RFC 3986 6.2.2; PROTOCOL S29)."""
    if b"%" in path:
        path = _UNRESERVED.sub(_decode_unreserved, path)
    return path[:-1] if path.endswith(b"/") else path


def _decode_unreserved(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    return bytes((code,)) if code in _PLAIN else match[0]


def _parse_preview(fields: Fields) -> int | None:
    value = fields.get(b"preview")
    if value is None:
        return None
    values = set(_ITEM.split(value)) if b"," in value else {value}
    if len(values) != 1 or not _PREVIEW.fullmatch(preview := values.pop()):
        raise ProtocolError("The Preview header is not one decimal number of bytes.")
    return int(preview)


def _items(value: bytes | None) -> list[bytes]:
    return _ITEM.split(value.lower()) if value else []


def _asks_close(fields: Fields) -> bool:
    value = fields.get(b"connection")
    return value is not None and _CLOSE.search(value) is not None


def parse_response(head: bytes, limits: WireLimits, *, trailers_offered: bool) -> ResponseHead | None:
    """An ICAP response head without its final empty line; None for ``100 Continue``. Raises `ProtocolError`."""
    line, _, block = head.partition(b"\r\n")
    match = _STATUS.fullmatch(line)
    if match is None or len(line) > limits.line:
        if line.startswith(b"HTTP/"):
            raise ProtocolError("The peer answers in HTTP: it is not an ICAP server.")
        raise ProtocolError("The status line is not one of ICAP/1.0.")
    status = int(match[1])
    fields = parse_fields(block, limits.fields)
    if status == 100:
        return None
    value = fields.get(b"encapsulated")
    encapsulated: Encapsulated = NO_BODY if value is None else parse_encapsulated(value, limits.http_head)
    return ResponseHead(
        status,
        match[2] or b"",
        fields,
        encapsulated,
        trailers_offered and fields.get(b"trailer") is not None,
        _asks_close(fields),
    )
