"""Encrypted Office documents (MS-OFFCRYPTO): how they are told, and opening those that have a password all know.

Excel itself protects a workbook with ``VelvetSweatshop`` and opens it without asking; malware is sent around so.
"""

from __future__ import annotations

import re
from collections.abc import Generator

from icapscan.findings import Reason
from icapscan.limits import KIB, MIB
from icapscan.store import PartStore
from icapscan.unwrap import office_child
from icapscan.unwrap.biff import workbook
from icapscan.unwrap.children import Child, python, why
from icapscan.unwrap.events import PartEnd, PartEvent, PartFailed, Waiting
from icapscan.unwrap.gate import Stop
from icapscan.unwrap.members import Members
from icapscan.unwrap.ole_file import Entry, OleFile
from icapscan.unwrap.passwords import STANDARD

DOCUMENT_MAX = 64 * MIB
"""The library holds the document three times in memory, and the child has `bounded.MEMORY`."""
INFO_MAX = 64 * KIB
SPIN_MAX = 200_000
"""Rounds of hashing that are made for a password; Office writes 100,000, some 60 ms here."""
LOOKED_MAX = 64
"""Streams that are asked; one document has one of each kind, a document with many charts in it some dozen workbooks."""
_TELLING = ("encryptedpackage", "encryptedsummary", "worddocument", "workbook", "book", "current user")
_VELVET = "VelvetSweatshop"
_SPIN = re.compile(rb"spinCount\s*=\s*[\"']\s*(\d{1,20})")
_ENCRYPTED_TOKEN = bytes.fromhex("dfc4d1f3")
"""CurrentUserAtom.headerToken of an encrypted presentation (MS-PPT 2.3.2)."""


def encrypted_by(file: OleFile) -> Entry | None:
    """The stream that says that this document is encrypted, or None."""
    looked = 0
    for entry in file.entries:
        name = entry.name.lower()
        if entry.kind != 2 or name not in _TELLING or looked >= LOOKED_MAX:
            continue
        looked += 1
        if name in ("encryptedpackage", "encryptedsummary"):
            return entry
        if name == "worddocument":
            flags = int.from_bytes(file.head(entry, 12)[10:12], "little")
            if flags & 0x8100 == 0x0100 or flags & 0x8100 == 0x8100:  # fEncrypted (MS-DOC 2.5.2)
                return entry
        elif name in ("workbook", "book"):
            if workbook(file.head(entry, 64 * KIB)).encrypted:
                return entry
        elif name == "current user" and _ENCRYPTED_TOKEN in file.head(entry, 32):
            return entry
    return None


def decrypted(
    store: PartStore, file: OleFile, members: Members
) -> Generator[PartEvent | Waiting, None, tuple[Reason, str] | None]:
    """The document without its encryption as a part; returns why not. Raises `Stop` when the budget is spent."""
    locked = Reason.ENCRYPTED, "The document is encrypted, and none of the usual passwords opens it."
    if store.size > DOCUMENT_MAX:
        return locked
    info = next((entry for entry in file.entries if entry.name.lower() == "encryptioninfo"), None)
    known = members.context.passwords
    passwords: tuple[str, ...] = (_VELVET, *(password for password in known.costly if password != _VELVET))
    if info is not None:
        described = file.head(info, INFO_MAX)
        rounds = [int(number) for number in _SPIN.findall(described)]
        if b"<!" in described or (rounds and max(rounds) > SPIN_MAX) or info.size > INFO_MAX:
            return locked
        if rounds:
            passwords = (_VELVET, *(one for one in passwords if one not in STANDARD[1:]))  # each costs its rounds
    key = ""
    yield Waiting()
    with Child(python("icapscan.unwrap.office_child"), store, passwords) as child:
        try:
            while piece := (yield from child.more()):
                if not key:
                    key, begin = members.begin(("decrypted",))
                    yield begin
                yield from members.data(key, piece)
        except Stop as stop:
            if key:
                yield PartFailed(key, stop.reason, stop.detail)
            raise
        status, _ = child.end()
    if key:
        yield PartEnd(key)
    if status == 0 and key:
        yield from members.anomaly("standard-password", "The document opens with a password that everybody knows.")
        return None
    if status == office_child.NOT_INSTALLED:
        return Reason.ENCRYPTED, "The document is encrypted, and what would try a password is not installed."
    ended = why(status)
    return (Reason.ENCRYPTED, f"The document is encrypted. {ended[1]}") if ended else locked
