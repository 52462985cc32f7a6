"""The exchange of a service that scans: bytes to the scan, the verdict to the policy, its decision to a reply."""

from __future__ import annotations

import secrets
import time

from msgspec.structs import replace

from icapscan.engines.cache import Mark
from icapscan.errors import StoreFull
from icapscan.findings import CLEAN, Reason, Unscanned, Verdict, summarize
from icapscan.pipeline import NotSoon, Scan, Subject
from icapscan.policy.decision import Action, Decision
from icapscan.policy.facts import Direction
from icapscan.sanitize.contract import Reference
from icapscan.servers import ranges, replies
from icapscan.servers.delivery import Delivery, delivery_for, late_answer
from icapscan.servers.exchange import Concluded, CopyingExchange, EchoExchange, Exchange, Later, Outcome, ReadyExchange
from icapscan.servers.facts import directions, facts_of
from icapscan.servers.keeping import NotKept
from icapscan.servers.kept_items import item_of
from icapscan.servers.notifying import tell
from icapscan.servers.refusal import refusal
from icapscan.servers.replies import Reply
from icapscan.servers.sanitizing import Adapted, Uncleanable, stopped
from icapscan.servers.threads import Threads
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore
from icapscan.wire import http_head, http_rewrite
from icapscan.wire.icap_events import HttpHeads

_NO_SUBJECT = Subject()
_NO_THREADS = Threads()
"""Of a transaction that needs none, as nearly all."""
_MAIL_TYPES = ("message/", "multipart/")
"""Bodies that are rewritten part by part."""
_PARTIAL = Unscanned(Reason.UNSUPPORTED, detail="The response is only a range of a content.")
_ASKS_PARTIAL = Unscanned(Reason.UNSUPPORTED, detail="The request asks for a range of a content.")
_HIDDEN_CODING = Unscanned(Reason.MALFORMED, detail="The HTTP head hides a field that tells of a coding.")


def open_exchange(now: Transaction) -> Exchange:
    """The heads are complete: the service's own part begins."""
    assert now.route is not None
    if now.route.echo:
        return EchoExchange(now)
    late = now.generation.late
    ready = late_answer(now) if late.has_cuts or late.ticket_in(now.heads.req_hdr) else None
    if ready is None:
        return ScanExchange(now)
    return ReadyExchange(ready, preview=now.head is not None and now.head.preview is not None)


class ScanExchange(CopyingExchange):
    """Scans the body and answers by policy."""

    __slots__ = (
        "_adapted", "_decided", "_doubts", "_hidden", "_mark", "_may_204", "_name", "_past_limit", "_policy", "_prefix",
        "_scan", "_subject", "_threads", "_whole_asked", "delivery",
    )  # fmt: skip

    def __init__(self, now: Transaction) -> None:
        super().__init__(now)
        head, heads = now.head, now.heads
        assert head is not None
        http = heads.res_hdr if head.method == b"RESPMOD" else heads.req_hdr
        fields = http_head.look(http)
        now.http_method, now.url = http_head.method_and_url(heads.req_hdr)
        self._policy = now.generation.policy
        self._mark: Mark | None = None
        """Where it is kept that this body was clean."""
        self._may_204 = False
        self._past_limit = False
        """The body is too long to be scanned, and is read on all the same."""
        self._doubts: tuple[Unscanned, ...] = ()
        """What the head says or hides, so that scanning the body is not enough."""
        self._hidden = http_head.hides_coding(http)
        self._whole_asked: bytes | None = None
        """The request head without the ranges that it asked for."""
        how = now.generation.settings.policy.ranges
        if how != "allow":
            if head.method == b"REQMOD":
                self._whole_asked = ranges.without_ranges(http)
                if self._whole_asked is not None and how == "refuse":
                    self._doubts += (_ASKS_PARTIAL,)
            elif ranges.is_range(http):
                self._doubts += (_PARTIAL,)
        self._name = http_head.file_name(fields.get(b"content-disposition"), now.url)
        self._scan: Scan | None = None
        self._decided: Decision | None = None
        self.delivery: Delivery | None = None
        self._subject = _NO_SUBJECT
        self._threads = _NO_THREADS
        self._adapted: Adapted | None = None
        self._prefix: PartStore | None = None
        """What a 206 sends of the adapted body."""
        if head.encapsulated.has_body:
            content_type = fields.get(b"content-type", b"")
            media_type = http_head.media_type(content_type)
            self._subject = Subject(http_head.codings(fields), self._name, media_type, content_type)
            self._scan = now.generation.scanner.begin(self._subject, self._policy.needs)
            self.delivery = delivery_for(now, self._scan.store, self.heads)

    def body(self, data: bytes | memoryview) -> Reply | None:
        return self._take(data, whole=False)

    def _take(self, data: bytes | memoryview, *, whole: bool) -> Reply | None:
        scan = self._scan
        assert scan is not None
        self._now.size += len(data)
        try:
            if whole and isinstance(data, bytes):
                scan.feed_whole(data)
            else:
                scan.feed(data)
        except StoreFull as error:
            return self._stopped(replies.error(503, str(error)))
        if scan.over_body_limit and not self._past_limit:
            self._past_limit = True
            return self._over_limit(scan)
        return None

    def _over_limit(self, scan: Scan) -> Reply | None:
        """The rest of the body need not be read where it is sure already that it is not passed."""
        policy = self._policy
        if policy.plain and not policy.blocks_early(Reason.OVER_LIMIT, directions(self._now)):
            return None
        return self._early(scan.verdict_so_far(), scan)

    def preview_end(self) -> Reply | None:
        """A hit in the preview is answered at once (PROTOCOL S76); anything else needs the whole body (S75)."""
        assert self._scan is not None
        if not self._now.generation.settings.engines.hash.allow:
            return self._early(summarize(self._scan.glance()), self._scan)
        # Whether the body is on the allow list is only known at its end; a rule may know better.
        return None if self._policy.plain else self._early(CLEAN, self._scan)

    def _early(self, verdict: Verdict, scan: Scan) -> Reply | None:
        """The answer by what is known before the end, where nothing that may still come can change it."""
        policy = self._policy
        if not policy.plain:
            decision = policy.early(facts_of(self._now, verdict, scan, final=False))
        else:
            decision = policy.early_by_default(verdict, self._directions(), read_on=not self._past_limit)
        if decision is None:
            return None
        return self._stopped(self._reply_by(decision, None if verdict is CLEAN else verdict, b""))

    def end(self, trailers: bytes, within_preview: bool) -> Outcome:
        scan, bodies = self._scan, self._now.generation.scanner.bodies
        if scan is not None and bodies is not None and self._may_be_known and scan.spotless and not self._opened:
            self._mark, known = bodies.recall_stored(scan.store, self._subject)
            if known:
                scan.store.recycle()  # no engine and no decoder has it yet
                return self._known_clean(within_preview, trailers)
        return self._end(trailers, within_preview)

    def _end(self, trailers: bytes, within_preview: bool) -> Outcome:
        assert self._now.head is not None
        self._may_204 = self._now.head.allow_204 or within_preview
        if self._scan is None:
            verdict = self._with_doubts(CLEAN)
            decision = self._decide(verdict, None)
            reply = self._reply_by(_passable(decision), verdict, trailers)
            self._tell(verdict, decision)
            return reply
        scan = self._scan
        return self._finish_soon(scan, trailers) if scan.may_finish_soon else self._finish(scan, trailers)

    def whole(self, body: bytes | None, within_preview: bool) -> Outcome:
        scan, bodies = self._scan, self._now.generation.scanner.bodies
        if body is None:
            return self.end(b"", within_preview)
        if scan is not None and bodies is not None and self._may_be_known:
            self._mark, known = bodies.recall(body, self._subject)
            if known:
                return self._keep_to_copy(scan, body, within_preview) or self._known_clean(within_preview, b"")
        if scan is not None and self._policy.plain:
            refused = self._refused(body)
            if refused is not None:
                return refused
        return self._take(body, whole=True) or self._end(b"", within_preview)

    @property
    def _may_be_known(self) -> bool:
        """Nothing but the body and what is said of it decides."""
        return self._policy.plain and not self._hidden and not self._doubts

    def _refused(self, body: bytes) -> Reply | None:
        """Under more load than an engine can bear an error is said at once: what is not begun costs the others least.

        Only that: where a policy passes or blocks what was not scanned, the other engines are to be asked first.
        """
        verdict = self._now.generation.scanner.refuses()
        if verdict is None:
            return None
        decision = self._policy.by_default(verdict, self._directions())
        if decision.action is not Action.ERROR:
            return None
        self._now.size = len(body)
        return self._reply_by(decision, verdict, b"")

    def _keep_to_copy(self, scan: Scan, body: bytes, within_preview: bool) -> Reply | None:
        """A known body is kept only where it has to be sent back. A reply where there is no room for it."""
        now = self._now
        assert now.head is not None
        now.size = len(body)
        if (now.head.allow_204 or within_preview) and self._whole_asked is None:
            return None
        try:
            scan.store.append(body)
        except StoreFull as error:
            return replies.error(503, str(error))
        return None

    def _known_clean(self, within_preview: bool, trailers: bytes) -> Reply:
        """The same body, said to be the same, was scanned before and had nothing in it."""
        now = self._now
        assert now.head is not None
        self._may_204 = now.head.allow_204 or within_preview
        now.asked = now.cached = 1
        return self._reply_by(self._policy.clean, CLEAN, trailers)

    async def _finish(self, scan: Scan, trailers: bytes) -> Reply:
        started = time.perf_counter()
        self._look_for_codings(scan)
        outcome = self._conclude(scan, await scan.finish(), started, trailers)
        return outcome if isinstance(outcome, Reply) else await outcome

    def _finish_soon(self, scan: Scan, trailers: bytes) -> Outcome:
        """As `_finish`, without a task where the engines need none either."""
        started = time.perf_counter()
        self._look_for_codings(scan)
        later = Later(lambda verdict: self._conclude(scan, verdict, started, trailers))
        try:
            verdict = scan.finish_soon(later.settle)
        except NotSoon:
            return self._finish(scan, trailers)
        return later if verdict is None else self._conclude(scan, verdict, started, trailers)

    def _look_for_codings(self, scan: Scan) -> None:
        if self._hidden and (self._hidden != b"chunked" or http_head.looks_chunked(_start(scan.store))):
            self._doubts += (_HIDDEN_CODING,)  # a reader who sees that field takes the body for something else

    def _conclude(self, scan: Scan, found: Verdict, started: float, trailers: bytes) -> Concluded:
        """From the verdict to the answer; only what takes its time is left to be awaited."""
        verdict = self._with_doubts(found)
        self._now.asked, self._now.cached = scan.asked, scan.cached
        self._now.scan_seconds = time.perf_counter() - started
        if self._mark is not None and verdict is CLEAN:
            bodies = self._now.generation.scanner.bodies
            assert bodies is not None
            bodies.keep(self._mark)
        decision = self._decide(verdict, scan)
        if decision.quarantine or decision.action is Action.SANITIZE or self._opened:
            return self._act(scan, verdict, decision, trailers)
        reply = self._reply_by(decision, verdict, trailers)
        self._tell(verdict, decision)
        return reply

    async def _act(self, scan: Scan, verdict: Verdict, decision: Decision, trailers: bytes) -> Reply:
        if decision.quarantine or decision.action is Action.SANITIZE:
            self._threads = Threads()
        kept = await self._keep(scan, verdict, decision) if decision.quarantine else b""
        if decision.action is Action.SANITIZE:
            reply = await self._sanitize(scan, verdict, decision, trailers)
        else:
            reply = self._reply_by(decision, verdict, trailers)
        self._tell(verdict, decision)
        reply = replace(reply, fields=kept + reply.fields) if kept else reply
        if self.delivery is None or not self.delivery.opened:
            return reply
        if reply.body is scan.store or (self._adapted is not None and reply.body is self._adapted.scan.store):
            return await self.delivery.passed(reply)
        return self._stopped(reply)

    @property
    def _opened(self) -> bool:
        """An answer has begun before the verdict."""
        return self.delivery is not None and self.delivery.opened

    def _stopped(self, reply: Reply) -> Reply:
        """``reply`` passes nothing: it, or what is possible of it behind an answer that has begun."""
        if self.delivery is None or not self.delivery.opened:
            return reply
        return self.delivery.stopped(reply, self._decided, self._now.verdict)

    def _tell(self, verdict: Verdict, decision: Decision) -> None:
        """Whom rules want told is told what was done, beside the answer."""
        if decision.notify:
            tell(self._now, self._scan, verdict, decision, self._name, self._subject.media_type)

    async def _keep(self, scan: Scan, verdict: Verdict, decision: Decision) -> bytes:
        """The virgin body into the quarantine; returns what the answer says of it. The decision stays what it is."""
        now = self._now
        now.reference = secrets.token_hex(4)
        try:
            item = item_of(now, scan.store, verdict, decision, self._name, self._subject.media_type)
            now.quarantine = await now.generation.keeper.keep(scan.store, item, self._threads.run)
        except NotKept as error:
            now.quarantine = "failed"
            now.detail = f"It could not be kept in the quarantine. {error}"
        return b"X-Icapscan-Quarantine: %s\r\n" % now.quarantine.encode()

    def _with_doubts(self, verdict: Verdict) -> Verdict:
        if not self._doubts:
            return verdict
        return summarize(verdict.findings, (*verdict.unscanned, *self._doubts), verdict.anomalies)

    async def _sanitize(self, scan: Scan, verdict: Verdict, decision: Decision, trailers: bytes) -> Reply:
        """The body without what is bad in it; what cannot be made good is blocked or deferred."""
        now = self._now
        if not stopped(verdict, decision):  # a rule says so, and there is nothing to take out
            return self._reply_by(_passable(decision), verdict, trailers)
        now.reference = now.reference or secrets.token_hex(4)
        mail = self._subject.media_type.startswith(_MAIL_TYPES) or Direction.MAIL in directions(now)

        def judge(result: Verdict, again: Scan) -> Decision:
            return self._decide(self._with_doubts(result), again)

        kept = now.quarantine if now.quarantine != "failed" else ""
        said = Reference(now.reference, kept)
        try:
            adapted = await now.generation.sanitizer.adapt(
                scan, self._subject, verdict, decision, said, judge, mail, self._threads.run_long
            )
        except Uncleanable as error:
            now.detail = _joined(now.detail, f"It was to be sanitized. {error}")
            return self._reply_by(self._policy.uncleanable(decision, directions(now)), verdict, trailers)
        self._adapted = adapted
        now.detail = _joined(now.detail, adapted.summary)
        self._note(decision, verdict)
        return self._adapted_reply(adapted, decision, verdict, trailers)

    def _adapted_reply(self, adapted: Adapted, decision: Decision, verdict: Verdict, trailers: bytes) -> Reply:
        """The adapted message: all of it, or a 206 with what stands before the last change."""
        now, virgin, store = self._now, self._scan, adapted.scan.store
        assert now.head is not None and now.route is not None and virgin is not None
        profile, file = now.route.profile, self._name.encode("utf-8", "replace")
        fields = replies.sanitized_fields(decision, verdict, file=file, profile=profile)
        kept = self.heads(store.size)
        heads = HttpHeads(
            *(head and http_rewrite.rewritten(head, store.size, adapted.name) for head in (kept.req_hdr, kept.res_hdr))
        )
        unchanged = adapted.edits.tail(virgin.store.size)
        if self._may_204 and now.head.allow_206 and not self._opened and unchanged < virgin.store.size:
            self._prefix = now.generation.scanner.new_store()
            try:
                for piece in adapted.edits.prefix(virgin.store):
                    self._prefix.append(piece)
                return Reply(206, "206 sanitize", fields, heads, self._prefix, unchanged, trailers)
            except StoreFull:
                pass  # the whole is there already
        return Reply(profile.adapted, f"{profile.adapted} sanitize", fields, heads, store, trailers=trailers)

    def request_head(self) -> bytes | None:
        return self._whole_asked or self._now.heads.req_hdr

    def _directions(self) -> tuple[Direction, ...]:
        """Which way the body travels, where the defaults ask."""
        return directions(self._now) if self._policy.by_traffic else ()

    def _decide(self, verdict: Verdict, scan: Scan | None) -> Decision:
        policy = self._policy
        if not policy.plain:
            return policy.decide(facts_of(self._now, verdict, scan, final=True))
        return policy.clean if verdict is CLEAN else policy.by_default(verdict, self._directions())

    def _reply_by(self, decision: Decision, verdict: Verdict | None, trailers: bytes) -> Reply:
        """``verdict`` None: the decision was made without one."""
        self._note(decision, verdict)
        known = verdict or CLEAN
        if decision.action is Action.ERROR:
            return replies.failure(decision, known)
        if decision.action is not Action.ALLOW:
            return refusal(self._now, decision, known, self._name)
        fields = replies.verdict_fields(decision, known)
        # RFC 3507 4.6: always for a body that ended within its preview, else where allowed
        if self._may_204 and self._whole_asked is None and not self._opened:
            return Reply(204, "204", fields) if fields else replies.NO_CONTENT
        return self.copy(self._scan.store if self._scan is not None else None, trailers, fields)

    def _note(self, decision: Decision, verdict: Verdict | None) -> None:
        """What the log says."""
        now = self._now
        self._decided = decision
        now.verdict = verdict
        now.decision = decision.action.value
        if decision.rule:
            now.rule = decision.rule
        if decision.monitored:
            now.monitored = decision.monitored

    def close(self) -> None:
        self._threads.when_done(self._free)

    def _free(self) -> None:
        if self._scan is not None:
            self._scan.close()
        if self._adapted is not None:
            self._adapted.scan.close()
        if self._prefix is not None:
            self._prefix.close()


def _passable(decision: Decision) -> Decision:
    """A body in which there is nothing to take out is passed."""
    return replace(decision, action=Action.ALLOW) if decision.action is Action.SANITIZE else decision


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


def _start(store: PartStore) -> bytes | memoryview:
    return next(store.pieces(0, 40), b"")
