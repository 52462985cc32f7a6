"""What rspamd does with a mail by the files of ``docs/examples/rspamd``: pass it, refuse it, have it come again."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import mails
from tests.peers.icapscan_server import run_icapscan
from tests.peers.rspamd import run_rspamd


def test_pass_reject_and_soft_reject(tmp_path: Path) -> None:
    with run_icapscan(tmp_path / "server") as server, run_rspamd(tmp_path / "rspamd", server.icap_port) as rspamd:
        assert rspamd.check(mails.clean("clean"))["action"] not in ("reject", "soft reject")
        assert rspamd.check(mails.infected("infected"))["action"] == "reject"
        assert rspamd.check(mails.nested("nested"))["action"] == "reject"
        server.stop()
        answer = rspamd.check(mails.clean("another"))
        assert answer["action"] == "soft reject"
        assert "ICAPSCAN_FAIL" in answer["symbols"]
