"""A document as others see it: our own walker with the shipped rules, oletools, LibreOffice."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import subprocess
import warnings
from functools import cache
from pathlib import Path

import pikepdf
from msgspec import Struct

from icapscan.engines.contract import Part
from icapscan.engines.rules import compile_rules
from icapscan.engines.settings import YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.sanitize.contract import Cleaned, Target
from icapscan.sanitize.documents import CleanOptions, clean_document
from icapscan.store import PartStore
from icapscan.unwrap.active_content import NAME as ACTIVE
from icapscan.unwrap.formats import registry
from tests.unwrap.toys import Walked

logging.getLogger("olefile").setLevel(logging.CRITICAL)


class Seen(Struct, frozen=True):
    """What our own walker and the shipped rules say."""

    kinds: frozenset[str]
    """Kinds of anomalies."""
    active: frozenset[str]
    """Kinds in the texts that tell what acts."""
    hits: frozenset[str]
    failed: tuple[str, ...]
    parts: dict[str, bytes]


@cache
def _engine() -> YaraEngine:
    return YaraEngine(YaraSettings(inline=64 << 20), compile_rules())


def seen(data: bytes) -> Seen:
    """Open it with everything that we have."""
    walked = Walked(data, formats=registry())
    hits: set[str] = set()
    active: set[str] = set()
    for path, content in walked.parts.items():
        declared = walked.ready[path].declared
        name = declared.names[0] if declared.names else ""
        report = _engine().scan_now(Part(path, PartStore.of(content), name, declared.media_type), 10.0)
        assert report is not None and not report.unscanned
        hits |= {finding.name for finding in report.findings}
        if name == ACTIVE:
            active |= {line.partition(":")[0] for line in content.decode().splitlines()}
    kinds = frozenset(kind for kind, _ in walked.anomalies)
    return Seen(kinds, frozenset(active), frozenset(hits), tuple(path for path, _ in walked.failed), walked.parts)


def has_macros(data: bytes, name: str = "document") -> bool:
    """What oletools says: VBA or Excel 4 macros."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what oletools is built on
        from oletools.olevba import VBA_Parser

    parser = VBA_Parser(name, data=data)
    try:
        return bool(parser.detect_macros())
    finally:
        parser.close()


def dde_links(data: bytes, path: str) -> str:
    """What oletools finds of DDE in the file at ``path``, which holds ``data``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from oletools import msodde

    return str(msodde.process_file(path)).strip()


def decrypted(data: bytes) -> bytes | None:
    """What is in a document that is encrypted with the password that Office tries by itself, else None."""
    import msoffcrypto

    try:
        document = msoffcrypto.OfficeFile(io.BytesIO(data))
        if not document.is_encrypted():
            return None
        document.load_key(password="VelvetSweatshop")
        plain = io.BytesIO()
        document.decrypt(plain)
    except Exception:  # another password, or no document at all
        return None
    return plain.getvalue()


def pages_in_libreoffice(folder: Path, names: list[str]) -> dict[str, int] | None:
    """The number of pages of each document that LibreOffice could open; None where it is not installed.

    One process for all, with a profile folder of its own, ended by its own process group.
    """
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        return None
    out = folder / "opened"
    out.mkdir()
    command = [
        program, "--headless", "--norestore", "--nolockcheck", f"-env:UserInstallation={(folder / 'profile').as_uri()}",
        "--convert-to", "pdf", "--outdir", str(out), *(str(folder / name) for name in names),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        process.communicate(timeout=900)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
    found = {}
    for name in names:
        made = out / f"{Path(name).stem}.pdf"
        if made.is_file():
            with pikepdf.open(made) as document:
                found[name] = len(document.pages)
    return found


def cleaned(
    data: bytes, name: str = "", inside: str | tuple[str, ...] = "", options: CleanOptions | None = None
) -> Cleaned | None:
    """The document cleaned, whatever is in it."""
    target = Target("2", (name,) if name else (), "Test.Threat", clean=True)
    return clean_document(data, target, inside, options or CleanOptions())
