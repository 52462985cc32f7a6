"""The YARA engine: small parts are matched at once on the event loop, large ones in a thread over the mapped store."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import yara
from msgspec import Struct

from icapscan.engines.contract import Part, Report
from icapscan.engines.rules import EXTERNALS, SELF_TEST, VERDICTS, CompiledRules, compile_rules, load_rules
from icapscan.engines.settings import YaraSettings
from icapscan.errors import IcapscanError
from icapscan.findings import Finding, Level, PartPath, Reason, Unscanned
from icapscan.limits import MIB
from icapscan.store import PartStore

__all__ = ["CompiledRules", "YaraEngine", "compile_rules", "load_rules"]

RELAX_SECONDS = 0.02
"""YARA reads a mapped part at about 1 GB/s: so often its pages go back, which keeps some tens of MB resident."""
SMALL = 1 * MIB
"""Parts up to this size have threads of their own: a few large ones, a fifth of a second each, hold nobody up."""
INLINE_SECONDS = 5
"""Longest time that a small part may hold the event loop; only a rule gone wild comes near it."""


class _Result(Struct, frozen=True):
    findings: tuple[Finding, ...] = ()
    failure: tuple[Reason, str] | None = None


class YaraEngine:
    """`icapscan.engines.contract.InlineEngine` over yara-python. Raises `RuleError` for rules that do not load."""

    name = "yara"
    punctual = True

    def __init__(self, settings: YaraSettings, rules: CompiledRules) -> None:
        self._inline = settings.inline
        self._rules = rules.open()
        self._version = f"YARA {yara.YARA_VERSION} {rules.fingerprint}"
        self._threads = settings.threads
        self._pools: dict[bool, ThreadPoolExecutor] = {}
        """Threads for parts up to `SMALL`, and others for larger ones."""
        self._closed = False
        self._clean = Report(self.name)

    def scan_now(self, part: Part, seconds: float) -> Report | None:
        """Match a small part without waiting; None for one that needs a thread."""
        store = part.store
        if store.size > self._inline:
            return None
        try:
            data = store.view() if store.size else b""
        except (OSError, ValueError, IcapscanError) as error:
            return self._report(part, _Result((), (Reason.ENGINE_FAILED, f"The part could not be read: {error}")))
        limit = time.monotonic() + min(seconds, INLINE_SECONDS)
        return self._report(part, self._match(data, _externals(part), part.path, limit))

    async def scan(self, part: Part, seconds: float) -> Report:
        """Match one part. A thread that is still matching after ``seconds`` ends by itself within about a second."""
        now = self.scan_now(part, seconds)
        if now is not None:
            return now
        if self._closed:
            return self._report(part, _Result((), (Reason.ENGINE_FAILED, "The engine was closed.")))
        try:
            data = part.store.view()
        except (OSError, ValueError, IcapscanError) as error:
            return self._report(part, _Result((), (Reason.ENGINE_FAILED, f"The part could not be read: {error}")))
        small = part.store.size <= SMALL
        pool = self._pools.get(small)
        if pool is None:
            pool = self._pools[small] = ThreadPoolExecutor(self._threads, "yara")
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(pool, self._match, data, _externals(part), part.path, time.monotonic() + seconds)
        relax = _Relax(loop, part.store)
        try:
            done, _ = await asyncio.wait((job,), timeout=seconds)
        finally:
            relax.stop()
            job.cancel()  # one that still waits for a thread never starts; one that runs holds its map by itself
        if not done:
            return self._report(part, _Result((), (Reason.TIMEOUT, "Matching took too long.")))
        return self._report(part, job.result())

    def depends_on(self, part: Part) -> tuple[object, ...]:
        """What rules may ask beside the bytes."""
        return part.path, part.name, part.media_type, part.other_names

    def glance(self, data: bytes) -> tuple[Finding, ...]:
        """Findings in the first bytes of a body. No finding, or a failure, proves nothing."""
        limit = time.monotonic() + INLINE_SECONDS
        return self._match(data, (dict.fromkeys(EXTERNALS, ""),), "", limit).findings

    async def version(self) -> str:
        """YARA's version and the fingerprint of the rules."""
        return self._version

    async def close(self) -> None:
        """Let the threads end; what still waits for one is dropped."""
        self._closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _match(self, data: object, said: Sequence[Mapping[str, str]], path: PartPath, limit: float) -> _Result:
        """Runs in a thread or inline; never raises. ``limit`` is a time of the monotonic clock.

        ``said``: the external variables, once for each name that the part may have.
        """
        findings: list[Finding] = []
        own: list[Finding] = []
        incomplete: list[str] = []

        def warn(kind: int, message: object) -> int:
            incomplete.append(str(message))
            return yara.CALLBACK_CONTINUE  # type: ignore[no-any-return]

        try:
            for rules, externals in product(self._rules, said):
                left = limit - time.monotonic()
                if left <= 0:
                    raise yara.TimeoutError
                # fast: a string that is found is not searched on, unless its rule counts or places it.
                for match in rules.match(
                    data=data, externals=externals, timeout=math.ceil(left), fast=True, warnings_callback=warn
                ):
                    target = own if match.namespace == SELF_TEST else findings
                    level = VERDICTS.get(str(match.meta.get("verdict", "infected")), Level.INFECTED)
                    finding = Finding(self.name, match.rule, path, level, tuple(match.tags))
                    if finding not in target:
                        target.append(finding)
        except yara.TimeoutError:
            return _Result(tuple(findings or own), (Reason.TIMEOUT, "Matching took too long."))
        except Exception as error:  # whatever a rule or a module does to YARA: not scanned
            return _Result(tuple(findings or own), (Reason.ENGINE_FAILED, f"{type(error).__name__}: {error}"))
        if incomplete:  # YARA gives up on a string with a million matches: its rule may have missed
            return _Result(tuple(findings or own), (Reason.OVER_LIMIT, f"Too many matches: {incomplete[0]}"))
        return _Result(tuple(findings or own))

    def _report(self, part: Part, result: _Result) -> Report:
        if result.failure is None:
            return Report(self.name, result.findings) if result.findings else self._clean
        reason, detail = result.failure
        return Report(self.name, result.findings, (Unscanned(reason, part.path, self.name, detail),))


def _externals(part: Part) -> tuple[dict[str, str], ...]:
    if not part.other_names:
        return (_named(part, part.name),)
    return tuple(_named(part, name) for name in (part.name, *part.other_names))


def _named(part: Part, name: str) -> dict[str, str]:
    name = _clean_text(name)
    return {
        "filename": name,
        "filepath": _clean_text(part.path),
        "filetype": _clean_text(part.media_type),
        "extension": os.path.splitext(name)[1].lower(),
        "owner": "",
    }


def _clean_text(text: str) -> str:
    """Text that YARA takes: no NUL (it would end the text there) and no lone surrogates."""
    if text.isascii():
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


class _Relax:
    """Gives the pages of a mapped store back every `RELAX_SECONDS` until stopped."""

    __slots__ = ("_handle", "_loop", "_store")

    def __init__(self, loop: asyncio.AbstractEventLoop, store: PartStore) -> None:
        self._loop = loop
        self._store = store
        self._handle = loop.call_later(RELAX_SECONDS, self._tick)

    def _tick(self) -> None:
        self._store.relax()
        self._handle = self._loop.call_later(RELAX_SECONDS, self._tick)

    def stop(self) -> None:
        self._handle.cancel()
        self._store.relax()
