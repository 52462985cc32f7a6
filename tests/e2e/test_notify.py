"""Notices from `icapscan serve` as it is started: configuration, workers, counters, and the end of the process."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.raw import scan
from tests.notify.made import ADMIN, SECRET_TEXT, HttpSink
from tests.peers.icapscan_server import run_icapscan
from tests.peers.origin import EICAR
from tests.quarantine.smtp_server import SmtpServer

RULE = '\n[[policy.rules]]\nname = "viruses"\nwhen = { verdict = "infected" }\naction = ["block", "notify"]\n'


def test_mails_and_calls_are_sent_counted_and_not_lost_at_the_end(tmp_path: Path) -> None:
    with SmtpServer() as relay, HttpSink() as hook:
        given: dict[str, object] = {
            "server.workers": 2,
            "notify.relay": relay.address,
            "notify.from_address": "icapscan@example.org",
            "notify.administrators": [ADMIN],
            "notify.webhook": hook.url,
            "notify.webhook_secret": SECRET_TEXT,
        }
        with run_icapscan(tmp_path, given, text=RULE) as icapscan:
            assert scan(icapscan.address, EICAR).blocked and scan(icapscan.address, b"clean").status == 204

            def counted() -> bool:
                said = icapscan.admin("/metrics")[1]
                return all(
                    f'icapscan_notices_total{{channel="{channel}",outcome="sent"}} 1.0' in said
                    for channel in ("mail", "webhook")
                )

            icapscan.wait_until(counted, "one mail and one call in /metrics")
            for _ in range(3):
                assert scan(icapscan.address, EICAR).blocked
            icapscan.stop()  # at once: what is queued goes out before the process ends
    assert len(relay.mails) == len(hook.posted) == 4


def test_a_rule_that_notifies_nobody_does_not_start(tmp_path: Path) -> None:
    with run_icapscan(tmp_path, text=RULE, ready=False) as icapscan:
        assert icapscan.wait(60) == 3
        assert '"notify" needs somebody to tell' in icapscan.log_text()
