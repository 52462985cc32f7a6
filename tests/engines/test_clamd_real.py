"""The real clamd: limits, encryption, death, hang, restart, reload, several at once."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from icapscan.engines.clamd import ClamdEngine
from icapscan.engines.clamd_backends import Address
from icapscan.engines.clamd_control import USUAL_ADDRESSES, answers, available
from icapscan.engines.contract import Report
from icapscan.engines.fanout import eicar
from icapscan.engines.settings import ClamdSettings
from icapscan.errors import ConfigError, IcapscanError
from tests.engines.fake_clamd import engine_for, reasons, scan
from tests.peers.clamd import ClamdPeer, run_clamd

pytestmark = pytest.mark.usefixtures("each_loop")

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdPeer]:
    with run_clamd(tmp_path_factory.mktemp("clamd"), tcp=True, settings={"StreamMaxLength": "2M"}) as clamd:
        yield clamd


def run(addresses: str | tuple[str, ...], work: Callable[[ClamdEngine], Awaitable[None]], connections: int = 4) -> None:
    async def main() -> None:
        engine = engine_for(*((addresses,) if isinstance(addresses, str) else addresses), connections=connections)
        try:
            await work(engine)
        finally:
            await engine.close()

    asyncio.run(main())


def version_of(address: str) -> str:
    async def main() -> str:
        engine = engine_for(address)
        try:
            return await engine.version()
        finally:
            await engine.close()

    return asyncio.run(main())


def nested(levels: int) -> bytes:
    data = eicar()
    for _ in range(levels):
        data = gzip.compress(data, mtime=0)
    return data


def encrypted_zip() -> bytes:
    """A zip with one member marked as encrypted (its bytes are nobody's business)."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("secret.bin", os.urandom(500))
    data = bytearray(target.getvalue())
    data[6] |= 1  # general purpose flag of the local header (APPNOTE 4.4.4)
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def test_beyond_clamds_limits_is_not_clean(peer: ClamdPeer) -> None:
    async def work(engine: ClamdEngine) -> None:
        assert reasons(await scan(engine, nested(5))) == []
        report = await scan(engine, nested(40))
        assert reasons(report) == ["over-limit"] and not report.findings

    run(peer.unix_address, work)


def test_encrypted_is_not_clean(peer: ClamdPeer) -> None:
    async def work(engine: ClamdEngine) -> None:
        report = await scan(engine, encrypted_zip())
        assert reasons(report) == ["encrypted"] and not report.findings

    run(peer.unix_address, work)


def test_a_stream_beyond_clamds_limit_is_not_clean(peer: ClamdPeer) -> None:
    """StreamMaxLength of this clamd is smaller than we think: it says so in mid-stream and hangs up."""

    async def work(engine: ClamdEngine) -> None:
        for size in (3 * MIB, 30 * MIB):
            assert reasons(await scan(engine, os.urandom(size), kind="memfd")) == ["over-limit"]
        assert reasons(await scan(engine, os.urandom(MIB))) == []

    run(str(peer.tcp_address), work)


def test_a_file_beyond_clamds_own_limit_is_not_clean(tmp_path: Path) -> None:
    """With its defaults clamd says OK to a file over MaxFileSize, unread; its configuration tells us before."""
    silent = {"MaxFileSize": "1M", "AlertExceedsMax": "no", "AlertEncrypted": "no"}
    with run_clamd(tmp_path / "c", settings=silent) as clamd:

        async def work(engine: ClamdEngine) -> None:
            assert reasons(await scan(engine, os.urandom(MIB))) == []
            assert reasons(await scan(engine, os.urandom(MIB + 1))) == ["over-limit"]
            advice = " ".join(engine.advice())
            assert "1048576 bytes" in advice and "AlertExceedsMax" in advice and "AlertEncrypted" in advice

        run(clamd.unix_address, work)


def test_a_killed_clamd_is_a_failure_and_comes_back(tmp_path: Path) -> None:
    with run_clamd(tmp_path / "c", tcp=True) as clamd:
        for address in (clamd.unix_address, str(clamd.tcp_address)):

            async def work(engine: ClamdEngine) -> None:
                outcomes: list[Report] = []

                async def one() -> None:
                    outcomes.append(await scan(engine, eicar()))

                await asyncio.gather(*(one() for _ in range(20)))
                assert all(report.findings for report in outcomes)
                running = [asyncio.ensure_future(one()) for _ in range(50)]
                await asyncio.sleep(0)
                clamd.kill()
                await asyncio.gather(*running)
                assert all(report.findings or reasons(report) == ["engine-failed"] for report in outcomes)
                assert reasons(await scan(engine, eicar())) == ["engine-failed"]
                with pytest.raises(IcapscanError, match="clamd at"):
                    await engine.version()
                clamd.start()
                assert (await scan(engine, eicar())).findings
                assert (await engine.version()).startswith("ClamAV")

            run(address, work)


def test_a_restarted_clamd_costs_no_scan(tmp_path: Path) -> None:
    with run_clamd(tmp_path / "c") as clamd:

        async def work(engine: ClamdEngine) -> None:
            assert (await scan(engine, eicar())).findings
            clamd.restart()
            assert (await scan(engine, eicar())).findings

        run(clamd.unix_address, work)


def test_a_hung_clamd_is_a_timeout_and_comes_back(tmp_path: Path) -> None:
    with run_clamd(tmp_path / "c", tcp=True) as clamd:
        for address in (clamd.unix_address, str(clamd.tcp_address)):

            async def work(engine: ClamdEngine) -> None:
                assert (await scan(engine, eicar())).findings
                clamd.stop()
                try:
                    hung = await asyncio.gather(*(scan(engine, eicar(), seconds=0.3) for _ in range(20)))
                    assert [reasons(report) for report in hung] == [["timeout"]] * 20
                finally:
                    clamd.cont()
                assert (await scan(engine, eicar())).findings

            run(address, work)


def test_one_of_two_killed_costs_nothing_after_it(tmp_path: Path) -> None:
    (tmp_path / "b" / "database").mkdir(parents=True)
    (tmp_path / "b" / "database" / "other.ndb").write_text("Another.Test:0:*:deadbeefdeadbeef00\n")
    with run_clamd(tmp_path / "a") as first, run_clamd(tmp_path / "b", tcp="::1") as second:

        async def work(engine: ClamdEngine) -> None:
            both = await engine.version()
            assert "; " in both
            assert (await scan(engine, eicar())).findings
            first.kill()
            for _ in range(20):
                assert (await scan(engine, eicar())).findings
            assert await engine.version() == both
            first.start()

        run((first.unix_address, str(second.tcp_address)), work)


def test_version_changes_when_clamd_loads_another_database(tmp_path: Path) -> None:
    with run_clamd(tmp_path / "c", tcp=True) as clamd:
        before = version_of(clamd.unix_address)
        clamd.reload()
        assert version_of(clamd.unix_address) == before
        clamd.restart()
        assert version_of(clamd.unix_address) == before
        (clamd.database / "more.ndb").write_text("Another.Test:0:*:deadbeefdeadbeef00\n")
        clamd.reload()
        more = version_of(clamd.unix_address)
        assert more != before
        (clamd.database / "more.ndb").unlink()
        clamd.reload()
        assert version_of(clamd.unix_address) == before
        over_tcp = version_of(str(clamd.tcp_address))
        (clamd.database / "many.hdb").write_text("".join(f"{n:032x}:70:Many.{n}\n" for n in range(1, 2000)))
        clamd.reload()
        assert version_of(str(clamd.tcp_address)) != over_tcp


def test_a_version_counts_twice_when_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once when they are seen, once when clamd's SelfCheck must have loaded them: no verdict in between is kept."""
    with run_clamd(tmp_path / "c", settings={"SelfCheck": 300}) as clamd:
        fresh = version_of(clamd.unix_address)
        later = time.time() + 300 + 61
        monkeypatch.setattr("icapscan.engines.clamd_control.time.time", lambda: later)
        assert fresh == version_of(clamd.unix_address) + "+"


def test_answers_and_available(peer: ClamdPeer, tmp_path: Path) -> None:
    gone = f"unix:{tmp_path}/none"
    assert answers(Address(peer.unix_address)) and answers(Address(str(peer.tcp_address)))
    assert not answers(Address(gone)) and not answers(Address("tcp:[::1]:1"))
    both = (gone, peer.unix_address)
    assert available(ClamdSettings(address=both)) == both
    assert available(ClamdSettings(address=(gone,))) == (gone,)  # it may start later than we do
    assert available(ClamdSettings(enabled=True, address=(gone,))) == (gone,)
    assert available(ClamdSettings(enabled=False, address=both)) == ()


def test_enabled_without_any_clamd_is_an_engine_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icapscan.engines.clamd_control.find_addresses", lambda: ())
    assert available(ClamdSettings()) == ()
    assert available(ClamdSettings(enabled=True)) == USUAL_ADDRESSES[:1]


@pytest.mark.parametrize(
    "address",
    ["", "unix:relative", "tcp:host", "tcp:host:0", "tcp:host:65536", "tcp:::1:3310", "tcp:[1.2.3.4]:1", "http://x:1",
     "tcp:host:١٢"],
)  # fmt: skip
def test_a_bad_address_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=r"engines\.clamd\.address"):
        ClamdEngine(ClamdSettings(address=(address,)))


def test_no_address_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"engines\.clamd\.address"):
        ClamdEngine(ClamdSettings())


def test_a_hung_clamd_does_not_hold_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icapscan.engines.clamd.VERSION_SECONDS", 0.3)
    with run_clamd(tmp_path / "c") as clamd:

        async def work(engine: ClamdEngine) -> None:
            clamd.stop()
            try:
                for _ in range(3):
                    with pytest.raises(IcapscanError, match="clamd at"):
                        await engine.version()
            finally:
                clamd.cont()

        run(clamd.unix_address, work)
