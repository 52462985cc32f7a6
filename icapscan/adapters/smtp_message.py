"""One message on its way through: kept, and sent to the ICAP service while it arrives; then its judgement."""

from __future__ import annotations

import asyncio
import enum
import re
import secrets
from email.utils import formatdate

from msgspec import Struct

from icapscan.adapters.judgement import Judgement, judgement_of, judgement_of_error
from icapscan.clients.balance import IcapPool
from icapscan.clients.result import Mode, ScanResult
from icapscan.clients.source import GrowingBody
from icapscan.errors import IcapscanError, StoreFull
from icapscan.limits import KIB, Limits
from icapscan.store import PartStore, Purse

_SCAN_FROM = 32 * KIB
"""Bytes that must be there before the service is asked: a small message is sent to it in one piece, at its end."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]-]")


class Envelope(Struct, frozen=True):
    """Where a message comes from and goes to."""

    mail_from: str
    rcpt_to: tuple[str, ...]
    client: str
    user: str = ""
    helo: str = ""
    protocol: str = "ESMTP"


class Trouble(enum.Enum):
    """Why a message is not taken, whatever is in it."""

    TOO_LARGE = "too-large"
    NO_ROOM = "no-room"


class ClientGone(IcapscanError):
    """The client left before it had an answer: nothing goes on."""


class Message:
    """One message. Always `close` it."""

    def __init__(
        self, envelope: Envelope, pool: IcapPool, purse: Purse, limits: Limits, folder: str | None, most: int
    ) -> None:  # fmt: skip
        self.id = secrets.token_hex(6)
        self.size = 0
        """Bytes from the client."""
        self.trouble: Trouble | None = None
        self._envelope = envelope
        self._pool = pool
        self._most = most
        self.store = PartStore(purse, limits, folder)
        """What was received, with our fields before it."""
        self._body = GrowingBody(self.store)
        self._scan: asyncio.Task[ScanResult] | None = None
        self._judgement: Judgement | None = None

    def head(self, fields: bytes) -> None:
        """Fields to put before the message: they are scanned with it, so that what goes on is what was scanned."""
        self._append(fields)

    async def feed(self, data: bytes) -> None:
        """Some bytes. Waits where the service is far behind."""
        self.size += len(data)
        if self._most and self.size > self._most:
            self._give_up(Trouble.TOO_LARGE)
        self._append(data)
        if self.trouble is None and self.store.size >= _SCAN_FROM:
            self._begin()
            await self._body.room()

    async def judge(self, gone: asyncio.Event) -> Judgement:
        """The message is complete: what becomes of it. Raises `ClientGone`."""
        if self._scan is not None and self._scan.done() and _worth_another_try(self._scan):
            self._scan = None  # the service failed while the message arrived; it is all here now
        self._body.end()
        scan = self._begin()
        left = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait({scan, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
        if not scan.done():
            raise ClientGone("The client left before it had an answer.")
        try:
            result = scan.result()
        except Exception as error:
            self._judgement = judgement_of_error(error)
            return self._judgement
        self._judgement = judgement_of(result)
        if self._judgement.adapted is None:
            result.close()
        return self._judgement

    async def close(self) -> None:
        """Cut what is under way and free everything. Idempotent."""
        scan, self._scan = self._scan, None
        if scan is not None:
            self._body.abort()
            scan.cancel()
            await asyncio.wait({scan})
            if not scan.cancelled() and scan.exception() is None and self._judgement is None:
                scan.result().close()
        if self._judgement is not None and self._judgement.adapted is not None:
            self._judgement.adapted.close()
        self.store.close()

    def _append(self, data: bytes) -> None:
        if self.trouble is None:
            try:
                self._body.append(data)
            except StoreFull:
                self._give_up(Trouble.NO_ROOM)

    def _give_up(self, trouble: Trouble) -> None:
        self.trouble = self.trouble or trouble
        self._body.abort()

    def _begin(self) -> asyncio.Task[ScanResult]:
        if self._scan is None:
            envelope = self._envelope
            self._scan = asyncio.get_running_loop().create_task(
                self._pool.scan(
                    self._body,
                    media_type="message/rfc822",
                    mode=Mode.REQMOD,
                    client_ip=envelope.client,
                    user=envelope.user or None,
                    mail_from=envelope.mail_from,
                    rcpt_to=envelope.rcpt_to,
                    adapt=True,
                )
            )
        return self._scan


def _worth_another_try(scan: asyncio.Task[ScanResult]) -> bool:
    error = scan.exception()
    return isinstance(error, IcapscanError) and error.retry


def received_field(envelope: Envelope, peer: str, hostname: str, identity: str) -> bytes:
    """A Received field (RFC 5321 4.4); nothing that the client chose can leave its place in it.

    ``peer`` is the address that it came from, whoever that speaks for.
    """
    helo = _UNSAFE.sub("?", envelope.helo)[:255] or "unknown"
    literal = f"IPv6:{peer}" if ":" in peer else peer
    return (
        f"Received: from {helo} ([{literal}])\r\n\tby {hostname} (icapscan) with {envelope.protocol} id {identity};\r\n"
        f"\t{formatdate(localtime=True)}\r\n"
    ).encode()


def scanned_field(hostname: str) -> bytes:
    """An X-Virus-Scanned field. A message that has it came through here, but anybody can write one."""
    return f"X-Virus-Scanned: by icapscan at {hostname}\r\n".encode()
