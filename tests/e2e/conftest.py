"""What the end-to-end tests share: the logs of all running peers with each failure."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.peers.processes import LOG_SHOWN, running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in running:
            text = process.log_text()[-LOG_SHOWN:]
            report.sections.append((f"{process.name} (pid {process.pid}, {process.folder})", text))
    return report
