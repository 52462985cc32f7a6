"""One message from an MTA: put together again from its pieces, sent to the ICAP service while they come, and judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from icapscan.adapters.judgement import Judgement, judgement_of, judgement_of_error
from icapscan.adapters.milter_changes import Field
from icapscan.adapters.told import told_address, told_recipients
from icapscan.clients.balance import IcapPool
from icapscan.clients.result import Mode
from icapscan.clients.source import GrowingBody
from icapscan.errors import IcapscanError
from icapscan.limits import Limits
from icapscan.store import PartStore, Purse

_HEADERS_MOST = 4 * 1024 * 1024
"""Bytes of all header fields of one message, which are kept beside the message."""


class MessageTooLarge(IcapscanError):
    """The message is longer than this filter takes."""


class Facts(Struct, frozen=True):
    """What is known of the SMTP client when a message begins."""

    client_ip: str | None = None
    user: str | None = None


class Message:
    """Whoever makes one calls `close`, whatever happens."""

    def __init__(self, pool: IcapPool, purse: Purse, spool: str | None, most: int, sender: bytes) -> None:
        self.sender = sender
        self.recipients: list[bytes] = []
        self.fields: list[Field] = []
        self.failure: Exception | None = None
        """Why it cannot be scanned, once that is clear."""
        self._pool = pool
        self._most = most
        self._store = PartStore(purse, Limits(), spool)
        self._body = GrowingBody(self._store)
        self._scan: asyncio.Task[Judgement] | None = None
        self._header_bytes = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._store.size

    def add_recipient(self, address: bytes) -> None:
        """One forward-path that the MTA has not yet refused."""
        self.recipients.append(address)

    def add_field(self, name: bytes, value: bytes) -> None:
        """One header field, with the white space behind its colon; its lines are joined by LF."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _HEADERS_MOST:
            self._give_up(MessageTooLarge("The header section is too long."))
            return
        self.fields.append((name, value))
        self.add(name + b":" + value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n")

    def add(self, data: bytes) -> None:
        """Bytes of the message as it travels. What cannot be kept is a failure of the message."""
        if self.failure is not None or not data:
            return
        if self._most and self._store.size + len(data) > self._most:
            self._give_up(MessageTooLarge(f"The message is longer than {self._most} bytes."))
            return
        try:
            self._body.append(data)
        except (IcapscanError, OSError) as error:
            self._give_up(error)

    async def room(self) -> None:
        """Wait while the service is far behind."""
        if self.failure is None:
            await self._body.room()

    def begin(self, facts: Facts) -> None:
        """Ask the service; what comes later is sent on as it comes. Only the first call counts."""
        if self._scan is None:
            self._scan = asyncio.get_running_loop().create_task(self._ask(facts))

    def end(self, facts: Facts) -> asyncio.Task[Judgement]:
        """The message is complete: its judgement to be waited for, which never fails. Its time begins here."""
        self.begin(facts)
        self._body.end()
        assert self._scan is not None
        return self._scan

    async def close(self) -> None:
        """Cut the scan if it still runs, and free everything."""
        self._body.abort()
        scan, self._scan = self._scan, None
        if scan is not None:
            scan.cancel()
            [left] = await asyncio.gather(scan, return_exceptions=True)
            if isinstance(left, Judgement) and left.adapted is not None:
                left.adapted.close()
        self._store.close()

    def _give_up(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._body.abort()

    async def _ask(self, facts: Facts) -> Judgement:
        try:
            result = await self._pool.scan(
                self._body,
                media_type="message/rfc822",
                mode=Mode.REQMOD,
                client_ip=facts.client_ip,
                user=facts.user,
                mail_from=told_address(self.sender),
                rcpt_to=told_recipients(self.recipients),
                adapt=True,
            )
        except Exception as error:
            return judgement_of_error(self.failure or error)
        judgement = judgement_of(result)
        if judgement.adapted is None:
            result.close()
        return judgement


def path_of(arguments: Sequence[bytes]) -> bytes:
    """The address of MAIL or RCPT without its angle brackets."""
    path = arguments[0] if arguments else b""
    return path[1:-1] if path[:1] == b"<" and path[-1:] == b">" else path
