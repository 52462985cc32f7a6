"""``python -m benchmarks.mime``: mails taken apart, against the standard library's parser plus decoding.

One mail of 50 MB with attachments in base64, its memory, and 100,000 small mails; ours fed in pieces as they come from
a socket. ``decoder`` is the mail decoder alone, ``walker`` everything with the stores of the parts; the peer is
`email.parser.BytesFeedParser` with `get_payload(decode=True)` of every leaf. Figures are ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from base64 import encodebytes
from collections.abc import Callable, Iterable, Iterator
from email.parser import BytesFeedParser
from functools import partial

import pybase64

from icapscan.limits import KIB, MIB, Budget, Limits
from icapscan.store import PartStore, Purse
from icapscan.unwrap.contract import Bid, Context, Declared
from icapscan.unwrap.gate import Gate
from icapscan.unwrap.mime import MIME
from icapscan.unwrap.walker import Walker

PIECE = 64 * KIB
LIMITS = Limits(body=8 * 1024 * MIB, unpacked=8 * 1024 * MIB, seconds=3600.0)
HEAD = (
    b"From: a@example.org\r\nTo: b@example.org\r\nSubject: sample\r\nMIME-Version: 1.0\r\n"
    b"Received: from x by y; Tue, 24 Nov 2026 03:41:06 +0000\r\nMessage-ID: <1@example.org>\r\n"
)
MIXED = b"Content-Type: multipart/mixed; boundary=frontier\r\n\r\n"
TEXT = b"--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello,\r\n\r\nsee the attachment.\r\n\r\n"
ATTACHMENT = (
    b"--frontier\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="a.bin"\r\n\r\n'
)
END = b"--frontier--\r\n"


def large(size: int) -> bytes:
    """A mail of about ``size`` bytes with attachments of 10 MB."""
    coded = encodebytes(os.urandom(7 * MIB)).replace(b"\n", b"\r\n")
    count = max(1, size // len(coded))
    return HEAD + MIXED + TEXT + b"".join(ATTACHMENT + coded + b"\r\n" for _ in range(count)) + END


def small() -> bytes:
    """A mail with a text and an attachment of 2 KB."""
    coded = encodebytes(os.urandom(2 * KIB)).replace(b"\n", b"\r\n")
    return HEAD + MIXED + TEXT + ATTACHMENT + coded + b"\r\n" + END


def pieces(body: bytes) -> Iterator[bytes]:
    """As they come from a socket."""
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


def decode(body: Iterable[bytes]) -> int:
    """Our mail decoder alone; the bytes of all parts."""
    budget = Budget(LIMITS)
    decoder = MIME.open(Context(budget, Gate(budget), Declared(media_type="message/rfc822"), Bid.YES))
    count = 0
    for piece in body:
        budget.take_body(len(piece))
        for event in decoder.feed(piece):
            count += len(getattr(event, "data", b""))
    for event in decoder.finish():
        count += len(getattr(event, "data", b""))
    return count


def stored(body: Iterable[bytes]) -> PartStore:
    """The store of a body, which its owner has filled whatever is then done with it."""
    virgin = PartStore(Purse(4 * 1024 * MIB, 16 * 1024 * MIB), LIMITS)
    for piece in body:
        virgin.append(piece)
    return virgin


def walk(body: Iterable[bytes], virgin: PartStore | None = None) -> int:
    """The whole walker with the stores of all parts; their number."""
    purse = Purse(4 * 1024 * MIB, 16 * 1024 * MIB)
    budget = Budget(LIMITS)
    filled, virgin = virgin is not None, virgin or PartStore(purse, LIMITS)
    walker = Walker(budget, lambda: PartStore(purse, LIMITS), virgin, declared=Declared(media_type="message/rfc822"))
    count = 0
    for piece in body:
        budget.take_body(len(piece))
        if not filled:
            virgin.append(piece)
        count += _freed(walker.feed(piece), virgin)
    for events in walker.finish():
        count += _freed(events, virgin)
    walker.close()
    if not filled:
        virgin.close()
    return count


def _freed(events: Iterable[object], virgin: PartStore) -> int:
    count = 0
    for event in events:
        store = getattr(event, "store", None)
        if store is not None and store is not virgin:
            store.close()
            count += 1
    return count


def peer(body: Iterable[bytes]) -> int:
    """The standard library; the bytes of all leaves."""
    parser = BytesFeedParser()
    for piece in body:
        parser.feed(piece)
    count = 0
    for leaf in parser.close().walk():
        if not leaf.is_multipart():
            payload = leaf.get_payload(decode=True)
            count += len(payload) if isinstance(payload, bytes) else 0
    return count


def seconds(call: Callable[[], object], repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """The best of some runs."""
    best = float("inf")
    for _ in range(repeats):
        began = clock()
        call()
        best = min(best, clock() - began)
    return best


def _many(call: Callable[[Iterable[bytes]], int], mails: list[bytes], count: int) -> None:
    for number in range(count):
        call((mails[number % len(mails)],))


def growth(size: int) -> float:
    """MiB that the peak of resident memory grew by while a mail of ``size`` bytes went through the decoder."""
    coded = encodebytes(os.urandom(MIB)).replace(b"\n", b"\r\n")

    def stream() -> Iterator[bytes]:
        yield HEAD + MIXED + TEXT + ATTACHMENT
        for _ in range(size // len(coded)):
            yield from pieces(coded)
        yield b"\r\n" + END

    decode(pieces(large(8 * MIB)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decode(stream())
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / KIB


def main() -> None:
    """Print the figures, and write them as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=50, help="MB of the large mail")
    parser.add_argument("--memory", type=int, default=1000, help="MB of the mail whose memory is measured")
    parser.add_argument("--count", type=int, default=100_000, help="small mails")
    parser.add_argument("--json", help="a file to write the figures to")
    options = parser.parse_args()
    figures: dict[str, float] = {"memory_growth_mib": growth(options.memory * 1000 * 1000)}
    body = large(options.size * 1000 * 1000)
    coded = encodebytes(os.urandom(len(body) // 2))
    size = len(body) / 1e6
    spent = seconds(lambda: pybase64.b64decode(coded.translate(None, b"\r\n"), validate=True), 3)
    figures["pybase64_mb_s"] = len(coded) / 1e6 / spent
    figures["decoder_mb_s"] = size / seconds(lambda: decode(pieces(body)), 3)
    virgin = stored(pieces(body))
    figures["walker_mb_s"] = size / seconds(lambda: walk(pieces(body), virgin), 3)
    virgin.close()
    figures["walker_and_body_store_mb_s"] = size / seconds(lambda: walk(pieces(body)), 3)
    figures["peer_mb_s"] = size / seconds(lambda: peer(pieces(body)))
    figures["decoder_ratio"] = figures["decoder_mb_s"] / figures["peer_mb_s"]
    figures["walker_ratio"] = figures["walker_mb_s"] / figures["peer_mb_s"]
    mails = [small() for _ in range(200)]
    count = options.count
    for name, call in (("decoder", decode), ("walker", walk), ("peer", peer)):
        spent = seconds(partial(_many, call, mails, count))
        figures[f"small_{name}_us"] = spent / count * 1e6
    for name, value in figures.items():
        print(f"{name:28}{value:12.1f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
