"""What an ICAP service is told of a mail beside its bytes: never more than a server takes, never a line of its own.

The envelope that goes on to the next hop is another matter: it is left as it came.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

RECIPIENTS_MOST = 100
"""Recipients that are named. icapscan and c-icap take some hundred field lines in a head."""
_BYTES_MOST = 16 * 1024
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_IP = re.compile(r"[0-9A-Fa-f:.]{2,45}")


def told_address(address: bytes) -> str:
    """An address as text that fits into one field line."""
    return _CONTROL.sub(b"?", address).decode("utf-8", "surrogateescape")


def told_recipients(recipients: Iterable[bytes]) -> tuple[str, ...]:
    """The first recipients, as many as fit into a head."""
    told: list[str] = []
    left = _BYTES_MOST
    for recipient in recipients:
        left -= len(recipient)
        if len(told) == RECIPIENTS_MOST or left < 0:
            break
        told.append(told_address(recipient))
    return tuple(told)


def told_ip(address: str) -> str | None:
    """An IP address, or None for what is none."""
    address = address.removeprefix("::ffff:") if "." in address else address
    return address if _IP.fullmatch(address) else None


def told_user(name: bytes) -> str | None:
    """A user's name, or None for none."""
    return told_address(name)[:256] or None
