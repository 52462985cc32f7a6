"""Nothing lost: mails through the proxy while it, the scanner, clamd and the next hop are killed and started at random.

Every mail that got 250 is delivered (a duplicate after a crash is allowed, and counted), every other one was answered
4xx or 5xx or its connection broke, and none with EICAR is delivered. Half of them go through a Postfix in front, which
tries again by itself: of those, every clean one arrives.
"""

from __future__ import annotations

import base64
import collections
import os
import random
import re
import signal
import smtplib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.clamd import ClamdPeer, run_clamd
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR
from tests.peers.postfix import Postfix, maildir_lines, run_postfix
from tests.peers.processes import Process, accepts, free_port, wait_until

CLIENTS = 6
PAUSE = 0.5
"""Seconds between two mails of a client, so that all of it lasts longer than a few deaths."""
KILL, TERM = signal.SIGKILL, signal.SIGTERM
FRONT = """\
relayhost = [127.0.0.1]:%d
smtpd_relay_restrictions = permit_mynetworks, reject
mynetworks = 127.0.0.0/8
smtp_connection_cache_on_demand = no
"""
NUMBER = re.compile(rb"^X-Number: (\d+)\r?$", re.MULTILINE)


def message(number: int, infected: bool) -> bytes:
    body = base64.encodebytes(EICAR if infected else b"%d clean " % number * 200).decode()
    text = (
        f"From: a@outside.test\nTo: reader@inside.test\nSubject: {number}\nX-Number: {number}\nMIME-Version: 1.0\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nHello\n"
        f"--b\nContent-Type: application/octet-stream; name=a.com\nContent-Transfer-Encoding: base64\n\n{body}--b--\n"
    )
    return text.replace("\n", "\r\n").encode()


class Parts:
    """Everything that may die, and how it comes back."""

    def __init__(self, folder: Path, clamd: ClamdPeer, serve: IcapscanServer, last: Postfix) -> None:
        self.folder = folder
        self.clamd = clamd
        self.serve = serve
        self.last = last
        self.port = free_port()
        self.smtp = self._start_smtp()
        self.deaths: collections.Counter[str] = collections.Counter()

    def _start_smtp(self) -> Process:
        (self.folder / "smtp.toml").write_text("[smtp]\nmax_per_client = 200\n[smtp.timeouts]\nscan = 20\nreply = 20\n")
        icap = f"icap://127.0.0.1:{self.serve.icap_port}/avscan"
        listen, hop = f"127.0.0.1:{self.port}", f"127.0.0.1:{self.last.port}"
        command: list[str | Path] = [sys.executable, "-m", "icapscan", "smtp", "--listen", listen, "--next-hop", hop]
        command += ["--icap", icap, "--config", self.folder / "smtp.toml"]
        smtp = Process("icapscan-smtp", command, self.folder)
        smtp.wait_until(lambda: accepts(("127.0.0.1", self.port)), "the proxy's port")
        return smtp

    def proxy(self, pause: float, number: signal.Signals) -> None:
        self.smtp.signal(number)
        self.smtp.end()
        time.sleep(pause)
        self.smtp = self._start_smtp()

    def worker(self, pause: float, number: signal.Signals) -> None:
        workers = self.serve.worker_pids()
        if workers:
            os.kill(random.choice(workers), number)
        time.sleep(pause)

    def scanner(self, pause: float, number: signal.Signals) -> None:
        old = self.serve
        workers = old.worker_pids()
        old.signal(number)
        old.end()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers' end")
        time.sleep(pause)
        text = old.config.read_text()
        self.serve = IcapscanServer(old.folder, text, old.icap_port, old.admin_port)
        self.serve.wait_ready()

    def engine(self, pause: float, number: signal.Signals) -> None:
        self.clamd.kill()
        time.sleep(pause)
        self.clamd.restart()

    def hop(self, pause: float, number: signal.Signals) -> None:
        self.last.kill()
        time.sleep(pause)
        self.last = self.last.start_again()


class Chaos(threading.Thread):
    """Kills one part after the other until told to stop; all of them are there again at its end."""

    def __init__(self, parts: Parts, seed: int) -> None:
        super().__init__(name="chaos", daemon=True)
        self._parts = parts
        self._random = random.Random(seed)
        self.over = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        parts = self._parts
        kinds: list[tuple[Callable[[float, signal.Signals], None], signal.Signals]] = [
            (parts.proxy, KILL), (parts.proxy, TERM), (parts.worker, KILL), (parts.scanner, KILL),
            (parts.scanner, TERM), (parts.engine, KILL), (parts.hop, KILL),
        ]  # fmt: skip
        order: list[tuple[Callable[[float, signal.Signals], None], signal.Signals]] = []
        try:
            while not self.over.wait(self._random.uniform(1.0, 3.0)):
                order = order or self._random.sample(kinds, len(kinds))
                kill, number = order.pop()
                self._parts.deaths[f"{kill.__name__} {number.name}"] += 1
                kill(self._random.uniform(0.0, 0.8), number)
        except BaseException as error:
            self.failure = error


def send(port: int, number: int, infected: bool, seen: dict[int, int]) -> None:
    """One mail; ``seen`` gets the code of the final reply, 0 where the connection broke before it."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=90) as client:
            refused = client.sendmail("a@outside.test", ["reader@inside.test"], message(number, infected))
            assert refused == {}
            seen[number] = 250
    except smtplib.SMTPRecipientsRefused as error:
        seen[number] = next(iter(error.recipients.values()))[0]
    except smtplib.SMTPResponseException as error:
        seen[number] = error.smtp_code
    except (smtplib.SMTPException, OSError):
        seen.setdefault(number, 0)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("count", [240, pytest.param(2000, marks=pytest.mark.full)])
def test_nothing_is_lost_and_nothing_bad_arrives(tmp_path: Path, count: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with (
        run_clamd(tmp_path / "clamd") as clamd,
        run_postfix(tmp_path / "last", main=maildir_lines(), name="last") as last,
        run_icapscan(
            tmp_path / "icapscan",
            {"server.workers": 2, "engines.clamd.address": [clamd.unix_address], "server.drain_timeout": 3},
        ) as serve,
    ):
        parts = Parts(tmp_path, clamd, serve, last)
        with run_postfix(tmp_path / "front", main=FRONT % parts.port, name="front") as front:
            try:
                direct, queued, infected = _through_chaos(parts, front, count, seed)
            finally:
                parts.smtp.end()
                parts.serve.end()
                parts.last.end()
        delivered = collections.Counter(
            int(found[1]) for mail in parts.last.maildir() if (found := NUMBER.search(mail)) is not None
        )
    taken = {number for number, code in direct.items() if code == 250}
    codes = collections.Counter(direct.values())
    doubled = sum(times - 1 for times in delivered.values())
    print(
        f"direct {dict(codes)}, in front {len(queued)}, delivered {len(delivered)}, doubled {doubled}, {parts.deaths}"
    )
    assert taken - delivered.keys() == set(), "mails that got 250 and were not delivered"
    assert infected & delivered.keys() == set(), "mails with EICAR that were delivered"
    assert {number for number in queued if number not in infected} - delivered.keys() == set()
    assert set(codes) <= {0, 250, 421, 450, 451, 452, 454, 550, 554}, codes
    assert len(taken) > count // 20 and codes[250] < sum(codes.values()), "too little was killed, or too much"
    assert parts.deaths.total() >= 3, parts.deaths


def _through_chaos(parts: Parts, front: Postfix, count: int, seed: int) -> tuple[dict[int, int], set[int], set[int]]:
    """Codes of what was sent straight to the proxy, numbers that the Postfix in front took, and the infected ones."""
    choose = random.Random(seed + 1)
    infected = {number for number in range(count) if choose.random() < 0.1}
    direct: dict[int, int] = {}
    in_front: dict[int, int] = {}
    left = iter(range(count))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            if number % 2:
                send(front.port, number, number in infected, in_front)
            else:
                send(parts.port, number, number in infected, direct)
            time.sleep(PAUSE)

    chaos = Chaos(parts, seed)
    chaos.start()
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    chaos.over.set()
    chaos.join()
    if chaos.failure is not None:
        raise chaos.failure
    parts.serve.wait_ready()
    front.flush()
    front.wait_until(lambda: _settled(front), "an empty queue in front", 180.0)
    parts.last.wait_empty()
    return direct, {number for number, code in in_front.items() if code == 250}, infected


def _settled(front: Postfix) -> bool:
    if front.queued() == 0:
        return True
    front.flush()
    time.sleep(1.0)
    return False
