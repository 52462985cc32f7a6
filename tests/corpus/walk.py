"""Every file of the corpus through the whole way of a body: what came out of it, as facts to be judged by `rules`."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from icapscan.cli.app import Form
from icapscan.cli.inputs import Inputs
from icapscan.cli.scan import scan_input
from icapscan.engines.clamd import ClamdEngine
from icapscan.engines.contract import Engine, Part, Report
from icapscan.engines.fanout import Fanout
from icapscan.engines.rules import compile_rules
from icapscan.engines.settings import ClamdSettings, YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.findings import Finding, Level, Verdict
from icapscan.limits import MIB, Limits
from icapscan.pipeline import Scanner, Subject
from icapscan.store import Purse

TEXT_MAX = 4 * MIB
"""Bytes of a part up to which its line ends matter."""
_FORMS = {
    "mime": Form.MAIL,
    "mime-evasion": Form.MAIL,
    "mime-filename": Form.MAIL,
    "http-response": Form.HTTP,
    "yenc": Form.AUTO,
    "clam-wrapper": Form.AUTO,
}
"""How the files of a kind are read; the others as plain files."""
_ENCODED = ("base64", "quoted-printable")
"""Kinds whose files are encoded without any header: they get one that names the encoding."""


class Facts(Struct, kw_only=True):
    """What came of one file."""

    path: str
    hashes: set[str]
    """SHA-256 of every part, and of each up to `TEXT_MAX` with CRLF turned into LF."""
    other_line_ends: set[str]
    """SHA-256 of every part as readers give it that turn LF into CRLF, or keep the line end before a delimiter."""
    largest: int
    """Bytes of the largest part. Its store is mapped for the engines, which counts as memory of the process."""
    verdicts: list[Verdict]
    cpu: float
    """Seconds of this process."""
    crash: str = ""
    grown: int = 0
    """Bytes that the peak of this process's memory rose by."""

    @property
    def level(self) -> Level:
        return max(verdict.level for verdict in self.verdicts)

    @property
    def reasons(self) -> set[str]:
        return {item.reason.value for verdict in self.verdicts for item in verdict.unscanned}

    @property
    def unscanned(self) -> bool:
        return bool(self.reasons)

    @property
    def findings(self) -> list[Finding]:
        return [finding for verdict in self.verdicts for finding in verdict.findings]


class Spy:
    """An engine that sees every part, whoever else does, and remembers its hashes."""

    name = "spy"
    audience = "every"
    punctual = True

    def __init__(self) -> None:
        self.hashes: set[str] = set()
        self.other_line_ends: set[str] = set()
        self.largest = 0

    def scan_now(self, part: Part, seconds: float) -> Report:
        """Look at one part."""
        self.largest = max(self.largest, part.store.size)
        self.hashes.add(part.store.sha256())
        if part.store.size > TEXT_MAX:
            return Report(self.name)
        data = bytes(part.store.view())
        text = data.replace(b"\r\n", b"\n") if b"\r\n" in data else data
        if text is not data:
            self.hashes.add(hashlib.sha256(text).hexdigest())
        if part.media_type:
            for other in (text + b"\n", text.replace(b"\n", b"\r\n")):
                self.other_line_ends.add(hashlib.sha256(other).hexdigest())
        return Report(self.name)

    async def scan(self, part: Part, seconds: float) -> Report:
        """The same."""
        return self.scan_now(part, seconds)

    async def version(self) -> str:
        """Always the same."""
        return "1"

    async def close(self) -> None:
        """Nothing to free."""


def walk(
    folder: Path, rows: Iterable[dict[str, str]], clamd: str = "", limits: Limits | None = None
) -> Iterator[Facts]:
    """The facts of each row's file, scanned with the shipped YARA rules, and with clamd where its address is given."""
    spy, limits = Spy(), limits or Limits()
    engines: list[Engine] = [spy, YaraEngine(YaraSettings(), compile_rules())]
    if clamd:
        engines.append(ClamdEngine(ClamdSettings(address=(clamd,)), connections=4))
    fanout = Fanout(engines, "all")
    scanner = Scanner(fanout, limits, Purse(limits.memory, limits.disk))
    with asyncio.Runner() as runner:
        for row in rows:
            spy.hashes, spy.other_line_ends, spy.largest = set(), set(), 0
            began, peak = time.process_time(), _peak()
            crash = ""
            verdicts: list[Verdict] = []
            try:
                verdicts = runner.run(_scan(folder / row["path"], row["kind"], scanner))
            except Exception as error:  # the rule for every row: nothing in a file raises
                crash = f"{type(error).__name__}: {error}"
            yield Facts(
                path=row["path"],
                hashes=spy.hashes,
                other_line_ends=spy.other_line_ends,
                largest=spy.largest,
                verdicts=verdicts or [Verdict(Level.UNSCANNED)],
                cpu=time.process_time() - began,
                crash=crash,
                grown=_peak() - peak,
            )
        runner.run(fanout.close())


async def _scan(path: Path, kind: str, scanner: Scanner) -> list[Verdict]:
    if kind in _ENCODED:
        body = f"Content-Transfer-Encoding: {kind}\r\nMIME-Version: 1.0\r\n\r\n".encode() + path.read_bytes()
        scan = scanner.begin(Subject(media_type="message/rfc822"))
        try:
            scan.feed(body)
            return [await scan.finish()]
        finally:
            scan.close()
    with Inputs([str(path)], _FORMS.get(kind, Form.FILE)) as inputs:
        return [(await scan_input(item, inputs, scanner)).verdict for item in inputs.of(str(path))]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
