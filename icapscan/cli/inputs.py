"""What the command line is given: files, folders, Maildirs, mailboxes (mbox, RFC 4155), standard input."""

from __future__ import annotations

import mmap
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from msgspec import Struct

from icapscan.cli.app import Form
from icapscan.findings import Reason
from icapscan.limits import KIB

PIECE = 256 * KIB
STDIN = "-"
MAIL = "message/rfc822"
_FROM_LINE = rb"From [^\r\n]{3,200}[0-9]{1,2}:[0-9]{2}[^\r\n]{0,60}\r?\n"
_MBOX = re.compile(_FROM_LINE)
_NEXT = re.compile(rb"\n\r?\n(?=" + _FROM_LINE + rb"[!-9;-~]{1,76}[ \t]*:)")
"""RFC 4155: a separator stands at the start or behind an empty line. A field name must follow, so that text that
happens to begin with From is none."""
_MAIL = re.compile(
    rb"(?:From [^\r\n]+\r?\n)?(?:[!-9;-~]+:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)*?"
    rb"(?:received|return-path|from|to|subject|date|message-id|mime-version|delivered-to):",
    re.IGNORECASE,
)
_ONE_MAIL = (".eml", ".msg")
"""Files of this name are one mail for whoever opens them, whatever stands in it."""


class Unreadable(Exception):
    """A file that cannot be looked at; the sentence says why."""

    def __init__(self, sentence: str, reason: Reason = Reason.ENGINE_FAILED) -> None:
        super().__init__(sentence)
        self.reason = reason


class Input(Struct, frozen=True):
    """One thing to look at: a file, or one message of a mailbox."""

    path: str
    """As it is shown; a message of a mailbox has its number, ``box:3``."""
    file: str
    form: Form
    start: int = 0
    end: int | None = None

    @property
    def name(self) -> str:
        """The file name, empty for standard input and for a message of a mailbox."""
        return "" if self.file == STDIN or self.end is not None else os.path.basename(self.file)

    def form_of(self, first: bytes) -> Form:
        """What it is, by its first bytes where nothing was said."""
        if self.form is not Form.AUTO:
            return self.form
        if first.startswith(b"HTTP/1."):
            return Form.HTTP
        return Form.MAIL if _MAIL.match(first[:8192]) is not None else Form.FILE


def missing_path(paths: Iterable[str]) -> str | None:
    """The first path that does not exist."""
    return next((path for path in paths if path != STDIN and not os.path.lexists(path)), None)


def files(paths: Iterable[str]) -> Iterator[str]:
    """Every file of the paths, folders walked in the order of their names; links to folders are not followed."""
    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            yield path
            continue
        unreadable: list[OSError] = []
        for folder, folders, names in os.walk(path, onerror=unreadable.append):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names))
        yield from (str(error.filename) for error in unreadable)  # not regular files: told as not scanned


class Inputs:
    """Everything that was named; used as a context, which frees what was kept of standard input."""

    def __init__(self, paths: Iterable[str], form: Form, spool: str | None = None) -> None:
        self.files = list(files(paths))
        self._form = form
        self._spool = spool
        self._stdin: BinaryIO | None = None

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stdin is not None:
            self._stdin.close()

    def of(self, path: str) -> list[Input]:
        """What there is in a file: itself, or the messages of a mailbox. A file that cannot be read is itself."""
        form = self._form
        if form is Form.AUTO and _in_maildir(path):
            form = Form.MAIL
        elif form in (Form.AUTO, Form.MAIL) and not path.lower().endswith(_ONE_MAIL):
            try:
                with self._open(path) as file:
                    starts, end = _messages(file), os.fstat(file.fileno()).st_size
            except (OSError, Unreadable):
                starts = []  # whoever opens it next says why
            if len(starts) > 1:
                return [
                    Input(f"{path}:{number}", path, Form.MAIL, start, stop)
                    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], end], strict=True), 1)
                ]
        return [Input(path, path, form)]

    def pieces(self, item: Input) -> Iterator[bytes]:
        """The bytes of an input, in pieces. Raises `Unreadable`."""
        try:
            with self._open(item.file) as file:
                at = item.start
                while piece := os.pread(file.fileno(), PIECE if item.end is None else min(PIECE, item.end - at), at):
                    at += len(piece)
                    yield piece
        except OSError as error:
            raise Unreadable(f"The file cannot be read: {error.strerror or error}.") from error

    def _open(self, path: str) -> BinaryIO:
        if path != STDIN:
            return _regular(path)
        if self._stdin is None:
            os.set_blocking(sys.stdin.fileno(), True)  # else a pause in the input would look like its end
            kept = tempfile.TemporaryFile(dir=self._spool, buffering=0)
            while piece := sys.stdin.buffer.read(PIECE):
                kept.write(piece)
            self._stdin = kept
        assert self._stdin is not None
        return open(os.dup(self._stdin.fileno()), "rb", buffering=0)


def _regular(path: str) -> BinaryIO:
    file = open(path, "rb", buffering=0, opener=_opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise Unreadable("This is not a regular file.", Reason.UNSUPPORTED)
    return file


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a named pipe must not hold us up


def _in_maildir(path: str) -> bool:
    folder, kind = os.path.split(os.path.dirname(os.path.abspath(path)))
    return kind in ("cur", "new") and all(os.path.isdir(os.path.join(folder, name)) for name in ("cur", "new", "tmp"))


def _messages(file: BinaryIO) -> list[int]:
    """Where the messages of a mailbox begin; empty for any other file."""
    if _MBOX.match(os.pread(file.fileno(), 512, 0)) is None:
        return []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return [0, *(match.end() for match in _NEXT.finditer(data))]
