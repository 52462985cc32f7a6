"""The ways of a message through qmail and ``icapscan smtp``, by the files of ``docs/examples/qmail-sandwich`` and
``qmail-front``, with the real tcpserver and tcprules. qmail is no Debian package: a stand-in takes the mail.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e import mails
from tests.peers.dovecot import Dovecot, run_dovecot
from tests.peers.examples import EXAMPLES, SmtpExample, example, run_smtp_example
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.mail import run_swaks
from tests.peers.processes import free_port
from tests.peers.tcpserver import QmailStandIn, Tcpserver, run_script, tcprules

USERS = {"anna@example.com": "blue-Anchor 7"}
FAR = "far@world.test"


class Service(Struct, frozen=True):
    """A run script of the examples: what of it stands for a port and a program, and its rules."""

    script: str
    listen: str
    program: str
    rules: str

    def run(self, folder: Path, qmail: QmailStandIn, port: int) -> Tcpserver:
        where, _, name = self.script.partition("/run-")
        cdb = folder / f"{self.rules}.cdb"
        tcprules(cdb, (EXAMPLES / where / self.rules).read_text())
        changes = {
            "qmaild": "root",
            f"/etc/{self.rules}.cdb": str(cdb),
            self.listen: f"127.0.0.1 {port}",
            self.program: str(qmail.folder / "bin" / "qmail-smtpd"),
        }
        return run_script(folder / name, example(self.script, changes), port, name)


QMAIL = "/var/qmail/bin/qmail-smtpd"
RELAY = Service("qmail-sandwich/run-relay", "0.0.0.0 25", QMAIL, "tcp.smtp")
DELIVERY = Service(
    "qmail-sandwich/run-delivery", "127.0.0.1 1025", "/var/qmail-delivery/bin/qmail-smtpd", "tcp.delivery"
)  # fmt: skip
FRONT_INBOUND = Service("qmail-front/run-inbound", "127.0.0.1 1025", QMAIL, "tcp.inbound")
FRONT_RELAY = Service("qmail-front/run-relay", "127.0.0.1 1026", QMAIL, "tcp.relay")


class Sandwich(Struct, frozen=True):
    """From outside to inside; the two qmail have no queue run: `QmailStandIn.remote` sends what the relay has."""

    outer: Tcpserver
    relay: QmailStandIn
    proxy: SmtpExample
    server: IcapscanServer
    inner: Tcpserver
    delivery: QmailStandIn


@contextlib.contextmanager
def sandwich(folder: Path, config: str, changes: dict[str, str]) -> Iterator[Sandwich]:
    outer, scan, inner = free_port(), free_port(), free_port()
    relay, delivery = (QmailStandIn(folder / name, ["example.com"]) for name in ("qmail", "qmail-delivery"))
    (relay.folder / "control" / "smtproutes").write_text(
        example("qmail-sandwich/smtproutes", {":127.0.0.1:3000": f":127.0.0.1:{scan}"})
    )
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(run_icapscan(folder / "server"))
        inner_server = stack.enter_context(DELIVERY.run(folder, delivery, inner))
        text = example(
            f"qmail-sandwich/{config}",
            {"127.0.0.1:1344": f"127.0.0.1:{server.icap_port}", "127.0.0.1:1025": f"127.0.0.1:{inner}",
             **{old: new.format(scan=scan) for old, new in changes.items()}},
        )  # fmt: skip
        proxy = stack.enter_context(run_smtp_example(folder / "proxy", text))
        outer_server = stack.enter_context(RELAY.run(folder, relay, outer))
        yield Sandwich(outer_server, relay, proxy, server, inner_server, delivery)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandwich]:
    with sandwich(tmp_path_factory.mktemp("qmail"), "icapscan.toml", {"127.0.0.1:3000": "127.0.0.1:{scan}"}) as made:
        yield made


def test_the_sandwich_on_one_host(site: Sandwich) -> None:
    before = len(site.delivery.mails())
    sent = mails.clean("identical")
    for to in (mails.ANNA, FAR):  # from 127.0.0.1, which may relay
        assert mails.send(site.outer.port, sent, to=[to]).startswith("250")
        assert site.relay.remote() == ["250 ok 1795514400 qp 4242"]
    arrived = site.delivery.mails()[before:]
    assert [(sender, recipients) for sender, recipients, _ in arrived] == [
        (mails.SENDER, [to]) for to in (mails.ANNA, FAR)
    ]
    for _, _, message in arrived:
        assert mails.without_fields(message) == sent.replace(b"\r\n", b"\n")
        assert b"(icapscan)" in message.partition(b"From: ")[0]


def test_a_refusal_is_for_good_so_that_the_relay_bounces(site: Sandwich) -> None:
    before = len(site.delivery.mails())
    assert mails.send(site.outer.port, mails.nested("bad")).startswith("250")
    [reply] = site.relay.remote()
    assert reply.startswith("554 5.7.1 Message refused")
    assert len(site.delivery.mails()) == before


def test_the_relay_decides_who_may_relay(site: Sandwich) -> None:
    tcprules(site.outer.folder.parent / "tcp.smtp.cdb", example("qmail-sandwich/tcp.smtp", {"127.": "127.0.0.1"}))
    outsider = ("--local-interface", "127.0.0.2", "--quit-after", "RCPT")
    assert "553 sorry" in run_swaks(site.outer.port, *outsider, to=FAR).text
    assert run_swaks(site.outer.port, *outsider, to=mails.ANNA).ok


def test_nobody_but_the_scanner_gets_to_the_inner_port(site: Sandwich) -> None:
    assert not run_swaks(site.inner.port, "--local-interface", "127.0.0.2", to=mails.ANNA).ok
    site.inner.wait_for_log("deny .*:127.0.0.2:")


def test_on_two_hosts_the_scanner_takes_mail_from_the_relay_alone(tmp_path: Path) -> None:
    rules = tmp_path / "tcp.scanner.cdb"
    tcprules(rules, example("qmail-sandwich/tcp.scanner", {"198.51.100.10": "127.0.0.1"}))
    changes = {"198.51.100.20:3000": "127.0.0.1:{scan}", "/etc/tcp.scanner.cdb": str(rules)}
    with sandwich(tmp_path, "icapscan-two-hosts.toml", changes) as site:
        assert mails.send(site.outer.port, mails.clean("two hosts")).startswith("250")
        assert site.relay.remote()[0].startswith("250")
        stranger = run_swaks(site.proxy.port, "--local-interface", "127.0.0.2", to=mails.ANNA)
        assert not stranger.ok
        assert "554 5.7.1" in stranger.text
        assert len(site.delivery.mails()) == 1


# QMAILQUEUE


def test_qmailqueue_by_tcpservers_rules(tmp_path: Path) -> None:
    qmail, rules, port = QmailStandIn(tmp_path / "qmail", ["example.com"]), tmp_path / "tcp.smtp.cdb", free_port()
    program = str(Path(sys.executable).with_name("icapscan-qmail-queue"))
    # 127.0.0.2 is a stranger, though the example trusts all of 127.
    changes = {"/opt/icapscan/bin/icapscan-qmail-queue": program, "127.": "127.0.0.1"}
    tcprules(rules, example("qmail-queue/tcp.smtp", changes))
    script = example(
        "qmail-queue/run-smtpd",
        {
            "softlimit -m 60000000": "prlimit --as=60000000",  # the same; softlimit is of daemontools
            "qmaild": "root",
            "/etc/tcp.smtp.cdb": str(rules),
            "0.0.0.0 25": f"127.0.0.1 {port}",
            "/var/qmail/bin/qmail-smtpd": str(qmail.folder / "bin" / "qmail-smtpd"),
        },
    )
    with run_icapscan(tmp_path / "server") as server:
        (tmp_path / "qmail-queue.conf").write_text(
            f"ICAP=icap://127.0.0.1:{server.icap_port}/avscan\nQUEUE={qmail.folder}/bin/qmail-queue\n"
        )
        named = f"export ICAPSCAN_CONFIG={tmp_path}/qmail-queue.conf\nexec 2>&1"
        with run_script(tmp_path / "smtpd", script.replace("exec 2>&1", named), port, "smtpd"):
            sent = mails.clean("identical")
            assert mails.send(port, sent).startswith("250")
            assert mails.send(port, mails.nested("bad")).startswith("554 mail server permanently rejected message")
            assert mails.send(port, sent, to=[FAR]).startswith("250")
            assert mails.send(port, sent, to=[FAR], source="127.0.0.2").startswith("553 sorry")
            assert mails.send(port, mails.infected("bad"), source="127.0.0.2").startswith("554 ")
            server.stop()
            assert mails.send(port, sent).startswith("451 ")
    arrived = qmail.mails()
    assert [recipients for _, recipients, _ in arrived] == [[mails.ANNA], [FAR]]
    assert mails.without_fields(arrived[0][2]) == sent.replace(b"\r\n", b"\n")


# One qmail behind icapscan


class Front(Struct, frozen=True):
    proxy: SmtpExample
    inbound: Tcpserver
    relay: Tcpserver
    qmail: QmailStandIn
    rules: Path
    dovecot: Dovecot


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    inbound, relay, outer = free_port(), free_port(), free_port()
    qmail, rules = QmailStandIn(folder / "qmail", ["example.com"]), folder / "tcp.smtp.cdb"
    tcprules(rules, front_rules())
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(run_icapscan(folder / "server"))
        dovecot = stack.enter_context(run_dovecot(folder / "dovecot", USERS))
        inbound_server = stack.enter_context(FRONT_INBOUND.run(folder, qmail, inbound))
        relay_server = stack.enter_context(FRONT_RELAY.run(folder, qmail, relay))
        text = example(
            "qmail-front/icapscan.toml",
            {"127.0.0.1:1344": f"127.0.0.1:{server.icap_port}", "127.0.0.1:1025": f"127.0.0.1:{inbound}",
             "127.0.0.1:1026": f"127.0.0.1:{relay}", "0.0.0.0:25": f"127.0.0.1:{outer}",
             "/etc/tcp.smtp.cdb": str(rules), "/run/dovecot/auth-client": str(dovecot.socket)},
        )  # fmt: skip
        proxy = stack.enter_context(run_smtp_example(folder / "proxy", text))
        yield Front(proxy, inbound_server, relay_server, qmail, rules, dovecot)


def front_rules(more: str = "") -> str:
    """127.0.0.2 is a stranger, though the example's own rules trust all of 127."""
    return more + example("qmail-front/tcp.smtp", {"127.": "127.0.0.1"})


def relays(front: Front, source: str = "127.0.0.2") -> str:
    return mails.send(front.proxy.port, mails.clean("to the world"), to=[FAR], source=source)


def test_mail_from_anybody_for_us_and_relay_clients_by_their_address(front: Front) -> None:
    before = len(front.qmail.mails())
    assert mails.send(front.proxy.port, mails.clean("for us"), source="127.0.0.2").startswith("250")
    assert relays(front).startswith("553 sorry, that domain isn't in my list of allowed rcpthosts")
    assert relays(front, "127.0.0.1").startswith("250")
    assert [recipients for _, recipients, _ in front.qmail.mails()[before:]] == [[mails.ANNA], [FAR]]


def test_pop_before_smtp_with_the_shared_file_while_all_runs(front: Front) -> None:
    assert relays(front).startswith("553 ")
    tcprules(front.rules, front_rules('127.0.0.2:allow,RELAYCLIENT=""\n'))
    assert relays(front).startswith("250")
    tcprules(front.rules, front_rules())
    assert relays(front).startswith("553 ")
    tcprules(front.rules, front_rules("127.0.0.2:deny\n"))
    assert "554 5.7.1" in run_swaks(front.proxy.port, "--local-interface", "127.0.0.2", to=mails.ANNA).text
    tcprules(front.rules, front_rules())


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_auth_at_the_proxy(front: Front, mechanism: str) -> None:
    before = len(front.qmail.mails())
    user, password = next(iter(USERS.items()))
    log_in = ("--local-interface", "127.0.0.2", "--auth", mechanism, "--auth-user", user, "--auth-password")
    assert "535 5.7.8" in run_swaks(front.proxy.port, *log_in, "wrong", to=FAR).text
    assert run_swaks(front.proxy.port, *log_in, password, to=FAR).ok
    assert [recipients for _, recipients, _ in front.qmail.mails()[before:]] == [[FAR]]


def test_the_inner_ports_are_for_icapscan_alone(front: Front) -> None:
    for server in (front.inbound, front.relay):
        assert not run_swaks(server.port, "--local-interface", "127.0.0.2", to=mails.ANNA).ok
        server.wait_for_log("deny .*:127.0.0.2:")
