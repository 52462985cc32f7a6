"""A look into encapsulated HTTP heads, which stay byte for byte what they were (RFC 9112; PROTOCOL S51, S90-S93).

Nothing here frames anything: the heads come from strangers and are read as best they can.
"""

from __future__ import annotations

import re

from icapscan.wire.fields import TOKEN

_WANTED = re.compile(
    rb"^(content-type|content-encoding|transfer-encoding|content-disposition|accept-language)[ \t]*:[ \t]*"
    rb"([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)
_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.[0-9] [0-9]{3}(?: [^\x00\r\n]*)?\r\n")
_COMMON_STATUS = (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n")
_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^\x00-\x20]+ HTTP/[0-9]\.[0-9]\r\n")
_FIELD = re.compile(TOKEN + rb":[^\x00\r\n]*")
_VIA = re.compile(rb"^via[ \t]*:[^\r\n]*", re.IGNORECASE | re.MULTILINE)
_LINE_END = re.compile(rb"\r?\n")
_FILE_NAME = re.compile(
    rb"filename\*?[ \t]*=[ \t]*(?:[A-Za-z0-9_-]*''([^;\s]+)|\"((?:[^\"\\]|\\.)*)\"|([^;\s]+))", re.I
)
_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"proxy-authenticate", b"proxy-connection"}
)
_NAME_MOST = 255
_CODING_FIELD = re.compile(rb"(?:content|transfer)[^a-z0-9\n]{0,9}encoding[^a-z0-9]", re.I)
_ONLY_CHUNKED = re.compile(rb"transfer[^a-z0-9\n]{0,9}encoding[^a-z0-9]{1,9}(?:chunked|identity)[^a-z0-9]*")
_CHUNK_SIZE = re.compile(rb"[ \t]*(?:0[xX])?[0-9A-Fa-f]{1,16}[ \t]*[;\r\n]")
_ODD = bytes(code for code in range(256) if (code < 32 and code != 10) or code > 126)
_FRAMING = frozenset({b"", b"chunked", b"identity", b"trailers"})


def look(head: bytes | None) -> dict[bytes, bytes]:
    """The few fields that matter for scanning, by lower-case name; several lines of one name are joined by commas."""
    found: dict[bytes, bytes] = {}
    if head:
        for match in _WANTED.finditer(head):
            name = match[1].lower()
            value = b" ".join(match[2].split())
            found[name] = found[name] + b"," + value if name in found else value
    return found


def codings(fields: dict[bytes, bytes]) -> bytes:
    """The content codings of a body, and behind them the transfer codings that are no framing.

    Whoever sends a body by ICAP has undone its chunks. That it has undone ``gzip`` as well is not said anywhere.
    """
    transfer = fields.get(b"transfer-encoding", b"")
    left = [token for token in transfer.split(b",") if token.strip().lower() not in _FRAMING] if transfer else []
    return b",".join([fields.get(b"content-encoding", b""), *left]) if left else fields.get(b"content-encoding", b"")


def hides_coding(head: bytes | None) -> bytes:
    """A field that some reader takes for a coding where a strict one sees none: behind a bare CR, in a folded line,
    with odd bytes or without a colon. ``chunked``: it tells of that framing only; ``coding``: of more; else empty.
    """
    if not head:
        return b""
    lower = head.lower()
    plain = lower.count(b"\ncontent-encoding:") + lower.count(b"\ntransfer-encoding:")
    if lower.count(b"encoding") <= plain + lower.count(b"accept-encoding") and b"\0" not in head:
        return b""
    odd = [line for line in head.replace(b"\r\n", b"\n").split(b"\n") if _FIELD.fullmatch(line) is None]
    hidden = [found for line in odd if (found := _CODING_FIELD.search(line.translate(None, _ODD).lower() + b"\n"))]
    if not hidden:
        return b""
    return b"chunked" if all(_ONLY_CHUNKED.fullmatch(one.string, one.start()) for one in hidden) else b"coding"


def looks_chunked(body: bytes | memoryview) -> bool:
    """Whether a body may be chunks that were not undone."""
    return _CHUNK_SIZE.match(body) is not None


def media_type(content_type: bytes | None) -> str:
    """``type/subtype`` in lower case without parameters, or empty."""
    if not content_type:
        return ""
    return content_type.partition(b";")[0].strip().lower().decode("ascii", "replace")[:_NAME_MOST]


def file_name(disposition: bytes | None, url: bytes) -> str:
    """The declared name of a body: from Content-Disposition, else the last segment of the URL's path; may be empty."""
    match = _FILE_NAME.search(disposition) if disposition else None
    if match is not None:
        name = next(group for group in match.groups() if group is not None)
    else:
        name = url.partition(b"?")[0].partition(b"#")[0].rpartition(b"/")[2]
    return name.decode("utf-8", "replace")[:_NAME_MOST]


def method_and_url(req_hdr: bytes | None) -> tuple[bytes, bytes]:
    """Of a request head, as sent; empty where it has no request line."""
    if not req_hdr:
        return b"", b""
    words = req_hdr.split(None, 2)
    if len(words) < 3 or not words[2].startswith(b"HTTP/"):
        return b"", b""
    return words[0], words[1]


def adapted_response_head(head: bytes | None, via: bytes, length: int | None) -> bytes:
    """The response head for a copy: as received with ``via`` in it, or a minimal one where it is none (S51, S90, D62).

    ``length`` is that of the body in bytes, None where no body follows.
    """
    if head and head.endswith(b"\r\n\r\n") and (head.startswith(_COMMON_STATUS) or _STATUS_LINE.match(head)):
        return _with_via(head, via)
    lines = [b"HTTP/1.1 200 OK", *_usable_fields(head)]
    if length is not None and not any(line.lower().startswith(b"content-length:") for line in lines):
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"Via: " + via]) + b"\r\n\r\n"


def adapted_request_head(head: bytes | None, via: bytes, length: int | None) -> bytes:
    """The same for a request head."""
    if head and head.endswith(b"\r\n\r\n") and _REQUEST_LINE.match(head):
        return _with_via(head, via)
    first, _, _ = (head or b"").partition(b"\n")
    first = first.rstrip(b"\r") + b"\r\n"
    start = first[:-2] if _REQUEST_LINE.fullmatch(first) else b"PUT / HTTP/1.1"
    lines = [start, *_usable_fields(head)]
    if length is not None and not any(line.lower().startswith(b"content-length:") for line in lines):
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, b"Via: " + via]) + b"\r\n\r\n"


def _with_via(head: bytes, via: bytes) -> bytes:
    if b"\nvia" in head.lower():
        match = _VIA.search(head)
        if match is not None:
            return head[: match.end()] + b", " + via + head[match.end() :]
    return b"%sVia: %s\r\n\r\n" % (head[:-2], via)


def _usable_fields(head: bytes | None) -> list[bytes]:
    """Whole field lines of a broken head that can be sent on in a head of ours."""
    lines = _LINE_END.split(head) if head else []
    kept = [line for line in lines if _FIELD.fullmatch(line)]
    return [line for line in kept if line.partition(b":")[0].lower() not in _HOP_BY_HOP]
