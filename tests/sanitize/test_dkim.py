"""What becomes of a DKIM signature (RFC 6376): passing a mail on keeps it, taking a part out breaks it and says so."""

from __future__ import annotations

import base64

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from icapscan.adapters.smtp_message import Envelope, received_field, scanned_field
from tests.sanitize.mails import sanitized
from tests.unwrap.samples_mime import TEXT, mail, multipart, part

HEAD = b"From: a@outside.test\r\nTo: b@inside.test\r\nSubject: report\r\nDate: Tue, 24 Nov 2026 10:00:00 +0000\r\n"


class Signer:
    """A domain with one key."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self._record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)

    def signed(self, body: bytes) -> bytes:
        field = dkim.sign(body, b"sel", b"outside.test", self._pem, canonicalize=(b"relaxed", b"relaxed"))
        return bytes(field) + body

    def is_good(self, body: bytes) -> bool:
        return bool(dkim.verify(body, dnsfunc=lambda name, timeout=5: self._record))


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def test_the_fields_of_the_proxy_leave_a_signature_good(signer: Signer) -> None:
    body = signer.signed(HEAD + mail(multipart(TEXT, part())))
    assert signer.is_good(body)
    envelope = Envelope("a@outside.test", ("b@inside.test",), "192.0.2.1", helo="client.test")
    assert signer.is_good(
        scanned_field("mx.inside.test") + received_field(envelope, "192.0.2.1", "mx.inside.test", "1") + body
    )


def test_a_sanitized_mail_says_that_its_signature_is_broken(signer: Signer) -> None:
    body = signer.signed(HEAD + mail(multipart(TEXT, part())))
    after = sanitized(body, "2").after
    assert b"DKIM-Signature:" in after and not signer.is_good(after)
    added = after[: after.index(body[:40])]
    assert b"X-Icapscan-Sanitized:" in added and b"DKIM" in added


def test_a_mail_without_a_signature_says_nothing_of_one() -> None:
    body = HEAD + mail(multipart(TEXT, part()))
    after = sanitized(body, "2").after
    assert b"DKIM" not in after
