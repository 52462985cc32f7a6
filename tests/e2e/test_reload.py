"""Signals: reload with good and broken rules, a worker that crashes, a stop in the middle of a scan."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from tests.e2e.raw import Answer, Connection, head, scan
from tests.peers.clamd import run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR
from tests.peers.processes import PeerError, accepts, wait_until

OLD = b"the old marker of these tests"
NEW = b"the new marker of these tests"


def _rule(name: str, marker: bytes) -> str:
    return f'rule {name} {{ strings: $a = "{marker.decode()}" condition: $a }}\n'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "old.yar").write_text(_rule("Old", OLD))
    return folder


def _run(tmp_path: Path, rules: Path, **more: object) -> IcapscanServer:
    return run_icapscan(tmp_path / "icapscan", {"engines.yara.rules": [str(rules)], "server.workers": 2, **more})


def _istag(server: IcapscanServer) -> str:
    return scan(server.address, b"clean").fields["istag"]


def test_reload_takes_new_rules_and_changes_the_istag(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        before = _istag(server)
        assert scan(server.address, OLD).blocked
        assert scan(server.address, NEW).status == 204
        (rules / "new.yar").write_text(_rule("New", NEW))
        server.reload()
        server.wait_until(lambda: scan(server.address, NEW).blocked, "the new rule")
        # all workers: as many connections as it takes to meet each of them
        server.wait_until(lambda: all(scan(server.address, NEW).blocked for _ in range(20)), "the new rule everywhere")
        assert scan(server.address, OLD).blocked
        server.wait_until(lambda: {_istag(server) for _ in range(20)} != {before}, "a new ISTag")
        tags = {_istag(server) for _ in range(20)}
        assert len(tags) == 1
        assert before not in tags
        server.stop()


def test_broken_rule_at_reload_keeps_the_old_ones_and_is_named(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        before = _istag(server)
        (rules / "broken.yar").write_text(_rule("New", NEW) + "\nrule Broken { condition: no_such_thing }\n")
        server.reload()
        server.wait_for_log(r"broken\.yar")
        line = next(line for line in server.log_text().splitlines() if "broken.yar" in line)
        assert re.search(r"broken\.yar\D+3\b", line), line
        for _ in range(10):
            assert scan(server.address, OLD).blocked
            assert scan(server.address, NEW).status == 204
        assert _istag(server) == before
        assert server.ready()
        (rules / "broken.yar").write_text(_rule("New", NEW))
        server.reload()
        server.wait_until(
            lambda: all(scan(server.address, NEW).blocked for _ in range(20)), "the mended rule everywhere"
        )
        server.stop()


def test_broken_configuration_at_reload_keeps_the_old_one_and_is_named(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        text = server.config.read_text()
        server.config.write_text(text + "server.wrokers = 3\n")
        server.reload()
        server.wait_for_log(r"server\.wrokers")
        line = next(line for line in server.log_text().splitlines() if "wrokers" in line)
        assert "icapscan.toml" in line
        assert re.search(rf"\b{text.count(chr(10)) + 1}\b", line), line
        assert scan(server.address, OLD).blocked
        assert server.ready()
        server.stop()


def test_broken_rule_at_start_stops_it_before_it_listens(tmp_path: Path, rules: Path) -> None:
    (rules / "broken.yar").write_text("rule Broken { condition: no_such_thing }\n")
    with _run_unready(tmp_path, {"engines.yara.rules": [str(rules)]}) as server:
        code = server.wait()
        assert code not in (0, None)
        assert re.search(r"broken\.yar\D+1\b", server.log_text())
        assert "Traceback" not in server.log_text()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("server.workers", "many", "number|integer|int"),
        ("engines.clamd.address", ["somewhere"], "unix:|tcp:"),
        ("no.such.key", 1, "no"),
        ("limits.seconds", -1, "0"),
    ],
)
def test_bad_configuration_stops_it_before_it_listens(tmp_path: Path, key: str, value: object, expected: str) -> None:
    with _run_unready(tmp_path, {key: value}) as server:
        code = server.wait()
        assert code not in (0, None)
        text = server.log_text()
        assert "icapscan.toml" in text
        assert key.split(".")[0] in text
        assert re.search(expected, text)
        assert "Traceback" not in text
        assert not accepts(server.address)


def _run_unready(tmp_path: Path, settings: dict[str, object]) -> IcapscanServer:
    return run_icapscan(tmp_path / "icapscan", settings, ready=False)


def _wait_until_blocked(server: IcapscanServer, marker: bytes) -> None:
    server.wait_until(lambda: scan(server.address, marker).blocked, f"{marker!r} to be blocked")


def _wait_until_loaded(server: IcapscanServer, times: int) -> None:
    server.wait_until(lambda: server.log_text().count("was loaded again") >= times, f"reload {times}")


def _wait_until_gone(server: IcapscanServer, worker: int) -> None:
    server.wait_until(lambda: worker not in server.worker_pids(), f"the end of worker {worker}")


def test_reload_under_load_drops_no_connection(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        over = threading.Event()
        wrong: list[Answer] = []
        counts = [0] * 6

        def load(number: int) -> None:
            with Connection(server.address) as connection:
                while not over.is_set():
                    infected = connection.scan(OLD)
                    clean = connection.scan(b"clean %d" % number)
                    counts[number] += 1
                    if not infected.blocked or clean.status != 204:
                        wrong.extend((infected, clean))
                        return

        threads = [threading.Thread(target=load, args=(number,)) for number in range(len(counts))]
        for thread in threads:
            thread.start()
        try:
            for number in range(5):
                (rules / "new.yar").write_text(_rule(f"New{number}", b"%d " % number + NEW))
                server.reload()
                _wait_until_blocked(server, b"%d " % number + NEW)
            seen = list(counts)
            wait_until(
                lambda: all(now > then for now, then in zip(counts, seen, strict=True)) or bool(wrong), "more scans"
            )
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        server.stop()


def test_a_worker_that_is_several_reloads_behind_catches_up(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        server.wait_until(lambda: len(server.worker_pids()) == 2, "two workers")
        server.wait_ready()
        before = sorted(server.worker_pids())
        slow = before[0]
        os.kill(slow, signal.SIGSTOP)
        try:
            for number in range(4):
                (rules / "new.yar").write_text(_rule(f"New{number}", b"%d " % number + NEW))
                server.reload()
                _wait_until_loaded(server, number + 1)
        finally:
            os.kill(slow, signal.SIGCONT)
        server.wait_until(
            lambda: all(scan(server.address, b"3 " + NEW).blocked for _ in range(20)), "the new rule everywhere"
        )
        assert sorted(server.worker_pids()) == before
        server.stop()


def test_a_killed_worker_is_replaced(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        server.wait_until(lambda: len(server.worker_pids()) == 2, "two workers")
        before = set(server.worker_pids())
        for victim in before:
            os.kill(victim, signal.SIGKILL)
            _wait_until_gone(server, victim)
            server.wait_until(lambda: len(server.worker_pids()) == 2, "two workers again")
        assert not before & set(server.worker_pids())
        server.wait_ready()
        server.wait_until(lambda: all(scan(server.address, OLD).blocked for _ in range(20)), "scans again")
        server.stop()


def test_s19_sigterm_in_the_middle_of_a_body_lets_it_finish(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules) as server:
        with (
            Connection(server.address) as infected,
            Connection(server.address) as clean,
            Connection(server.address) as idle,
        ):
            assert idle.scan(b"clean").status == 204
            infected.send(head(100_000 + len(OLD)))
            infected.send_chunks([b"x" * 100_000])
            clean.send(head(100_000, allow_204=False))
            clean.send_chunks([b"y" * 60_000])
            server.wait_until(lambda: "icapscan_connections 3.0" in server.admin("/metrics")[1], "3 connections")
            server.signal(signal.SIGTERM)
            wait_until(lambda: not accepts(server.address), "no new connections")
            infected.send_chunks([OLD])
            infected.send_end()
            clean.send_chunks([b"y" * 40_000])
            clean.send_end()
            blocked, copied = infected.read_answer(), clean.read_answer()
            assert blocked.blocked
            assert blocked.fields["connection"] == "close"
            assert (copied.status, copied.body) == (200, b"y" * 100_000)
            assert copied.fields["connection"] == "close"
            assert infected.at_end()
            assert clean.at_end()
            assert idle.at_end()
        server.stop()


def test_s19_sigterm_while_clamd_scans(tmp_path: Path) -> None:
    with run_clamd(tmp_path / "clamd") as clamd:
        settings = {"engines.clamd.address": [clamd.unix_address], "engines.yara.enabled": False}
        with run_icapscan(tmp_path / "icapscan", settings) as server, Connection(server.address) as connection:
            clamd.stop()
            content = EICAR
            connection.send(head(len(content)) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
            server.wait_until(lambda: "icapscan_connections 1.0" in server.admin("/metrics")[1], "the connection")
            server.signal(signal.SIGTERM)
            wait_until(lambda: not accepts(server.address), "no new connections")
            clamd.cont()
            answer = connection.read_answer()
            assert answer.blocked
            assert answer.fields["connection"] == "close"
            server.stop()


def test_a_drain_that_takes_too_long_ends(tmp_path: Path, rules: Path) -> None:
    with _run(tmp_path, rules, **{"server.drain_timeout": 1}) as server, Connection(server.address) as connection:
        connection.send(head(1000))
        connection.send_chunks([b"x" * 500])
        server.wait_until(lambda: "icapscan_connections 1.0" in server.admin("/metrics")[1], "the connection")
        server.signal(signal.SIGTERM)
        try:
            code = server.wait(30)
        except PeerError as error:
            raise AssertionError("it waits for ever for a client that sends nothing") from error
        assert code == 0
        answer = connection.read_answer()
        assert not answer.passed
