"""Which service extensions a proxy between a client and a next hop may offer: what both sides can carry."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

PASSED = (
    "PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "DELIVERBY", "MT-PRIORITY", "LIMITS", "RRVS",
    "VRFY", "EXPN", "HELP",
)  # fmt: skip
"""Offered as the next hop offers them: they live in commands, parameters and replies, which pass as they are."""


class Offer(Struct, frozen=True):
    """What the proxy itself can and may do in this session, now."""

    size: int
    """Bytes of a message at most; 0 = no bound of ours."""
    starttls: bool
    chunking: bool
    auth: str | None
    """Mechanisms that are checked here ("" = none); None: as the next hop offers them."""


def offered(hop: Mapping[str, str], offer: Offer) -> dict[str, str]:
    """The keywords for the client, with their parameters, from those of the next hop."""
    keywords = {name: hop[name] for name in PASSED if name in hop}
    keywords["SIZE"] = _size(hop, offer.size)
    if offer.chunking:
        keywords["CHUNKING"] = ""
        if "BINARYMIME" in hop and "CHUNKING" in hop:
            keywords["BINARYMIME"] = ""
    if offer.starttls:
        keywords["STARTTLS"] = ""
    mechanisms = hop.get("AUTH", "") if offer.auth is None else offer.auth
    if mechanisms:
        keywords["AUTH"] = mechanisms
    return keywords


def _size(hop: Mapping[str, str], own: int) -> str:
    theirs = hop.get("SIZE", "")
    sizes = [size for size in (own, int(theirs) if theirs.isdecimal() and len(theirs) < 20 else 0) if size]
    return str(min(sizes)) if sizes else ""
