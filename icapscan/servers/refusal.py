"""What goes back in place of a body that is not passed: the page for a person and the verdict lines for the client."""

from __future__ import annotations

import secrets

from icapscan.findings import Verdict
from icapscan.policy.decision import Action, Decision
from icapscan.servers import replies
from icapscan.servers.replies import Reply
from icapscan.servers.stationery import VIA
from icapscan.servers.transaction import Transaction
from icapscan.wire import http_head
from icapscan.wire.icap_events import HttpHeads


def refusal(now: Transaction, decision: Decision, verdict: Verdict, name: str) -> Reply:
    """The answer to a body named ``name`` that is blocked or deferred. Gives the transaction a reference."""
    assert now.route is not None
    now.reference = now.reference or secrets.token_hex(4)
    accept = http_head.look(now.heads.req_hdr).get(b"accept-language", b"")
    page = now.generation.render_page(accept, decision, verdict, now.url, now.reference)
    violations, profile = now.route.settings.violations, now.route.profile
    fields = replies.block_fields(
        decision, verdict, file=name.encode("utf-8", "replace"), violations=violations, profile=profile
    )
    date = now.stationery.date
    defer = decision.action is Action.DEFER
    said, reason = replies.verdict_fields(decision, verdict, profile=profile), profile.page_reason(decision.cause)
    head = replies.block_head(page.html, page.language, date, VIA, said, defer=defer, reason=reason)
    fields += b"X-Icapscan-Reference: %s\r\n" % now.reference.encode("ascii")
    return Reply(200, "200 defer" if defer else "200 block", fields, HttpHeads(None, head), page.html)
