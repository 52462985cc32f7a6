"""Zip archives: the bad member is taken out and a notice takes its place; all others keep their exact bytes.

Other kinds of archives cannot be rewritten so, and the caller replaces them whole. A zip in a zip is opened to the
member that offends, and a document that may be cleaned is cleaned where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable

from icapscan.sanitize.archive_notice import notice_name, notice_text
from icapscan.sanitize.archive_zip import Member, New, ZipArchive
from icapscan.sanitize.contract import CannotSanitize, Cleaned
from icapscan.sanitize.documents_options import Inside, Work
from icapscan.unwrap.members import safe_key
from icapscan.unwrap.tree import name_segment, shortened


def clean_archive(archive: ZipArchive, name: str, inside: Inside, work: Work) -> Cleaned | None:
    """The zip without the members that ``inside`` leads to; None where it is the zip itself that offends.

    Raises `CannotSanitize` where a path leads nowhere, or to several members.
    """
    if not inside or "" in inside:
        return None
    first = archive.members[0].name
    if first == "mimetype":
        raise CannotSanitize("A document of this kind (ODF, EPUB) cannot be cleaned.")
    changes: dict[str, New | None] = {}
    added: list[New] = []
    what: list[str] = []
    taken = {member.name for member in archive.members}
    for member, rests in _wanted(archive, name, inside):
        cleaned = _cleaned(archive, member, rests, work)
        if cleaned is not None:
            folder, _, last = member.name.rpartition("/")
            renamed = cleaned.name if cleaned.name != last else ""
            full = f"{folder}/{renamed}" if renamed and folder else renamed
            if full in taken:
                raise CannotSanitize("The new name of a document in the zip is taken.")
            taken.add(full)
            changes[member.name] = New(full, cleaned.data)
            what += [f"{member.name}: {one}" for one in cleaned.what]
        else:
            changes[member.name] = None
            added.append(New(notice_name(member.name, taken), notice_text(member.name, work.target.threat)))
            taken.add(added[-1].name)
            what.append(f"the file {member.name}")
    return Cleaned(archive.rebuilt(changes, added), "", tuple(what))


def _cleaned(archive: ZipArchive, member: Member, rests: Inside, work: Work) -> Cleaned | None:
    """The member without what is bad in it; None where it has to go whole."""
    if not archive.heads[member.name]:
        return None
    return work.inner(archive.read(member), member.name.rpartition("/")[2], rests)


def _wanted(archive: ZipArchive, name: str, inside: Inside) -> Iterable[tuple[Member, Inside]]:
    """The members that the paths lead to, each with what is left of them."""
    keys = keys_of(archive)
    found: dict[str, tuple[Member, tuple[str, ...]]] = {}
    for path in inside:
        member, rest = resolve(keys, name, path)
        if member is None:
            raise CannotSanitize("What offends was not found in the zip.")
        found[member.name] = member, (*found.get(member.name, (member, ()))[1], rest)
    return found.values()


def keys_of(archive: ZipArchive) -> dict[str, Member]:
    """The members by their segment in the walker's paths. Raises `CannotSanitize` where two have the same one."""
    keys = {shortened(safe_key(member.name)): member for member in archive.members if not member.folder}
    if len(keys) != sum(not member.folder for member in archive.members):
        raise CannotSanitize("Members of the zip cannot be told apart.")
    return keys


def resolve(keys: dict[str, Member], name: str, path: str) -> tuple[Member | None, str]:
    """The member that a path leads to, and the rest of the path; the document's own name may stand before it.

    A member's name may hold slashes, so several may fit: the longest name does, as the others would be folders.
    """
    for start in dict.fromkeys((path, path.removeprefix(name_segment(name) + "/"))):
        if start in keys:
            return keys[start], ""
        at = start.rfind("/")
        while at > 0:
            if start[:at] in keys:
                return keys[start[:at]], start[at + 1 :]
            at = start.rfind("/", 0, at)
    return None, path
