"""Tells people and programs about a transaction, beside the traffic: no answer waits for it or depends on it."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence

from icapscan.errors import ConfigError
from icapscan.notify import mail, webhook
from icapscan.notify.contract import Channel, Notice, Outcome
from icapscan.notify.lane import RETRIES, Job, Lane
from icapscan.notify.letter import Letters
from icapscan.notify.people import Addressee, People, plan_of
from icapscan.notify.rates import Rates
from icapscan.notify.secret import secret_of
from icapscan.notify.settings import NotifySettings
from icapscan.notify.tally import Tally

_log = logging.getLogger("icapscan")


class Notifier:
    """The mails and the webhook of one state of the configuration. Thread-safe; its threads start when needed."""

    def __init__(
        self,
        settings: NotifySettings,
        *,
        contact: str = "",
        share: int = 1,
        tally: Tally | None = None,
        now: Callable[[], float] = time.monotonic,
        retries: Sequence[float] = RETRIES,
    ) -> None:
        """``contact``: whom people may ask. ``share``: processes that share the rates. ``now``: the clock of the rates.

        The settings were checked. A template that has gone since is replaced by the shipped text; a secret that has
        gone fails each call of the webhook. The log says so.
        """
        self.settings = settings
        self.contact = contact
        self.tally = tally or Tally()
        self._people = People(settings)
        self._letters = Letters(settings, contact, strict=False)
        self._secret = _secret(settings)
        self._rates = Rates(settings.rate / share, settings.rate_each / share, now)
        self._mails = Lane(Channel.MAIL, settings.queue, self.tally, retries)
        self._calls = Lane(Channel.WEBHOOK, settings.queue, self.tally, retries)

    def notify(self, notice: Notice) -> bool:
        """Queue what the notice asks for; returns whether all of it found room. Never blocks, never raises.

        What a rate holds back is counted, and told in the next mail to the same address.
        """
        try:
            called = self._call(notice)
            return self._write(notice) and called
        except Exception as error:  # a fault of ours must not become one of the transaction's
            _log.error("notify: the notice %s cannot be queued.", _reference(notice), exc_info=error)
            self.tally.add(Channel.MAIL, Outcome.DROPPED)
            return False

    def stop(self) -> None:
        """Take nothing any more, and be quick with what is queued: `close` waits for it."""
        for lane in (self._calls, self._mails):
            lane.stop()

    def close(self, seconds: float) -> None:
        """Deliver what is queued, for so long. Afterwards nothing is taken any more."""
        until = time.monotonic() + seconds
        self.stop()
        for lane in (self._calls, self._mails):
            lane.close(max(0.0, until - time.monotonic()))

    def _call(self, notice: Notice) -> bool:
        settings, secret = self.settings, self._secret
        url = settings.webhook
        if url is None or not any(plan_of(settings, rule).webhook for rule in notice.rules):
            return True
        if secret is None:
            self.tally.add(Channel.WEBHOOK, Outcome.FAILED)
            _log.warning("notify: the webhook is not called for %s: it has no secret.", _reference(notice))
            return False
        name = f"notice_{secrets.token_hex(16)}"
        body = webhook.payload(notice)

        def deliver() -> None:
            webhook.post(url, secret, settings.timeout, name, body)

        return self._calls.put(Job(_reference(notice), name, deliver))

    def _write(self, notice: Notice) -> bool:
        addressees, more = self._people.told(notice)
        if more:
            self.tally.add(Channel.MAIL, Outcome.HELD, more)
            _log.warning("notify: %d recipients too many are not told of %s.", more, _reference(notice))
        room = True
        for addressee in addressees:
            held = self._rates.take(addressee.address)
            if held is None:
                self.tally.add(Channel.MAIL, Outcome.HELD)
                if self._rates.owed(addressee.address) == 1:  # not a line for each of a flood
                    _log.warning(
                        "notify: mails to %s are held back by the rate, from that of %s on.",
                        addressee.address, _reference(notice),
                    )  # fmt: skip
            else:
                room = self._mails.put(self._job(notice, addressee, held)) and room
        return room

    def _job(self, notice: Notice, addressee: Addressee, held: int) -> Job:
        message: list[bytes] = []

        def deliver() -> None:
            if not message:  # the same for all tries, with its Message-ID
                message.append(self._letters.letter(notice, addressee, held))
            mail.send(self.settings, addressee.address, message[0])

        def given_up() -> None:
            self._rates.give_back(addressee.address, held)

        return Job(_reference(notice), addressee.address, deliver, given_up)


def _secret(settings: NotifySettings) -> bytes | None:
    try:
        return secret_of(settings)
    except ConfigError as error:
        _log.error("notify: the webhook has no secret: %s.", error)
        return None


def _reference(notice: Notice) -> str:
    """The reference, harmless for the log."""
    return re.sub(r"[^0-9A-Za-z-]", "", notice.reference) or "-"
