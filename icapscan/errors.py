"""The exceptions of icapscan, all in one place, each with what a peer is told and whether a retry makes sense.

Graded as in docs/architecture.md: an *anomaly* is no exception at all, a failed part is a `PartFailed` event,
and only what ends a connection or a process is raised.
"""

from __future__ import annotations


class IcapscanError(Exception):
    """Base of all of ours. ``str(error)`` is one plain sentence that may be shown to a peer or a user."""

    retry: bool = False
    """Whether the same request may succeed later without anybody changing anything."""


class ProtocolError(IcapscanError):
    """The peer broke the protocol; this connection ends.

    ``status`` is the ICAP status (RFC 3507 4.3.3) that a server answers with before it closes.
    """

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class LocalProtocolError(IcapscanError):
    """Our own code asked a codec for something illegal in its state. Never caused by a peer."""


class ConfigError(IcapscanError):
    """A configuration that cannot be used; the sentence names key, file, line and what was expected."""


class RuleError(IcapscanError):
    """A YARA rule file that cannot be read or compiled; the sentence names the file and the line."""


class StoreFull(IcapscanError):
    """The purse of memory and disk is empty: nothing more can be kept now (answered with ICAP 503)."""

    retry = True


class QuarantineFailed(IcapscanError):
    """Something could not be kept in, or got out of, the quarantine. The decision about the body stays as it was."""

    retry = True


class QuarantineFull(QuarantineFailed):
    """The quarantine's bounds, or its disk, leave no room for this item."""


class NoSuchItem(QuarantineFailed):
    """No item of that id is in the quarantine, or no longer."""

    retry = False


class Damaged(QuarantineFailed):
    """A kept item is not what was written: bytes were changed, moved, added or cut off."""

    retry = False


class ReleaseRefused(QuarantineFailed):
    """A mail was not sent on from the quarantine; the sentence says who refused and why."""


class NotDelivered(IcapscanError):
    """A notice did not reach whom it was for; the sentence says who did what. ``retry``: it may, later."""

    def __init__(self, sentence: str, *, retry: bool, after: float = 0.0) -> None:
        """``after``: seconds to wait at least, where the other side says so."""
        super().__init__(sentence)
        self.retry = retry
        self.after = after
