"""The invariant of content codings: one body under one Content-Encoding, through the decoder that undoes it."""

from __future__ import annotations

from icapscan.limits import Budget
from icapscan.unwrap.coded import CodedBody
from icapscan.unwrap.contract import Bid, Context
from icapscan.unwrap.gate import Gate
from tests.fuzz import oracle, reference
from tests.fuzz.oracle import LIMITS, NO_NAME, Told

CHAINS = (
    b"gzip", b"deflate", b"br", b"zstd", b"lzma", b"xz", b"gzip, deflate", b"br, gzip", b"zstd, br", b"x-gzip, gzip",
    b"gzip, gzip, gzip, gzip, gzip", b"identity, gzip", b"no-such",
)  # fmt: skip


def alone(coding: bytes, data: bytes, split: list[bytes]) -> tuple[Told, Budget]:
    """The body through the decoder of its codings, in these pieces."""
    budget, told = Budget(LIMITS), Told()
    budget.take_body(len(data))
    decoder = CodedBody(coding, Context(budget, Gate(budget), NO_NAME, Bid.YES))
    for piece in split:
        if not (told.done or told.over):
            oracle.run(decoder.feed(piece), told, budget)
    if not (told.done or told.over):
        oracle.run(decoder.finish(), told, budget)
    told.close()
    oracle.bounded(told, budget, LIMITS, len(data))
    return told, budget


def check(coding: bytes, data: bytes) -> None:
    """Raise when the invariant does not hold."""
    whole, budget = alone(coding, data, [data])
    cut, budget_cut = alone(coding, data, oracle.pieces(data, oracle.dice(data)))
    if budget.spent is None and budget_cut.spent is None:
        oracle.same(whole, cut)
    if coding == b"no-such":
        assert whole.failures
    if coding == b"gzip" and data[:3] == b"\x1f\x8b\x08":
        reference.stream("gzip", data, whole)
