"""Every engine passes the one contract suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from icapscan.engines.clamd import ClamdEngine
from icapscan.engines.contract import Engine
from icapscan.engines.hashes import HashEngine
from icapscan.engines.rules import compile_rules
from icapscan.engines.settings import ClamdSettings, HashSettings, YaraSettings
from icapscan.engines.yara import YaraEngine
from tests.conformance.engine import EngineContract
from tests.engines.calling import CallingClamd
from tests.peers.clamd import ClamdPeer, run_clamd

RULES = compile_rules()


@pytest.fixture(scope="module")
def clamd_tcp4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdPeer]:
    with run_clamd(tmp_path_factory.mktemp("tcp4"), tcp=True) as peer:
        yield peer


@pytest.fixture(scope="module")
def clamd_tcp6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClamdPeer]:
    with run_clamd(tmp_path_factory.mktemp("tcp6"), tcp="::1") as peer:
        yield peer


class TestYaraInline(EngineContract):
    works_when_closed = True  # inline matching needs nothing that close frees

    def engine(self) -> Engine:
        return YaraEngine(YaraSettings(inline=1 << 20), RULES)


class TestYaraInThreads(EngineContract):
    def engine(self) -> Engine:
        return YaraEngine(YaraSettings(inline=0), RULES)


class TestHash(EngineContract):
    works_when_closed = True

    def engine(self) -> Engine:
        return HashEngine(HashSettings())


@pytest.mark.usefixtures("each_loop")
class _Clamd(EngineContract):
    address = ""

    def engine(self) -> Engine:
        return ClamdEngine(ClamdSettings(address=(self.address,)), connections=5)


class TestClamdByDescriptor(_Clamd):
    @pytest.fixture(autouse=True)
    def _address(self, clamd_tcp4: ClamdPeer) -> None:
        self.address = clamd_tcp4.unix_address


class TestClamdCallingBack(TestClamdByDescriptor):
    def engine(self) -> Engine:
        return CallingClamd(ClamdSettings(address=(self.address,)), connections=5)


class TestClamdByStream(_Clamd):
    @pytest.fixture(autouse=True)
    def _address(self, clamd_tcp4: ClamdPeer) -> None:
        self.address = str(clamd_tcp4.tcp_address)


class TestClamdByStreamOverIPv6(_Clamd):
    @pytest.fixture(autouse=True)
    def _address(self, clamd_tcp6: ClamdPeer) -> None:
        self.address = str(clamd_tcp6.tcp_address)
