"""Files embedded in documents: packages of the Object Packager (Ole10Native), and OLE 1.0 objects (MS-OLEDS 2.2).

Neither format is documented whole for packages; the layout is the one that Windows' packager.dll reads.
"""

from __future__ import annotations

from struct import Struct as Packed

from msgspec import Struct

STRING_MAX = 32 * 1024
"""A name or path in a package: the longest path of Windows."""
_HEADER = Packed("<II")
_U32 = Packed("<I")
_U16 = Packed("<H")


class Package(Struct, frozen=True):
    """An embedded file."""

    names: tuple[str, ...]
    start: int
    """Where its data begins."""
    size: int
    """Declared; the data may be shorter."""


class OleObject(Struct, frozen=True):
    """An OLE 1.0 object."""

    class_name: str
    linked: bool
    topic: str
    """Of a link, the file or URL."""
    start: int
    """Where its native data begins."""
    size: int


def package(data: bytes, at: int = 0) -> Package | None:
    """The package whose two bytes of type (2) stand at ``at``, or None where this is none.

    Label, file name, two words, the length of a path, the path, the length of the data, the data, and the same three
    names in UTF-16.
    """
    if len(data) < at + 2 or _U16.unpack_from(data, at)[0] != 2:
        return None
    names = []
    at += 2
    for _ in range(2):  # label and file name
        text, at = _string(data, at)
        if at < 0:
            return None
        names.append(text)
    if len(data) < at + 8:
        return None
    linked = _U16.unpack_from(data, at + 2)[0] != 3
    length = int(_U32.unpack_from(data, at + 4)[0])
    at += 8
    names.append(_plain(data[at : at + min(length, STRING_MAX)].partition(b"\0")[0]))
    at += length
    if linked or len(data) < at + 4:
        return None if not linked else Package(_names(names), len(data), 0)
    size = int(_U32.unpack_from(data, at)[0])
    at += 4
    names = _unicode(data, at + size) + names
    return Package(_names(names), at, size)


def ole_object(data: bytes) -> OleObject | None:
    """The header of an OLE 1.0 object (MS-OLEDS 2.2.4, 2.2.5), or None where this is none."""
    if len(data) < 12:
        return None
    _, kind = _HEADER.unpack_from(data, 0)  # Office ignores the version
    if kind not in (1, 2):
        return None
    texts = []
    at = 8
    for _ in range(3):  # class, topic, item
        if len(data) < at + 4:
            return None
        length = int(_U32.unpack_from(data, at)[0])
        at += 4
        if length > STRING_MAX or at + length > len(data):
            return None
        texts.append(_plain(data[at : at + length].partition(b"\0")[0]))
        at += length
    if kind == 1:
        return OleObject(texts[0], True, texts[1], len(data), 0)
    if len(data) < at + 4:
        return None
    return OleObject(texts[0], False, texts[1], at + 4, int(_U32.unpack_from(data, at)[0]))


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at, at + STRING_MAX)
    return (_plain(data[at:end]), end + 1) if end >= 0 else ("", -1)


def _unicode(data: bytes, at: int) -> list[str]:
    """The names in UTF-16 behind the data: path, label, file name, each behind its length in characters."""
    names = []
    for _ in range(3):
        if len(data) < at + 4:
            break
        length = int(_U32.unpack_from(data, at)[0])
        if length > STRING_MAX or len(data) < at + 4 + 2 * length:
            break
        names.append(data[at + 4 : at + 4 + 2 * length].decode("utf-16-le", "replace").rstrip("\0"))
        at += 4 + 2 * length
    return names[1:] + names[:1]


def _names(names: list[str]) -> tuple[str, ...]:
    """File names without their folders, each once."""
    last = (name.replace("\\", "/").rstrip("/").rpartition("/")[2] for name in names)
    return tuple(dict.fromkeys(name for name in last if name))


def _plain(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")
