"""From the decision to sanitize to a body that may be passed: rewritten, scanned again, and judged again.

Nothing leaves because it was rewritten; it leaves because a scan of what leaves gives a verdict that policy lets pass.
Documents are cleaned in the first attempt; what offends still is replaced by a notice in the second. What cannot be
rewritten, or offends after that, is `Uncleanable`, and policy says whether it is blocked or deferred.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate

from msgspec import Struct
from msgspec.structs import replace

from icapscan.errors import StoreFull
from icapscan.findings import CLEAN, Level, PartPath, Verdict
from icapscan.limits import MIB
from icapscan.pipeline import Scan, Subject
from icapscan.policy.decision import Action, Decision
from icapscan.sanitize.contract import CannotSanitize, Reference, Removed, Sanitized, Target
from icapscan.sanitize.documents import DocumentCleaner, clean_document
from icapscan.sanitize.edits import Edit, Edits
from icapscan.sanitize.mail import sanitize_mail
from icapscan.sanitize.notice import Notices
from icapscan.sanitize.settings import SanitizeSettings
from icapscan.servers.threads import Run
from icapscan.store import PartStore
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.mime_reading import SKELETON

TURN = 1 * MIB
"""Bytes of the adapted body that are scanned before others get their turn."""
Judge = Callable[[Verdict, Scan], Decision]
"""What policy says of the adapted body."""


class Uncleanable(Exception):
    """It could not be made good. ``str(error)`` is one plain sentence for the log."""


class Adapted(Struct, frozen=True):
    """A body that may be passed in place of the virgin one."""

    scan: Scan
    """Its store is the adapted body. Whoever gets this closes it."""
    edits: Edits
    removed: tuple[Removed, ...]
    name: str = ""
    """File name of a document whose type changed; empty: as before."""

    @property
    def summary(self) -> str:
        """One plain sentence for the log."""
        replaced = sum(1 for one in self.removed if one.how == "replaced")
        cleaned = len(self.removed) - replaced
        parts = [f"{count} {how}" for count, how in ((replaced, "replaced"), (cleaned, "cleaned")) if count]
        return f"Sanitized: {', '.join(parts)}."


class Sanitizer:
    """Rewrites bodies for one generation of the configuration."""

    __slots__ = ("_contact", "_host", "_notices", "_settings")

    def __init__(self, settings: SanitizeSettings, *, contact: str = "", host: str = "") -> None:
        """Raises `icapscan.errors.ConfigError` for a notice template that cannot be used."""
        self._settings = settings
        self._notices = Notices(settings.notice)
        self._contact = contact
        self._host = host

    async def adapt(
        self,
        scan: Scan,
        subject: Subject,
        verdict: Verdict,
        decision: Decision,
        reference: Reference,
        judge: Judge,
        mail: bool,
        run: Run,
    ) -> Adapted:
        """``scan``: the virgin body, scanned to its end. Raises `Uncleanable`."""
        if subject.content_encoding.strip():
            raise Uncleanable("A body with a content coding is not rewritten.")
        said = replace(reference, date=formatdate(time.time()), host=self._host, contact=self._contact)
        why = ""
        for clean in (True, False) if mail else (True,):
            targets = _targets(scan, verdict, decision, clean)
            try:
                sanitized, name = await run(self._rewrite, scan.store, subject, targets, said, mail)
                again, why = await _again(scan, subject, sanitized.edits, name, judge)
            except CannotSanitize as error:
                raise Uncleanable(str(error)) from error
            except StoreFull as error:
                raise Uncleanable(f"There is no room for the adapted body: {error}") from error
            if not why:
                return Adapted(again, sanitized.edits, sanitized.removed, name)
            again.close()
            if all(one.how == "replaced" for one in sanitized.removed):
                break  # a second attempt would give the same
        raise Uncleanable(why)

    def _rewrite(
        self, store: PartStore, subject: Subject, targets: list[Target], reference: Reference, mail: bool
    ) -> tuple[Sanitized, str]:
        """In a thread. Raises `CannotSanitize`."""
        options = self._settings.options(html=mail and subject.media_type != "multipart/form-data")
        names = (subject.name,) if subject.name else ()
        if mail:
            cleaner = DocumentCleaner(options)
            declared = Declared(names, subject.media_type, content_type=subject.content_type)
            sanitized = sanitize_mail(store, targets, reference, cleaner, declared=declared, notices=self._notices)
            return sanitized, ""
        if store.size > options.size:
            raise CannotSanitize("The document is too large to be cleaned.")
        data = b"".join(store.pieces())
        first = targets[0]
        target = Target("", names, first.threat, first.level, first.clean)
        cleaned = clean_document(data, target, [one.path for one in targets], options)
        if cleaned is None:
            raise CannotSanitize("This is nothing that can be cleaned, or the finding cannot be taken out of it.")
        removed = Removed("", subject.name, first.threat, "cleaned", "; ".join(cleaned.what))
        return Sanitized(Edits([Edit(0, store.size, cleaned.data)]), (removed,)), cleaned.name


def stopped(verdict: Verdict, decision: Decision) -> tuple[PartPath, ...]:
    """The parts that are to go; none where nothing is wrong with any."""
    if decision.parts:
        return decision.parts
    paths = [finding.part for finding in verdict.findings] + [item.part for item in verdict.unscanned]
    return tuple(dict.fromkeys(paths))


def _targets(scan: Scan, verdict: Verdict, decision: Decision, clean: bool) -> list[Target]:
    """The parts that policy wants to go, with what is known of each."""
    names: dict[PartPath, tuple[str, ...]] = {part.path: part.names for part in scan.parts}
    targets = []
    paths = stopped(verdict, decision)
    for path in _deepest(paths) if clean else paths:
        findings = [finding for finding in verdict.findings if finding.part == path]
        reasons = [item.reason.value for item in verdict.unscanned if item.part == path]
        level = max((finding.level for finding in findings), default=Level.UNSCANNED)
        threat = ", ".join(
            dict.fromkeys([*(one.name for one in findings), *(f"not scanned: {one}" for one in reasons)])
        )
        targets.append(Target(path, names.get(path, ()), threat or decision.rule or decision.cause.value, level, clean))
    return targets


def _deepest(paths: tuple[PartPath, ...]) -> tuple[PartPath, ...]:
    """Without those that others stand in: what is wrong with an archive is mostly what is in it; the scan will tell.

    The skeleton of a mail has its small texts once more; it is no part that could be taken out.
    """
    deepest = tuple(
        path
        for path in paths
        if not any(other != path and (not path or other.startswith(f"{path}/")) for other in paths)
    )
    return tuple(path for path in deepest if path.rpartition("/")[2] != SKELETON) or deepest


async def _again(scan: Scan, subject: Subject, edits: Edits, name: str, judge: Judge) -> tuple[Scan, str]:
    """The adapted body, scanned, and why it may not pass; empty where it may. Raises `StoreFull`."""
    again = scan.another(replace(subject, name=name) if name else subject)
    try:
        fed = 0
        for piece in edits.pieces(scan.store):
            again.feed(piece)
            fed += len(piece)
            if fed >= TURN:
                fed = 0
                await asyncio.sleep(0)
        verdict = await again.finish()
        decision = judge(verdict, again)
    except BaseException:
        again.close()
        raise
    if decision.action is Action.ALLOW:
        return again, ""
    if verdict is CLEAN:
        return again, "What was left is stopped by a rule."
    said = verdict.name or (verdict.reason.value if verdict.reason is not None else verdict.level.word)
    return again, f"What was left still offends: {said}."
