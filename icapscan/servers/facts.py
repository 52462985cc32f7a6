"""From a transaction to what rules look at. All of it but the address of the ICAP client is somebody's word."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from icapscan.findings import Verdict
from icapscan.pipeline import Scan
from icapscan.policy.facts import Direction, Facts, PartFacts, address, group_names, host_and_path, user_names
from icapscan.policy.parts import completed
from icapscan.servers.transaction import METHOD_NAMES, Transaction
from icapscan.unwrap.names import part_names, readings
from icapscan.wire import http_head
from icapscan.wire.icap_events import RequestHead

_MAIL_TYPES = ("message/rfc822", "message/global")
ENVELOPE = re.compile(rb"^x-smtp-(from|to)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
"""Fields in which an ICAP client of a relay gives the envelope of a mail."""
_HOST = re.compile(rb"^host[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_MAIL = (Direction.MAIL,)


def directions(now: Transaction) -> tuple[Direction, ...]:
    """Which way the body travels: as the service is set, else as the ICAP client says, else as the HTTP head says.

    Two where only the HTTP head speaks of mail: whoever writes that may be the one who wants to get round a rule.
    """
    assert now.head is not None and now.route is not None
    web = Direction.DOWNLOAD if now.head.method == b"RESPMOD" else Direction.UPLOAD
    traffic = now.route.settings.traffic
    if traffic != "auto":
        return _MAIL if traffic == "mail" else (web,)
    if _says_mail(now.head):
        return _MAIL
    if web is Direction.DOWNLOAD:
        return (web,)
    head = now.heads.req_hdr
    media_type = http_head.media_type(http_head.look(head).get(b"content-type"))
    seems_mail = media_type in _MAIL_TYPES or (head is not None and ENVELOPE.search(head) is not None)
    return (Direction.MAIL, web) if seems_mail else (web,)


def facts_of(now: Transaction, verdict: Verdict, scan: Scan | None, *, final: bool) -> Facts:
    """Everything that is known of a transaction. ``final``: its body is complete and scanned."""
    head = now.head
    assert head is not None and now.route is not None
    fields = head.fields
    host_field = _HOST.search(now.heads.req_hdr) if now.heads.req_hdr else None
    host, path = host_and_path(now.url, host_field[1] if host_field else None)
    return Facts(
        now.route.name,
        METHOD_NAMES[head.method],
        now.http_method.decode("latin-1"),
        directions(now),
        address(head.client_ip) if head.client_ip else None,
        address(now.client),
        user_names(fields.get(b"x-authenticated-user"), fields.get(b"x-client-username")),
        group_names(fields.get(b"x-authenticated-groups")),
        host,
        path,
        now.url.decode("utf-8", "replace"),
        now.size,
        verdict,
        completed(_with_names(scan.parts, now), verdict, now.generation.policy.needs) if scan is not None else (),
        scan.parts_complete if scan is not None else True,
        final,
    )


def _says_mail(head: RequestHead) -> bool:
    """QUIRK: g3proxy says what it made a request of, rspamd only who it is (PROTOCOL section C)."""
    transformed = head.fields.get(b"x-transformed-from") or b""
    agent = head.fields.get(b"user-agent") or b""
    return transformed.strip().upper() == b"SMTP" or agent.lower().startswith(b"rspamd")


def _with_names(parts: Iterable[PartFacts], now: Transaction) -> list[PartFacts]:
    """The parts, the body itself with every name that some client would give it."""
    return [replace(part, names=_names(now) or part.names) if not part.path else part for part in parts]


def _names(now: Transaction) -> tuple[str, ...]:
    assert now.head is not None
    fields = http_head.look(now.heads.res_hdr if now.head.method == b"RESPMOD" else now.heads.req_hdr)
    named, _ = part_names((fields.get(b"content-disposition", b""),), (fields.get(b"content-type", b""),))
    if named:
        return named
    return tuple(readings(now.url.partition(b"?")[0].partition(b"#")[0].rpartition(b"/")[2]))
