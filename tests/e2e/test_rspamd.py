"""rspamd with its scanner type ``icap`` against icapscan: part by part as it does by default, and whole mails."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from msgspec import Struct

from tests.peers.clamd import run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR
from tests.peers.rspamd import Rspamd, run_rspamd

MAIL = """\
From: Sender <a@icapscan.test>
To: Reader <b@icapscan.test>
Subject: a mail
Date: Tue, 24 Nov 2026 10:00:00 +0000
Message-ID: <{name}@icapscan.test>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="limit"

--limit
Content-Type: text/plain; charset=utf-8

Hello {name}.
--limit
Content-Type: application/octet-stream; name="file.com"
Content-Disposition: attachment; filename="file.com"
Content-Transfer-Encoding: base64

{attachment}
--limit--
"""


class Mailer(Struct, frozen=True):
    icapscan: IcapscanServer
    by_part: Rspamd
    whole: Rspamd


@pytest.fixture(scope="module")
def mailer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailer]:
    folder = tmp_path_factory.mktemp("rspamd")
    with (
        run_clamd(folder / "clamd") as clamd,
        run_icapscan(folder / "icapscan", {"engines.clamd.address": [clamd.unix_address]}) as icapscan,
        run_rspamd(folder / "by-part", icapscan.icap_port) as by_part,
        run_rspamd(folder / "whole", icapscan.icap_port, by_part=False) as whole,
    ):
        yield Mailer(icapscan, by_part, whole)


def _mail(name: str, attachment: bytes) -> bytes:
    text = MAIL.format(name=name, attachment=base64.encodebytes(attachment).decode())
    return text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("way", ["by_part", "whole"])
def test_clean_mail(mailer: Mailer, way: str) -> None:
    rspamd: Rspamd = getattr(mailer, way)
    symbols = rspamd.check(_mail(f"clean-{way}", b"nothing bad " * 500))["symbols"]
    assert not [symbol for symbol in symbols if symbol.startswith("ICAPSCAN")]
    rspamd.wait_for_log("icapscan.*is clean")  # it did ask


@pytest.mark.parametrize("way", ["by_part", "whole"])
def test_infected_mail(mailer: Mailer, way: str) -> None:
    rspamd: Rspamd = getattr(mailer, way)
    symbols = rspamd.check(_mail(f"infected-{way}", EICAR))["symbols"]
    assert "ICAPSCAN" in symbols
    assert any("eicar" in option.lower() for option in symbols["ICAPSCAN"]["options"])
    assert "ICAPSCAN_FAIL" not in symbols


def test_several_mails_in_turn(mailer: Mailer) -> None:
    for number in range(10):
        clean = mailer.by_part.check(_mail(f"turn-{number}", b"%d " % number * 2000))["symbols"]
        infected = mailer.by_part.check(_mail(f"bad-{number}", EICAR))["symbols"]
        assert ("ICAPSCAN" in clean, "ICAPSCAN" in infected) == (False, True)


def test_an_engine_failure_is_a_failure_for_rspamd(mailer: Mailer, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rspamd-broken")
    with (
        run_clamd(folder / "clamd") as clamd,
        run_icapscan(
            folder / "icapscan",
            {"engines.clamd.address": [clamd.unix_address], "engines.yara.enabled": False, "limits.seconds": 2},
        ) as icapscan,
        run_rspamd(folder / "rspamd", icapscan.icap_port) as rspamd,
    ):
        clamd.kill()
        symbols = rspamd.check(_mail("broken", EICAR))["symbols"]
        assert "ICAPSCAN" not in symbols
        assert "ICAPSCAN_FAIL" in symbols
