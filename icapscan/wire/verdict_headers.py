"""What a foreign ICAP server says about a body in its headers (draft-stecher-icap-subid-00 4; PROTOCOL C27-C33).

Read tolerantly: a header that cannot be understood is still a hit, and a bad one never hides another.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable

from msgspec import Struct

Lines = list[tuple[str, list[str]]]
"""Field name in lower case; its value, line by line (the second line on was folded)."""

UNKNOWN = "unknown"
_LONGEST_NAME = 256
_STATUS_LINE = re.compile(rb"HTTP/[0-9]+(?:\.[0-9]+)? ([1-9][0-9]{2})(?: [^\r\n]*)?")
_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ \r\n]+ HTTP/[0-9.]+")


class ThreatKind(enum.IntEnum):
    """What was found, in rising order; the gravest decides."""

    UNSCANNABLE = 0
    """Type=2, a container violation: encrypted, too large, broken. Nobody said that it is malware."""
    POLICY = 1
    VIRUS = 2


class Threat(Struct, frozen=True):
    """One thing that a server named."""

    name: str
    kind: ThreatKind = ThreatKind.VIRUS
    header: str = ""
    """The header that named it, in lower case."""
    file: str = ""
    resolution: int | None = None
    """0 not repaired, 1 repaired, 2 blocked; None where the server did not say."""


def read_lines(block: bytes) -> Lines:
    """The field lines of an ICAP or HTTP head (with or without its start line). What is no field line is skipped."""
    lines: Lines = []
    for raw in block.split(b"\n"):
        line = raw.rstrip(b"\r")
        if line[:1] in (b" ", b"\t"):
            if lines:
                lines[-1][1].append(_text(line))
            continue
        name, colon, value = line.partition(b":")
        if colon and name and b" " not in name.rstrip():
            lines.append((_text(name).lower(), [_text(value)]))
    return lines


def http_status(head: bytes) -> int | None:
    """The status of an encapsulated response head; None when its first line is no status line."""
    match = _STATUS_LINE.fullmatch(head.partition(b"\n")[0].rstrip(b"\r"))
    return int(match[1]) if match else None


def request_line(head: bytes) -> bytes | None:
    """The request line of an encapsulated request head; None when the first line is none."""
    line = head.partition(b"\n")[0].rstrip(b"\r")
    return line if _REQUEST_LINE.fullmatch(line) else None


def read_threats(lines: Iterable[tuple[str, list[str]]]) -> tuple[Threat, ...]:
    """Everything that these headers name, in their order, each name once; empty when none of them reports a hit.

    X-Infection-Found knows kinds: another header that repeats its name does not make it graver. Headers that only
    say "blocked" count where nothing is named; a hit without a name counts where it is graver than what is named.
    """
    read = [threat for header, values in lines if header in _READERS for threat in _READERS[header](header, values)]
    read.sort(key=lambda threat: threat.header != "x-infection-found")
    named: dict[str, Threat] = {}
    for threat in read:
        if threat.name == UNKNOWN or threat.header in _ONLY_BLOCKED:
            continue
        before = named.get(threat.name)
        if before is None or (threat.header == before.header and threat.kind > before.kind):
            named[threat.name] = threat
    worst = gravest(named.values())
    for threat in read:
        vague = threat.header in _ONLY_BLOCKED or threat.header == "x-violations-found"
        if threat.name == UNKNOWN and not vague and (worst is None or threat.kind > worst):
            named[UNKNOWN] = max(threat, named.get(UNKNOWN, threat), key=lambda one: one.kind)
    if not named:
        for threat in read:
            named.setdefault(threat.name, threat)
    return tuple(named.values())


def gravest(threats: Iterable[Threat]) -> ThreatKind | None:
    """The kind that decides, or None without a threat."""
    return max((threat.kind for threat in threats), default=None)


def _text(raw: bytes) -> str:
    """Readable text of a foreign header: no control character survives into a log or a header of ours."""
    text = raw.decode("utf-8", "replace").strip(" \t")
    return "".join(character if character.isprintable() else "?" for character in text)


def _name(text: str) -> str:
    return text.strip(" \t;\"'")[:_LONGEST_NAME] or UNKNOWN


def _infection_found(header: str, values: list[str]) -> list[Threat]:
    """``Type=0; Resolution=2; Threat=EICAR;``: any part, blank or semicolon may be missing, it stays a hit."""
    given: dict[str, str] = {}
    for parameter in " ".join(values).split(";"):
        name, equals, value = parameter.partition("=")
        if equals:
            given.setdefault(name.strip().lower(), value.strip())
    kind = {"1": ThreatKind.POLICY, "2": ThreatKind.UNSCANNABLE}.get(given.get("type", ""), ThreatKind.VIRUS)
    return [Threat(_name(given.get("threat", "")), kind, header, "", _digit(given.get("resolution", "")))]


def _violations_found(header: str, values: list[str]) -> list[Threat]:
    """A count, then four folded lines for each: file, threat, number, resolution. A wrong count means nothing."""
    lines = [line for line in values[1:] if line]
    if not lines:
        return [] if values[0].strip("0") == "" and values[0] else [Threat(UNKNOWN, header=header)]
    threats = []
    for at in range(0, len(lines), 4):
        group = lines[at : at + 4]
        resolution = _digit(group[3]) if len(group) > 3 else None
        threats.append(
            Threat(_name(group[1] if len(group) > 1 else ""), ThreatKind.VIRUS, header, _name(group[0]), resolution)
        )
    return threats


def _virus_names(header: str, values: list[str]) -> list[Threat]:
    names = [name.strip() for name in " ".join(values).split(",")]
    threats = [name for name in names if name.lower() not in _NO_THREAT]
    if not threats:
        return []
    return [Threat(_name(name), ThreatKind.VIRUS, header) for name in threats if name] or [
        Threat(UNKNOWN, header=header)
    ]


def _scan_result(header: str, values: list[str]) -> list[Threat]:
    """X-FSecure-Scan-Result: clean, infected, or why there is no result."""
    word = " ".join(values).strip().lower()
    if word in _NO_THREAT:
        return []
    if not word or word.startswith(_UNSCANNED_WORDS):
        return [Threat(_name(word), ThreatKind.UNSCANNABLE, header)]
    return [Threat(UNKNOWN, ThreatKind.VIRUS, header)]


def _blocked(header: str, values: list[str]) -> list[Threat]:
    """A header whose mere presence says that the message was blocked; its value is the reason."""
    return [Threat(_name(" ".join(values)), ThreatKind.POLICY, header)]


def _response_info(header: str, values: list[str]) -> list[Threat]:
    """X-Response-Info: one word; every word that is not known to mean "passed" is a block."""
    word = " ".join(values).strip()
    if word.lower().split(" ")[0].strip(".,;!") in _PASSED or not word:
        return []
    return [Threat(_name(word), ThreatKind.POLICY, header)]


def _digit(text: str) -> int | None:
    text = text.strip()
    return int(text) if len(text) == 1 and text in "0123456789" else None


_NO_THREAT = frozenset({"no threats", "no threat", "none", "clean", "ok", "no virus"})
_PASSED = frozenset({"passed", "pass", "allowed", "allow", "clean", "ok", "unmodified", "none", "options"})
_UNSCANNED_WORDS = ("error", "fail", "not scanned", "not_scanned", "unscanned", "timeout", "encrypted")
_ONLY_BLOCKED = frozenset(
    {
        "x-blocked", "x-blocked-reason", "x-block-reason", "x-block-result", "x-wwblockresult", "x-mwg-block-reason",
        "x-response-info",
    }
)  # fmt: skip

_READERS: dict[str, Callable[[str, list[str]], list[Threat]]] = {
    "x-infection-found": _infection_found,
    "x-violations-found": _violations_found,
    "x-virus-id": _virus_names,
    "x-virus-name": _virus_names,
    "x-fsecure-infection-name": _virus_names,
    "x-fsecure-scan-result": _scan_result,
    "x-blocked": _blocked,
    "x-blocked-reason": _blocked,
    "x-block-reason": _blocked,
    "x-block-result": _blocked,
    "x-wwblockresult": _blocked,
    "x-mwg-block-reason": _blocked,
    "x-response-info": _response_info,
}
"""The headers of PROTOCOL C28."""

VERDICT_HEADERS = frozenset(_READERS)
