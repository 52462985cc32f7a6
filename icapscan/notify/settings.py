"""The configuration table ``[notify]``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from icapscan.limits import Count, Seconds

Relay = Annotated[str, Meta(pattern=r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\s]+):\d{1,5}$")]
"""``host:port``; IPv6 in brackets."""
Whom = Literal["administrator", "sender", "recipient"]
Language = Literal["en", "ja"]


class RuleNotifySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[notify.rules.NAME]``: what is different for the rule of that name in ``[[policy.rules]]``. None: the same."""

    to: tuple[Whom, ...] | None = None
    administrators: tuple[str, ...] | None = None
    template: str | None = None
    webhook: bool | None = None
    """Whether the webhook is called, too."""


class NotifySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``[notify]``: who is told where a rule has the action ``notify``, and how."""

    relay: Relay = "127.0.0.1:25"
    """SMTP server that takes the mails: on this machine, or in a network that is trusted."""
    helo: str = ""
    """Name given in EHLO; empty: the host's name."""
    from_address: str = ""
    """Of the From field. The reverse-path is always the null one."""
    administrators: tuple[str, ...] = ()
    to: tuple[Whom, ...] = ("administrator",)
    own_domains: tuple[str, ...] = ()
    """Senders and recipients are told only in these: ``example.org``, or ``.example.org`` with all below it."""
    own_networks: tuple[str, ...] = ()
    """A sender is told only where the mail came from one of these (X-Client-IP): senders are forged."""
    template: str | None = None
    """A jinja2 file in place of the shipped text."""
    languages: tuple[Language, ...] = ("en", "ja")
    """Of the text, in this order; the subject is in the first one."""
    rate: Count = 60
    """Mails a minute in all."""
    rate_each: Count = 10
    """Mails a minute to one address."""
    webhook: str | None = None
    """URL that each notice is posted to, as JSON and signed."""
    webhook_secret: Annotated[str | None, Meta(extra={"secret": True})] = None
    """Base64 of 24 to 64 random bytes, with or without ``whsec_``."""
    webhook_secret_file: str | None = None
    """The same in a file that nobody else can read."""
    timeout: Seconds = 20.0
    """Longest wait for one answer of the relay or the webhook."""
    queue: Count = 1000
    """Mails, and calls of the webhook, that wait in each worker."""
    rules: dict[str, RuleNotifySettings] = {}
