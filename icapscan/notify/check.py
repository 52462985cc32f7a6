"""Settings that cannot be used: found before anything listens, with the key and what was expected."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_network

from icapscan.errors import ConfigError
from icapscan.notify.letter import Letters
from icapscan.notify.people import Plan, is_address, is_domain, plan_of
from icapscan.notify.secret import secret_of
from icapscan.notify.settings import NotifySettings
from icapscan.notify.webhook import is_url

_PORT_MAX = 65535
Key = tuple[str, ...]


class Mistake(ConfigError):
    """One key that cannot be used. ``key`` is its path, ``sentence`` has neither the key nor a full stop."""

    def __init__(self, key: Key, sentence: str) -> None:
        super().__init__(f"{'.'.join(key)}: {sentence}.")
        self.key = key
        self.sentence = sentence


def check(settings: NotifySettings, rules: Collection[str], notifying: Collection[str]) -> None:
    """Raises `Mistake` (a `ConfigError`) for the first key that cannot be used.

    ``rules`` are the names of all rules of the policy, ``notifying`` of those with the action ``notify``.
    """
    _names(settings, rules, notifying)
    _addresses(settings)
    _webhook(settings)
    for name, key, plan in _plans(settings, notifying):
        _plan(settings, name, key, plan)
    if not settings.languages or len(set(settings.languages)) < len(settings.languages):
        raise Mistake(("notify", "languages"), 'expected "en", "ja" or both, each once')
    _templates(settings)


def tells_somebody(settings: NotifySettings, rule: str) -> bool:
    """Whether there is anybody to tell where this rule says ``notify``."""
    plan = plan_of(settings, rule)
    return plan.webhook or plan.mails


def _plans(settings: NotifySettings, notifying: Collection[str]) -> list[tuple[str, Key, Plan]]:
    """What holds for each rule that notifies, and the key that says to whom."""
    found: list[tuple[str, Key, Plan]] = []
    for name in notifying:
        own = settings.rules.get(name)
        key: Key = ("notify", "rules", name, "to") if own is not None and own.to is not None else ("notify", "to")
        found.append((name, key, plan_of(settings, name)))
    return found


def _names(settings: NotifySettings, rules: Collection[str], notifying: Collection[str]) -> None:
    for name, own in settings.rules.items():
        here = ("notify", "rules", name)
        if name not in rules:
            raise Mistake(here, "expected the name of one of policy.rules")
        if name not in notifying:
            raise Mistake(here, 'expected the rule of that name to have the action "notify"')
        if own.webhook and settings.webhook is None:
            raise Mistake((*here, "webhook"), "expected notify.webhook to be set too")
        if own.administrators is not None and "administrator" not in plan_of(settings, name).to:
            raise Mistake((*here, "administrators"), 'expected "administrator" among those who are told')
        for address in own.administrators or ():
            if not is_address(address):
                raise Mistake((*here, "administrators"), f"expected mail addresses, got {address!r}")


def _plan(settings: NotifySettings, name: str, key: Key, plan: Plan) -> None:
    if "administrator" in plan.to and not plan.administrators and settings.rules.get(name) is not None:
        own = settings.rules[name]
        if own.to is not None or own.administrators is not None:
            raise Mistake(key, '"administrator" needs somebody in notify.administrators')
    if "sender" in plan.to and not (settings.own_domains and settings.own_networks):
        raise Mistake(
            key,
            '"sender" needs notify.own_domains and notify.own_networks: senders of viruses are forged, so only those '
            "are told of whom both are known",
        )
    if "recipient" in plan.to and not settings.own_domains:
        raise Mistake(key, '"recipient" needs notify.own_domains: nobody else is told')
    if plan.mails and not settings.from_address:
        raise Mistake(("notify", "from_address"), "expected the mail address that notices are from")


def _addresses(settings: NotifySettings) -> None:
    port = int(settings.relay.rpartition(":")[2])
    if not 0 < port <= _PORT_MAX:
        raise Mistake(("notify", "relay"), f"expected a port from 1 to {_PORT_MAX}, got {port}")
    if not (settings.helo.isascii() and settings.helo.isprintable() and " " not in settings.helo):
        raise Mistake(("notify", "helo"), f"expected a host name, got {settings.helo!r}")
    if settings.from_address and not is_address(settings.from_address):
        raise Mistake(("notify", "from_address"), f"expected a mail address, got {settings.from_address!r}")
    for address in settings.administrators:
        if not is_address(address):
            raise Mistake(("notify", "administrators"), f"expected mail addresses, got {address!r}")
    for domain in settings.own_domains:
        if not is_domain(domain):
            raise Mistake(
                ("notify", "own_domains"), f'expected domains such as "example.org" or ".example.org", got {domain!r}'
            )
    for network in settings.own_networks:
        try:
            ip_network(network, strict=False)
        except ValueError as error:
            raise Mistake(
                ("notify", "own_networks"), f'expected addresses or networks such as "192.0.2.0/24", got {network!r}'
            ) from error


def _webhook(settings: NotifySettings) -> None:
    secret = next((key for key in ("webhook_secret", "webhook_secret_file") if getattr(settings, key) is not None), "")
    if settings.webhook_secret is not None and settings.webhook_secret_file is not None:
        raise Mistake(("notify", "webhook_secret_file"), "expected either this or notify.webhook_secret")
    if settings.webhook is None:
        if secret:
            raise Mistake(("notify", secret), "expected notify.webhook to be set too")
        return
    if not is_url(settings.webhook):
        raise Mistake(
            ("notify", "webhook"), "expected a URL with http or https and a host, without a user and a fragment"
        )
    if not secret:
        raise Mistake(
            ("notify", "webhook"), "expected notify.webhook_secret or notify.webhook_secret_file to be set too"
        )
    try:
        secret_of(settings)
    except ConfigError as error:
        raise Mistake(("notify", secret), str(error)) from error


def _templates(settings: NotifySettings) -> None:
    keys: dict[str, Key] = {settings.template: ("notify", "template")} if settings.template else {}
    for name, own in settings.rules.items():
        if own.template:
            keys.setdefault(own.template, ("notify", "rules", name, "template"))
    for file, key in keys.items():
        try:
            Letters(NotifySettings(from_address="a@example.org", template=file, languages=settings.languages))
        except ConfigError as error:
            raise Mistake(key, f"expected a jinja2 template; {str(error).rstrip('.')}") from error
