"""The part store: the same bytes in every tier, a purse that is always paid back, no descriptor left behind."""

from __future__ import annotations

import errno
import gc
import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan import store as store_module
from icapscan.errors import StoreFull
from icapscan.limits import Limits
from icapscan.store import PartReader, PartStore, Purse

LIMITS = Limits(part_in_bytes=100, part_in_memory=1000)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    gc.collect()  # what other tests of this process left behind is not ours
    before = descriptors()
    yield
    assert descriptors() <= before


def contents(store: PartStore) -> bytes:
    return b"".join(bytes(piece) for piece in store.pieces())


def check(store: PartStore, data: bytes) -> None:
    """Every way to read gives the same bytes."""
    assert store.size == len(data)
    assert contents(store) == data
    assert bytes(store.view()[:]) == data
    assert store.sha256() == hashlib.sha256(data).hexdigest()
    assert os.pread(store.fileno(), len(data) + 1, 0) == data
    for start in {0, 1, len(data) // 2, len(data)}:
        for size in (1 + len(data) // 7, 4096):
            pieces = list(store.pieces(start, size))
            assert b"".join(bytes(piece) for piece in pieces) == data[start:]
            assert all(0 < len(piece) <= size for piece in pieces)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 999, 1000, 1001, 5000])
@pytest.mark.parametrize("step", [1, 13, 10_000])
def test_any_size_in_any_steps_reads_back_in_every_way(size: int, step: int) -> None:
    data = os.urandom(size)
    purse = Purse(10_000, 10_000)
    store = PartStore(purse, LIMITS)
    for at in range(0, size, step):
        store.append(memoryview(data)[at : at + step])
    check(store, data)
    store.close()
    assert (purse.memory_left, purse.disk_left) == (10_000, 10_000)


def test_a_small_part_is_bytes_and_charged_to_memory() -> None:
    purse = Purse(1000, 1000)
    store = PartStore(purse, LIMITS)
    store.append(b"a" * 100)
    assert store.contents() == b"a" * 100
    assert (purse.memory_left, purse.disk_left) == (900, 1000)
    store.close()


def test_a_middling_part_is_a_memfd_charged_to_memory() -> None:
    purse = Purse(5000, 5000)
    store = PartStore(purse, LIMITS)
    store.append(b"a" * 101)
    assert store.contents() is None
    assert "memfd" in os.readlink(f"/proc/self/fd/{store.fileno()}")
    assert (purse.memory_left, purse.disk_left) == (4899, 5000)
    assert isinstance(store.view(), mmap.mmap)
    store.close()


def test_a_large_part_is_an_unlinked_file_charged_to_disk(tmp_path: Path) -> None:
    purse = Purse(5000, 5000)
    store = PartStore(purse, LIMITS, str(tmp_path))
    for _ in range(11):
        store.append(b"a" * 100)
    assert (purse.memory_left, purse.disk_left) == (5000, 3900)
    link = os.readlink(f"/proc/self/fd/{store.fileno()}")
    assert link.startswith(str(tmp_path)) and link.endswith("(deleted)")
    assert not list(tmp_path.iterdir())
    assert os.fstat(store.fileno()).st_mode & 0o077 == 0
    store.close()
    assert purse.disk_left == 5000


def test_without_memory_in_the_purse_a_part_goes_to_disk() -> None:
    purse = Purse(50, 5000)
    store = PartStore(purse, LIMITS)
    store.append(b"a" * 40)
    store.append(b"b" * 40)
    assert (purse.memory_left, purse.disk_left) == (50, 4920)
    check(store, b"a" * 40 + b"b" * 40)
    store.close()
    assert (purse.memory_left, purse.disk_left) == (50, 5000)


@pytest.mark.parametrize(("memory", "disk", "fits"), [(0, 0, 0), (60, 0, 60), (0, 60, 60), (60, 70, 70)])
def test_when_the_purse_is_empty_the_store_says_so_and_stays_readable(memory: int, disk: int, fits: int) -> None:
    purse = Purse(memory, disk)
    store = PartStore(purse, LIMITS)
    for _ in range(fits // 10):
        store.append(b"0123456789")
    with pytest.raises(StoreFull) as caught:
        store.append(b"x" * 1000)
    assert caught.value.retry
    assert contents(store) == b"0123456789" * (fits // 10)
    store.close()
    assert (purse.memory_left, purse.disk_left) == (memory, disk)


def test_a_full_disk_is_a_full_store_and_what_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    purse = Purse(10, 10_000)
    store = PartStore(purse, LIMITS)
    store.append(b"a" * 50)

    def full(descriptor: int, data: object, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StoreFull):
            store.append(b"b" * 50)
    assert contents(store) == b"a" * 50
    store.close()
    assert (purse.memory_left, purse.disk_left) == (10, 10_000)


def test_a_descriptor_of_a_small_part_does_not_go_stale() -> None:
    store = PartStore(Purse(1000, 1000), LIMITS)
    store.append(b"one")
    assert os.pread(store.fileno(), 10, 0) == b"one"
    store.append(b"two")
    assert os.pread(store.fileno(), 10, 0) == b"onetwo"
    assert contents(store) == b"onetwo"
    store.close()


def test_closing_while_the_map_is_read_harms_nobody() -> None:
    store = PartStore(Purse(10_000, 10_000), LIMITS)
    store.append(b"abc" * 100)
    reader = memoryview(store.view())
    store.relax()
    store.close()
    assert bytes(reader[:3]) == b"abc"
    reader.release()


def test_closing_twice_pays_back_once() -> None:
    purse = Purse(1000, 1000)
    store = PartStore(purse, LIMITS)
    store.append(b"a" * 500)
    store.close()
    store.close()
    assert (purse.memory_left, purse.disk_left) == (1000, 1000)


def test_of_holds_anything_outside_a_purse() -> None:
    for size in (0, 10, 100_000):
        data = os.urandom(size)
        store = PartStore.of(data)
        check(store, data)
        store.close()


def test_a_purse_is_open_while_there_is_memory_or_disk() -> None:
    assert Purse(1, 0).is_open() and Purse(0, 1).is_open()
    assert not Purse(0, 0).is_open()


@given(st.lists(st.binary(max_size=400), max_size=12), st.integers(0, 3000), st.integers(0, 3000))
def test_whatever_is_appended_is_there_or_refused_and_the_purse_is_never_overdrawn(
    pieces: list[bytes], memory: int, disk: int
) -> None:
    purse = Purse(memory, disk)
    store = PartStore(purse, LIMITS)
    kept = b""
    for piece in pieces:
        try:
            store.append(piece)
        except StoreFull:
            assert contents(store) == kept
            break
        kept += piece
        assert purse.memory_left >= 0 and purse.disk_left >= 0
    assert contents(store) == kept
    store.close()
    assert (purse.memory_left, purse.disk_left) == (memory, disk)


@pytest.mark.parametrize("window", [1, 3, 8, 1 << 20])
def test_a_reader_slices_and_searches_as_bytes_do(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icapscan.store._SEARCH_WINDOW", window)
    data = b"abcabcabxabcab" * 3
    store = PartStore(Purse(0, 1 << 20), Limits())
    store.append(data)
    reader = store.reader()
    assert isinstance(reader, PartReader)
    assert len(reader) == len(data)
    places = [0, 1, 5, 13, len(data) - 1, len(data), len(data) + 5, -3]
    for start in places:
        for end in [*places, None]:
            assert reader[start:end] == data[start:end]
            for needle in (b"a", b"abx", b"cab", b"bxa", b"zz", data, data + b"x"):
                assert reader.find(needle, start, end) == data.find(needle, start, end), (start, end, needle)
                assert reader.rfind(needle, start, end) == data.rfind(needle, start, end), (start, end, needle)
    store.close()


def test_a_small_part_is_read_as_bytes() -> None:
    assert PartStore.of(b"small").reader() == b"small"


def test_a_recycled_memfd_holds_nothing_of_the_part_before() -> None:
    first = PartStore.of(b"secret " * 100)
    descriptor = first.fileno()
    first.recycle()
    first.close()
    second = PartStore.of(b"short")
    assert second.fileno() == descriptor, "the same one again"
    assert os.pread(descriptor, 1000, 0) == b"short"
    assert os.fstat(descriptor).st_size == 5
    second.close()
    third = PartStore.of(b"other")
    assert third.fileno() >= 0
    assert os.pread(third.fileno(), 1000, 0) == b"other"
    third.close()


def test_only_so_many_memfds_are_kept() -> None:
    stores = [PartStore.of(b"x") for _ in range(40)]
    for store in stores:
        store.fileno()
    for store in stores:
        store.recycle()
        store.close()
    assert len(store_module._spare) <= store_module._SPARE_MOST
    for descriptor, _ in store_module._spare:
        os.close(descriptor)
    store_module._spare.clear()


@pytest.fixture
def spare_long() -> Iterator[list[tuple[int, int]]]:
    """The memfds that are kept, none of them at first."""
    kept, before = store_module._spare_long, store_module._spare_long[:]
    kept.clear()
    yield kept
    for descriptor, _ in kept:
        os.close(descriptor)
    kept[:] = before


def long_store(data: bytes) -> PartStore:
    store = PartStore(Purse(len(data) + 100, 0), Limits())
    for at in range(0, len(data), 50_000):
        store.append(data[at : at + 50_000])
    return store


def test_the_memfd_of_a_large_part_is_used_again_and_shows_nothing_of_it(spare_long: list[tuple[int, int]]) -> None:
    first = long_store(b"secret " * 40_000)
    descriptor = first.fileno()
    first.recycle()
    assert b"".join(first.pieces()) == b"secret " * 40_000, "it stays readable until it is closed"
    first.close()
    assert spare_long == [(descriptor, 280_000)]
    data = os.urandom(100_000)
    second = long_store(data)
    assert not spare_long
    assert bytes(second.view()) == data == b"".join(second.pieces()) == second.reader()[0:1_000_000]
    assert second.reader().find(b"secret") == -1
    assert second.sha256() == hashlib.sha256(data).hexdigest()
    assert second.fileno() == descriptor, "the same one again"
    assert os.fstat(descriptor).st_size == 100_000 and os.pread(descriptor, 1_000_000, 0) == data
    second.append(b"more")
    assert os.pread(second.fileno(), 1_000_000, 0) == data + b"more"
    second.close()
    assert not spare_long, "not said to be free"


@pytest.mark.parametrize("how", ["lent", "mapped", "file", "long"])
def test_what_somebody_may_still_read_or_is_too_large_is_not_used_again(
    spare_long: list[tuple[int, int]], how: str
) -> None:
    data = bytes(3_000_000 if how == "long" else 100_000)
    store = PartStore(Purse(0, len(data)), Limits()) if how == "file" else PartStore(Purse(len(data), 0), Limits())
    store.append(data)
    descriptor = store.fileno()
    if how == "lent":
        store.lend()
    view = memoryview(store.view()) if how == "mapped" else None
    store.recycle()
    store.close()
    assert not spare_long
    with pytest.raises(OSError):
        os.fstat(descriptor)
    del view


def test_only_so_many_bytes_are_kept(spare_long: list[tuple[int, int]]) -> None:
    stores = [long_store(bytes(1_500_000)) for _ in range(12)] + [long_store(bytes(70_000)) for _ in range(40)]
    for store in stores:
        store.recycle()
        store.close()
    assert sum(size for _, size in spare_long) <= store_module._SPARE_BYTES
    assert 0 < len(spare_long) <= store_module._SPARE_MOST
