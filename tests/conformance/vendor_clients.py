"""How clients that are set up for one product read an answer, in the words of docs/profiles.md and of PROTOCOL C.

Each reader gets the answer as `tests.conformance.live` took it off the wire, looks at what its client looks at, as
it looks at it, and says what the client then believes. None of them knows what the server meant.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable

from tests.conformance.live import Answer


class Belief(enum.Enum):
    """What a client takes the file for."""

    CLEAN = "clean"
    """It keeps the file that it sent."""
    HIT = "hit"
    CLEANED = "cleaned"
    """It takes the body of the answer for its file."""
    UNSURE = "unsure"
    """Unscannable, or an error: nothing passes by that alone."""


Reader = Callable[[Answer], Belief]


def _php_fields(block: bytes) -> dict[bytes, bytes]:
    """Line by line, each trimmed (folds are lines like others), split at the first colon and blank; case matters."""
    fields = {}
    for line in block.split(b"\r\n"):
        name, _, value = line.strip().partition(b": ")
        if name:
            fields[name] = value
            if name == b"Encapsulated":
                break
    return fields


def nextcloud(header: bytes) -> Reader:
    """Nextcloud's and ownCloud's files_antivirus, told to look for ``header``. They never use the returned body."""

    def read(answer: Answer) -> Belief:
        if answer.status not in (200, 204):
            return Belief.UNSURE
        if answer.status == 204:
            return Belief.CLEAN
        status_line, _, block = answer.head.partition(b"\r\n")
        assert re.fullmatch(rb"ICAP/[0-9.]+ [0-9]+ [^ ].*", status_line)
        fields = _php_fields(block)
        assert b"Encapsulated" in fields
        page = b"".join(answer.sections.values()).split(b"\r\n")[0]
        blocked = b"403 Forbidden" in page or b"403 VirusFound" in page
        return Belief.HIT if fields.get(header) or blocked else Belief.CLEAN

    return read


def rspamd(answer: Answer) -> Belief:
    """rspamd's ICAP scanner: the fields of one head after the other, else the status of the page."""
    if answer.status >= 400:
        return Belief.UNSURE
    for head in (answer.head, b"".join(answer.sections.values())):
        fields = {}
        for line in head.split(b"\r\n"):
            match = re.fullmatch(rb"([^:\s]+): (.*)", line)
            if match:
                fields[match[1].lower()] = match[2]
        infection = fields.get(b"x-infection-found")
        if infection is not None:
            match = re.search(rb"Type=(.*?); Resolution=(.*?); Threat=(.*?);$", infection)
            return Belief.HIT if match and match[1] != b"2" else Belief.UNSURE
        for name in (b"x-virus-name", b"x-virus-id", b"x-mwg-block-reason", b"x-blocked", b"x-block-reason"):
            if fields.get(name) not in (None, b"", b"no threats"):
                return Belief.HIT
        if re.match(rb"HTTP/[12]\.[0-9] 4[0-9]{2}", head):
            return Belief.HIT
    return Belief.CLEAN


def toolarium(answer: Answer) -> Belief:
    """toolarium-icap-client: a field of its list in the ICAP head is a threat."""
    if answer.status == 204:
        return Belief.CLEAN
    if answer.status != 200:
        return Belief.UNSURE
    names = {name for name, _ in answer.lines}
    listed = {
        b"X-Infection-Found", b"X-Violations-Found", b"X-Blocked", b"X-Virus-ID", b"X-Virus-Name", b"X-Block-Reason",
        b"X-WWBlockResult",
    }  # fmt: skip
    return Belief.HIT if names & listed else Belief.CLEAN


def vscand(answer: Answer) -> Belief:
    """The vscan service of Solaris and illumos, made for Symantec, Trend Micro and McAfee; it repairs files."""
    if answer.status == 204:
        return Belief.CLEAN
    if answer.status not in (200, 201):
        return Belief.UNSURE
    resolutions: list[int] = []
    rank, block = 0, answer.head.partition(b"\r\n")[2].split(b"\r\n")
    lines = iter(line.strip() for line in block)
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.strip()
        if name == b"X-Violations-Found":
            records = [[next(lines) for _ in range(4)] for _ in range(int(value))]
            resolutions, rank = [int(record[3]) for record in records], 3
        elif name == b"X-Infection-Found" and rank < 2:
            match = re.match(rb"Type=(\d+); *Resolution=(\d+); *Threat=", value)
            assert match is not None
            resolutions, rank = [int(match[2])], 2
        elif name == b"X-Virus-ID" and not rank:
            resolutions, rank = [0], 1
    if answer.status == 201:
        forbidden = False
    elif resolutions:
        forbidden = any(resolution != 1 for resolution in resolutions)
    else:
        forbidden = not answer.sections["res-hdr"].startswith(b"HTTP/1.1 200")
    return Belief.HIT if forbidden or answer.body is None else Belief.CLEANED


def assemblyline_symantec(answer: Answer) -> Belief:
    """AssemblyLine's Symantec service: four lines for each violation, whatever the status."""
    lines = answer.head.decode("latin-1").splitlines()
    for at, line in enumerate(lines):
        if "204 No" in line:
            return Belief.CLEAN
        if line.startswith("X-Violations-Found: "):
            names = [lines[at + 4 * number + 2].strip() for number in range(int(line.split(": ")[1]))]
            return Belief.HIT if all(names) else Belief.UNSURE
    return Belief.UNSURE


def statuses(virus: set[int]) -> Reader:
    """Clients that look at the status alone: Artofarc's service bus, forms of public offices, Kernun."""
    return lambda answer: (
        Belief.HIT if answer.status in virus else Belief.CLEAN if answer.status == 204 else Belief.UNSURE
    )


def webwasher(answer: Answer) -> Belief:
    """A widespread script for Webwasher and Web Gateway: 204 is clean; names and numbers tell the rest."""
    belief = Belief.UNSURE
    for line in answer.head.split(b"\r\n"):
        if line.startswith(b"ICAP/1.0 204"):
            return Belief.CLEAN
        if line.startswith(b"X-Virus-Name:"):
            assert line[14:]
            belief = Belief.HIT
        if line.startswith(b"X-WWBlockResult:"):
            assert int(line[17:]) in (21, 22, 23, 30, 31, 32, 33, 34, 40, 41, 42, 43, 44, 45, 80, 81, 90)
            belief = Belief.HIT
    return belief


def sslproxy(answer: Answer) -> Belief:
    """SSLproxy: the word "blocked" of X-Response-Info, in any case, else the body that it is sent."""
    info = answer.get("X-Response-Info")
    if info is not None and b"blocked" in info.lower():
        return Belief.HIT
    return Belief.CLEAN if answer.status == 204 else Belief.CLEANED


def e2guardian(options: Answer) -> Reader:
    """DansGuardian and e2guardian: everything but 204 stops; the name is known where OPTIONS announced the field."""
    named = b"X-Infection-Found" in (options.get("X-Allow-Out") or b"")

    def read(answer: Answer) -> Belief:
        if answer.status == 204:
            return Belief.CLEAN
        if answer.status != 200:
            return Belief.UNSURE
        infection = answer.get("X-Infection-Found") or b""
        if named:
            assert infection.partition(b"Threat=")[2].partition(b";")[0]
        return Belief.HIT

    return read


def squid(answer: Answer) -> Belief:
    """Squid takes the message that it is sent, if it knows the status and there is a head."""
    if answer.status == 204:
        return Belief.CLEAN
    assert answer.status in (200, 201, 206) and answer.sections
    head = b"".join(answer.sections.values())
    return Belief.HIT if re.match(rb"HTTP/1\.[01] [45]", head) else Belief.CLEANED


READERS: dict[str, dict[str, Reader]] = {
    "generic": {"nextcloud": nextcloud(b"X-Infection-Found")},
    "trend": {
        "nextcloud": nextcloud(b"X-Virus-ID"),
        "nextcloud, the other field": nextcloud(b"X-Infection-Found"),
        "vscand": vscand,
        "status": statuses({200}),
    },
    "symantec": {
        "nextcloud": nextcloud(b"X-Infection-Found"),
        "nextcloud, the other field": nextcloud(b"X-Violations-Found"),
        "vscand": vscand,
        "assemblyline": assemblyline_symantec,
        "status": statuses({200, 201}),
        "status 201": statuses({201}),
    },
    "mcafee": {
        "nextcloud": nextcloud(b"X-Virus-Name"),
        "nextcloud, the other field": nextcloud(b"X-Virus-ID"),
        "webwasher": webwasher,
        "vscand": vscand,
    },
    "kaspersky": {
        "nextcloud": nextcloud(b"X-Virus-ID"),
        "nextcloud, the other field": nextcloud(b"X-Infection-Found"),
        "vscand": vscand,
        "sslproxy": sslproxy,
    },
    "clearswift": {
        "nextcloud": nextcloud(b"X-Virus-ID"),
        "nextcloud, the other field": nextcloud(b"X-Violations-Found"),
        "vscand": vscand,
    },
}
"""Clients by the product that they are set up for."""
EVERYWHERE: dict[str, Reader] = {"rspamd": rspamd, "toolarium": toolarium, "squid": squid}
"""Clients that are set up for none."""
