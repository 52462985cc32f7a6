"""How mail adapters ask an ICAP service."""

from __future__ import annotations

from icapscan.clients.settings import ClientSettings, Timeouts

SUSPEND_SECONDS = 2.0
"""A service that failed is probed again after this. Meanwhile mail is deferred, and an MTA waits minutes until it tries
again: the half minute of other clients would cost each of those mails that."""


def mail_client_settings(seconds: float, connections: int, agent: str) -> ClientSettings:
    """For scans of at most ``seconds``. No preview: a service is to see every byte. Who the client is goes to it
    whatever its OPTIONS say.
    """
    return ClientSettings(
        timeouts=Timeouts(total=seconds, answer=seconds), connections=connections, preview="never", identity="always",
        user_agent=agent, suspend=SUSPEND_SECONDS,
    )  # fmt: skip
