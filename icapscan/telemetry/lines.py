"""A transaction as one line, plain for people or JSON for programs.

Whatever a peer sent is escaped: no control character, line end, terminal escape, bidirectional override or invisible
character reaches the log, and every text is capped, so that a line is never longer than about 16 KiB.
"""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache
from typing import Any

import msgspec

from icapscan.findings import CLEAN, Verdict
from icapscan.servers.record import TransactionRecord

TEXT_MAX = 256
"""Characters (or bytes) of one text in a line."""
URL_MAX = 2048
LIST_MAX = 8
"""Findings, failures or anomalies named in a line; more are only counted."""

_plain = re.compile(r"[!#-<>-\[\]-~]+").fullmatch  # printable ASCII without blank, quotation mark, backslash and "="
_plain_bytes = re.compile(rb"[!#-\[\]-~]+").fullmatch
_PLAIN_BYTES = bytes(code for code in range(33, 127) if code not in b'"\\')
_NUMBERS = " us=%d/%d/%d in=%d out=%d"
_CLEAN = " verdict=clean"
_ascii_line = re.compile(r"[ -~]*").fullmatch
_encode = msgspec.json.Encoder().encode


def format_plain(record: TransactionRecord, now: float | None = None) -> str:
    """``time key=value key="value with blanks" …``, without a line end; what is empty is left out.

    ``now`` is the time shown, in seconds since the epoch (UTC); None = the current time. ``us`` are the microseconds
    to receive, to scan and to reply.
    """
    opening, middle, end = _fixed(
        record.client, record.service, record.method, record.decision, record.reply, record.status, record.istag
    )
    verdict = record.verdict
    times = record.receive_seconds * 1e6, record.scan_seconds * 1e6, record.reply_seconds * 1e6
    line = (
        f"{stamp(now)}{opening}{_sent(record)} size={record.size}"
        f"{_CLEAN if verdict is CLEAN else '' if verdict is None else _plain_verdict(verdict)}{middle}"
        f"{_NUMBERS % (*times, record.bytes_in, record.bytes_out)}{end}"
    )
    if record.rule:
        line += f" rule={_word(record.rule)}"
    if record.monitored:
        line += f" monitored={_listed(list(record.monitored[:LIST_MAX]), len(record.monitored))}"
    if record.cached:
        line += f" cached={record.cached}/{record.asked}"
    if record.quarantine:
        line += f" quarantine={_word(record.quarantine)}"
    if record.reference:
        line += f" reference={_word(record.reference)}"
    return f"{line} detail={_word(record.detail)}" if record.detail else line


def format_json(record: TransactionRecord, now: float | None = None) -> str:
    """The same as one JSON object, without a line end. Times are in seconds, sizes in bytes."""
    verdict = record.verdict
    fields: dict[str, Any] = {
        "time": stamp(now),
        "client": _text(record.client),
        "service": _text(record.service),
        "method": _text(record.method),
        "http_method": _bytes_text(record.http_method, TEXT_MAX),
        "url": _bytes_text(record.url, URL_MAX),
        "user": _bytes_text(record.user, TEXT_MAX),
        "client_ip": _bytes_text(record.client_ip, TEXT_MAX),
        "size": record.size,
        "verdict": verdict.level.word if verdict is not None else None,
        "reason": verdict.reason.value if verdict is not None and verdict.reason is not None else None,
        "findings": _json_findings(verdict) if verdict is not None and verdict.findings else [],
        "unscanned": _json_unscanned(verdict) if verdict is not None and verdict.unscanned else [],
        "anomalies": _json_anomalies(verdict) if verdict is not None and verdict.anomalies else [],
        "decision": _text(record.decision),
        "rule": _text(record.rule),
        "monitored": [_text(one) for one in record.monitored[:LIST_MAX]],
        "reply": _text(record.reply),
        "status": record.status,
        "receive_seconds": round(record.receive_seconds, 6),
        "scan_seconds": round(record.scan_seconds, 6),
        "reply_seconds": round(record.reply_seconds, 6),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "istag": _text(record.istag),
        "asked": record.asked,
        "cached": record.cached,
        "quarantine": _text(record.quarantine),
        "reference": _text(record.reference),
        "detail": _text(record.detail),
    }
    line = _encode(fields).decode("utf-8")
    return line if _ascii_line(line) else "".join(char if char.isprintable() else _json_escape(char) for char in line)


_last_stamp = (0, "")


def stamp(now: float | None = None) -> str:
    """A time in UTC with milliseconds, e.g. ``2026-01-31T23:59:59.123Z``."""
    global _last_stamp
    millis = int((time.time() if now is None else now) * 1000)
    known = _last_stamp  # on a busy day many lines are of one millisecond
    if known[0] != millis:
        seconds, rest = divmod(millis, 1000)
        _last_stamp = known = (millis, f"{_second(seconds)}.{rest:03d}Z")
    return known[1]


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def escape(text: str) -> str:
    """``text`` in quotation marks, with everything escaped that is not printable."""
    return '"' + "".join(char if char.isprintable() and char not in '"\\' else _escaped(char) for char in text) + '"'


@lru_cache(maxsize=2048)
def _fixed(
    client: str, service: str, method: str, decision: str, reply: str, status: int, istag: str
) -> tuple[str, str, str]:
    """The words that are the same in thousands of lines, by their place in the line."""
    return (
        f" client={_word(client)}{_words(service=service, method=method)}",
        f"{_words(decision=decision, reply=reply)} status={status}",
        _words(istag=istag),
    )


def _words(**texts: str) -> str:
    return "".join(f" {key}={_word(text)}" for key, text in texts.items() if text)


def _sent(record: TransactionRecord) -> str:
    """The words for what the peer sent."""
    url = record.url
    line = _http(record.http_method[: TEXT_MAX + 1])
    if url:
        harmless = len(url) <= URL_MAX and not url.translate(None, _PLAIN_BYTES)
        line += " url=" + (url.decode("ascii") if harmless else _bytes_word(url, URL_MAX))
    if record.user:
        line += f" user={_bytes_word(record.user, TEXT_MAX)}"
    if record.client_ip:
        line += f" client_ip={_bytes_word(record.client_ip, TEXT_MAX)}"
    return line


def _plain_verdict(verdict: Verdict) -> str:
    text = f" verdict={verdict.level.word}"
    if verdict.reason is not None:
        text += f" reason={verdict.reason.value}"
    if verdict.findings:
        names = [f"{one.engine}:{one.name}@{one.part}" for one in verdict.findings[:LIST_MAX]]
        text += f" findings={_listed(names, len(verdict.findings))}"
    if verdict.unscanned:
        names = [f"{one.engine or 'icapscan'}:{one.reason.value}@{one.part}" for one in verdict.unscanned[:LIST_MAX]]
        text += f" unscanned={_listed(names, len(verdict.unscanned))}"
        if detail := verdict.unscanned[0].detail:
            text += f" why={_word(detail)}"
    if verdict.anomalies:
        names = [f"{one.kind}@{one.part}" for one in verdict.anomalies[:LIST_MAX]]
        text += f" anomalies={_listed(names, len(verdict.anomalies))}"
    return text


def _listed(names: list[str], count: int) -> str:
    more = f",+{count - len(names)}" if count > len(names) else ""
    return _word(",".join(name[:TEXT_MAX].removesuffix("@") for name in names) + more, LIST_MAX * TEXT_MAX)


def _word(text: str, most: int = TEXT_MAX) -> str:
    """A value of the plain line: as it is where it is one plain word, else escaped in quotation marks."""
    if len(text) > most:
        text = f"{text[:most]}...(+{len(text) - most})"
    return text if _plain(text) else escape(text)


def _bytes_word(data: bytes, most: int) -> str:
    if len(data) <= most and _plain_bytes(data):
        return data.decode("ascii")
    return escape(_bytes_text(data, most, "surrogateescape"))


@lru_cache(maxsize=64)
def _http(method: bytes) -> str:
    return f" http={_bytes_word(method, TEXT_MAX)}" if method else ""


def _bytes_text(data: bytes, most: int, errors: str = "backslashreplace") -> str:
    if len(data) > most:
        return f"{data[:most].decode('utf-8', errors)}...(+{len(data) - most})"
    return data.decode("utf-8", errors)


def _text(text: str, most: int = TEXT_MAX) -> str:
    """A text for JSON: capped, and free of surrogates, which UTF-8 has no bytes for."""
    if len(text) > most:
        text = f"{text[:most]}...(+{len(text) - most})"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_findings(verdict: Verdict) -> list[dict[str, str]]:
    return [
        {"engine": _text(one.engine), "name": _text(one.name), "part": _text(one.part), "level": one.level.word}
        for one in verdict.findings[:LIST_MAX]
    ]


def _json_unscanned(verdict: Verdict) -> list[dict[str, str]]:
    return [
        {
            "engine": _text(one.engine),
            "reason": one.reason.value,
            "part": _text(one.part),
            "detail": _text(one.detail),
        }
        for one in verdict.unscanned[:LIST_MAX]
    ]


def _json_anomalies(verdict: Verdict) -> list[dict[str, str]]:
    return [
        {"kind": _text(one.kind), "part": _text(one.part), "detail": _text(one.detail)}
        for one in verdict.anomalies[:LIST_MAX]
    ]


def _escaped(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if ord(char) > 0x7F else f"\\u{ord(char):04x}"
