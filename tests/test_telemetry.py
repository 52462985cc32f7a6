"""The log line, the log file, the counters and /metrics."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from icapscan.findings import CLEAN, Anomaly, Finding, Level, Reason, Unscanned, Verdict, summarize
from icapscan.servers.record import TransactionRecord
from icapscan.telemetry import Counters, Gauges, TransactionLog, exposition, format_json, format_plain, merge
from icapscan.telemetry.counters import ROWS_MAX, SCAN_BOUNDS
from icapscan.telemetry.log import WAITING_MAX

RECORD = TransactionRecord(
    client="192.0.2.1:40000",
    service="avscan",
    method="RESPMOD",
    http_method=b"GET",
    url=b"http://example.com/a?b=c",
    user=b"",
    client_ip=b"198.51.100.7",
    size=1234,
    verdict=CLEAN,
    decision="allow",
    reply="200 copy",
    status=200,
    detail="",
    receive_seconds=0.0123,
    scan_seconds=0.002,
    reply_seconds=0.0004,
    bytes_in=1500,
    bytes_out=1700,
    istag="abc123",
)
INFECTED = summarize(
    [Finding("yara", "Eicar_Test", "gzip")],
    [Unscanned(Reason.TIMEOUT, "", "clamd", "It took too long.")],
    [Anomaly("junk-after-coding", "", "gzip")],
)
NOW = 1769903999.1234


def changed(**changes: Any) -> TransactionRecord:
    return dataclasses.replace(RECORD, **changes)


# The plain line


def test_plain_line_of_a_clean_body() -> None:
    assert format_plain(RECORD, NOW) == (
        "2026-01-31T23:59:59.123Z client=192.0.2.1:40000 service=avscan method=RESPMOD http=GET "
        'url=http://example.com/a?b=c client_ip=198.51.100.7 size=1234 verdict=clean decision=allow reply="200 copy" '
        "status=200 us=12300/2000/400 in=1500 out=1700 istag=abc123"
    )


def test_plain_line_names_findings_failures_and_anomalies() -> None:
    line = format_plain(changed(verdict=INFECTED, decision="block", detail="Went wrong."), NOW)
    assert " verdict=infected reason=timeout findings=yara:Eicar_Test@gzip unscanned=clamd:timeout" in line
    assert ' why="It took too long." anomalies=junk-after-coding decision=block' in line
    assert line.endswith(' detail="Went wrong."')


def test_plain_line_counts_what_it_does_not_name() -> None:
    line = format_plain(changed(verdict=summarize([Finding("yara", f"n{i}") for i in range(30)])), NOW)
    assert ",+22" in line and "n7" in line and "n8" not in line


HOSTILE = '\r\n\t\x00\x1b[31m\x7f\x9b\u202e\u2066\u200b\u2028\ufeff\U000e0001"\\ =é日\udcff'
FORBIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


@pytest.mark.parametrize("formatted", [format_plain, format_json], ids=["plain", "json"])
def test_nothing_untrusted_reaches_the_log_raw(formatted: Any) -> None:
    raw = HOSTILE.encode("utf-8", "surrogateescape") + b"\xff\xfe\xc0\xaf"
    verdict = Verdict(
        Level.INFECTED,
        Reason.MALFORMED,
        (Finding(HOSTILE, HOSTILE, HOSTILE),),
        (Unscanned(Reason.MALFORMED, HOSTILE, HOSTILE, HOSTILE),),
        (Anomaly(HOSTILE, HOSTILE, HOSTILE),),
    )
    texts = dict.fromkeys(("client", "service", "method", "decision", "reply", "detail", "istag", "reference"), HOSTILE)
    record = changed(http_method=raw, url=raw, user=raw, client_ip=raw, verdict=verdict, **texts)
    line = formatted(record, NOW)
    assert not FORBIDDEN.search(line)
    line.encode("utf-8")


@given(st.binary(max_size=400), st.text(max_size=400))
def test_any_bytes_and_any_text_make_one_printable_line(data: bytes, text: str) -> None:
    record = changed(url=data, user=data, detail=text, service=text)
    assert format_plain(record, NOW).isprintable()
    line = format_json(record, NOW)
    assert line.isprintable()
    assert json.loads(line)["size"] == 1234


def test_a_value_cannot_pretend_to_be_another_key() -> None:
    line = format_plain(changed(user=b"bob decision=block", url=b'http://x/" reply=404', client="c detail=x"), NOW)
    pairs = re.findall(r' (\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)
    assert len(pairs) == len(dict(pairs))
    found = dict(pairs)
    assert (found["user"], found["url"]) == ('"bob decision=block"', r'"http://x/\" reply=404"')
    assert (found["decision"], found["reply"], found["client"]) == ("allow", '"200 copy"', '"c detail=x"')
    assert "detail" not in found


def test_lengths_are_capped() -> None:
    record = changed(url=b"u" * 100_000, user=b"x" * 100_000, detail="d" * 100_000, client="c" * 100_000)
    for line in (format_plain(record, NOW), format_json(record, NOW)):
        assert len(line) < 8_000
        assert "...(+97952)" in line


def test_a_long_harmless_line_is_the_same_on_the_slow_path() -> None:
    short, long = changed(url=b"http://a/" + b"x" * 100), changed(url=b"http://a/" + b"x" * 600)
    assert format_plain(long, NOW).replace("x" * 600, "x" * 100) == format_plain(short, NOW)


# The JSON line


def test_json_line_has_every_field() -> None:
    fields = json.loads(format_json(changed(verdict=INFECTED), NOW))
    assert fields["time"] == "2026-01-31T23:59:59.123Z"
    assert fields["url"] == "http://example.com/a?b=c"
    assert (fields["verdict"], fields["reason"]) == ("infected", "timeout")
    assert fields["findings"] == [{"engine": "yara", "name": "Eicar_Test", "part": "gzip", "level": "infected"}]
    assert fields["unscanned"] == [{"engine": "clamd", "reason": "timeout", "part": "", "detail": "It took too long."}]
    assert fields["anomalies"] == [{"kind": "junk-after-coding", "part": "", "detail": "gzip"}]
    assert {field.name for field in dataclasses.fields(TransactionRecord)} <= set(fields)


def test_json_line_of_a_request_without_a_scan() -> None:
    fields = json.loads(format_json(changed(verdict=None, service="", method="", status=400), NOW))
    assert fields["verdict"] is None and fields["findings"] == []


def test_json_keeps_what_is_printable() -> None:
    assert json.loads(format_json(changed(user="山田".encode()), NOW))["user"] == "山田"


# The log file


def test_lines_are_written_at_flush_and_appended(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("before\n")
    log = TransactionLog(str(file))
    log.write(RECORD)
    log.write(RECORD)
    assert file.read_text() == "before\n"
    log.flush()
    lines = file.read_text().splitlines()
    assert len(lines) == 3 and all("client=192.0.2.1:40000" in line for line in lines[1:])
    log.write(RECORD)
    log.close()
    log.close()
    assert len(file.read_text().splitlines()) == 4


def test_json_lines_in_the_file(tmp_path: Path) -> None:
    log = TransactionLog(str(tmp_path / "log"), "json")
    log.write(RECORD)
    log.close()
    assert json.loads((tmp_path / "log").read_text())["client"] == "192.0.2.1:40000"


def test_reopen_follows_a_rotated_file(tmp_path: Path) -> None:
    file = tmp_path / "log"
    log = TransactionLog(str(file))
    log.line("one")
    log.flush()
    file.rename(tmp_path / "log.1")
    log.line("two")
    log.reopen()
    log.line("three")
    log.close()
    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"
    assert file.read_text() == "three\n"


def test_two_writers_append_to_one_file(tmp_path: Path) -> None:
    one, other = TransactionLog(str(tmp_path / "log")), TransactionLog(str(tmp_path / "log"))
    for log in (one, other, one):
        log.line("x" * 10_000)
        log.flush()
    assert [len(line) for line in (tmp_path / "log").read_text().splitlines()] == [10_000] * 3
    one.close()
    other.close()


def test_standard_error_is_the_default(capfd: pytest.CaptureFixture[str]) -> None:
    log = TransactionLog()
    log.write(RECORD)
    log.close()
    assert "client=192.0.2.1:40000" in capfd.readouterr().err
    os.fstat(2)  # not closed with the log


def test_a_file_that_cannot_be_written_raises_nothing_and_loses_nothing_soon(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    log = TransactionLog(str(folder / "log"))
    log.line("one")
    log.flush()
    folder.mkdir()
    log.line("two")
    log.flush()
    log.close()
    assert (folder / "log").read_text() == "one\ntwo\n"


def test_a_full_disk_loses_lines_beyond_a_bound_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    log = TransactionLog(str(folder / "log"))
    for _ in range(WAITING_MAX // 1000 + 200):
        log.line("x" * 1000)
    log.flush()
    lost = log.lost
    assert 100 < lost < 300
    folder.mkdir()
    log.flush()
    log.close()
    lines = (folder / "log").read_text().splitlines()
    assert f"{lost} lines are lost" in lines[-1]
    assert len(lines) == WAITING_MAX // 1000 + 200 - lost + 1
    assert log.lost == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_no_space_left_keeps_the_lines() -> None:
    log = TransactionLog("/dev/full")
    for _ in range(3):
        log.line("one")
        log.flush()
    log.close()


def test_a_slow_pipe_gets_whole_lines_and_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.set_blocking(writer, False)
    log = TransactionLog(str(path))
    log._fd = writer
    for index in range(300):
        log.line(f"{index:04d}" + "x" * 996)
    log.flush()  # the pipe takes 64 KiB
    got = b""
    for _ in range(20):
        while True:
            try:
                data = os.read(reader, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            got += data
        log.flush()
    log.close()
    os.close(reader)
    assert [int(line[:4]) for line in got.splitlines()] == list(range(300))


# Counters


def test_counters_start_at_zero_and_snapshots_are_json() -> None:
    empty = Counters().snapshot()
    assert json.loads(json.dumps(empty)) == empty
    assert merge([]) == empty == merge([empty, empty])


def test_counters_count_each_transaction() -> None:
    counters = Counters()
    counters.observe(RECORD)
    counters.observe(changed(verdict=INFECTED, reply="200 block", scan_seconds=99.0))
    counters.observe(changed(verdict=None, method="OPTIONS", reply="200 options", bytes_in=10, bytes_out=0))
    snapshot = counters.snapshot()
    assert ["avscan", "RESPMOD", "200 copy", 1] in snapshot["requests"]
    assert ["avscan", "OPTIONS", "200 options", 1] in snapshot["requests"]
    assert sorted(snapshot["verdicts"]) == [["clean", "", 1], ["infected", "timeout", 1]]
    assert snapshot["findings"] == [["yara", 1]]
    assert snapshot["engine_failures"] == [["clamd", "timeout", 1]]
    assert snapshot["scan_seconds"]["buckets"][SCAN_BOUNDS.index(0.0025)] == 1
    assert snapshot["scan_seconds"]["buckets"][-1] == 1
    assert sum(snapshot["scan_seconds"]["buckets"]) == 2
    assert (snapshot["bytes_in"], snapshot["bytes_out"]) == (3010, 3400)


def test_a_snapshot_does_not_change_later() -> None:
    counters = Counters()
    counters.observe(RECORD)
    snapshot = counters.snapshot()
    before = json.dumps(snapshot)
    counters.observe(RECORD)
    assert json.dumps(snapshot) == before


def test_merge_adds_up_after_a_way_through_json() -> None:
    counters = Counters()
    for record in (RECORD, RECORD, changed(verdict=INFECTED)):
        counters.observe(record)
    one = json.loads(json.dumps(counters.snapshot()))
    merged = merge([one, one, Counters().snapshot()])
    assert ["avscan", "RESPMOD", "200 copy", 6] in merged["requests"]
    assert merged["bytes_in"] == 9000
    assert sum(merged["scan_seconds"]["buckets"]) == 6


def test_peers_cannot_fill_the_memory_with_rows() -> None:
    counters = Counters()
    for index in range(ROWS_MAX * 3):
        counters.observe(changed(service=f"s{index}", method=f"M{index}"))
    rows = counters.snapshot()["requests"]
    assert len(rows) == ROWS_MAX + 1
    assert sum(row[-1] for row in rows) == ROWS_MAX * 3
    assert {row[1] for row in rows} == {"other"}


# /metrics


def test_metrics_have_their_names_and_values() -> None:
    counters = Counters()
    counters.observe(RECORD)
    counters.observe(changed(verdict=INFECTED))
    gauges = Gauges("0.1.0", 'odd"tag\n', True, 2, 7, purse_memory_free=1000, purse_disk_free=2000)
    worker = counters.snapshot() | {"notices": [["mail", "sent", 3], ["webhook", "failed", 1]]}
    text = exposition(merge([worker, counters.snapshot() | {"notices": [["mail", "sent", 2]]}]), gauges).decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["icapscan_requests_total", "200 copy", "RESPMOD", "avscan"] == 4
    assert samples["icapscan_verdicts_total", "", "clean"] == 2
    assert samples["icapscan_verdicts_total", "infected", "timeout"] == 2
    assert samples["icapscan_findings_total", "yara"] == 2
    assert samples["icapscan_engine_failures_total", "clamd", "timeout"] == 2
    assert samples["icapscan_notices_total", "mail", "sent"] == 5
    assert samples["icapscan_notices_total", "failed", "webhook"] == 1
    assert samples["icapscan_scan_seconds_count",] == 4
    assert samples["icapscan_scan_seconds_bucket", "0.001"] == 0
    assert samples["icapscan_scan_seconds_bucket", "0.0025"] == 4
    assert samples["icapscan_bytes_in_total",] == 6000
    assert samples["icapscan_bytes_out_total",] == 6800
    assert samples["icapscan_connections",] == 7
    assert samples["icapscan_workers",] == 2
    assert samples["icapscan_ready",] == 1
    assert samples["icapscan_info", "0.1.0", 'odd"tag\n'] == 1
    assert samples["icapscan_purse_memory_free_bytes",] == 1000
    assert samples["icapscan_purse_disk_free_bytes",] == 2000


def test_only_a_pipe_makes_a_flush_wait(tmp_path: Path) -> None:
    assert not TransactionLog(str(tmp_path / "log")).may_block
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert TransactionLog(str(fifo)).may_block
    os.close(reader)
    assert not TransactionLog("/nowhere/log").may_block
