"""A mail, or a form with files, without its bad parts: each is cleaned or replaced by a notice where it stands.

Every byte outside of the parts that change stays as it was, but for one header field that is added at the top. Where
the message cannot be read in exactly one way, or where what is bad is no part of it, `CannotSanitize` is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from icapscan.findings import PartPath
from icapscan.sanitize.contract import CannotSanitize, Cleaned, Reference, Sanitized, Target
from icapscan.sanitize.edits import Edit, Edits
from icapscan.sanitize.mail_headers import has_field, outdated
from icapscan.sanitize.mail_parts import Change, Rewriter, Scope, Wanted, looks_like_mail
from icapscan.sanitize.mail_places import Container, Opaque, Place, is_container, locate
from icapscan.sanitize.notice import SHIPPED, Notices
from icapscan.store import PartStore
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.mime_entity import Encoding, EntityDoubt

DEPTH_MAX = 32
"""Messages in messages; the walker opens no more than `Limits.depth`."""
FIELD = b"X-Icapscan-Sanitized"
_NO_NAME = Declared()
_KEY = re.compile(r"([1-9][0-9]*)(~(?:[0-9]+|clamd))?")
"""A part as a strict reader counts, or the same part in another reading (`mime_alternatives`, `mime_reading`)."""
_PLAIN = re.compile(r"[^A-Za-z0-9._:@+-]")
_BROKEN_BY_CHANGE = (
    ("DKIM", (b"dkim-signature", b"domainkey-signature")),
    ("ARC", (b"arc-seal", b"arc-message-signature")),
)
Clean = Callable[[bytes, Target], Cleaned | None]
"""Gets the decoded bytes of a part, and the target with its path *within* that part (``""``: the part itself). Gives
what takes its place, or None: then the notice does."""


def sanitize_mail(
    store: PartStore,
    targets: Sequence[Target],
    reference: Reference,
    clean: Clean,
    *,
    declared: Declared = _NO_NAME,
    notices: Notices = SHIPPED,
) -> Sanitized:
    """The edits that take ``targets`` out of the message in ``store``, and what was done.

    A target within an archive or a document is one of the innermost MIME part that holds it. Where a target stands in
    another, the outer one wins. ``declared`` is what the walker was told of the body; of a form it has the boundary.
    Raises `CannotSanitize`.
    """
    if not targets:
        raise CannotSanitize("Nothing was named that is to be taken out.")
    try:
        box = locate(store, 0, store.size, declared)
        wanted = [Wanted(target, "", False) for target in targets]
        change = _Mail(Rewriter(reference, clean, notices)).inside(Scope.of(store, box, ""), wanted)
        edits = Edits(change.edits)
        if box.header:
            edits = edits.merged([Edit(box.first_field, 0, _added(change, reference, box.line_end))])
    except Opaque as error:
        raise CannotSanitize(f"The body cannot be rewritten. {error}") from error
    except ValueError as error:  # edits that overlap are a mistake of ours, and no reason to pass anything on
        raise CannotSanitize(f"The body cannot be rewritten: {error}.") from error
    return Sanitized(edits, change.removed, change.notes)


class _Mail:
    """Walks down to the targets."""

    __slots__ = ("_rewriter",)

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter

    def inside(self, scope: Scope, wanted: Sequence[Wanted]) -> Change:
        """What is to be done in one container for the targets in it. Raises `Opaque`."""
        box = scope.box
        change = Change()
        for place, those in _grouped(box, scope.base, wanted):
            change += self._place(scope, place, those)
        broken = tuple(
            f"The {name} signature of the message is broken."
            for name, fields in _BROKEN_BY_CHANGE
            if any(has_field(box.header, field) for field in fields)
        )
        note = ("The digital signature (multipart/signed) is broken.",) if scope.signed else ()
        stale = _stale(box.body - len(box.header), box.header) if box.boundary is not None else ()
        return change + Change(stale, notes=broken + note)

    def _place(self, scope: Scope, place: Place, wanted: Sequence[Wanted]) -> Change:
        """One part with targets in it: deeper where that is possible, else the part itself."""
        if all(one.inside and not one.other for one in wanted) and scope.depth < DEPTH_MAX:
            try:
                if place.encoding is Encoding.IDENTITY:
                    return self._nested(scope, place, wanted)
                return self._coded(scope, place, wanted)
            except Opaque:
                pass  # the part as a whole stands where it is
        cleaned, why = None, ""
        if not is_container(scope.store, place.body, place.end, place.declared):
            cleaned, why = self._rewriter.cleaned(scope, place, wanted)
        return cleaned or self._rewriter.replaced(scope, place, wanted, why)

    def _nested(self, scope: Scope, place: Place, wanted: Sequence[Wanted]) -> Change:
        """A message or a multipart that stands as it is."""
        if not place.certain or place.described.doubts - {EntityDoubt.NAMES}:
            raise Opaque("Mail readers do not agree about its header.")
        box = locate(scope.store, place.body, place.end, place.declared)
        change = self.inside(Scope.of(scope.store, box, place.base(scope.base), scope), wanted)
        return change + Change(_stale(place.start, place.header))

    def _coded(self, scope: Scope, place: Place, wanted: Sequence[Wanted]) -> Change:
        """A message in base64 or quoted-printable: changed within, then encoded again."""
        if not looks_like_mail(scope, place):
            raise Opaque("It is no mail.")
        data = self._rewriter.content(scope, place, {EntityDoubt.CODED_CONTAINER})
        if data is None:
            raise Opaque("It cannot be decoded for sure.")
        inner = PartStore.of(data)
        try:
            box = locate(inner, 0, inner.size, place.declared)
            change = self.inside(Scope.of(inner, box, place.base(scope.base), scope), wanted)
            adapted = b"".join(Edits(change.edits).pieces(inner))
        finally:
            inner.close()
        edits = self._rewriter.encoded(scope, place, adapted, "")
        if edits is None:
            raise Opaque("It cannot be encoded again.")
        return Change(edits, change.removed, change.notes)


def _grouped(box: Container, base: PartPath, wanted: Sequence[Wanted]) -> list[tuple[Place, list[Wanted]]]:
    """The parts that the targets stand in, in order. Raises `Opaque` where one stands in none."""
    places = {place.key: place for place in box.places}
    groups: dict[str, list[Wanted]] = {}
    for one in wanted:
        path = one.target.path
        relative = path[len(base) + 1 :] if base else path
        key = _KEY.fullmatch(relative.partition("/")[0])
        place = places.get(key[1]) if key is not None else None
        if key is None or place is None:
            raise Opaque(f"What is to be taken out is none of its parts: {path[:200]!r}.")
        inside, other = "", bool(key[2])
        if not other and path != place.path(base):
            own = place.base(base) + "/"
            if not path.startswith(own):
                raise CannotSanitize(f"The path {path[:200]!r} does not fit the part that it leads to.")
            inside = path[len(own) :]
        groups.setdefault(key[1], []).append(Wanted(one.target, inside, other))
    return [(places[key], groups[key]) for key in sorted(groups, key=int)]


def _stale(start: int, header: bytes) -> tuple[Edit, ...]:
    """The edits that take out what is no longer true of a header that stands at ``start``."""
    return tuple(Edit(start + at, end - at, b"") for at, end in outdated(header))


def _added(change: Change, reference: Reference, line_end: bytes) -> bytes:
    """The header field at the top. Only what we made ourselves stands in it."""
    hows = [removed.how for removed in change.removed]
    parts = [f"replaced={hows.count('replaced')}", f"cleaned={hows.count('cleaned')}"]
    if reference.transaction:
        parts.append("reference=" + _PLAIN.sub("_", reference.transaction)[:100])
    parts += change.notes
    folded = (b";" + line_end + b" ").join(part.encode("ascii") for part in parts)
    return FIELD + b": " + folded + line_end
