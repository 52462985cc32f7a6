"""Answers in the words of the command line."""

from __future__ import annotations

import hashlib
import io

import msgspec
import pytest

from icapscan.clients.icap import IcapClient
from icapscan.clients.report import Report, report_scan
from icapscan.clients.result import Mode
from icapscan.clients.settings import Timeouts
from tests.clients.fakes import HTTP_403, HTTP_OK, NO_CONTENT, Fake, Reply, answer, run, script, settings

BODY = b"hello"


def reported(reply: Reply, mode: Mode = Mode.RESPMOD) -> Report:
    async def main() -> Report:
        how = settings(options="never", timeouts=Timeouts(answer=0.2))
        async with Fake(reply) as fake, IcapClient(fake.url, settings=how) as client:
            report = await report_scan(client, "dir/a.bin", io.BytesIO(BODY), mode=mode)
            assert report.server == fake.url and fake.scans[0].method == mode.value.decode()
            return report

    return run(main())


def hit(value: bytes) -> bytes:
    return answer(fields=b"X-Infection-Found: " + value + b"\r\n", res=HTTP_403, body=b"page")


@pytest.mark.parametrize(
    ("reply", "verdict", "reason", "names", "code"),
    [
        (NO_CONTENT, "clean", None, [], 0),
        (answer(res=HTTP_OK, body=BODY), "clean", None, [], 0),
        (hit(b"Type=0; Resolution=2; Threat=Eicar;"), "infected", None, ["Eicar"], 1),
        (hit(b"Type=1; Resolution=2; Threat=No exe;"), "suspicious", None, ["No exe"], 1),
        (answer(res=HTTP_403, body=b"page"), "suspicious", None, [], 1),
        (answer(res=HTTP_OK, body=b"other"), "suspicious", None, [], 1),
        (hit(b"Type=2; Resolution=2; Threat=Encrypted container violation;"), "unscanned", "encrypted", [], 2),
        (hit(b"Type=2; Resolution=2; Threat=Container size violation"), "unscanned", "over-limit", [], 2),
        (hit(b"Type=2; Resolution=2; Threat=unsupported;"), "unscanned", "unsupported", [], 2),
        (hit(b"Type=2;"), "unscanned", "unsupported", [], 2),
        (answer(res=b"HTTP/1.1 500 Failed\r\n\r\n", body=b"page"), "unscanned", "engine-failed", [], 2),
        (answer(b"503 Busy"), "unscanned", "engine-failed", [], 2),
        (script("close"), "unscanned", "engine-failed", [], 2),
        (script("body", "hang"), "unscanned", "timeout", [], 2),
        (script("body", b"HTTP/1.1 200 OK\r\n\r\n", "hang"), "unscanned", "engine-failed", [], 2),
    ],
)
def test_c38_only_a_clean_answer_is_reported_as_clean(
    reply: Reply, verdict: str, reason: str | None, names: list[str], code: int
) -> None:
    report = reported(reply)
    assert (report.verdict, report.reason, report.exit_code) == (verdict, reason, code)
    assert [finding.name for finding in report.findings] == names
    assert report.size == 5 and report.sha256 == hashlib.sha256(BODY).hexdigest() and report.path == "dir/a.bin"


def test_json_of_a_report() -> None:
    given = msgspec.json.decode(msgspec.json.encode(reported(hit(b"Type=0; Resolution=2; Threat=Eicar;"), Mode.REQMOD)))
    assert list(given)[:7] == ["path", "verdict", "reason", "findings", "anomalies", "size", "sha256"]
    assert given["findings"] == [{"engine": "icap", "name": "Eicar", "part": ""}]
    assert given["status"] == 200 and given["istag"] is None and given["outcome"] == "infected" and given["whole"]
    failed = msgspec.json.decode(msgspec.json.encode(reported(answer(b"404 No"))))
    assert failed["status"] == 404 and failed["outcome"] is None and "404" in failed["error"]
