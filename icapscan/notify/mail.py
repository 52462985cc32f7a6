"""Handing a mail to the relay by SMTP (RFC 5321), with the null reverse-path: nobody answers to it, no bounce comes."""

from __future__ import annotations

import os
import smtplib

from icapscan.errors import NotDelivered
from icapscan.notify.settings import NotifySettings
from icapscan.templates import shown

_SAID_MAX = 300


def send(settings: NotifySettings, address: str, message: bytes) -> None:
    """Give ``message``, CRLF and ASCII, to ``settings.relay``; returns when it said 250.

    Raises `NotDelivered`: worth another try after a 4xx reply and where the relay is not there or breaks off. Where it
    broke off after the data it may have taken the mail, which then comes twice: better than not at all.
    """
    host, _, port = settings.relay.rpartition(":")
    where = f"The relay {settings.relay}"
    smtp = smtplib.SMTP(local_hostname=settings.helo or os.uname().nodename, timeout=settings.timeout)
    try:
        code, text = smtp.connect(host.strip("[]"), int(port))
        _expect(code == 220, where, "does not take mails", code, text)
        code, text = smtp.ehlo()
        if code != 250:
            code, text = smtp.helo()
        _expect(code == 250, where, "does not take our greeting", code, text)
        code, text = smtp.mail("")
        _expect(code == 250, where, "does not take the null sender", code, text)
        code, text = smtp.rcpt(address)
        _expect(code in (250, 251), where, "does not take the recipient", code, text)
        code, text = smtp.data(message)
        _expect(code == 250, where, "does not take the mail", code, text)
    except smtplib.SMTPDataError as error:
        _expect(False, where, "does not take the data", error.smtp_code, error.smtp_error)
    except smtplib.SMTPException as error:
        raise NotDelivered(f"{where} broke off: {shown(str(error), _SAID_MAX)}", retry=True) from error
    except OSError as error:
        reason = shown(error.strerror or str(error), _SAID_MAX)
        raise NotDelivered(f"{where} cannot be reached: {reason}.", retry=True) from error
    else:
        try:
            smtp.docmd("QUIT")
        except (smtplib.SMTPException, OSError):
            pass  # it has the mail
    finally:
        smtp.close()


def _expect(good: bool, where: str, what: str, code: int, text: bytes | str) -> None:
    if good:
        return
    said = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    sentence = f"{where} {what} ({shown(f'{code} {said}'.replace(chr(10), ' '), _SAID_MAX)})."
    raise NotDelivered(sentence, retry=not 500 <= code < 600)
