"""The webhook: a notice as JSON, posted and signed as the Standard Webhooks specification 1.0.0 has it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import time
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from icapscan import __version__
from icapscan.errors import NotDelivered
from icapscan.notify.contract import Notice
from icapscan.templates import shown

TEXT_MAX = 500
URL_MAX = 2000
LIST_MAX = 30
"""Findings, names or recipients in the JSON; how many there were stands beside them. Receivers want 20 KB at most."""
_AFTER_MAX = 300.0
_AGAIN = (408, 425, 429)
"""Client errors that say "later" (RFC 9110 15.5.9, RFC 8470, RFC 6585)."""


def payload(notice: Notice) -> bytes:
    """The body: ASCII, with everything else escaped. Texts are cut, not changed: a program reads them."""
    data = {
        "host": _text(notice.host),
        "service": _text(notice.service),
        "direction": notice.direction,
        "client": _text(notice.client),
        "icap_client": _text(notice.icap_client),
        "user": _text(notice.user),
        "url": _text(notice.url, URL_MAX),
        "sender": None if notice.sender is None else _text(notice.sender),
        "recipients": [_text(one) for one in notice.recipients[:LIST_MAX]],
        "recipient_count": len(notice.recipients),
        "subject": _text(notice.subject),
        "message_id": _text(notice.message_id),
        "media_type": _text(notice.media_type),
        "names": [_text(one) for one in notice.names[:LIST_MAX]],
        "size": notice.size,
        "verdict": notice.verdict,
        "reason": notice.reason or None,
        "findings": [
            {"engine": _text(one.engine), "name": _text(one.name), "part": _text(one.part), "level": one.level.word}
            for one in notice.findings[:LIST_MAX]
        ],
        "finding_count": len(notice.findings),
        "decision": notice.decision,
        "rule": _text(notice.rule) or None,
        "rules": [_text(one) for one in notice.rules[:LIST_MAX]],
        "quarantine": notice.quarantine or None,
        "reference": notice.reference,
        "detail": _text(notice.detail),
    }
    when = datetime.fromtimestamp(notice.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"type": f"notice.{notice.verdict}", "timestamp": when, "data": data}
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def sign(secret: bytes, name: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``: over id, seconds since the epoch and body, joined by full stops."""
    digest = hmac.new(secret, b"%s.%d.%s" % (name.encode("ascii"), timestamp, body), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


def is_url(text: str) -> bool:
    """Whether ``text`` can be a webhook: http or https, a host, neither user nor fragment, printable ASCII."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and " " not in text
    named = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    return plain and named and parts.username is None and not parts.fragment


def post(url: str, secret: bytes, timeout: float, name: str, body: bytes) -> None:
    """One try to call ``url``; ``name`` is the webhook-id, the same for all tries. Returns when it said 2xx.

    Raises `NotDelivered`: worth another try after 5xx, 408, 425 and 429, and where nobody answers. Redirects are not
    followed: who can make one must not choose where we send to.
    """
    parts = urlsplit(url)
    where = f"The webhook at {parts.netloc}"
    now = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"icapscan/{__version__}",
        "Connection": "close",
        "webhook-id": name,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, name, now, body),
    }
    connection = _connection(parts, timeout)
    try:
        connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
        answer = connection.getresponse()
        status, reason, after = answer.status, answer.reason, answer.getheader("Retry-After", "")
    except http.client.HTTPException as error:
        said = shown(f"{type(error).__name__} {error}")
        raise NotDelivered(f"{where} does not answer as HTTP has it: {said}.", retry=True) from error
    except OSError as error:
        said = shown(getattr(error, "strerror", None) or str(error))
        raise NotDelivered(f"{where} cannot be reached: {said}.", retry=True) from error
    finally:
        connection.close()
    if not 200 <= status < 300:
        seconds = min(float(after), _AFTER_MAX) if after.isascii() and after.isdigit() else 0.0
        again = status >= 500 or status in _AGAIN
        raise NotDelivered(f"{where} answered {status} {shown(reason)}.", retry=again, after=seconds)


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port or 80, timeout=timeout)
    import ssl  # only where it is asked for

    return http.client.HTTPSConnection(host, parts.port or 443, timeout=timeout, context=ssl.create_default_context())


def _text(text: str, most: int = TEXT_MAX) -> str:
    """``text`` cut, without halves of surrogate pairs, which are no Unicode."""
    return text[:most].encode("utf-8", "replace").decode("utf-8")
