"""A file that is a raw HTTP response: its head read strictly (RFC 9112), its body in every way that some client would.

Where the response is as the standard has it there is one reading. Where it is not, clients disagree about what the
body is, so each reading is scanned, and the problem itself makes the file MALFORMED.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator

from msgspec import Struct

from icapscan.findings import Reason
from icapscan.store import PartStore
from icapscan.wire import http_head

Data = bytes | mmap.mmap
Slices = tuple[tuple[int, int], ...]
HEAD_MAX = 256 * 1024
_MESSAGES_MAX = 4
"""Responses in one file: interim ones (1xx) and the last."""
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)")
_HIDDEN_FIELD = re.compile(rb"\n[ \t]+[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]*:")
_BLANK_LINES = re.compile(rb"[\r\n]{0,64}")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_ANY_SIZE = re.compile(rb"[ \t\x0b\x0c]*(?:0[xX])?([0-9A-Fa-f]+)[^\n]*\n")
_CODINGS = (b"gzip", b"x-gzip", b"deflate", b"br", b"zstd")


class Reading(Struct, frozen=True):
    """One way to read the body: where its pieces stand in the file, and the content codings to undo."""

    slices: Slices
    content_encoding: bytes = b""


class Response(Struct):
    """What was found in a file."""

    readings: list[Reading] = []
    problems: list[tuple[Reason, str]] = []
    """Why the file is not (fully) scanned, in plain sentences."""
    name: str = ""
    media_type: str = ""

    def add(self, slices: Slices, content_encoding: bytes = b"") -> None:
        """One more reading, if it is a new one."""
        reading = Reading(tuple(pair for pair in slices if pair[0] < pair[1]), content_encoding)
        if reading not in self.readings:
            self.readings.append(reading)

    def problem(self, sentence: str, reason: Reason = Reason.MALFORMED) -> None:
        """Note that the response is not as the standard has it."""
        self.problems.append((reason, sentence))


def read_response(data: Data) -> Response:
    """Take a raw HTTP response apart. Never raises: what is wrong with it is in ``problems``."""
    response = Response()
    _message(data, 0, response, 1)
    if response.problems:
        response.add(((0, len(data)),))
    return response


def response_in(store: PartStore, *, sure: bool) -> Response:
    """The same for a store. Where it is not ``sure`` to be one, only what is as the standard has it counts as one."""
    response = read_response(store.view() if store.size else b"")
    if not sure:
        if response.problems:
            response = Response()
        response.add(((0, store.size),))
    return response


def pieces_of(reading: Reading, store: PartStore) -> Iterator[bytes | memoryview]:
    """The bytes of a reading."""
    for start, end in reading.slices:
        for piece in store.pieces(start):
            piece = piece[: end - start]
            start += len(piece)
            if not piece:
                break
            yield piece


class _Head(Struct):
    version: int = 1
    status: int = 200
    fields: list[tuple[bytes, bytes]] = []

    def values(self, name: bytes) -> list[bytes]:
        """The values of all field lines of a name."""
        return [value for key, value in self.fields if key == name]

    def tokens(self, name: bytes) -> list[bytes]:
        """The list elements of a field, lower case."""
        return [token.strip().lower() for value in self.values(name) for token in value.split(b",") if token.strip()]


def _message(data: Data, start: int, response: Response, depth: int) -> None:
    blank = _BLANK_LINES.match(data, start)
    if blank is not None and blank.end() > start:
        response.problem("There are empty lines before the status line.")
        start = blank.end()
    tolerant = _HEAD_END.search(data, start, start + HEAD_MAX)
    strict = data.find(b"\r\n\r\n", start, start + HEAD_MAX)
    if tolerant is None:
        response.problem("The HTTP head does not end.")
        return
    end = tolerant.end()
    head = _head(bytes(data[start : tolerant.start()]), response)
    if strict != tolerant.start():
        response.problem("The HTTP head does not end with CRLF CRLF.")
        if strict >= 0:
            response.add(((strict + 4, len(data)),), b",".join(head.values(b"content-encoding")))
    if 100 <= head.status < 200 and depth < _MESSAGES_MAX and head.status != 101:
        _message(data, end, response, depth + 1)
        if response.problems:
            response.add(((end, len(data)),))
        return
    known = http_head.look(bytes(data[start:end]))
    response.media_type = http_head.media_type(known.get(b"content-type"))
    response.name = http_head.file_name(known.get(b"content-disposition"), b"")
    _body(data, end, head, response)


def _head(text: bytes, response: Response) -> _Head:
    if _HIDDEN_FIELD.search(text):
        response.problem("A folded line of the head may be a field line of its own.")
    lines = re.sub(rb"\r?\n[ \t]+", b" ", text).split(b"\r\n")  # obs-fold (RFC 9112 5.2)
    head = _Head(fields=[])
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        response.problem("The status line is not as HTTP/1.1 has it.")
    else:
        head.version, head.status = int(match[1]), int(match[2])
    for line in lines[1:]:
        field = _FIELD.fullmatch(line)
        if field is not None:
            head.fields.append((field[1].lower(), field[2].strip()))
            continue
        response.problem("A field line of the head is not as HTTP/1.1 has it.")
        for part in re.split(rb"[\r\n]+", line):
            name, _, value = part.partition(b":")
            head.fields.append((name.strip().lower(), value.strip(b" \t\r\n\v\f:")))
    return head


def _body(data: Data, start: int, head: _Head, response: Response) -> None:
    size = len(data) - start
    encoding = b",".join(head.values(b"content-encoding"))
    whole = ((start, len(data)),)
    if head.status in (101, 204, 205, 304) and size:
        response.problem(f"A response with status {head.status} has a body.")
    if head.status == 206:
        response.problem("The response is only a range of a content.", Reason.UNSUPPORTED)
    transfer = head.tokens(b"transfer-encoding")
    lengths = set(head.tokens(b"content-length"))
    if transfer:
        _transfer_coded(data, start, head, response, encoding)
        if lengths:
            response.problem("The response has both Transfer-Encoding and Content-Length.")
    elif lengths:
        _with_length(lengths, size, start, response, encoding)
    if response.problems or not transfer:
        response.add(whole, encoding)


def _with_length(lengths: set[bytes], size: int, start: int, response: Response, encoding: bytes) -> None:
    if len(lengths) != 1 or not (length := next(iter(lengths))).isdigit() or len(length) > 18:
        response.problem("Content-Length is not one number.")
        return
    if int(length) != size:
        response.problem(f"Content-Length says {int(length)}, the body has {size} bytes.")
        response.add(((start, start + min(int(length), size)),), encoding)


def _transfer_coded(data: Data, start: int, head: _Head, response: Response, encoding: bytes) -> None:
    transfer = head.tokens(b"transfer-encoding")
    if transfer != [b"chunked"] or head.version != 1:
        response.problem("Transfer-Encoding is not chunked alone, or the version is not HTTP/1.1.")
    coded = b",".join([encoding, *(token for token in transfer if token in _CODINGS)]).strip(b",")
    if coded != encoding:
        response.add(((start, len(data)),), coded)
    if any(b"chunked" in token for token in transfer):
        slices, wrong = _chunks(data, start)
        response.add(slices, coded)
        if wrong:
            response.problem(wrong)
            response.add(_loose_chunks(data, start), coded)


def _chunks(data: Data, at: int) -> tuple[Slices, str]:
    """The chunks of a strictly chunked body, and what is wrong with it, if anything."""
    slices: list[tuple[int, int]] = []
    while True:
        match = _CHUNK_SIZE.match(data, at)
        if match is None:
            return tuple(slices), "A chunk size line is not as HTTP/1.1 has it."
        size, at = int(match[1], 16), match.end()
        if not size:
            break
        slices.append((at, min(at + size, len(data))))
        at += size
        if data[at : at + 2] != b"\r\n":
            return tuple(slices), "The data of a chunk is cut short or not followed by CRLF."
        at += 2
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return tuple(slices), "The trailer section is cut short."
        line, at = bytes(data[at:end]), end + 2
        if not line:
            break
        if not _FIELD.fullmatch(line):
            return tuple(slices), "A field line of the trailer section is not as HTTP/1.1 has it."
    return tuple(slices), "" if at == len(data) else "There is something behind the last chunk."


def _loose_chunks(data: Data, at: int) -> Slices:
    """The chunks as tolerant clients read them: any line end, anything after the size."""
    slices: list[tuple[int, int]] = []
    while match := _ANY_SIZE.match(data, at):
        size = int(match[1][:32], 16)
        if not size:
            break
        slices.append((match.end(), min(match.end() + size, len(data))))
        at = min(match.end() + size, len(data))
        while data[at : at + 1] in (b"\r", b"\n"):
            at += 1
    return tuple(slices)
