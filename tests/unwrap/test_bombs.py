"""Every bomb costs its budget and no more, and its verdict is over-limit (EVASION.md 75-80)."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import inflate64
import lz4.frame
import pytest
import zstandard

from icapscan.findings import Reason
from icapscan.limits import MIB, Limits
from tests.conftest import ROOT
from tests.peers import require

from . import bombs
from .archive_driver import walk
from .zip_maker import Made, made_zip

MEMORY = 64 * MIB
PATIENCE = 60
"""Seconds after which a bomb counts as a hang; how fast it should be is a matter for benchmarks."""


def cost(data: bytes, name: str = "") -> dict[str, Any]:
    """What it costs to take ``data`` apart."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unwrap.bomb_runner", name],
        input=data,
        capture_output=True,
        cwd=ROOT,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def defused(data: bytes, name: str = "") -> dict[str, Any]:
    """Assert that it is harmless, and that it is not called clean."""
    result = cost(data, name)
    assert "over-limit" in result["reasons"]
    assert result["memory"] < MEMORY
    # A second entry for the same data is charged for at once, as if it had been unpacked again: 8 MiB in one of them.
    assert result["unpacked"] <= max(Limits().ratio_from, len(data) * Limits().ratio) + 8 * MIB
    return result


def test_evasion_75_full_overlap() -> None:
    assert defused(bombs.full_overlap())["spent"] == "ratio"


def test_evasion_75_a_few_small_overlaps_are_an_anomaly_only() -> None:
    got = walk(bombs.full_overlap(3, 1000))
    assert not got.failures and "zip-overlap" in got.kinds


def test_evasion_76_quoted_overlap() -> None:
    data = bombs.quoted_overlap()
    assert len(data) < 30_000
    assert defused(data)["spent"] in ("ratio", "zip readings")  # whichever bound comes first
    few = walk(bombs.quoted_overlap(4, 1000))
    assert "zip-overlap" in few.kinds and Reason.OVER_LIMIT not in few.reasons
    assert hashlib.sha256(bytes(1000)).hexdigest() in few.leaves.values()


def test_evasion_77_nested_wide() -> None:
    defused(bombs.nested())


def test_evasion_77_nested_deep() -> None:
    assert defused(bombs.deep())["spent"] == "depth"


def test_evasion_78_quine() -> None:
    quine = bombs.gzip_quine()
    assert gzip.decompress(quine) == quine
    assert defused(quine)["spent"] == "depth"


def test_evasion_78_quine_in_a_zip() -> None:
    assert defused(bombs.packed_zip(("self.gz", bombs.gzip_quine())))["spent"] == "depth"


def _deflate64(data: bytes) -> bytes:
    packer = inflate64.Deflater()
    return bytes(packer.deflate(data) + packer.flush())


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, 9),
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    "zst": zstandard.compress,
    "lz4": lz4.frame.compress,
    "br": lambda data: bytes(brotli.compress(data, quality=3, lgwin=22)),
}


@pytest.mark.parametrize("end", COMPRESSORS)
def test_evasion_79_zeros_in_one_layer(end: str) -> None:
    # lz4 and fast LZMA do not reach the ratio that is suspect; what they make of zeros costs what it costs.
    size = 1100 if end == "lz4" else 256 if end in ("xz", "lzma") else 64
    data = COMPRESSORS[end](bytes(MIB)) if end == "lz4" else COMPRESSORS[end](bytes(size * MIB))
    if end == "lz4":
        data *= size  # frame after frame
    assert defused(data, f"zeros.{end}")["spent"] in ("ratio", "unpacked")


@pytest.mark.parametrize("end", COMPRESSORS)
def test_evasion_79_zeros_in_two_layers(end: str) -> None:
    compress = COMPRESSORS[end]
    inner = compress(bytes(MIB)) * 64 if end == "lz4" else compress(bytes(64 * MIB))
    defused(compress(inner), f"zeros.{end}.{end}")


@pytest.mark.parametrize(("method", "compress"), [(9, _deflate64), (12, bz2.compress), (93, zstandard.compress)])
def test_evasion_79_zeros_by_rare_zip_methods(method: int, compress: Callable[[bytes], bytes]) -> None:
    zeros = bytes(40 * MIB)
    defused(made_zip(Made(b"z", zeros, method, compress(zeros))))


@pytest.mark.parametrize("end", ["7z", "wim"])
def test_evasion_79_zeros_in_archives_that_a_child_process_opens(end: str, tmp_path: Path) -> None:
    program = require("7zz", "7zip")
    packed = tmp_path / f"zeros.{end}"
    command = [program, "a", f"-t{end}", "-mx=1", "-sizeros", str(packed)]
    if end == "wim":
        command.remove("-mx=1")  # wim is written without compression here: its size is what it costs
    size = 128 if end == "7z" else 20
    subprocess.run(command, input=bytes(size * MIB), capture_output=True, check=True, timeout=PATIENCE)
    data = packed.read_bytes()
    if end == "7z":
        assert defused(data, packed.name)["spent"] == "ratio"
    else:
        assert defused(gzip.compress(data), "zeros.wim.gz")["spent"] == "ratio"


def test_evasion_80_many_empty_members() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(Limits().parts + 1):
            archive.addfile(tarfile.TarInfo(f"{number}"))
    assert defused(gzip.compress(target.getvalue()), "many.tgz")["spent"] == "parts"


def test_evasion_80_many_members_of_a_zip() -> None:
    data = bombs.packed_zip(*[(f"{number}", b"") for number in range(Limits().parts + 1)])
    assert defused(data)["spent"] == "parts"


def test_evasion_80_sparse_members_that_are_all_hole() -> None:
    records = b"".join(
        b"%d %s\n" % (len(one) + 4, one)
        for one in (b"GNU.sparse.size=1099511627776", b"GNU.sparse.numblocks=0", b"GNU.sparse.map=0,0")
    )

    def block(name: bytes, size: int, kind: bytes) -> bytes:
        info = tarfile.TarInfo(name.decode())
        info.size, info.type = size, kind
        return info.tobuf(tarfile.USTAR_FORMAT)

    data = block(b"x", len(records), b"x") + records + bytes(-len(records) % 512) + block(b"hole", 0, b"0")
    assert defused(data + bytes(1024))["spent"] == "ratio"


def test_evasion_80_large_bodies_are_bounded_by_what_may_be_unpacked() -> None:
    """A zip bomb in a large body has room by its ratio, and is stopped by the absolute bound."""
    limits = Limits(unpacked=8 * MIB)
    got = walk(made_zip(Made(b"z", bytes(40 * MIB))), limits=limits)
    assert got.budget.spent == "unpacked" and got.budget.unpacked <= 9 * MIB


def test_huge_pax_header_does_not_become_memory() -> None:
    info = tarfile.TarInfo("x")
    info.size, info.type = 40 * MIB, b"x"
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(40 * MIB) + struct.pack("512x")
    result = cost(gzip.compress(data), "huge.tgz")
    assert "over-limit" in result["reasons"] and result["memory"] < MEMORY
