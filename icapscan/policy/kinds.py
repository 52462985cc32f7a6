"""The media types that content can have here, and the groups of them (kinds) that an administrator thinks in."""

from __future__ import annotations

from collections.abc import Callable, Collection

KINDS: dict[str, tuple[str, ...]] = {
    "program": (
        "application/x-dosexec", "application/x-executable", "application/x-mach-binary", "application/java-archive",
        "application/java-vm", "application/wasm", "application/vnd.android.package-archive", "application/x-msi",
        "application/x-rpm", "application/vnd.debian.binary-package", "application/vnd.symbian.install",
    ),
    "script": (
        "text/x-script", "text/x-shellscript", "text/x-python", "text/x-perl", "text/x-php", "text/x-msdos-batch",
        "application/hta", "application/x-encoded-script", "application/x-windows-script-file",
        "application/vnd.ms-htmlhelp",
    ),
    "shortcut": ("application/x-ms-shortcut", "application/x-mswinurl"),
    "office": (
        "application/x-ole-storage", "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint",
        "application/vnd.visio", "application/vnd.openxmlformats-package",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "application/vnd.oasis.opendocument", "application/vnd.ms-office-xml", "application/rtf", "application/onenote",
        "application/x-mso",
    ),
    "pdf": ("application/pdf",),
    "archive": (
        "application/zip", "application/x-7z-compressed", "application/vnd.rar", "application/gzip",
        "application/x-bzip2", "application/x-xz", "application/x-lzma", "application/x-lzip", "application/zstd",
        "application/x-lz4", "application/x-compress", "application/vnd.ms-cab-compressed", "application/x-tar",
        "application/x-cpio", "application/x-archive", "application/x-lha", "application/x-arj", "application/x-ace",
        "application/x-xar", "application/x-szdd", "application/java-archive",
        "application/vnd.android.package-archive",
    ),
    "disk-image": (
        "application/x-iso9660-image", "application/x-udf-image", "application/x-vhd", "application/x-vhdx",
        "application/x-vmdk", "application/x-qcow", "application/x-apple-diskimage", "application/x-ms-wim",
        "application/x-squashfs",
    ),
    "image": (
        "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/tiff", "image/x-icon", "image/heic",
        "image/vnd.adobe.photoshop", "image/svg+xml",
    ),
    "audio": ("audio/mpeg", "audio/ogg", "audio/flac", "audio/wav"),
    "video": ("video/mp4", "video/x-msvideo", "video/webm", "video/mpeg", "video/x-ms-asf", "video/x-flv"),
    "flash": ("application/x-shockwave-flash",),
    "mail": ("message/rfc822", "application/vnd.ms-outlook", "application/vnd.ms-tnef", "application/mbox"),
    "html": ("text/html", "application/hta"),
    "text": ("text/plain",),
    "macro": (),
    "encrypted": (),
}  # fmt: skip
"""Kind to media types. ``macro`` and ``encrypted`` are given by what the decoders found in a part, not by a type."""

ALIASES = {
    "application/vnd.microsoft.portable-executable": "application/x-dosexec",
    "application/x-msdownload": "application/x-dosexec",
    "application/x-msdos-program": "application/x-dosexec",
    "application/x-elf": "application/x-executable",
    "application/x-sharedlib": "application/x-executable",
    "application/x-pie-executable": "application/x-executable",
    "application/x-gzip": "application/gzip",
    "application/x-rar": "application/vnd.rar",
    "application/x-rar-compressed": "application/vnd.rar",
    "application/x-zip-compressed": "application/zip",
    "application/x-zip": "application/zip",
    "application/bzip2": "application/x-bzip2",
    "application/x-iso": "application/x-iso9660-image",
    "application/vnd.ms-msi": "application/x-msi",
    "application/x-cab": "application/vnd.ms-cab-compressed",
    "application/x-lzh": "application/x-lha",
    "application/java": "application/java-vm",
    "application/x-java-applet": "application/java-vm",
    "text/rtf": "application/rtf",
    "image/jpg": "image/jpeg",
    "application/x-sh": "text/x-shellscript",
    "application/x-bat": "text/x-msdos-batch",
}
"""Other names of the types above."""

_PACKAGE = (
    ("word", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("xl", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("ppt", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("[content_types].xml", "application/vnd.openxmlformats-package"),
    ("meta-inf/manifest.mf", "application/java-archive"),
    ("androidmanifest.xml", "application/vnd.android.package-archive"),
    ("meta-inf/manifest.xml", "application/vnd.oasis.opendocument"),
)
"""What stands in a zip, and what the zip then is."""
_OF_DOCUMENTS = frozenset(
    {
        "[content_types].xml",
        "_rels",
        "docprops",
        "word",
        "xl",
        "ppt",
        "visio",
        "customxml",
        "custom",
        "docmetadata",
        "usercustomization",
        "_xmlsignatures",
        "metadata",
        "[trash]",
        "mimetype",
        "meta-inf",
        "content.xml",
        "styles.xml",
        "meta.xml",
        "settings.xml",
        "thumbnails",
        "configurations2",
        "pictures",
        "basic",
        "dialogs",
        "scripts",
        "layout-cache",
        "manifest.rdf",
        "media",
        "objectreplacements",
    }
)
"""What stands at the top of OOXML (ECMA-376 part 2) and ODF (part 3) packages."""
_ZIP, _OLE = "application/zip", "application/x-ole-storage"
_STREAMS = (
    ("worddocument", "application/msword"),
    ("workbook", "application/vnd.ms-excel"),
    ("book", "application/vnd.ms-excel"),
    ("powerpoint document", "application/vnd.ms-powerpoint"),
    ("visiodocument", "application/vnd.visio"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
    ("encryptedpackage", "application/vnd.openxmlformats-package"),
)
"""What stands in an OLE2 file, and what it then is."""
MACROS = frozenset({"vba-macro", "vba-auto-run", "vba-starts-program", "vba-no-source", "xlm-macro", "odf-macro"})
"""Anomalies by which decoders tell of macros."""
MORE_ANOMALIES = "more-anomalies"
"""The walker's word for: there are more than are told one by one."""

_KINDS_OF: dict[str, tuple[str, ...]] = {}
for _kind, _types in KINDS.items():
    for _type in _types:
        _KINDS_OF[_type] = (*_KINDS_OF.get(_type, ()), _kind)
KNOWN_TYPES = frozenset(_KINDS_OF)
"""Every type that content can have here."""


def kinds_of(types: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of some media types."""
    return tuple(dict.fromkeys(kind for one in types for kind in _KINDS_OF.get(one, ())))


def within(types: tuple[str, ...], segments: Collection[str], holds: Callable[[str], bool]) -> tuple[str, ...]:
    """What a container of these types is by what stands in it.

    ``segments``: the first path segments of what stands in it; ``holds`` asks for a path; both in lower case. A zip
    that holds nothing but a document is that document, and no longer an archive.
    """
    if _ZIP in types:
        inside = [name for path, name in _PACKAGE if holds(path)]
        types = (*types, *inside)
        if inside and all(one in _OF_DOCUMENTS or one.startswith("object ") for one in segments):
            types = tuple(one for one in types if one != _ZIP)
    if _OLE in types:
        inside = [name for path, name in _STREAMS if holds(path)]
        if inside:
            types = (*(one for one in types if one != _OLE), *inside)
    return tuple(dict.fromkeys(types))
