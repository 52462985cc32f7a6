"""Who wanted to be told is told, once it is clear what was done: from a transaction to a `Notice`, and to the notifier.

No answer waits for it, and none depends on it.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
import weakref
from collections.abc import Iterator

from icapscan.findings import PartPath, Verdict
from icapscan.notify.contract import Notice
from icapscan.notify.guard import marks_of
from icapscan.notify.notifier import Notifier
from icapscan.notify.tally import Tally
from icapscan.pipeline import Scan
from icapscan.policy.decide import Policy
from icapscan.policy.decision import Decision
from icapscan.policy.facts import Direction
from icapscan.servers.facts import directions
from icapscan.servers.mail_head import MailHead, envelope, is_mail
from icapscan.servers.settings import Settings
from icapscan.servers.transaction import Transaction

CLOSE_SECONDS = 3.0
"""At the end so long is waited for what is queued: less than the supervisor waits after the drain time."""
_log = logging.getLogger("icapscan")


class Notifiers:
    """The notifier of a process, kept over reloads that change nothing about it."""

    __slots__ = ("_all", "_latest", "_share", "tally")

    def __init__(self, share: int) -> None:
        """``share``: processes that share the rates."""
        self.tally = Tally()
        self._share = share
        self._latest: Notifier | None = None
        self._all: weakref.WeakSet[Notifier] = weakref.WeakSet()
        """With those that a transaction, or a thread that still delivers, has yet."""

    def get(self, settings: Settings) -> Notifier | None:
        """The one for these settings; None where no rule notifies. Raises `ConfigError`."""
        if not Policy(settings.policy).notifies:
            self._latest = None
            return None
        latest, contact = self._latest, settings.page.contact
        if latest is None or (latest.settings, latest.contact) != (settings.notify, contact):
            latest = Notifier(settings.notify, contact=contact, share=self._share, tally=self.tally)
            self._all.add(latest)
            self._latest = latest
        return latest

    def close(self) -> None:
        """Deliver what is queued, within `CLOSE_SECONDS`. Blocks: call it in a thread."""
        until = time.monotonic() + CLOSE_SECONDS
        everyone = list(self._all)
        for one in everyone:
            one.stop()
        for one in everyone:
            one.close(max(0.0, until - time.monotonic()))


def tell(now: Transaction, scan: Scan | None, verdict: Verdict, decision: Decision, name: str, media_type: str) -> None:
    """Hand a notice over to the notifier. ``decision`` names the rules that want it; what was done is in ``now``.

    Never raises, and never waits.
    """
    notifier = now.generation.notifier
    now.reference = now.reference or secrets.token_hex(4)
    if notifier is None:
        return
    try:
        notice = notice_of(now, scan, verdict, decision, name, media_type)
    except Exception as error:  # the body is scanned and decided about: that stands
        _log.error("notify: there is no notice of %s.", now.reference, exc_info=error)
        return
    notifier.notify(notice)


def notice_of(
    now: Transaction, scan: Scan | None, verdict: Verdict, decision: Decision, name: str, media_type: str
) -> Notice:
    """What is told of a transaction whose answer is ready. ``name`` and ``media_type`` are those of the body."""
    assert now.head is not None and now.route is not None
    sender, recipients = envelope(now)
    travels = directions(now)
    mail = MailHead(scan.store) if scan is not None and is_mail(media_type) else None
    sure = mail is not None and mail.whole and travels == (Direction.MAIL,)
    return Notice(
        time=time.time(),
        host=socket.gethostname(),
        service=now.route.name,
        direction=travels[0].value,
        client=now.head.client_ip.decode("latin-1"),
        icap_client=now.client,
        user=now.head.user.decode("utf-8", "replace"),
        url=now.url.decode("utf-8", "replace"),
        sender=sender,
        recipients=recipients,
        subject=mail.subject if mail is not None else "",
        message_id=mail.message_id if mail is not None else "",
        marks=marks_of(mail.header) if mail is not None and sure else None,
        media_type=media_type,
        names=tuple(dict.fromkeys(_names(scan, verdict, decision, name if mail is None else ""))),
        size=now.size,
        verdict=verdict.level.word,
        reason=verdict.reason.value if verdict.reason is not None else "",
        findings=verdict.findings,
        decision=now.decision,
        rule=now.rule,
        rules=decision.notify,
        quarantine=now.quarantine,
        reference=now.reference,
        detail=now.detail,
    )


def _names(scan: Scan | None, verdict: Verdict, decision: Decision, name: str) -> Iterator[str]:
    """The name of the body, then of each part that something was found in or that made the rule match."""
    if name:
        yield name
    known: dict[PartPath, tuple[str, ...]] = {part.path: part.names for part in scan.parts} if scan is not None else {}
    parts = [*(one.part for one in verdict.findings), *(one.part for one in verdict.unscanned), *decision.parts]
    for path in dict.fromkeys(parts):
        while path and not known.get(path):  # e.g. what a coding hid in the part that has the name
            path = path.rpartition("/")[0]
        if path:
            yield known[path][0]
