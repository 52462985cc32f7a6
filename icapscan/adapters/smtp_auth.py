"""AUTH that is checked here, with Dovecot (RFC 4954; PLAIN, LOGIN and CRAM-MD5)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from icapscan.adapters import smtp_replies as say
from icapscan.adapters.dovecot import SUPPORTED, AuthFailed, Exchange, Verdict, dovecot
from icapscan.adapters.settings import SmtpSettings
from icapscan.adapters.smtp_hop import ClientFacts
from icapscan.wire.smtp_command import Command
from icapscan.wire.smtp_reply import Reply

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_STEPS_MOST = 8
AskClient = Callable[[Reply], Awaitable[bytes]]


class Authenticator:
    """Checks one client."""

    def __init__(self, settings: SmtpSettings, facts: ClientFacts, *, secured: bool) -> None:
        self._settings = settings
        self._facts = facts
        self._secured = secured

    async def mechanisms(self) -> tuple[str, ...]:
        """What can be offered now: nothing while Dovecot cannot be asked."""
        try:
            async with dovecot(self._settings.dovecot, self._settings.timeouts.auth) as exchange:
                return exchange.mechanisms
        except AuthFailed:
            return ()

    async def run(self, made: Command, ask: AskClient) -> tuple[str | None, Reply]:
        """A whole exchange; ``ask`` gives the client a challenge and returns its line.

        The user, or None, and the reply that ends the exchange.
        """
        word, _, given = made.argument.partition(b" ")
        mechanism, given = word.decode("latin-1").upper(), given.strip()
        if mechanism not in SUPPORTED:
            return None, say.AUTH_NO_MECHANISM
        initial = b"" if given == b"=" else given or None
        if initial is not None and not _BASE64.fullmatch(initial):
            return None, say.AUTH_NOT_BASE64
        try:
            async with dovecot(self._settings.dovecot, self._settings.timeouts.auth) as exchange:
                if mechanism not in exchange.mechanisms:
                    return None, say.AUTH_NO_MECHANISM
                return await self._steps(exchange, mechanism, initial, ask)
        except AuthFailed:
            return None, say.AUTH_LATER

    async def _steps(
        self, exchange: Exchange, mechanism: str, initial: bytes | None, ask: AskClient
    ) -> tuple[str | None, Reply]:
        facts = self._facts
        verdict = await self._within(
            exchange.start(mechanism, initial, client=facts.address, server=facts.server, tls=self._secured)
        )
        for _ in range(_STEPS_MOST):
            if verdict.user is not None:
                return verdict.user, say.AUTH_DONE
            if verdict.challenge is None:
                return None, say.AUTH_LATER if verdict.later else say.AUTH_FAILED
            line = await ask(Reply(334, (verdict.challenge,)))
            if line == b"*":
                return None, say.AUTH_CANCELLED
            if not _BASE64.fullmatch(line):
                return None, say.AUTH_NOT_BASE64
            verdict = await self._within(exchange.go_on(line))
        return None, say.AUTH_FAILED

    async def _within(self, step: Awaitable[Verdict]) -> Verdict:
        try:
            async with asyncio.timeout(self._settings.timeouts.auth):
                return await step
        except TimeoutError as error:
            raise AuthFailed("Dovecot does not answer in time.") from error
