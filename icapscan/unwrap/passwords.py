"""Passwords that encrypted content is tried with: those that everybody knows, one's own, and words of the mail."""

from __future__ import annotations

import re
from html import unescape

from icapscan.limits import KIB
from icapscan.unwrap.settings import UnwrapSettings

STANDARD = ("infected", "virus", "VelvetSweatshop", "malware", "novirus")
"""The first two by custom of those who exchange samples; the third is Office's own for files without a password."""
COSTLY_MAX = 24
"""Passwords that are tried where each costs thousands of rounds of hashing (Office, 7z, rar, PDF)."""
WORDS_MAX = 200
"""Words of a mail that are kept."""
TEXT_MAX = 64 * KIB
"""Bytes of each text that words are taken from: who sends a password does not hide it behind a book."""
_TEXTS_MAX = 16
_WORD = re.compile(r"[^\s<>\"'`()\[\]{}、。「」『』（）【】：；]{3,64}")
_CUE = re.compile(
    r"pass|pwd|\bpw\b|\bpin\b|\bcode\b|kennwort|contrase|senha|mot de passe|парол|код|"
    r"パスワ|暗証|解凍|密码|密碼|암호|비밀번호",
    re.I,
)
"""What stands beside a password, in the languages that it is usually written in."""
_TAG = re.compile(r"<(?:script|style)\b.*?</(?:script|style)\s*>|<[^<>]{0,500}>", re.I | re.S)
_EDGES = ".,:;!?*_-"


class Passwords:
    """What encrypted content of one body is tried with.

    ``mail_words`` (off by default, `UnwrapSettings`): whoever sends a locked archive with its password in the same mail
    wants the reader to open it, and no scanner. The walker then lets this hear every text before it opens anything
    that must be complete.
    """

    __slots__ = ("_heard", "_likely", "_other", "_own", "listening")

    def __init__(self, settings: UnwrapSettings | None = None) -> None:
        settings = settings or UnwrapSettings()
        self._own = (*settings.passwords, *STANDARD)
        self._likely: dict[str, None] = {}
        self._other: dict[str, None] = {}
        self._heard = 0
        self.listening = settings.mail_words

    @property
    def cheap(self) -> tuple[str, ...]:
        """For encryption where a wrong password is told at once: the old one of zip, AES in zip."""
        return tuple(dict.fromkeys((*self._own, *self._likely, *self._other)))[: len(self._own) + WORDS_MAX]

    @property
    def costly(self) -> tuple[str, ...]:
        """The most plausible ones, for encryption that is made to be slow: at most `COSTLY_MAX` and one's own."""
        return self.cheap[: max(COSTLY_MAX, len(self._own))]

    def hear(self, text: bytes, media_type: str, charset: str = "") -> None:
        """Words of a text that may be passwords. ``text`` may be cut anywhere."""
        if self._heard >= _TEXTS_MAX:
            return
        self._heard += 1
        shown = _text(text[:TEXT_MAX], charset)
        if media_type == "text/html":
            shown = unescape(_TAG.sub("\n", shown))
        near = 0
        for line in shown.splitlines():
            line = line.strip()
            if not line:
                continue
            near = 2 if _CUE.search(line) else near - 1
            self._words(line, likely=near > 0)

    def _words(self, line: str, likely: bool) -> None:
        words = [word for word in _WORD.findall(line) if word.isprintable()]
        likely = likely or len(words) == 1
        for word in reversed(words):  # a password stands behind the word for it
            kept = self._likely if likely and not _CUE.search(word) else self._other
            for one in (word.strip(_EDGES), word):
                if len(one) >= 3 and len(self._likely) + len(self._other) < WORDS_MAX:
                    kept.setdefault(one)


def _text(data: bytes, charset: str) -> str:
    for name in (charset, "utf-8"):
        try:
            return data.decode(name or "utf-8")
        except (LookupError, ValueError):
            continue
    return data.decode("utf-8", "replace")
