"""One transaction of one service: from the encapsulated heads to a reply; knows nothing of sockets."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from icapscan.errors import StoreFull
from icapscan.findings import CLEAN, Verdict, summarize
from icapscan.pipeline import Scan, Subject
from icapscan.policy.decide import Action, Decision, decide
from icapscan.servers import replies
from icapscan.servers.generation import Generation, Service
from icapscan.servers.replies import Reply
from icapscan.servers.stationery import VIA
from icapscan.store import PartStore
from icapscan.wire import http_head
from icapscan.wire.icap_events import HttpHeads, RequestHead

Outcome = Reply | Coroutine[Any, Any, Reply]


class Exchange(Protocol):
    """What a connection drives. Each method is called in the order of the bytes on the wire."""

    def body(self, data: bytes | memoryview) -> Reply | None:
        """More of the body. A reply ends the transaction early; the rest of the body is then not read."""
        ...

    def preview_end(self) -> Reply | None:
        """The preview ended and there is more: None asks for it."""
        ...

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        """The request is complete. ``within_preview``: a preview was announced, and no more than that was needed."""
        ...

    def close(self) -> None:
        """Free everything, whatever happened. Idempotent."""
        ...


class Told:
    """What an exchange knows for the log, filled in as it goes."""

    __slots__ = ("decision", "reference", "scan_seconds", "size", "verdict")

    def __init__(self) -> None:
        self.size = 0
        self.verdict: Verdict | None = None
        self.decision: Decision | None = None
        self.scan_seconds = 0.0
        self.reference = ""


class FixedExchange:
    """Reads the request to its end and then says what was clear from the start (OPTIONS, 404, 405)."""

    __slots__ = ("_left", "_reply", "told")

    def __init__(self, reply: Reply, told: Told, most: int = 1024 * 1024) -> None:
        self._reply = reply
        self._left = most
        self.told = told

    def body(self, data: bytes | memoryview) -> Reply | None:
        self._left -= len(data)
        return replies.error(400, "This body is too long for its request.") if self._left < 0 else None

    def preview_end(self) -> Reply | None:
        return self._reply

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        return self._reply

    def close(self) -> None:
        return None


class CopyingExchange:
    """What echo and scan have in common: the virgin message is kept and can be sent back."""

    __slots__ = ("_generation", "_head", "_heads", "_service", "told")

    def __init__(
        self, generation: Generation, service: Service, head: RequestHead, heads: HttpHeads, told: Told
    ) -> None:
        self._generation = generation
        self._service = service
        self._head = head
        self._heads = heads
        self.told = told

    def copy(self, store: PartStore | None, trailers: bytes, fields: bytes = b"") -> Reply:
        """The virgin message as it came (PROTOCOL S87-S92)."""
        length = None if store is None else store.size
        if self._head.method == b"RESPMOD":
            heads = HttpHeads(None, http_head.adapted_response_head(self._heads.res_hdr, VIA, length))
        else:
            heads = HttpHeads(http_head.adapted_request_head(self._heads.req_hdr, VIA, length))
        return Reply(200, "200 copy", fields, heads, store, trailers)


class EchoExchange(CopyingExchange):
    """Copies back, scans nothing."""

    __slots__ = ("_store",)

    def __init__(
        self, generation: Generation, service: Service, head: RequestHead, heads: HttpHeads, told: Told
    ) -> None:
        super().__init__(generation, service, head, heads, told)
        self._store = generation.scanner.new_store() if head.encapsulated.has_body else None

    def body(self, data: bytes | memoryview) -> Reply | None:
        self.told.size += len(data)
        assert self._store is not None
        try:
            self._store.append(data)
        except StoreFull as error:
            return replies.error(503, str(error))
        return None

    def preview_end(self) -> Reply | None:
        return None

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        return self.copy(self._store, trailers)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


class ScanExchange(CopyingExchange):
    """Scans the body and answers by policy."""

    __slots__ = ("_accept", "_may_204", "_name", "_scan", "_url")

    def __init__(
        self, generation: Generation, service: Service, head: RequestHead, heads: HttpHeads, told: Told
    ) -> None:
        super().__init__(generation, service, head, heads, told)
        asked = http_head.look(heads.req_hdr)
        fields = http_head.look(heads.res_hdr) if head.method == b"RESPMOD" else asked
        _, self._url = http_head.method_and_url(heads.req_hdr)
        self._accept = asked.get(b"accept-language", b"")
        self._may_204 = False
        self._name = http_head.file_name(fields.get(b"content-disposition"), self._url)
        self._scan: Scan | None = None
        if head.encapsulated.has_body:
            media_type = http_head.media_type(fields.get(b"content-type"))
            self._scan = generation.scanner.begin(Subject(fields.get(b"content-encoding", b""), self._name, media_type))

    def body(self, data: bytes | memoryview) -> Reply | None:
        scan = self._scan
        assert scan is not None
        self.told.size += len(data)
        try:
            scan.feed(data)
        except StoreFull as error:
            return replies.error(503, str(error))
        if scan.over_body_limit and self._generation.settings.policy.unscanned.over_limit == "block":
            return self._reply_to(scan.verdict_so_far(), b"")
        return None

    def preview_end(self) -> Reply | None:
        """A hit in the preview is answered at once (PROTOCOL S76); anything else needs the whole body (S75)."""
        assert self._scan is not None
        findings = self._scan.glance()
        verdict = summarize(findings)
        if decide(verdict, self._generation.settings.policy).action is Action.BLOCK:
            return self._reply_to(verdict, b"")
        return None

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        self._may_204 = self._head.allow_204 or within_preview
        if self._scan is None:
            return self._reply_to(CLEAN, trailers)
        return self._finish(self._scan, trailers)

    async def _finish(self, scan: Scan, trailers: bytes) -> Reply:
        started = time.perf_counter()
        verdict = await scan.finish()
        self.told.scan_seconds = time.perf_counter() - started
        return self._reply_to(verdict, trailers)

    def _reply_to(self, verdict: Verdict, trailers: bytes) -> Reply:
        decision = decide(verdict, self._generation.settings.policy)
        self.told.verdict = verdict
        self.told.decision = decision
        if decision.action is Action.BLOCK:
            return self._block(decision, verdict)
        if decision.action is Action.ERROR:
            return replies.failure(decision, verdict)
        fields = replies.verdict_fields(decision, verdict)
        if self._may_204:  # RFC 3507 4.6: always for a body that ended within its preview, else where allowed
            return Reply(204, "204", fields) if fields else replies.NO_CONTENT
        return self.copy(self._scan.store if self._scan is not None else None, trailers, fields)

    def _block(self, decision: Decision, verdict: Verdict) -> Reply:
        self.told.reference = secrets.token_hex(4)
        page = self._generation.render_page(self._accept, decision, verdict, self._url, self.told.reference)
        violations = self._service.settings.violations
        file = self._name.encode("utf-8", "replace")
        fields = replies.block_fields(decision, verdict, file=file, violations=violations)
        date = self._generation.stationery.date
        head = replies.block_head(page.html, page.language, date, VIA, replies.verdict_fields(decision, verdict))
        return Reply(200, "200 block", fields, HttpHeads(None, head), page.html)

    def close(self) -> None:
        if self._scan is not None:
            self._scan.close()


def user_of(head: RequestHead) -> bytes:
    """The user that the client names: X-Authenticated-User decoded, else X-Client-Username; log data only (S41)."""
    coded = head.fields.get(b"x-authenticated-user")
    if coded:
        try:
            return base64.b64decode(coded[:1024], validate=True)[:256]
        except (binascii.Error, ValueError):
            return coded[:256]
    return (head.fields.get(b"x-client-username") or b"")[:256]
