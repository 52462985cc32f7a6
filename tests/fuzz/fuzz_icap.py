"""Random mutations of ICAP conversations against the codec.

The invariant, for every input, however it is cut:

1. `receive` and `receive_eof` raise nothing; a `Failure` has a status that is answered (400, 414, 501, 505).
2. The same bytes in one piece and in random pieces give the same events, body chunks joined.
3. Behind a `Failure` there is no further event but the end of the connection; without one, a connection that ended
   has seen each request it began to its end.
4. What the codec keeps is bounded: no more than the longest head, chunk line or trailer section, plus one delivery.
5. Requests that were understood can be sent again by a client's codec, and mean the same.

Run ``python tests/fuzz/fuzz_icap.py --count 100000 --seed 7``; a failing input is printed as Python bytes, to be put
into ``tests/wire/test_any_split.py``. The test suite runs a small, fixed number.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from icapscan.wire.icap_events import BodyEnd, Event, Failure, HttpHeads, PeerClosed, PreviewEnd, RequestHead
from icapscan.wire.limits import DEFAULT, WireLimits
from tests.wire.sessions import ServerSession, client, described, joined, serve, unescape

SMALL = WireLimits(
    line=120, head=500, fields=10, http_head=300, chunk_line=60, extensions=80, trailer=100, preview_surplus=30
)
STATUSES = {400, 414, 501, 505}
WORDS = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b",", b"=", b'"', b"0", b"-1", b"+1", b"0x10",
    b"ffffffffffffffff", b"7fffffffffffffff", b"0\r\n\r\n", b"0; ieof\r\n\r\n", b"ieof", b"; ieof", b"Encapsulated: ",
    b"Preview: 3\r\n", b"Preview: ", b"Allow: 204\r\n", b"null-body=0", b"res-body=0", b"req-hdr=0, ", b"ICAP/1.0",
    b"ICAP/1.1", b"OPTIONS ", b"RESPMOD ", b"Connection: close\r\n", b"5\r\nhello\r\n", b"X: y\r\n", b"x" * 130,
    b"\xff\xfe", b" fold\r\n",
)  # fmt: skip


def corpus() -> list[bytes]:
    """What the clients of all transcripts send."""
    folder = Path(__file__).resolve().parent.parent / "transcripts"
    return [
        b"".join(unescape(line[3:]) for line in path.read_text("ascii").splitlines() if line.startswith("C: "))
        for path in sorted(folder.glob("*.txt"))
    ]


def mutate(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A new input made of old ones."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0:
                data[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                data[at:at] = rng.choice(WORDS)
            case 2:
                data[at : at + rng.randrange(1, 20)] = rng.choice(WORDS)
            case 3:
                del data[at : at + rng.choice((1, 2, 4, 40))]
            case 4:
                data[at:at] = data[at : at + rng.randrange(1, 60)] * rng.randrange(1, 4)
            case 5:
                del data[at:]
            case _:
                data[at:] = rng.choice(seeds)
    return bytes(data[:20_000])


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """``data`` in random pieces."""
    pieces, at = [], 0
    longest = rng.choice((1, 2, 7, 100, 5000))
    while at < len(data):
        size = rng.randint(1, longest)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def check(rng: random.Random, data: bytes) -> None:
    """Raise `AssertionError` when the invariant does not hold for ``data``."""
    limits = SMALL if rng.random() < 0.5 else DEFAULT
    tolerant = rng.random() < 0.2
    final = rng.random() < 0.2
    whole = serve([data], limits, tolerant=tolerant, final_at_preview=final, eof=True)
    session = ServerSession(limits, tolerant=tolerant, final_at_preview=final)
    most = max(limits.head + 4, 2 * limits.http_head, limits.chunk_line, limits.trailer + 4)
    for piece in cut(rng, data):
        session.feed(piece)
        assert session.codec.backlog <= most + len(piece), "too much is kept"
    session.eof()
    events = joined(session.events)
    assert described(events) == described(whole), "the split matters"
    check_order(events, final_at_preview=final)
    check_again(events)


def check_order(events: list[Event], *, final_at_preview: bool) -> None:
    """Failures are last and have a status; requests end."""
    failures = [number for number, event in enumerate(events) if isinstance(event, Failure)]
    assert len(failures) <= 1
    for number in failures:
        failure = events[number]
        assert isinstance(failure, Failure) and failure.error.status in STATUSES
        assert str(failure.error).isascii()
        assert all(isinstance(event, PeerClosed) for event in events[number + 1 :])
    if not failures:
        heads = sum(isinstance(event, RequestHead) for event in events)
        ends = sum(isinstance(event, BodyEnd) for event in events)
        bodies = sum(isinstance(event, RequestHead) and event.encapsulated.has_body for event in events)
        answered = sum(isinstance(event, PreviewEnd) for event in events) if final_at_preview else 0
        assert sum(isinstance(event, HttpHeads) for event in events) == heads
        assert ends + answered == bodies


def check_again(events: list[Event]) -> None:
    """What was understood can be said again."""
    sent = bytearray()
    codec, request = client(), list[Event]()
    for event in events:
        if isinstance(event, RequestHead):
            codec, request = client(), []
        if isinstance(event, Failure | PeerClosed) or (isinstance(event, BodyEnd) and event.ieof):
            break  # ieof outside a preview is understood and never sent
        request.append(event)
        sent += b"".join(codec.send(event))
        if isinstance(event, PreviewEnd):
            break
    if sent and request:
        again = serve([bytes(sent)])
        assert described(again)[: len(described(events))] == described(events)[: len(described(again))]


def run(count: int, seed: int) -> int:
    """Check ``count`` inputs; the number of different event lists seen, as a measure of how much was reached."""
    rng = random.Random(seed)
    seeds = corpus()
    seen = set()
    for number in range(count):
        data = mutate(rng, seeds)
        try:
            check(rng, data)
        except Exception:
            print(f"input {number} of seed {seed}: {data!r}", file=sys.stderr)
            raise
        shape = tuple(line.partition(" ")[0] for line in described(serve([data], eof=True)))
        if shape not in seen:
            seen.add(shape)
            seeds.append(data)
    return len(seen)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fuzz the ICAP codec.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{given.count} inputs, {run(given.count, given.seed)} kinds of conversations, no failure")


if __name__ == "__main__":
    main()
