"""Requests and answers for tests, built with exact offsets."""

from __future__ import annotations

GET = b"GET http://www.example.org/file.bin HTTP/1.1\r\nHost: www.example.org\r\nAccept-Language: en\r\n\r\n"
POST = b"POST http://www.example.org/upload HTTP/1.1\r\nHost: www.example.org\r\nContent-Type: text/plain\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
URI = b"icap://127.0.0.1:1344/avscan"
LAST = b"0\r\n\r\n"
IEOF = b"0; ieof\r\n\r\n"
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!" + b"$H+H*"


def chunk(data: bytes) -> bytes:
    """One chunk, or nothing for no data."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def chunked(data: bytes, size: int = 1 << 20, last: bytes = LAST) -> bytes:
    """``data`` in chunks of ``size`` bytes, and ``last``."""
    return b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size)) + last


def sections(req_hdr: bytes | None, res_hdr: bytes | None, body: bytes) -> bytes:
    """The value of an Encapsulated field."""
    entries, offset = [], 0
    for name, head in ((b"req-hdr", req_hdr), (b"res-hdr", res_hdr)):
        if head is not None:
            entries.append(b"%s=%d" % (name, offset))
            offset += len(head)
    return b", ".join([*entries, b"%s=%d" % (body, offset)])


def options(uri: bytes = URI, fields: bytes = b"") -> bytes:
    """An OPTIONS request; ``fields`` are whole lines."""
    return b"OPTIONS %s ICAP/1.0\r\nHost: 127.0.0.1\r\n%s\r\n" % (uri, fields)


def respmod(
    body: bytes | None = chunked(b"hello"),
    fields: bytes = b"Allow: 204\r\n",
    *,
    req_hdr: bytes | None = GET,
    res_hdr: bytes | None = OK,
    uri: bytes = URI,
) -> bytes:
    """A RESPMOD request. ``body`` is as on the wire; None means null-body."""
    value = sections(req_hdr, res_hdr, b"null-body" if body is None else b"res-body")
    head = b"RESPMOD %s ICAP/1.0\r\nHost: 127.0.0.1\r\n%sEncapsulated: %s\r\n\r\n" % (uri, fields, value)
    return head + (req_hdr or b"") + (res_hdr or b"") + (body or b"")


def reqmod(
    body: bytes | None = chunked(b"hello"),
    fields: bytes = b"Allow: 204\r\n",
    *,
    req_hdr: bytes | None = POST,
    uri: bytes = URI,
) -> bytes:
    """A REQMOD request. ``body`` is as on the wire; None means null-body."""
    value = sections(req_hdr, None, b"null-body" if body is None else b"req-body")
    head = b"REQMOD %s ICAP/1.0\r\nHost: 127.0.0.1\r\n%sEncapsulated: %s\r\n\r\n" % (uri, fields, value)
    return head + (req_hdr or b"") + (body or b"")


def raw(encapsulated: bytes | None, rest: bytes = b"", method: bytes = b"RESPMOD", fields: bytes = b"") -> bytes:
    """A request whose Encapsulated value is ``encapsulated`` as it stands (None: no such field)."""
    line = b"" if encapsulated is None else b"Encapsulated: %s\r\n" % encapsulated
    return b"%s %s ICAP/1.0\r\nHost: 127.0.0.1\r\n%s%s\r\n%s" % (method, URI, fields, line, rest)


def answer(
    status: bytes = b"200 OK",
    *,
    req_hdr: bytes | None = None,
    res_hdr: bytes | None = OK,
    body: bytes | None = chunked(b"hello"),
    fields: bytes = b"",
) -> bytes:
    """An ICAP answer with exact offsets."""
    kind = b"null-body" if body is None else (b"req-body" if req_hdr is not None and res_hdr is None else b"res-body")
    head = b'ICAP/1.0 %s\r\nISTag: "abc"\r\n%sEncapsulated: %s\r\n\r\n' % (
        status, fields, sections(req_hdr, res_hdr, kind)
    )  # fmt: skip
    return head + (req_hdr or b"") + (res_hdr or b"") + (body or b"")
