"""Release of a kept mail: it is sent on by SMTP (RFC 5321) to the next hop, as it was but for one field at its top."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import smtplib
from collections.abc import Iterator, Sequence

from msgspec import Struct

from icapscan.errors import QuarantineFailed, ReleaseRefused
from icapscan.quarantine.check import Mistake
from icapscan.quarantine.item import Entry, Kind, State, printable
from icapscan.quarantine.marks import mark
from icapscan.quarantine.settings import QuarantineSettings
from icapscan.quarantine.transparency import on_the_wire
from icapscan.quarantine.vault import Quarantine

RELEASES_MAX = 3
_ADDRESS = re.compile(r"[^\x00-\x20\x7f<>]+@[^\x00-\x20\x7f<>@]+|[^\x00-\x20\x7f<>@]+")


class Released(Struct, frozen=True):
    """A mail that the next hop has taken."""

    item: str
    sender: str
    recipients: tuple[str, ...]
    reply: str
    """What the next hop said, printable."""


def release(
    quarantine: Quarantine,
    name: str,
    *,
    who: str,
    sender: str | None = None,
    recipients: Sequence[str] = (),
    force: bool = False,
) -> Released:
    """Send a kept mail to ``quarantine.next_hop``; it becomes RELEASED when that said 250, and stays kept.

    ``sender`` and ``recipients`` in place of the envelope it came with; ``force`` past the guard against loops.
    Either all recipients get it or none. Raises `NoSuchItem`, `Damaged` (before anything is sent), `ReleaseRefused`,
    whose sentence says who refused what, `ConfigError` where no next hop is configured.
    """
    entry = quarantine.held(name)
    _refuse(entry, force)
    settings = quarantine.settings
    if settings.next_hop is None:
        raise Mistake("quarantine.next_hop", "expected the SMTP server that takes released mails")
    envelope = _envelope(entry, sender, recipients)
    with _Alone(quarantine.path(name), name):
        entry = quarantine.held(name)
        _refuse(entry, force)  # another process may just have released it
        eight_bit, size = _verify(quarantine, name)
        # first of all a row: an index that cannot be written now could not note the release afterwards either
        to = ", ".join(f"<{one}>" for one in envelope.recipients)
        quarantine.record("send", name, who=who, detail=f"from <{envelope.sender}> to {to} by {settings.next_hop}")
        data = itertools.chain([mark(quarantine.keys, name)], quarantine.read(name))
        try:
            reply = _send(settings, envelope, data, size, eight_bit)
        except ReleaseRefused as error:
            quarantine.record("refuse", name, who=who, detail=str(error))
            raise
        _note(quarantine, name, who, reply)
    return Released(name, envelope.sender, envelope.recipients, reply)


class Envelope(Struct, frozen=True):
    """Whom SMTP is told that a mail is from and for."""

    sender: str
    recipients: tuple[str, ...]


def _refuse(entry: Entry, force: bool) -> None:
    """Raises `ReleaseRefused` for what should not be sent."""
    name = entry.id
    if entry.kind is not Kind.MAIL:
        raise ReleaseRefused(
            f"The item {name} is not a mail, so it cannot be released. "
            f"Get it with: icapscan quarantine export {name} FILE"
        )
    if force:
        return
    if entry.came_back:
        raise ReleaseRefused(
            f"The item {name} came back after it had been released as {entry.came_back}: the next hop leads to this "
            "scanner again. Mend that first, or use --force."
        )
    if entry.released >= RELEASES_MAX:
        raise ReleaseRefused(f"The item {name} was released {entry.released} times already; --force does it again.")


def _envelope(entry: Entry, sender: str | None, recipients: Sequence[str]) -> Envelope:
    if sender is None:
        sender = entry.sender
    if sender is None:
        raise ReleaseRefused(f"It is not known whom the item {entry.id} is from. Say so with --from.")
    to = tuple(dict.fromkeys(recipients or entry.recipients))
    if not to:
        raise ReleaseRefused(f"It is not known whom the item {entry.id} is for. Say so with --to.")
    for address in (*to, *([sender] if sender else [])):
        if not (_ADDRESS.fullmatch(address) and address.isprintable()):
            raise ReleaseRefused(f"<{printable(address)}> is no address that can be given to a mail server.")
    return Envelope(sender, to)


def _verify(quarantine: Quarantine, name: str) -> tuple[bool, int]:
    """Read all of an item, so that nothing damaged is begun to be sent.

    Returns whether it is more than ASCII, and the bytes that will be sent (RFC 1870 wants them to be no fewer).
    """
    eight_bit, size = False, 0
    for piece in on_the_wire(itertools.chain([mark(quarantine.keys, name)], quarantine.read(name))):
        eight_bit = eight_bit or not piece.isascii()
        size += len(piece)
    return eight_bit, size


def _note(quarantine: Quarantine, name: str, who: str, reply: str) -> None:
    act = quarantine.act(who, "release", name, reply)
    try:
        with quarantine.index.writing() as rows:
            rows.change(name, State.RELEASED, released=1)
            rows.add(act)
    except QuarantineFailed as error:
        raise QuarantineFailed(f"The item {name} was sent, but that could not be noted: {error}") from error
    quarantine.log(act)


class _Alone:
    """Holds the file of an item, so that two people do not release it at the same time."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name
        self._descriptor = -1

    def __enter__(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise QuarantineFailed(f"The file of the item {self._name} cannot be read: {error.strerror}.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise ReleaseRefused(f"The item {self._name} is being released by somebody else just now.") from error

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


# SMTP


def _send(settings: QuarantineSettings, envelope: Envelope, data: Iterator[bytes], size: int, eight_bit: bool) -> str:
    """Give the message to the next hop; returns its reply. Raises `ReleaseRefused`."""
    assert settings.next_hop is not None
    host, _, port = settings.next_hop.rpartition(":")
    where = f"The next hop {settings.next_hop}"
    smtp = smtplib.SMTP(local_hostname=settings.helo or os.uname().nodename, timeout=settings.smtp_timeout)
    try:
        code, text = smtp.connect(host.strip("[]"), int(port))
        _expect(code == 220, where, "does not take mails", code, text)
        _greet(smtp, where)
        _open(smtp, envelope, where, size, eight_bit)
        return _transmit(smtp, data, where)
    except smtplib.SMTPException as error:
        raise ReleaseRefused(
            f"{where} broke the connection off; nothing was sent. ({printable(str(error))})"
        ) from error
    except OSError as error:
        raise ReleaseRefused(f"{where} cannot be reached: {error.strerror or error}; nothing was sent.") from error
    finally:
        smtp.close()


def _greet(smtp: smtplib.SMTP, where: str) -> None:
    code, text = smtp.ehlo()
    if code != 250:
        code, text = smtp.helo()
    _expect(code == 250, where, "does not take our greeting", code, text)


def _open(smtp: smtplib.SMTP, envelope: Envelope, where: str, size: int, eight_bit: bool) -> None:
    """MAIL, RCPT, DATA up to the 354. Raises `ReleaseRefused` naming each address that is not taken."""
    options = [f"SIZE={size}"] if smtp.has_extn("size") else []
    if eight_bit and smtp.has_extn("8bitmime"):
        options.append("BODY=8BITMIME")
    encoding = "ascii"
    if not all(address.isascii() for address in (envelope.sender, *envelope.recipients)):
        if not smtp.has_extn("smtputf8"):
            raise ReleaseRefused(f"{where} takes no addresses that are not ASCII (SMTPUTF8); nothing was sent.")
        options.append("SMTPUTF8")
        encoding = "utf-8"
    smtp.command_encoding = encoding
    code, text = smtp.docmd("MAIL", " ".join([f"FROM:<{envelope.sender}>", *options]))
    _expect(code == 250, where, f"refuses the sender <{envelope.sender}>", code, text)
    refused = []
    for address in envelope.recipients:
        code, text = smtp.docmd("RCPT", f"TO:<{address}>")
        if code not in (250, 251):
            refused.append(f"<{address}> ({_said(code, text)})")
    if refused:
        others = " The others get it with --to." if len(refused) < len(envelope.recipients) else ""
        raise ReleaseRefused(f"{where} refuses {', '.join(refused)}; nothing was sent.{others}")
    code, text = smtp.docmd("DATA")
    _expect(code == 354, where, "does not take the data", code, text)


def _transmit(smtp: smtplib.SMTP, data: Iterator[bytes], where: str) -> str:
    """The data; the caller closes the connection, without which an unfinished mail would be finished."""
    if smtp.sock is not None:  # who gives up on the answer to the final dot too soon makes mails arrive twice
        smtp.sock.settimeout(2 * smtp.timeout)
    complete = False
    try:
        for piece in on_the_wire(data):
            smtp.send(piece)
        complete = True
        code, text = smtp.getreply()
    except (smtplib.SMTPException, OSError) as error:
        doubt = "it may have taken the mail, or not" if complete else "the mail was not sent"
        raise ReleaseRefused(
            f"{where} broke off while the data was sent: {doubt}. ({printable(str(error))})"
        ) from error
    _expect(code == 250, where, "refuses the mail", code, text)
    try:
        smtp.docmd("QUIT")
    except (smtplib.SMTPException, OSError):
        pass  # it has the mail
    return _said(code, text)


def _expect(good: bool, where: str, what: str, code: int, text: bytes) -> None:
    if not good:
        raise ReleaseRefused(f"{where} {what} ({_said(code, text)}); nothing was sent.")


def _said(code: int, text: bytes) -> str:
    return printable(f"{code} {text.decode('utf-8', 'backslashreplace')}".strip().replace("\n", " "), 300)
