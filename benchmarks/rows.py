"""What is measured: the rows, whom each compares, and what it has to reach."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from benchmarks.bodies import Body
from benchmarks.sides import Name

KB, MB, KIB = 1000, 1_000_000, 1024


class Kind(Enum):
    """How a row is measured."""

    RATE = "requests a second"
    TAIL = "p99 at 70 % of the peer's best rate"
    SWEEP = "latency by offered rate"
    ARRIVAL = "time from the last byte to the answer"
    OVERLOAD = "twice the sustainable rate"
    IDLE = "memory of idle connections"
    UPLOADS = "memory of large uploads"
    RELAY = "mails from one Postfix to another"


class Check(Struct, frozen=True):
    """What is to be compared in a row. With no ``peers`` the figure itself meets the target."""

    ours: str
    """The label of a figure: a server's name, or another that the kind of row gives."""
    peers: tuple[str, ...] = ()
    """The best of these counts."""
    target: float | None = None
    lower: bool = False
    """Whether less is better: the ratio, or the figure, must then be at most the target."""

    def ratio(self, figures: dict[str, float]) -> float:
        """Ours by the best peer's in one round, or our figure where there is no peer."""
        value = figures[self.ours]
        if not self.peers:
            return value
        found = [figures[peer] for peer in self.peers]
        best = min(found) if self.lower else max(found)
        return value / best if best else float("inf")

    def kept(self, ratio: float) -> bool:
        """Whether that ratio reaches the target, if there is one."""
        if self.target is None:
            return True
        return ratio <= self.target if self.lower else ratio >= self.target


class Row(Struct, frozen=True):
    """One comparison, or several of the same load."""

    name: str
    kind: Kind
    sides: tuple[Name, ...]
    checks: tuple[Check, ...]
    body: Body = Body()
    mode: str = "respmod"
    service: str = "avscan"
    connections: int = 16
    allow_204: bool = True
    every: int = 97
    """Every so many bodies one is marked and has to be blocked; 0: none."""
    repeated: int = 0
    """So many different bodies in turn; 0: no two are the same."""
    longer: float = 1.0
    """For few answers a second: that many times the seconds."""


def against(peer: Name, target: float | None, ours: Name = Name.OURS) -> Check:
    """More a second than ``peer``."""
    return Check(ours.value, (peer.value,), target)


CEILING = Check(Name.OURS.value, (Name.FILDES.value, Name.INSTREAM.value), 0.9)


def size_name(size: int) -> str:
    """E.g. ``32 KiB``."""
    for unit, word in ((MB, "MB"), (1024 * KIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {word}"
    return f"{size} B"


def echo_row(size: int, target: float | None, connections: int = 16, allow_204: bool = False) -> Row:
    what = "204" if allow_204 else "copy"
    name = f"echo, {size_name(size)}, {what}" + (f", x{connections}" if connections != 16 else "")
    sides = (Name.CICAP, Name.OURS)
    check = against(Name.CICAP, target)
    return Row(name, Kind.RATE, sides, (check,), Body(size), "respmod", "echo", connections, allow_204, every=0)


def scan_row(size: int, target: float | None, connections: int = 16) -> Row:
    """Unique plain bodies, also against clamd alone."""
    name = f"scan, {size_name(size)}" + (f", x{connections}" if connections != 16 else "")
    checks = (against(Name.CICAP, target), CEILING if target else Check(CEILING.ours, CEILING.peers))
    sides = (Name.CICAP, Name.OURS, Name.FILDES, Name.INSTREAM)
    every, longer = (997, 1.0) if size < 64 * KIB else (97, 1.0) if size < MB else (29, 1.5)
    if size >= 10 * MB:
        connections, every, longer = 4, 7, 3.0
    return Row(name, Kind.RATE, sides, checks, Body(size), connections=connections, every=every, longer=longer)


def mail_row(name: str, attachments: tuple[int, ...], new: bool, targets: dict[Name, float]) -> Row:
    checks = tuple(against(Name.CICAP, target, ours) for ours, target in targets.items())
    body = Body(attachments=attachments, new_attachments=new)
    sides = (Name.CICAP, *targets)
    return Row(f"mail, {name}", Kind.RATE, sides, checks, body, "reqmod", every=29, longer=1.5)


def repeated_row(size: int) -> Row:
    checks = (against(Name.CICAP, 8.0),)
    sides = (Name.CICAP, Name.OURS)
    return Row(f"repeated, {size_name(size)}", Kind.RATE, sides, checks, Body(size), every=97, repeated=1)


def special_rows() -> list[Row]:
    """Those that each have a way of their own."""
    paced, at_once = "icapscan, arriving", "icapscan, at once"
    parts = Body(attachments=(15 * KB,) * 100)
    ours_tail = Check(Name.OURS.value, (Name.CICAP.value,), 0.5, lower=True)
    scaling = against(Name.ONE_WORKER, 1.8, Name.TWO_WORKERS)
    overload = (
        Check("goodput, 1/s", ("best, 1/s",), 0.9),
        Check("p99 of accepted, ms", (), 2000.0, lower=True),
        Check("memory, MiB", (), 512.0, lower=True),
        Check("recovery, ms", (), 1000.0, lower=True),
    )
    return [
        Row(
            "pyicap, YARA alone, 4 KiB", Kind.RATE, (Name.PYICAP_YARA, Name.ONLY_YARA),
            (against(Name.PYICAP_YARA, 3.0, Name.ONLY_YARA),), Body(4 * KIB), every=997,
        ),
        Row(
            "pyicap, 4 KiB", Kind.RATE, (Name.PYICAP, Name.OURS), (against(Name.PYICAP, 3.0),), Body(4 * KIB), every=997
        ),
        Row(
            "100-part mail", Kind.ARRIVAL, (Name.CICAP, Name.OURS),
            (Check(paced, (at_once,), 0.3, lower=True),), parts, "reqmod", every=29,
        ),
        Row("p99, 32 KiB", Kind.TAIL, (Name.CICAP, Name.OURS), (ours_tail,), Body(32 * KIB), connections=128, every=97),
        Row("workers, 16 KiB", Kind.RATE, (Name.ONE_WORKER, Name.TWO_WORKERS), (scaling,), Body(16 * KIB), every=97),
        Row("overload, 32 KiB", Kind.OVERLOAD, (Name.OURS_SHORT,), overload, Body(32 * KIB), connections=3900),
    ]  # fmt: skip


def short_rows() -> list[Row]:
    both = {Name.OURS: 2.2, Name.OURS_YARA: 1.5}
    options = Row(
        "OPTIONS", Kind.RATE, (Name.CICAP, Name.OURS), (against(Name.CICAP, 1.2),), mode="options", every=0
    )  # fmt: skip
    return [
        *(echo_row(size, target) for size, target in ((200, 2.0), (4 * KIB, 2.5), (32 * KIB, 3.5))),
        options,
        *(scan_row(size, 1.1) for size in (200, 4 * KIB)),
        *(scan_row(size, 1.0) for size in (32 * KIB, 256 * KIB, 1024 * KIB, 10 * MB)),
        mail_row("75 KB", (75 * KB,), True, both),
        mail_row("2 x 370 KB", (370 * KB, 370 * KB), True, both),
        mail_row("campaign, 75 KB", (75 * KB,), False, {Name.OURS: 5.0}),
        mail_row("campaign, 740 KB", (740 * KB,), False, {Name.OURS: 5.0}),
        *(repeated_row(size) for size in (4 * KIB, 1024 * KIB)),
        *special_rows(),
    ]


def full_rows() -> list[Row]:
    """What only ``--full`` measures as well."""
    memory = (
        Check(Name.OURS_MANY.value, (), 12.0 * KIB, lower=True),
        Check(Name.OURS_MANY.value, (Name.CICAP_MANY.value,), lower=True),
    )
    more = [
        row
        for connections in (1, 128)
        for row in (
            *(echo_row(size, None, connections) for size in (200, 4 * KIB, 32 * KIB)),
            *(scan_row(size, None, connections) for size in (200, 4 * KIB, 32 * KIB, 256 * KIB)),
        )
    ]
    relay = (Check("icapscan", ("clamsmtp",)), Check("icapscan", ("amavis",)))
    return [
        *(echo_row(size, None, allow_204=True) for size in (200, 4 * KIB, 32 * KIB)),
        *more,
        Row("pyicap with clamd, 4 KiB", Kind.RATE, (Name.PYICAP_CLAMD, Name.OURS),
            (against(Name.PYICAP_CLAMD, None),), Body(4 * KIB), every=997),
        Row("latency by load, 32 KiB", Kind.SWEEP, (Name.CICAP, Name.OURS), (), Body(32 * KIB), connections=128),
        Row("idle connection", Kind.IDLE, (Name.CICAP_MANY, Name.OURS_MANY), memory, every=0),
        Row("200 uploads of 50 MB", Kind.UPLOADS, (Name.OURS,),
            (Check("memory, MiB", (), 512.0, lower=True),), every=0),
        *(Row(f"relay, {size} KB", Kind.RELAY, (), relay, Body(size * KB), every=0) for size in (75, 370)),
    ]  # fmt: skip


def rows(full: bool) -> list[Row]:
    return [*short_rows(), *(full_rows() if full else ())]
