"""The webhook: what is posted, that its signature can be verified by others, and what its answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import time
from pathlib import Path

import pytest

from icapscan.errors import ConfigError, NotDelivered
from icapscan.findings import Finding
from icapscan.notify.secret import decoded, secret_of
from icapscan.notify.webhook import is_url, payload, post, sign
from tests.notify.made import MAIL, PATIENCE, SECRET, SECRET_TEXT, HttpSink, notice, settings


def test_the_json_says_all_of_it() -> None:
    assert json.loads(payload(MAIL)) == {
        "type": "notice.infected",
        "timestamp": "2026-01-31T23:59:59.500Z",
        "data": {
            "host": "scanner.example.org", "service": "mail", "direction": "mail", "client": "10.1.2.3",
            "icap_client": "192.0.2.1:4711", "user": "jane", "url": "/mail", "sender": "jane@example.org",
            "recipients": ["bob@example.org", "eve@elsewhere.test"], "recipient_count": 2, "subject": "Invoice",
            "message_id": "<1@example.org>", "media_type": "message/rfc822", "names": ["bad.exe"], "size": 1234,
            "verdict": "infected", "reason": None,
            "findings": [{"engine": "yara", "name": "Evil_Rule", "part": "2/bad.exe", "level": "infected"}],
            "finding_count": 1, "decision": "block", "rule": "viruses", "rules": ["viruses"],
            "quarantine": "0123456789abcdef", "reference": "0123abcd", "detail": "",
        },
    }  # fmt: skip


def test_hostile_texts_are_escaped_and_cut() -> None:
    bad = '\r\n\0\u202e\ud800"}' + "x" * 100_000
    many = tuple(Finding(bad, bad, bad) for _ in range(200))
    body = payload(notice(subject=bad, names=(bad,) * 200, recipients=(bad,) * 1000, findings=many, url=bad, user=bad))
    assert body.isascii() and b"\n" not in body and len(body) < 200_000
    data = json.loads(body)["data"]
    assert data["subject"].startswith('\r\n\0\u202e?"}xx') and len(data["subject"]) == 500
    assert (data["recipient_count"], data["finding_count"]) == (1000, 200)


def test_a_receiver_verifies_the_signature_by_plain_hmac() -> None:
    with HttpSink() as sink:
        before = int(time.time())
        post(sink.url, SECRET, PATIENCE, "notice_1", payload(MAIL))
    (posted,) = sink.posted
    assert posted.path == "/hook?a=b" and posted.fields["content-type"] == "application/json"
    name, stamp = posted.fields["webhook-id"], posted.fields["webhook-timestamp"]
    assert name == "notice_1" and before <= int(stamp) <= time.time()
    key = base64.b64decode(SECRET_TEXT.removeprefix("whsec_"))
    signed = f"{name}.{stamp}.".encode() + posted.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert posted.fields["webhook-signature"] == f"v1,{expected}"


def test_the_example_of_the_specifications_libraries() -> None:
    """Of the reference implementations' own tests (standard-webhooks/standard-webhooks, libraries)."""
    secret = decoded("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "retry"),
    [(500, True), (502, True), (503, True), (429, True), (408, True), (400, False), (401, False), (404, False),
     (410, False), (301, False), (302, False), (307, False), (308, False), (304, False)],
)  # fmt: skip
def test_whatever_is_not_2xx_is_a_failure(status: int, retry: bool) -> None:
    with HttpSink(status) as sink, pytest.raises(NotDelivered, match=str(status)) as caught:
        post(sink.url, SECRET, PATIENCE, "n", b"{}")
    assert caught.value.retry is retry


def test_a_redirect_is_not_followed() -> None:
    with HttpSink() as other, HttpSink(302, fields={"Location": other.url}) as sink:
        with pytest.raises(NotDelivered):
            post(sink.url, SECRET, PATIENCE, "n", b"{}")
        assert len(sink.posted) == 1 and other.posted == []


@pytest.mark.parametrize(("after", "seconds"), [("7", 7), ("999999", 300), ("soon", 0), ("-1", 0), ("１", 0)])
def test_a_receiver_may_say_when_to_come_again(after: str, seconds: float) -> None:
    fields = {"Retry-After": after.encode("utf-8").decode("latin-1")}
    with HttpSink(503, fields=fields) as sink, pytest.raises(NotDelivered) as caught:
        post(sink.url, SECRET, PATIENCE, "n", b"{}")
    assert caught.value.after == seconds


def test_nobody_there_silence_and_nonsense_are_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(NotDelivered) as caught:
            post(f"http://127.0.0.1:{port}/", SECRET, 0.1, "n", b"{}")
        assert caught.value.retry
    with pytest.raises(NotDelivered, match="cannot be reached") as caught:
        post(f"http://127.0.0.1:{port}/", SECRET, PATIENCE, "n", b"{}")
    assert caught.value.retry


def test_an_https_receiver_must_prove_who_it_is() -> None:
    with HttpSink() as sink, pytest.raises(NotDelivered, match="cannot be reached"):
        post(sink.url.replace("http:", "https:"), SECRET, PATIENCE, "n", b"{}")
    assert sink.posted == []
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("url", ["http://a/", "https://a.example.org", "https://[::1]:8443/x?y=z", "http://1.2.3.4:80"])
def test_urls(url: str) -> None:
    assert is_url(url)


@pytest.mark.parametrize(
    "url",
    ["", "a", "ftp://a/", "http://", "http:///x", "http://u:p@a/", "http://a/#f", "http://a/ b", "http://a/\r\nX: y",
     "http://é/", "http://a:0/", "http://a:99999/", "http://a:b/", "file:///etc/passwd"],
)  # fmt: skip
def test_no_urls(url: str) -> None:
    assert not is_url(url)


def test_secrets(tmp_path: Path) -> None:
    assert decoded(SECRET_TEXT) == decoded(SECRET_TEXT.removeprefix("whsec_") + "\n") == SECRET
    file = tmp_path / "secret"
    file.write_text(SECRET_TEXT + "\n")
    file.chmod(0o600)
    assert secret_of(settings(webhook_secret_file=str(file))) == SECRET
    assert secret_of(settings(webhook_secret=SECRET_TEXT)) == SECRET and secret_of(settings()) is None
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="only its owner"):
        secret_of(settings(webhook_secret_file=str(file)))


@pytest.mark.parametrize("text", ["", "whsec_", "password", "AAECAw==", SECRET_TEXT[:-2], "eHh4" * 22])
def test_no_secrets(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decoded(text)
    assert text in ("", "whsec_") or text not in str(caught.value)
