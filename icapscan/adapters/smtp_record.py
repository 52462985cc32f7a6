"""The log line of one message."""

from __future__ import annotations

import json
import re
import time

from msgspec import Struct

from icapscan.adapters.judgement import Action

_PLAIN = re.compile(r"[A-Za-z0-9_.:@/+\-<>\[\]]+")
_TEXT_MOST = 320
_RECIPIENTS_SHOWN = 10


class MessageRecord(Struct, frozen=True):
    """What became of one message."""

    id: str
    client: str
    helo: str
    user: str
    mail_from: str
    rcpt_to: tuple[str, ...]
    size: int
    action: Action
    trouble: str
    threat: str
    reference: str
    detail: str
    hop: str
    reply: str
    """The one that the client got."""
    scan_seconds: float
    """From the end of the message to the verdict."""
    seconds: float
    """From the end of the message to the reply."""


def line_of(record: MessageRecord) -> str:
    """One line of ``key=value`` words; nothing that came from outside can leave its word."""
    words = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "smtp"]
    shown = list(record.rcpt_to[:_RECIPIENTS_SHOWN])
    if len(record.rcpt_to) > len(shown):
        shown.append(f"+{len(record.rcpt_to) - len(shown)}")
    values: dict[str, str] = {
        "id": record.id,
        "client": record.client,
        "helo": record.helo,
        "user": record.user,
        "from": f"<{record.mail_from}>",
        "to": ",".join(f"<{one}>" if not one.startswith("+") else one for one in shown),
        "size": str(record.size),
        "action": record.action.value,
        "trouble": record.trouble,
        "threat": record.threat,
        "reference": record.reference,
        "detail": record.detail if record.action is not Action.PASS else "",
        "hop": record.hop,
        "reply": record.reply,
        "scan_ms": f"{record.scan_seconds * 1000:.1f}",
        "ms": f"{record.seconds * 1000:.1f}",
    }
    return " ".join(words + [f"{name}={_word(value)}" for name, value in values.items() if value])


def _word(text: str) -> str:
    text = text if len(text) <= _TEXT_MOST else text[:_TEXT_MOST] + "..."
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
