"""From a notice to a mail (RFC 5322): one text in one or two languages, and nothing in it to be trusted.

A template of one's own gets what the shipped ``templates/mail.txt`` gets: ``texts``, one for each language, with
``language title heading what done kept held ask footer`` and ``rows`` of label and value; and the plain values ``whom``
(``administrator``, ``sender`` or ``recipient``), ``threats names subject sender recipients message_id url client user
service direction media_type size verdict reason decision rule rules detail quarantine reference date host contact
held``. All text in them is made harmless before (`icapscan.templates.shown`). Only administrators are told who else was
written to, and by whom.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator, Sequence
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

from icapscan import templates
from icapscan.errors import ConfigError
from icapscan.findings import Finding
from icapscan.notify.contract import Notice
from icapscan.notify.guard import FIELD
from icapscan.notify.people import Addressee
from icapscan.notify.settings import NotifySettings, Whom
from icapscan.notify.texts import LANGUAGES, Texts
from icapscan.templates import NAME_MAX, TEXT_MAX, shown

if TYPE_CHECKING:
    from jinja2 import Template

LIST_MAX = 10
"""Findings, names or recipients that are named; of more of them it is said that there are more."""
_URL_MAX = 300
_SHIPPED = Path(__file__).parent / "templates" / "mail.txt"
_POLICY = policy.SMTP.clone(cte_type="7bit")
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,120}@[A-Za-z0-9.-]{1,120}>")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
_log = logging.getLogger("icapscan")
_FOR_ALL = ("threats", "names", "subject", "sender")
_FOR_ADMINISTRATORS = (
    *_FOR_ALL, "recipients", "message_id", "url", "client", "user", "service", "media_type", "size", "rule", "rules",
    "detail",
)  # fmt: skip
_AT_LAST = ("quarantine", "reference", "date", "host")


class Letters:
    """Writes mails from the shipped template or those of one's own."""

    def __init__(self, settings: NotifySettings, contact: str = "", *, strict: bool = True) -> None:
        """``contact``: whom people may ask. Raises `ConfigError` for a template that cannot be used; where that was
        looked at before (``strict`` False), the shipped text takes its place, and the log says so.
        """
        self._settings = settings
        self._contact = contact
        given = [settings.template, *(rule.template for rule in settings.rules.values())]
        self._templates = {file: self._own(file, strict) for file in given if file}

    def letter(self, notice: Notice, addressee: Addressee, held: int) -> bytes:
        """The message with CRLF line ends, all of it ASCII. ``held``: mails to this address that were held back."""
        first = LANGUAGES[self._settings.languages[0]]
        message = EmailMessage(policy=_POLICY)
        message["From"] = Address("icapscan", addr_spec=self._settings.from_address)
        message["To"] = Address(addr_spec=addressee.address)
        message["Subject"] = shown(_subject(first, notice), 2 * NAME_MAX)
        message["Date"] = formatdate(notice.time)
        host = notice.host if _HOST.fullmatch(notice.host) else "icapscan.invalid"
        message["Message-ID"] = f"<icapscan.{secrets.token_hex(12)}@{host}>"
        if addressee.whom != "administrator" and _MESSAGE_ID.fullmatch(notice.message_id):
            message["In-Reply-To"] = notice.message_id  # RFC 3834 3.1.5
            message["References"] = notice.message_id
        message["Auto-Submitted"] = "auto-generated"
        message[FIELD] = re.sub(r"[^0-9A-Za-z-]", "", notice.reference) or "-"
        message.set_content(self.text(notice, addressee, held))
        return message.as_bytes()

    def text(self, notice: Notice, addressee: Addressee, held: int) -> str:
        """The text with LF line ends. Where a template of one's own fails, the shipped one is used; the log says so."""
        names = self._names(notice, addressee.whom, addressee.address, held)
        own = self._templates.get(addressee.template or "")
        if own is not None:
            text = templates.rendered(own, names, tell=False)
            if text.strip() and len(text) <= TEXT_MAX:
                return templates.tidy(text)
            _log.warning(
                "notify: the template %s failed for the notice %s; the shipped text is sent.",
                addressee.template,
                shown(notice.reference) or "-",
            )
        return templates.tidy(templates.shipped(_SHIPPED, escape=False).render(names))

    def _own(self, file: str, strict: bool) -> Template | None:
        try:
            return templates.own(file, "mail", self._trials, escape=False)
        except ConfigError as error:
            if strict:
                raise
            _log.error("notify: the shipped text is sent: %s", error)
            return None

    def _names(self, notice: Notice, whom: Whom, address: str, held: int) -> dict[str, object]:
        """Everything that a template may use."""
        values = self._values(notice, whom, address)
        more = {
            "whom": whom, "direction": shown(notice.direction), "verdict": shown(notice.verdict),
            "reason": shown(notice.reason), "decision": shown(notice.decision), "held": held,
            "contact": shown(self._contact, 2 * NAME_MAX),
        }  # fmt: skip
        texts = [self._said(LANGUAGES[one], notice, whom, values, held) for one in self._settings.languages]
        return {**values, **more, "texts": texts}

    def _values(self, notice: Notice, whom: Whom, address: str) -> dict[str, str]:
        """What stands behind the labels, harmless; empty for whom it is no business of."""
        values = {
            "threats": _listed(_threats(notice.findings, whom)),
            "names": _listed(notice.names),
            "subject": shown(notice.subject, 2 * NAME_MAX),
            "sender": "<>" if notice.sender == "" else shown(notice.sender or ""),
            "recipients": _listed(notice.recipients),
            "message_id": shown(notice.message_id, 2 * NAME_MAX),
            "url": shown(notice.url, _URL_MAX),
            "client": shown(notice.client or notice.icap_client),
            "user": shown(notice.user),
            "service": shown(notice.service),
            "media_type": shown(notice.media_type),
            "size": str(notice.size),
            "rule": shown(notice.rule),
            "rules": _listed(notice.rules),
            "detail": shown(notice.detail, 4 * NAME_MAX),
        }
        if whom != "administrator":
            values = {key: value if key in _FOR_ALL else "" for key, value in values.items()}
            values["recipients"] = shown(address) if whom == "recipient" else ""
        return values | {
            "quarantine": shown(notice.kept),
            "reference": shown(notice.reference) or "-",
            "date": formatdate(notice.time),
            "host": shown(notice.host),
        }

    def _said(self, texts: Texts, notice: Notice, whom: Whom, values: dict[str, str], held: int) -> dict[str, object]:
        """The words of one language."""
        thing = texts.things.get(f"administrator.{notice.direction}" if whom == "administrator" else whom, "")
        thing = thing or texts.things["administrator.download"]
        reason = texts.reasons.get(notice.reason, texts.reasons["engine-failed"])
        what = texts.what.get(notice.verdict, texts.what["unscanned"])
        order = (*(_FOR_ADMINISTRATORS if whom == "administrator" else _FOR_ALL), *_AT_LAST)
        contact = shown(self._contact, 2 * NAME_MAX) or texts.administrator
        return {
            "language": texts.language,
            "title": texts.title,
            "heading": _heading(texts, notice),
            "what": what.format(thing=thing, reason=reason),
            "done": texts.done.get(notice.decision, texts.done["error"]),
            "kept": texts.kept if notice.kept else texts.not_kept if notice.quarantine else "",
            "held": texts.held.format(held=held) if held else "",
            "ask": texts.ask.format(contact=contact) if whom != "administrator" else "",
            "footer": texts.footer,
            "rows": [(texts.labels[key], values[key]) for key in order if values[key]],
        }

    def _trials(self, template: Template) -> Iterator[str]:
        """The ways in which notices differ."""
        finding = Finding("engine", "Name", "2/a.exe")
        mail = Notice(
            time=0.0, host="host", direction="mail", sender="a@example.org", recipients=("b@example.org",), size=1,
            names=("a.exe",), verdict="infected", findings=(finding,), decision="block", quarantine="0", reference="0",
        )  # fmt: skip
        web = Notice(time=0.0, host="host", direction="download", verdict="unscanned", decision="allow")
        whoms: tuple[Whom, ...] = ("administrator", "sender", "recipient")
        for whom in whoms:
            yield template.render(self._names(mail, whom, "b@example.org", 0))
        yield template.render(self._names(web, "administrator", "c@example.org", 3))


def _heading(texts: Texts, notice: Notice) -> str:
    return texts.headings.get(notice.verdict, texts.headings["unscanned"])


def _subject(texts: Texts, notice: Notice) -> str:
    return texts.subject.format(heading=_heading(texts, notice), reference=shown(notice.reference) or "-")


def _threats(findings: Sequence[Finding], whom: Whom) -> list[str]:
    """What was found; to administrators also by which engine and in which part."""
    if whom != "administrator":
        return [one.name for one in findings]
    return [f"{one.name} ({one.engine}{', ' + one.part if one.part else ''})" for one in findings]


def _listed(texts: Sequence[str]) -> str:
    """A few of them on one line."""
    said = list(dict.fromkeys(one for text in texts[: 10 * LIST_MAX] if (one := shown(text))))
    return ", ".join(said[:LIST_MAX]) + (", …" if len(said) > LIST_MAX else "")
