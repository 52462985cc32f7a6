"""Makes OOXML and ODF documents for tests."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

TYPES = (
    '<?xml version="1.0" encoding="UTF-8"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/></Types>'
)
RELATIONS = '<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
WORD = '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'


def docx(parts: Mapping[str, str | bytes]) -> bytes:
    """A document of these parts and a plain text."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        if "word/document.xml" not in parts:
            archive.writestr("word/document.xml", f"{WORD}<w:t>A plain text.</w:t></w:document>")
        for name, data in parts.items():
            archive.writestr(name, data)
    return target.getvalue()


def relation(kind: str, target: str, mode: str = ' TargetMode="External"') -> str:
    """A relationships part."""
    return (
        f'{RELATIONS}<Relationship Id="rId1" Target="{target}"{mode} '
        f'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}"/></Relationships>'
    )


def word(body: str) -> str:
    """A document part."""
    return f"{WORD}{body}</w:document>"
