"""What the quarantine's index says of a body: from a transaction to an `Item`."""

from __future__ import annotations

from icapscan.findings import Verdict
from icapscan.policy.decision import Decision
from icapscan.quarantine.item import Item, Kind
from icapscan.servers.facts import directions
from icapscan.servers.mail_head import MailHead, envelope, is_mail
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore


def item_of(
    now: Transaction, store: PartStore, verdict: Verdict, decision: Decision, name: str, media_type: str
) -> Item:
    """What the index says of it. Whether it is a mail, the body shows: only a message can be released."""
    mail = is_mail(media_type)
    sender, recipients = envelope(now)
    assert now.head is not None and now.route is not None
    return Item(
        kind=Kind.MAIL if mail else Kind.FILE,
        service=now.route.name,
        direction=directions(now)[0].value,
        client=now.head.client_ip.decode("latin-1"),
        user=now.head.user.decode("utf-8", "replace"),
        url=now.url.decode("utf-8", "replace"),
        sender=sender,
        recipients=recipients,
        name=(MailHead(store).subject if mail else "") or name,
        media_type=media_type,
        verdict=verdict,
        rule=decision.rule,
        reference=now.reference,
    )
