"""The text file that stands in an archive in place of a member that was taken out, in English and Japanese."""

from __future__ import annotations

from collections.abc import Collection

_NAME_MAX = 120
_THREAT_MAX = 200
_FORBIDDEN = set('<>:"|?*\\')
_TEXT = """\
The file "{name}" was removed from this archive by the mail and web gateway.
Reason: {threat}
All other files in the archive are unchanged. If you need the file, please ask your administrator.

このアーカイブに含まれていたファイル「{name}」は、ゲートウェイにより削除されました。
理由: {threat}
アーカイブ内の他のファイルは変更されていません。このファイルが必要な場合は、管理者にお問い合わせください。
"""


def notice_name(member: str, taken: Collection[str]) -> str:
    """``REMOVED-report.exe.txt`` in the folder of the member, another one where that name is taken."""
    folder, _, last = member.rpartition("/")
    last = "".join(_shown(char) for char in last)[-_NAME_MAX:]
    before = f"{folder}/" if folder else ""
    name = f"{before}REMOVED-{last}.txt"
    count = 1
    while name in taken:
        count += 1
        name = f"{before}REMOVED-{last}~{count}.txt"
    return name


def notice_text(member: str, threat: str) -> bytes:
    """The notice, in UTF-8 with a mark, so that simple editors show it right."""
    shown = "".join(_shown(char) for char in member.rpartition("/")[2])[:_NAME_MAX]
    reason = "".join(char if char.isprintable() else "?" for char in threat)[:_THREAT_MAX]
    return _TEXT.format(name=shown, threat=reason or "-").replace("\n", "\r\n").encode("utf-8-sig", "replace")


def _shown(char: str) -> str:
    """Nothing that changes how a name is read (Unicode's direction marks are not printable), or no file has."""
    return char if char.isprintable() and char not in _FORBIDDEN else "_"
