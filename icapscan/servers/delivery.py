"""What a download's reader gets before the verdict: a little of the body, or a page with a bar (`DeliverySettings`).

A delivery says what is sent and when; it sends nothing itself. Once it is *open*, an HTTP response with status 200 has
begun, and every end of the transaction has to fit behind that: `passed` for what may pass, `stopped` for what may not.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Protocol

from msgspec.structs import replace

from icapscan.errors import StoreFull
from icapscan.findings import CLEAN, Reason, Verdict
from icapscan.policy.decision import Action, Cause, Decision
from icapscan.policy.page import facts_of
from icapscan.policy.progress_page import ProgressPage
from icapscan.servers import replies
from icapscan.servers.late import Asker, Cut, Kept, with_ticket
from icapscan.servers.refusal import refusal
from icapscan.servers.replies import Reply
from icapscan.servers.settings import DeliverySettings
from icapscan.servers.stationery import VIA
from icapscan.servers.threads import Threads
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore
from icapscan.wire import http_head
from icapscan.wire.icap_events import HttpHeads

EVERY_SECONDS = 1.0
"""Between two pieces."""
PIECE_MOST = 256 * 1024
_LATE = (
    b"X-Infection-Found", b"X-Virus-ID", b"X-Response-Info", b"X-Response-Desc", b"X-Icapscan-Verdict",
    b"X-Icapscan-Tag", b"X-Icapscan-Quarantine", b"X-Icapscan-Reference",
)  # fmt: skip
"""What the ICAP trailer of a trickled answer may say."""
_ANNOUNCED = b"Allow: trailers\r\nTrailer: %s\r\n" % b", ".join(_LATE)
_LATE_LINES = re.compile(rb"^(?:%s):[^\r\n]*\r\n(?![ \t])" % b"|".join(_LATE), re.M)
_LENGTH = re.compile(rb"^content-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.I | re.M)
_SUCCESS = re.compile(rb"HTTP/[0-9.]{1,5}[ \t]+200\b")
_WANTS_PAGE = re.compile(rb"^accept[ \t]*:[^\n]*text/html", re.I | re.M)
_DESTINATION = re.compile(rb"^sec-fetch-dest[ \t]*:[ \t]*([a-z-]*)", re.I | re.M)
_SHOWN = (
    "text/",
    "image/",
    "audio/",
    "video/",
    "font/",
    "application/json",
    "application/xhtml+xml",
    "application/xml",
)
"""Types that a browser shows as they come, or that a page is made of: no download."""


class Delivery(Protocol):
    """One way."""

    start: float
    """Seconds from the heads to the first look whether to open."""
    opened: bool

    def open(self) -> Reply | None:
        """The head that goes out now and a first piece of the body; None: there is nothing to send yet."""
        ...

    def more(self) -> bytes:
        """What is to be sent now; may be empty."""
        ...

    async def passed(self, reply: Reply) -> Reply:
        """What goes on behind the opening in place of ``reply``, which would have passed a body."""
        ...

    def stopped(self, reply: Reply, decision: Decision | None, verdict: Verdict | None) -> Reply:
        """The same for a reply that passes nothing. ``decision`` None: it is an error."""
        ...


class Copies(Protocol):
    """How the virgin head is copied."""

    def __call__(self, length: int | None) -> HttpHeads: ...


def delivery_for(now: Transaction, store: PartStore, heads: Copies) -> Delivery | None:
    """The way of delivery for a response that begins; None: the reader waits."""
    assert now.route is not None and now.head is not None
    settings = now.route.settings.delivery
    res_hdr = now.heads.res_hdr
    if settings.kind == "wait" or now.head.method != b"RESPMOD" or _SUCCESS.match(res_hdr or b"") is None:
        return None
    cut = now.generation.late.cut_before(asker_of(now), now.stationery.istag)
    if cut is not None and cut.decision is None:
        return None
    if settings.kind == "trickle":
        return Trickle(now, settings, store, heads)
    return ProgressBar(now, settings, store) if _is_browser_download(now.heads.req_hdr, res_hdr) else None


def late_answer(now: Transaction) -> Reply | None:
    """What an earlier try has left to be said: the page for a download that was cut, or a finished download."""
    late, asker, istag = now.generation.late, asker_of(now), now.stationery.istag
    fetched = late.fetch(asker, istag)
    if fetched is not None:
        now.http_method, now.url = http_head.method_and_url(now.heads.req_hdr)
        return Reply(200, "200 fetched", heads=HttpHeads(None, fetched.head), body=fetched.store)
    cut = late.cut_before(asker, istag)
    if cut is None or cut.decision is None or now.head is None or now.head.method != b"RESPMOD":
        return None
    now.http_method, now.url = http_head.method_and_url(now.heads.req_hdr)
    now.verdict, now.decision, now.rule = cut.verdict, cut.decision.action.value, cut.decision.rule
    now.reference, now.detail = cut.reference, "An earlier try of this download was cut."
    return refusal(now, cut.decision, cut.verdict, http_head.file_name(None, now.url))


def asker_of(now: Transaction) -> Asker:
    """Who asks."""
    _, url = http_head.method_and_url(now.heads.req_hdr)
    return Asker(url, now.head.client_ip, now.head.user) if now.head is not None else Asker(url)


def content_length(res_hdr: bytes | None) -> int | None:
    """Of a response head; None where it has none, or several that differ."""
    found = {int(one) for one in _LENGTH.findall(res_hdr or b"")}
    return found.pop() if len(found) == 1 else None


def _is_browser_download(req_hdr: bytes | None, res_hdr: bytes | None) -> bool:
    """A person who looks at a window asked for it, and it is a file rather than a page or a piece of one."""
    if req_hdr is None or req_hdr.partition(b" ")[0] not in (b"GET", b"POST") or not _WANTS_PAGE.search(req_hdr):
        return False
    destination = _DESTINATION.search(req_hdr)
    if destination is not None and destination[1].lower() not in (b"", b"document", b"iframe"):
        return False
    fields = http_head.look(res_hdr)
    if fields.get(b"content-disposition", b"").lower().startswith(b"attachment"):
        return True
    return not http_head.media_type(fields.get(b"content-type")).startswith(_SHOWN)


class Trickle:
    """The beginning of the body at a low rate, never its last part."""

    def __init__(self, now: Transaction, settings: DeliverySettings, store: PartStore, heads: Copies) -> None:
        self.start = settings.start
        self.opened = False
        self._now = now
        self._settings = settings
        self._store = store
        self._heads = heads
        self._sent = 0
        self._since = 0.0
        assert now.head is not None
        self._trailer = now.head.allow_trailers

    def open(self) -> Reply | None:
        if self._store.size <= self._settings.hold:
            return None
        self.opened = True
        self._since = time.monotonic() - EVERY_SECONDS
        fields = _ANNOUNCED if self._trailer else b""
        return Reply(200, "200 trickle", fields, self._heads(None), self.more(), late=b"" if self._trailer else None)

    def more(self) -> bytes:
        due = int((time.monotonic() - self._since) * self._settings.rate)
        count = min(due, self._store.size - self._settings.hold) - self._sent
        if count <= 0:
            return b""
        piece = bytes(next(self._store.pieces(self._sent, min(count, PIECE_MOST))))
        self._sent += len(piece)
        return piece

    async def passed(self, reply: Reply) -> Reply:
        if reply.body is not self._store:  # another body than the one that was begun
            self._remember(Cut(asker_of(self._now), self._now.stationery.istag, self._until()))
            return self._cut(reply)
        return replace(reply, label="200 trickle", begun=True, skip=self._sent, late=self._late(reply))

    def stopped(self, reply: Reply, decision: Decision | None, verdict: Verdict | None) -> Reply:
        if decision is not None and decision.action is not Action.ERROR:
            now, known = self._now, verdict or CLEAN
            istag = now.stationery.istag
            self._remember(Cut(asker_of(now), istag, self._until(), decision, known, now.reference))
        return self._cut(reply)

    def _cut(self, reply: Reply) -> Reply:
        now = self._now
        told = f"It was cut after {self._sent} bytes. {reply.detail or now.detail}".strip()
        late = self._late(reply)
        if late is not None and self._settings.late == "trailers" and content_length(now.heads.res_hdr) is not None:
            # The last part is missing: whoever cannot read the trailer sees that the body is shorter than announced.
            return Reply(200, "200 cut", begun=True, body=b"", late=late, close=True, detail=told)
        return Reply(200, "200 cut", detail=told)

    def _late(self, reply: Reply) -> bytes | None:
        return b"".join(_LATE_LINES.findall(reply.fields)) if self._trailer else None

    def _until(self) -> float:
        return time.time() + self._settings.keep

    def _remember(self, cut: Cut) -> None:
        self._now.generation.late.cut(cut)


class ProgressBar:
    """A page with a bar, whose end is a link to the finished download or what stopped it."""

    def __init__(self, now: Transaction, settings: DeliverySettings, store: PartStore) -> None:
        self.start = settings.start
        self.opened = False
        self._now = now
        self._settings = settings
        self._store = store
        self._threads = Threads()
        self._total = content_length(now.heads.res_hdr)
        request = http_head.look(now.heads.req_hdr)
        self._page = ProgressPage(request.get(b"accept-language", b""))
        self._shown = (-1, False)

    def open(self) -> Reply | None:
        now = self._now
        self.opened = True
        disposition = http_head.look(now.heads.res_hdr).get(b"content-disposition")
        name = http_head.file_name(disposition, now.url)
        head = (
            b"HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Language: %s\r\n"
            b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nVia: %s\r\n\r\n"
            % (now.stationery.date, self._page.language, VIA)
        )
        page = self._page.begin(name, now.url) + self.more()
        return Reply(200, "200 progress", heads=HttpHeads(None, head), body=page)

    def more(self) -> bytes:
        now = self._now
        shown = (self._store.size, now.received > 0)
        if shown == self._shown:
            return b""
        self._shown = shown
        return self._page.step(self._store.size, self._total, complete=now.received > 0)

    async def passed(self, reply: Reply) -> Reply:
        now = self._now
        late, head, store = now.generation.late, reply.heads.res_hdr, reply.body
        if head is None or not isinstance(store, PartStore):
            return self.stopped(reply, None, None)
        kept = Kept(self._settings.keep, now.generation.scanner.purse, self._threads.run)
        asker = asker_of(now)
        try:
            ticket = await late.keep(head, store, asker, now.stationery.istag, kept)
        except StoreFull as error:
            return self.stopped(replies.error(503, str(error)), None, None)
        body = self._page.done(with_ticket(asker.url, ticket))
        return Reply(200, "200 progress", begun=True, body=body, detail=reply.detail)

    def stopped(self, reply: Reply, decision: Decision | None, verdict: Verdict | None) -> Reply:
        now = self._now
        if decision is None or decision.action is Action.ERROR:
            decision = Decision(Action.BLOCK, Cause.FAILED, Reason.ENGINE_FAILED)
        now.reference = now.reference or secrets.token_hex(4)
        body = self._page.stopped(facts_of(decision, verdict or CLEAN, now.url, now.reference))
        return Reply(200, "200 progress block", begun=True, body=body, detail=reply.detail)
