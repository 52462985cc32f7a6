"""Messages for the tests of mail, with CR LF at their line ends, and a plain session that sends them byte for byte."""

from __future__ import annotations

import base64
import io
import smtplib
import zipfile
from collections.abc import Sequence

from tests.peers.origin import EICAR

SENDER = "sender@client.test"
ANNA = "anna@example.com"


def message(subject: str, parts: Sequence[bytes]) -> bytes:
    """A multipart mail with ``parts`` (each with its own fields)."""
    head = (
        f"From: {SENDER}\r\nTo: {ANNA}\r\nSubject: {subject}\r\nX-Folded: one\r\n\ttwo\r\nX-Tight:value\r\n"
        "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@client.test>\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="limit"\r\n\r\nno part of it\r\n'
    ).encode()
    return head + b"".join(b"--limit\r\n" + part + b"\r\n" for part in parts) + b"--limit--\r\n"


def text(content: str = "Grüße\r\n.\r\n..two dots\r\n \r\nFrom here\r\n") -> bytes:
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + content.encode()


def attached(content: bytes, name: str) -> bytes:
    """A part in base64."""
    head = (
        f'Content-Type: application/octet-stream; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n'
        f'Content-Disposition: attachment; filename="{name}"\r\n\r\n'
    )
    return head.encode() + base64.encodebytes(content).replace(b"\n", b"\r\n")


def forwarded(mail: bytes) -> bytes:
    """A part that is a mail."""
    return b"Content-Type: message/rfc822\r\n\r\n" + mail


def zipped(content: bytes, name: str = "eicar.com") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def clean(subject: str) -> bytes:
    return message(subject, [text(), attached(bytes(range(256)) * 40, "data.bin")])


def infected(subject: str) -> bytes:
    return message(subject, [text(), attached(EICAR, "eicar.com")])


def nested(subject: str) -> bytes:
    """EICAR in a zip in a mail in a mail."""
    inner = message("inner", [text(), attached(zipped(EICAR), "eicar.zip")])
    return message(subject, [text(), forwarded(message("middle", [forwarded(inner)]))])


def large(subject: str) -> bytes:
    """30 MB."""
    mail = message(subject, [text(), attached(bytes(range(256)) * 87_500, "large.bin")])
    assert len(mail) > 30_000_000
    return mail


def send(
    port: int, mail: bytes, *, sender: str = SENDER, to: Sequence[str] = (ANNA,), mail_options: Sequence[str] = (),
    rcpt_options: Sequence[str] = (), source: str = "127.0.0.1",
) -> str:  # fmt: skip
    """Send ``mail`` as it is; the reply to the message, or to the command that was refused, e.g. ``250 2.0.0 Ok``."""
    with smtplib.SMTP(timeout=150, source_address=(source, 0), local_hostname="client.test") as client:
        client.connect("127.0.0.1", port)
        client.ehlo()
        code, said = client.mail(sender, mail_options)
        for one in to:
            if code == 250:
                code, said = client.rcpt(one, rcpt_options)
        if code != 250:
            return f"{code} {said.decode(errors='replace')}"
        code, said = client.data(mail)
        return f"{code} {said.decode(errors='replace')}"


def without_fields(data: bytes) -> bytes:
    """A message from its own first field on: what was added above is cut off."""
    return data[data.index(b"From: " + SENDER.encode()) :]
