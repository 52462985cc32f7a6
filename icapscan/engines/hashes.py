"""SHA-256 lists: known bad contents are findings, known good ones overrule the other engines.

What an allowed part means is argued in docs/decisions/engines-hash-allow.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence

from icapscan.engines.contract import Part, Report
from icapscan.engines.settings import HashSettings
from icapscan.errors import ConfigError, IcapscanError
from icapscan.findings import Finding, Reason, Unscanned
from icapscan.limits import KIB, MIB
from icapscan.store import PartStore

UNNAMED = "Hash.Denied"
INLINE = 64 * KIB
"""A part up to this size is hashed at once (about 40 microseconds)."""
EICAR = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
"""Always denied unless allowed, so that the self-test has something to find."""

_LINE = re.compile(r"([0-9a-fA-F]{64})(?:\s+\*?(\S.*?))?\s*")


class HashEngine:
    """`icapscan.engines.contract.Engine` over lists of SHA-256 digests.

    Raises `ConfigError` for a list that cannot be read, a bad line, and a digest that is denied and allowed.
    """

    name = "hash"
    audience = "every"
    punctual = True

    def __init__(self, settings: HashSettings) -> None:
        self.overrules = bool(settings.allow)
        """Whether a part may turn out allowed: then a finding of another engine waits for the digest."""
        self._deny = read_lists("engines.hash.deny", settings.deny)
        self._allow = frozenset(read_lists("engines.hash.allow", settings.allow))
        both = self._allow.intersection(self._deny)
        if both:
            raise ConfigError(f"engines.hash: {min(both)} is denied and allowed; expected one of the two.")
        if EICAR not in self._allow:
            self._deny.setdefault(EICAR, "Eicar_Test_File")
        lists = [sorted(self._deny.items()), sorted(self._allow)]
        self._version = hashlib.sha256(repr(lists).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._clean = Report(self.name)
        self._allowed = Report(self.name, allowed=True)

    def scan_now(self, part: Part, seconds: float) -> Report | None:
        """Look a small part up without waiting; None for a larger one."""
        if part.store.size > INLINE:
            return None
        try:
            return self._look_up(part, part.store.sha256())
        except (OSError, IcapscanError) as error:
            return self._unscanned(part, Reason.ENGINE_FAILED, f"The part could not be read: {error}")

    async def scan(self, part: Part, seconds: float) -> Report:
        """Look one part up. A large one is hashed in slices, between which others have their turn."""
        now = self.scan_now(part, seconds)
        if now is not None:
            return now
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            digest = await _sha256(part.store, deadline)
        except TimeoutError:
            return self._unscanned(part, Reason.TIMEOUT, "Hashing took too long.")
        except (OSError, IcapscanError) as error:
            return self._unscanned(part, Reason.ENGINE_FAILED, f"The part could not be read: {error}")
        return self._look_up(part, digest)

    async def version(self) -> str:
        """A fingerprint of the lists."""
        return self._version

    async def close(self) -> None:
        """Nothing to free."""

    def _look_up(self, part: Part, digest: str) -> Report:
        if digest in self._allow:
            return self._allowed
        name = self._deny.get(digest)
        return self._clean if name is None else Report(self.name, (Finding(self.name, name, part.path),))

    def _unscanned(self, part: Part, reason: Reason, detail: str) -> Report:
        return Report(self.name, unscanned=(Unscanned(reason, part.path, self.name, detail),))


async def _sha256(store: PartStore, deadline: float) -> str:
    """Raises `TimeoutError` after ``deadline``, a time of the event loop, and `OSError`."""
    loop = asyncio.get_running_loop()
    digest = hashlib.sha256()
    for piece in store.pieces(size=MIB):
        digest.update(piece)
        if loop.time() > deadline:
            raise TimeoutError
        await asyncio.sleep(0)
    return digest.hexdigest()


def read_lists(key: str, files: Sequence[str]) -> dict[str, str]:
    """Digests in lower case with their names, from files with one ``digest [name]`` a line.

    Lines that begin with ``#`` and empty ones count for nothing; the output of ``sha256sum`` is a list. Raises
    `ConfigError` naming ``key``, file and line.
    """
    found: dict[str, str] = {}
    for file in files:
        try:
            with open(file, encoding="utf-8") as source:
                lines = source.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"{key}: {file} cannot be read: {why}.") from error
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.lstrip())
            if match is None:
                raise ConfigError(f"{key}: {file}, line {number}: expected 64 hex digits, then perhaps a name.")
            found.setdefault(match[1].lower(), match[2] or UNNAMED)
    return found
