"""The events of an ICAP connection. The same classes are received by one end and sent by the other."""

from __future__ import annotations

from msgspec import Struct

from icapscan.errors import ProtocolError
from icapscan.wire.encapsulated import Encapsulated
from icapscan.wire.fields import Fields


class RequestHead(Struct, frozen=True):
    """An ICAP request line and its fields (RFC 3507 4.3.2), without the encapsulated heads."""

    method: bytes
    uri: bytes
    fields: Fields
    encapsulated: Encapsulated
    preview: int | None = None
    """Announced preview in bytes; None without a Preview header. Means nothing to framing where no body follows."""
    path: bytes = b""
    """Of the URI, percent-decoded where that is harmless, without a trailing slash (PROTOCOL S27-S29)."""
    allow_204: bool = False
    allow_206: bool = False
    allow_trailers: bool = False
    close: bool = False
    """The peer asked for ``Connection: close``."""
    user: bytes = b""
    """Whom the client names: X-Authenticated-User decoded, else X-Client-Username. Log data only (PROTOCOL S41)."""
    client_ip: bytes = b""
    """X-Client-IP as sent. Log data only."""


class ResponseHead(Struct, frozen=True):
    """An ICAP status line and its fields (RFC 3507 4.3.3); never 100, which is `Continue`."""

    status: int
    reason: bytes
    fields: Fields
    encapsulated: Encapsulated
    trailer: bool = False
    """An ICAP trailer follows the body (draft-rousskov-icap-trailers); only where the client offered it."""
    close: bool = False
    wire: bytes = b""
    """The result of `encode`, kept by whoever sends the same head many times; empty where nobody did."""

    def encode(self) -> bytes:
        """The head as it travels, with its final empty line."""
        return self.wire or b"ICAP/1.0 %d %s\r\n%s\r\n" % (self.status, self.reason, self.fields.raw)


class HttpHeads(Struct, frozen=True):
    """The encapsulated HTTP heads, byte for byte as they travel; None where there is none (or an empty section)."""

    req_hdr: bytes | None = None
    res_hdr: bytes | None = None


class BodyChunk(Struct, frozen=True):
    """Some bytes of the encapsulated body, transfer coding removed. How they are cut means nothing."""

    data: bytes | memoryview


class PreviewEnd(Struct, frozen=True):
    """The preview ended and there is more: the server answers `Continue` or finally (RFC 3507 4.5)."""


class BodyEnd(Struct, frozen=True):
    """The body is complete."""

    ieof: bool = False
    """The whole body fitted into the preview."""
    trailers: bytes = b""
    """Field lines of the trailer section as they travel, without the final empty line."""
    use_original_body: int | None = None
    """206 only: the rest is the original body from this offset on (draft-icap-ext-partial-content)."""


class Whole(Struct, frozen=True):
    """A request that came in one piece: the same as the events for its parts, which `expand` gives."""

    head: RequestHead
    heads: HttpHeads
    body: bytes | None
    """None where no body follows."""

    def expand(self) -> tuple[RequestHead, HttpHeads] | tuple[RequestHead, HttpHeads, BodyChunk, BodyEnd]:
        """The events that `IcapConnection.receive` would have given."""
        if self.body is None:
            return self.head, self.heads
        return self.head, self.heads, BodyChunk(self.body), BodyEnd(ieof=self.head.preview is not None)


class Trailer(Struct, frozen=True):
    """The ICAP trailer of a response."""

    fields: Fields


class Continue(Struct, frozen=True):
    """``100 Continue``."""

    expected: bool = True
    """False where no preview was waiting: a client ignores the first such (PROTOCOL C15)."""


class PeerClosed(Struct, frozen=True):
    """The peer will send no more, and nothing that it began is incomplete."""


class Failure(Struct, frozen=True):
    """The peer broke the protocol, or left in the middle of a message. Nothing more is read."""

    error: ProtocolError


Event = (
    RequestHead
    | ResponseHead
    | HttpHeads
    | BodyChunk
    | PreviewEnd
    | BodyEnd
    | Whole
    | Trailer
    | Continue
    | PeerClosed
    | Failure
)
