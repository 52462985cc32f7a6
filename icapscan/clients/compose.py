"""The requests of one client: what its settings and the server's OPTIONS make of a body (PROTOCOL C4-C16, C49-C55)."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from icapscan.clients.address import ServiceAddress
from icapscan.clients.errors import InvalidArgument
from icapscan.clients.exchange import Request
from icapscan.clients.options import ServerOptions
from icapscan.clients.result import Mode
from icapscan.clients.settings import ClientSettings
from icapscan.clients.source import Source
from icapscan.errors import LocalProtocolError
from icapscan.wire.encapsulated import BodyKind
from icapscan.wire.icap_compose import Described, Lines, compose_request, reqmod_heads, respmod_heads
from icapscan.wire.icap_events import HttpHeads, RequestHead

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Question(Struct, frozen=True):
    """Everything that a server is told about one body, beside the bytes."""

    mode: Mode
    what: Described
    client_ip: str | None = None
    user: str | None = None


class Composer:
    """Composes requests to one service. Every method raises `InvalidArgument` for a value that cannot be sent."""

    def __init__(self, address: ServiceAddress, settings: ClientSettings) -> None:
        self._address = address
        self._settings = settings

    def options(self) -> Request:
        """An OPTIONS request."""
        with _refused():
            return Request(self._head(b"OPTIONS", HttpHeads(), self._common()))

    def scan(self, source: Source, question: Question, options: ServerOptions, *, request_head: bool) -> Request:
        """A REQMOD or RESPMOD request. ``request_head``: RESPMOD says what was asked for, too."""
        settings, what = self._settings, question.what
        what = Described(
            what.name,
            what.media_type,
            source.size if source.ended else None,
            settings.host,
            http_date(),
            what.mail_from,
            what.rcpt_to,
        )
        allow = [b"204"] if settings.allow_204 else []
        allow += [b"206"] if settings.offer_206 and "206" in options.allow else []
        allow += [b"trailers"] if settings.offer_trailers else []
        has_body = source.size > 0 or not source.ended
        respmod = question.mode is Mode.RESPMOD
        kind = BodyKind.RESPONSE if respmod else BodyKind.REQUEST
        with _refused():
            heads = respmod_heads(what, request_head=request_head) if respmod else reqmod_heads(what)
            head = self._head(
                question.mode.value,
                heads,
                [*self._common(), *self._identity(question, options)],
                kind if has_body else BodyKind.NULL,
                self.preview(source.size, what.name, options) if has_body else None,
                allow,
            )
        return Request(head, heads, source if has_body else None)

    def _head(
        self,
        method: bytes,
        heads: HttpHeads,
        extra: Lines,
        body: BodyKind = BodyKind.NULL,
        preview: int | None = None,
        allow: list[bytes] | None = None,
    ) -> RequestHead:
        uri, authority = self._address.uri.encode(), self._address.authority.encode()
        close = not self._settings.keep_alive
        return compose_request(
            method, uri, authority, heads, body=body, preview=preview, allow=allow or (), extra=extra, close=close
        )

    def preview(self, size: int, name: str, options: ServerOptions) -> int | None:
        """Bytes of the preview of a body of ``size`` bytes; None: none is sent."""
        wanted = self._settings.preview
        if wanted == "never" or not size:
            return None
        announced = options.preview_for(name) if wanted == "auto" else wanted
        return None if announced is None else min(announced, size, self._settings.preview_most)

    def _common(self) -> list[tuple[bytes, bytes]]:
        lines = [(b"Date", http_date()), (b"User-Agent", self._settings.user_agent.encode())]
        return lines + [(name.encode(), value.encode()) for name, value in self._settings.headers]

    def _identity(self, question: Question, options: ServerOptions) -> list[tuple[bytes, bytes]]:
        """Who it comes from, for servers that like to know (PROTOCOL C53; draft-stecher-icap-subid-00 3)."""
        lines = []
        if question.what.mail_from is not None or question.what.rcpt_to:
            lines.append((b"X-Transformed-From", b"SMTP"))  # where g3proxy has it: what the HTTP heads were made of
        if question.client_ip is not None and self._may_tell("x-client-ip", options):
            lines.append((b"X-Client-IP", question.client_ip.encode()))
        if question.user is not None and self._may_tell("x-authenticated-user", options):
            lines.append((b"X-Authenticated-User", base64.b64encode(b"Local://" + question.user.encode())))
        return lines

    def _may_tell(self, header: str, options: ServerOptions) -> bool:
        wanted = self._settings.identity
        return wanted == "always" or (wanted == "auto" and header in options.include)


@contextmanager
def _refused() -> Iterator[None]:
    """What the codec refuses to send was given by the caller."""
    try:
        yield
    except (LocalProtocolError, UnicodeEncodeError) as error:
        raise InvalidArgument(str(error)) from error


def http_date() -> bytes:
    """Now, as HTTP-date (RFC 9110 5.6.7), whatever the locale is."""
    now = time.gmtime()
    day, month = _DAYS[now.tm_wday], _MONTHS[now.tm_mon - 1]
    clock = f"{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d}"
    return f"{day}, {now.tm_mday:02d} {month} {now.tm_year:04d} {clock} GMT".encode()
