"""One part of a message: cleaned and encoded again, or replaced by a notice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec.structs
from msgspec import Struct

from icapscan.findings import PartPath
from icapscan.limits import MIB
from icapscan.sanitize.contract import CannotSanitize, Cleaned, Reference, Removed, Target
from icapscan.sanitize.edits import Edit
from icapscan.sanitize.mail_encode import LINE, decoded, decoded_start, encoded, lines
from icapscan.sanitize.mail_headers import CONTENT, OUTDATED, NotNeat, has_field, rebuilt, renamed
from icapscan.sanitize.mail_places import Container, Opaque, Place, is_mail
from icapscan.sanitize.notice import Notice, Notices
from icapscan.store import PartStore
from icapscan.templates import shown
from icapscan.unwrap.contract import FIRST
from icapscan.unwrap.mime_entity import EntityDoubt

PART_MAX = 64 * MIB
"""Encoded bytes of a part that is decoded in memory to be cleaned; a larger one is replaced."""
_START = 4 * FIRST
"""Encoded bytes of which the first decoded ones are made."""
_ENCODING = b"content-transfer-encoding"
_TEXT = b"Content-Type: text/plain; charset=utf-8"
_BASE64 = b"Content-Transfer-Encoding: base64"


class Wanted(Struct, frozen=True):
    """A target, seen from one part."""

    target: Target
    inside: PartPath
    """Its path within the part; empty: the part itself."""
    other: bool
    """It is this part in another reading than the strict one."""


class Scope(Struct, frozen=True):
    """A container, and what stands around it."""

    store: PartStore
    box: Container
    base: PartPath
    """What the paths of its parts are joined to."""
    needles: tuple[bytes, ...]
    """``--boundary`` of it and of all around it: none of them may occur in what is put in."""
    signed: bool
    """A signature covers it (multipart/signed)."""
    depth: int = 0

    @classmethod
    def of(cls, store: PartStore, box: Container, base: PartPath, outer: Scope | None = None) -> Scope:
        """That of ``box``, which stands in ``outer``; of delimiters around only those in the same store matter."""
        needles = outer.needles if outer is not None and outer.store is store else ()
        if box.boundary is not None:
            needles = (*needles, b"--" + box.boundary)
        signed = box.described.media_type == "multipart/signed" or (outer is not None and outer.signed)
        return cls(store, box, base, needles, signed, outer.depth + 1 if outer is not None else 0)

    @property
    def form(self) -> bool:
        """Its parts are fields and files of a form."""
        return self.box.described.media_type == "multipart/form-data"

    def body(self, place: Place) -> bytes:
        """The body of a part, encoded as it stands."""
        return bytes(self.store.reader()[place.body : place.end])


class Change(Struct, frozen=True):
    """What is done to a message, or a piece of it."""

    edits: tuple[Edit, ...] = ()
    removed: tuple[Removed, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Change) -> Change:
        notes = tuple(dict.fromkeys(self.notes + other.notes))
        return Change(self.edits + other.edits, self.removed + other.removed, notes)


class Rewriter:
    """Makes the edits for single parts."""

    __slots__ = ("_clean", "_notices", "_reference")

    def __init__(
        self, reference: Reference, clean: Callable[[bytes, Target], Cleaned | None], notices: Notices
    ) -> None:
        self._reference = reference
        self._clean = clean
        self._notices = notices

    def replaced(self, scope: Scope, place: Place, wanted: Sequence[Wanted], why: str = "") -> Change:
        """The notice in the place of the part; ``why`` it was not cleaned. Raises `Opaque` where there can be none."""
        alone, line_end = scope.box.boundary is None, scope.box.line_end
        if not place.certain and (alone or scope.form):
            raise Opaque("Mail readers do not agree about its header.")
        name, threats = _name(place, wanted), tuple(one.target.threat for one in wanted)
        text = self._notices.text(Notice(name, threats, not alone, scope.signed), self._reference)
        data = text.replace("\n", "\r\n").encode()
        if scope.form:  # the field stays what it is; transfer encodings are not undone there (RFC 7578 4.7)
            drop, add, body = CONTENT - {b"content-disposition"}, [_TEXT], data
        else:
            drop, add, body = CONTENT, [_TEXT, _BASE64, b"Content-Disposition: inline"], lines(data, LINE, line_end)
        if alone and not has_field(place.header, b"mime-version"):
            add.insert(0, b"MIME-Version: 1.0")
        header = rebuilt(place.header if place.certain else b"", drop | OUTDATED, add, line_end)
        if alone or scope.store.reader()[place.end : place.end + 1] not in (b"\r", b"\n", b""):
            body += line_end  # there is none before the next delimiter that could belong to it
        new = header + body
        if any(needle in new for needle in scope.needles):
            raise Opaque("The boundary occurs in the notice.")
        said = ", ".join(dict.fromkeys(shown(threat) for threat in threats))
        removed = Removed(place.path(scope.base), shown(name), said, "replaced", why)
        return Change((Edit(place.start, place.end - place.start, new),), (removed,))

    def cleaned(self, scope: Scope, place: Place, wanted: Sequence[Wanted]) -> tuple[Change | None, str]:
        """The cleaned document in the place of the part; or None, and why it was not cleaned."""
        if not all(one.target.clean and not one.other for one in wanted):
            return None, ""
        data = self.content(scope, place)
        if data is None:
            return None, "It is not encoded in a way that can be written again."
        done, why = self._without(data, wanted)
        if done is None:
            return None, why
        edits = self.encoded(scope, place, done.data, done.name)
        if edits is None:
            return None, "It could not be encoded again."
        threats = ", ".join(dict.fromkeys(shown(one.target.threat) for one in wanted))
        name, detail = shown(_name(place, wanted)), "; ".join(dict.fromkeys(done.what))
        return Change(edits, (Removed(place.path(scope.base), name, threats, "cleaned", detail),)), ""

    def content(self, scope: Scope, place: Place, allowed: Collection[EntityDoubt] = ()) -> bytes | None:
        """The decoded body of a part whose header and encoding leave no doubt, apart from its names, else None."""
        doubts = place.described.doubts - {EntityDoubt.NAMES, *allowed}
        if not place.certain or doubts or place.end - place.body > PART_MAX:
            return None
        return decoded(scope.body(place), place.encoding, place.described.media_type.startswith("text/"))

    def encoded(self, scope: Scope, place: Place, data: bytes, name: str) -> tuple[Edit, ...] | None:
        """The edits that make ``data`` the content of a part, and give it ``name`` if that is not empty, else None."""
        line_end = scope.box.line_end
        body = encoded(data, place.encoding, scope.body(place), line_end, scope.needles, scope.form)
        if body is None:
            return None
        recoded = body.encoding is not place.encoding
        drop, add = (OUTDATED | {_ENCODING}, [_BASE64]) if recoded else (OUTDATED, [])
        header = rebuilt(place.header, drop, add, line_end)
        try:
            header = renamed(header, name, line_end) if name else header
        except NotNeat:
            return None
        if any(needle in header for needle in scope.needles):
            return None
        edits = [Edit(place.body, place.end - place.body, body.data)]
        if header != place.header:
            edits.append(Edit(place.start, len(place.header), header))
        return tuple(edits)

    def _without(self, data: bytes, wanted: Sequence[Wanted]) -> tuple[Cleaned | None, str]:
        """The document without all that is wanted out of it; or None, and why not."""
        what: list[str] = []
        rest, name = data, ""
        for target in {one.inside: msgspec.structs.replace(one.target, path=one.inside) for one in wanted}.values():
            try:
                cleaned = self._clean(rest, target)
            except CannotSanitize as error:
                return None, str(error)
            except Exception as error:  # a mistake of ours or of a library: the notice takes its place
                return None, f"It could not be cleaned ({type(error).__name__})."
            if cleaned is None:
                return None, "It could not be cleaned."
            rest, name = cleaned.data, cleaned.name or name
            what += cleaned.what
        if rest == data:
            return None, "Cleaning changed nothing."
        return Cleaned(rest, name, tuple(what)), ""


def looks_like_mail(scope: Scope, place: Place) -> bool:
    """Whether the walker opens the decoded content of a part as a message or multipart, by its first bytes."""
    start = bytes(scope.store.reader()[place.body : min(place.end, place.body + _START)])
    return is_mail(decoded_start(start, place.encoding)[:FIRST], place.declared)


def _name(place: Place, wanted: Sequence[Wanted]) -> str:
    """The file name of a part, or of what was found in it where the part has none."""
    names = [*place.declared.names, *(name for one in wanted for name in one.target.names)]
    return names[0] if names else ""
