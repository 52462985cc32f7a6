"""What the quarantine's index says of a body: from a transaction to an `Item`."""

from __future__ import annotations

import re

from icapscan.findings import Verdict
from icapscan.policy.decision import Decision
from icapscan.quarantine.item import Item, Kind
from icapscan.servers.facts import ENVELOPE, directions
from icapscan.servers.transaction import Transaction
from icapscan.store import PartStore
from icapscan.unwrap.names import readings

RECIPIENTS_MAX = 1000
_HEADER_MAX = 64 * 1024
_SUBJECT = re.compile(rb"^subject[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE | re.MULTILINE)


def item_of(
    now: Transaction, store: PartStore, verdict: Verdict, decision: Decision, name: str, media_type: str
) -> Item:
    """What the index says of it. Whether it is a mail, the body shows: only a message can be released."""
    header = bytes(next(store.pieces(0, _HEADER_MAX), b""))
    mail = media_type.startswith("message/")
    subject = _SUBJECT.search(header) if mail else None
    sender, recipients = _envelope(now)
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
        name=next(iter(readings(b" ".join(subject[1].split()))), "") if subject is not None else name,
        media_type=media_type,
        verdict=verdict,
        rule=decision.rule,
        reference=now.reference,
    )


def _envelope(now: Transaction) -> tuple[str | None, tuple[str, ...]]:
    """Reverse-path and forward-paths as an ICAP client of a relay gives them, in its own head or the HTTP head."""
    sender: str | None = None
    recipients: list[str] = []
    heads = [now.head.fields.raw if now.head is not None else b"", now.heads.req_hdr or b""]
    for found in (match for head in heads for match in ENVELOPE.finditer(head)):
        value = found[2].decode("utf-8", "replace")
        if found[1].lower() == b"from":
            sender = _address(value) if sender is None else sender
        else:
            recipients += [address for one in value.split(",") if (address := _address(one))]
    return sender, tuple(dict.fromkeys(recipients))[:RECIPIENTS_MAX]


def _address(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">").strip()
