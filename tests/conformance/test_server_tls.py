"""ICAPS: TLS from the first byte (PROTOCOL S2, D3, D4, D114, D115)."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from icapscan.servers.listen import tls_context
from icapscan.servers.settings import ServerSettings
from tests.conformance.live import PATIENCE, Live, Peer, with_server
from tests.conftest import missing
from tests.wire.samples import EICAR, chunk, chunked, options, respmod


def openssl(*arguments: str) -> bool:
    """Run openssl; whether it succeeded."""
    program = shutil.which("openssl")
    if program is None:
        missing("openssl makes the certificates of the TLS tests; install the package openssl")
    return subprocess.run([program, *arguments], capture_output=True, timeout=PATIENCE).returncode == 0


def make_certificate(folder: Path, name: str, *, expired: bool = False) -> tuple[str, str]:
    """Paths of a certificate, signed by itself, and its key."""
    certificate, request, key = (str(folder / f"{name}.{kind}") for kind in ("pem", "csr", "key"))
    fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    if not expired:
        assert openssl("req", "-x509", *fresh, "-days", "30", "-out", certificate, *subject)
        return certificate, key
    assert openssl("req", "-new", *fresh, "-out", request, *subject)
    sign = ["x509", "-req", "-in", request, "-key", key, "-out", certificate]
    past = ["-not_before", "20200101000000Z", "-not_after", "20200201000000Z"]  # OpenSSL 3.4 and later
    assert openssl(*sign, *past) or openssl(*sign, "-days", "-1")
    return certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Certificates and keys: of the server, of a client that it knows, and of one that it does not."""
    folder = tmp_path_factory.mktemp("tls")
    return {name: make_certificate(folder, name) for name in ("server", "client", "stranger")}


Certificates = dict[str, tuple[str, str]]


def settings(certificates: Certificates, **changes: object) -> ServerSettings:
    """Server settings with TLS."""
    certificate, key = certificates["server"]
    return with_server(tls_listen=("127.0.0.1:0",), tls_certificate=certificate, tls_key=key, **changes)


def client_context(certificates: Certificates, name: str | None = None) -> ssl.SSLContext:
    """A client that trusts the server's certificate, and shows its own if it has one."""
    context = ssl.create_default_context(cafile=certificates["server"][0])
    if name is not None:
        context.load_cert_chain(*certificates[name])
    return context


def secure(live: Live, context: ssl.SSLContext) -> Peer:
    """A TLS connection to a server."""
    plain = socket.create_connection(live.address, PATIENCE)
    return Peer(context.wrap_socket(plain, server_hostname="127.0.0.1"))


def refused(live: Live, context: ssl.SSLContext) -> bool:
    """Whether the server ends the connection before it answers anything (TLS 1.3 tells so behind the handshake)."""
    try:
        with secure(live, context) as peer:
            peer.send(options())
            return peer.socket.recv(1000) == b""
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return True


def test_s2_icaps_from_the_first_byte(certificates: Certificates) -> None:
    chosen = settings(certificates)
    with Live(server=chosen, tls=tls_context(chosen)) as live:
        with secure(live, client_context(certificates)) as peer:
            assert peer.ask(options(b"icaps://127.0.0.1/avscan")).status == 200
            assert peer.ask(respmod(uri=b"icaps://127.0.0.1:11344/avscan")).status == 204
            assert peer.ask(respmod(chunked(EICAR))).get("X-Infection-Found") is not None
            body = bytes(range(256)) * 8000
            assert peer.ask(respmod(chunked(body, 60_000), b"")).body == body
            answer = peer.ask(options(fields=b"Connection: close\r\n"))
            assert answer.closes
            assert peer.rest() == b""
        with secure(live, client_context(certificates)) as peer:
            answer = peer.ask(b"GET / HTTP/1.1\r\n\r\n")
            assert (answer.status, answer.closes) == (400, True)


def test_s2_no_tls_port_needs_no_certificate() -> None:
    assert ServerSettings().tls_listen == ()
    assert tls_context(ServerSettings()) is None


def test_d4_plain_icap_on_the_tls_port(certificates: Certificates) -> None:
    chosen = settings(certificates)
    with Live(server=chosen, tls=tls_context(chosen)) as live, secure(live, client_context(certificates)) as other:
        with live.connect() as peer:
            peer.send(options())
            assert b"ICAP" not in peer.rest_or_reset()
        assert other.ask(respmod()).status == 204


def test_d3_tls_on_the_plain_port(certificates: Certificates) -> None:
    with Live() as live, live.bystander(), pytest.raises(ssl.SSLError):
        secure(live, client_context(certificates))


def test_d114_a_silent_handshake_is_ended(certificates: Certificates) -> None:
    chosen = settings(certificates, head_timeout=0.3)
    with Live(server=chosen, tls=tls_context(chosen)) as live:
        for start in (b"", b"\x16\x03\x01\x02\x00\x01"):
            with live.connect() as peer:
                peer.send(start)
                assert b"ICAP" not in peer.rest_or_reset()
        with secure(live, client_context(certificates)) as peer:
            assert peer.ask(respmod()).status == 204


def test_d114_client_certificates(certificates: Certificates) -> None:
    chosen = settings(certificates, tls_client_ca=certificates["client"][0])
    with Live(server=chosen, tls=tls_context(chosen)) as live:
        for name in (None, "stranger"):
            assert refused(live, client_context(certificates, name))
        assert live.records == []
        with secure(live, client_context(certificates, "client")) as peer:
            assert peer.ask(respmod()).status == 204


def test_d114_an_expired_client_certificate(certificates: Certificates, tmp_path: Path) -> None:
    old = make_certificate(tmp_path, "old", expired=True)
    chosen = settings(certificates, tls_client_ca=old[0])
    with Live(server=chosen, tls=tls_context(chosen)) as live:
        assert refused(live, client_context({**certificates, "old": old}, "old"))
        assert live.records == []


def test_d114_no_renegotiation(certificates: Certificates) -> None:
    context = tls_context(settings(certificates))
    assert context is not None
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_d114_an_oversized_server_name(certificates: Certificates) -> None:
    name = b"n" * 15_000
    sni = (len(name) + 3).to_bytes(2) + b"\x00" + len(name).to_bytes(2) + name
    extensions = b"\x00\x00" + len(sni).to_bytes(2) + sni
    hello = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    hello += len(extensions).to_bytes(2) + extensions
    handshake = b"\x01" + len(hello).to_bytes(3) + hello
    chosen = settings(certificates)
    with Live(server=chosen, tls=tls_context(chosen)) as live:
        with live.connect() as peer:
            peer.send_what_goes(b"\x16\x03\x01" + len(handshake).to_bytes(2) + handshake)
            assert b"ICAP" not in peer.rest_or_reset()
        with secure(live, client_context(certificates)) as peer:
            assert peer.ask(respmod()).status == 204


def test_d115_a_tls_connection_cut_off_in_the_middle_of_a_body(certificates: Certificates) -> None:
    chosen = settings(certificates)
    with Live(server=chosen, tls=tls_context(chosen)) as live:
        peer = secure(live, client_context(certificates))
        peer.send(respmod(b"1000\r\nhello"))
        live.wait(lambda: live.purse.memory_left < 1 << 30, "it arrives")
        raw = socket.socket(fileno=peer.socket.detach())  # no close_notify
        raw.shutdown(socket.SHUT_WR)
        (record,) = live.wait_records(1)
        assert record.verdict is None and record.reply != "204"
        raw.close()
        live.wait(lambda: not live.shared.connections, "it is closed")
        assert live.purse.memory_left == 1 << 30


def test_s107_an_early_answer_over_tls(certificates: Certificates) -> None:
    chosen = settings(certificates)
    with Live(server=chosen, tls=tls_context(chosen)) as live, secure(live, client_context(certificates)) as peer:
        answer = peer.ask(respmod(chunk(bytes(1000)), uri=b"icaps://h/nope"))
        assert (answer.status, answer.closes) == (404, True)
