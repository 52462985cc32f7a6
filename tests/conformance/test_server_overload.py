"""More than an engine can bear: an error at once, and never a pass that another engine would not have given."""

from __future__ import annotations

import pytest

from icapscan.engines.contract import Part, Report
from icapscan.findings import Reason, Unscanned
from icapscan.policy.settings import PolicySettings
from tests.conformance.fakes import Fake, FindsEicar
from tests.conformance.live import Live
from tests.wire.samples import EICAR, chunked, respmod


class Overrun(Fake):
    """Has a queue that is too long for whatever comes."""

    name = "overrun"

    def __init__(self) -> None:
        self.asked = 0

    def hopeless(self, seconds: float) -> bool:
        return True

    def overdue(self) -> Unscanned:
        return Unscanned(Reason.TIMEOUT, "", self.name, "Too many wait.")

    async def scan(self, part: Part, seconds: float) -> Report:
        self.asked += 1
        return Report(self.name, unscanned=(Unscanned(Reason.TIMEOUT, part.path, self.name, "Too many wait."),))


@pytest.mark.parametrize("body", [b"harmless", EICAR])
def test_the_refusal_comes_before_any_scan_and_keeps_the_connection(body: bytes) -> None:
    overrun, eicar = Overrun(), FindsEicar()
    with Live(eicar, overrun) as live, live.connect() as peer:
        for _ in range(3):
            answer = peer.ask(respmod(chunked(body)))
            assert (answer.status, answer.closes) == (503, False)
            assert answer.get("Retry-After") is not None
    assert (eicar.scanned, overrun.asked) == ([], 0)
    assert {(one.decision, one.size, one.verdict.reason) for one in live.records if one.verdict} == {
        ("error", len(body), Reason.TIMEOUT)
    }


def test_where_policy_passes_what_was_not_scanned_in_time_the_other_engines_are_asked() -> None:
    eicar = FindsEicar()
    with Live(eicar, Overrun(), policy=PolicySettings(failures="allow")) as live, live.connect() as peer:
        assert peer.ask(respmod(chunked(EICAR))).get("X-Infection-Found") is not None
        assert peer.ask(respmod(chunked(b"harmless"))).status == 204
    assert eicar.scanned == [EICAR, b"harmless"]
