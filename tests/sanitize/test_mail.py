"""Bad parts of mails replaced and cleaned: what changes, what stays, and what is refused."""

from __future__ import annotations

import email
from base64 import b64encode, encodebytes
from quopri import encodestring

import msgspec.structs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import Level
from icapscan.sanitize.contract import CannotSanitize, Cleaned, Reference, Target
from icapscan.unwrap.contract import Declared
from tests.sanitize.mails import NOTICE, is_notice, leaves, sanitized, walked
from tests.unwrap.samples_mime import EICAR, HEAD, TEXT, mail, multipart, part

HTML = part(b"<p>Hi</p>\r\n", type=b"Content-Type: text/html\r\n", encoding=b"")
ADDED = b"X-Icapscan-Sanitized: replaced=1;\r\n cleaned=0;\r\n reference=TEST-1\r\n"
DISPOSITION = b'Content-Disposition: attachment; filename="report.docm"\r\n'


def lf(body: bytes) -> bytes:
    return body.replace(b"\r\n", b"\n")


def decoded_notice(body: bytes) -> str:
    (notice,) = [leaf for leaf in leaves(body) if is_notice(leaf)]
    return notice[1].decode("utf-8")


# Replacing


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_one_part_is_replaced_and_every_other_byte_stays(number: int, line_end: bytes) -> None:
    parts = [TEXT, part(more=b"Content-ID: <x>\r\n" + DISPOSITION), HTML]
    head, tail = mail(b"preamble\r\n"), b"--frontier--\r\nepilogue\r\n\r\n"
    body = (head + multipart(*parts, close=tail)).replace(b"\r\n", line_end)
    result = sanitized(body, str(number))
    before, after = (
        b"".join((head, *(b"--frontier\r\n" + one + b"\r\n" for one in parts[: number - 1]))),
        (b"".join(b"--frontier\r\n" + one + b"\r\n" for one in parts[number:]) + tail),
    )
    before, after = before.replace(b"\r\n", line_end), after.replace(b"\r\n", line_end)
    added = ADDED.replace(b"\r\n", line_end)
    assert result.after.startswith(added + before + b"--frontier" + line_end)
    assert result.after.endswith(line_end + after)
    assert result.after.count(b"\n") == result.after.count(line_end)
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [at == number for at in (1, 2, 3)]
    assert result.done.removed[0].path == str(number) and result.done.removed[0].how == "replaced"


def test_the_fields_of_the_part_are_replaced_and_the_others_stay() -> None:
    more = b"X-First: 1\r\nContent-ID: <x>\r\nContent-MD5: abc\r\n" + DISPOSITION + b"X-Folded: a\r\n\tb\r\n"
    after = sanitized(mail(multipart(TEXT, part(more=more))), "2").after
    header = after.split(b"--frontier\r\n")[2].partition(b"\r\n\r\n")[0]
    assert header == (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: inline\r\nX-First: 1\r\nContent-ID: <x>\r\nX-Folded: a\r\n\tb"
    )


def test_the_notice_tells_what_happened() -> None:
    target = Target("2", ("other.exe",), "Win.Test.EICAR_HDB-1")
    result = sanitized(mail(multipart(TEXT, part(more=DISPOSITION))), target)
    text = decoded_notice(result.after)
    for said in ("report.docm", "Win.Test.EICAR_HDB-1", "Q-2", "TEST-1", "2026-11-24 08:00", "mx.example.org",
                 "help@example.org", "[日本語]"):  # fmt: skip
        assert said in text
    removed = result.done.removed[0]
    assert (removed.name, removed.threat) == ("report.docm", "Win.Test.EICAR_HDB-1")


def test_a_single_part_mail_becomes_the_notice() -> None:
    body = (
        HEAD + b"Content-Type: application/zip; name=a.zip\r\nX-Last: kept\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    result = sanitized(body + encodebytes(EICAR), "1")
    assert result.after == (
        ADDED + HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: inline\r\nX-Last: kept\r\n\r\n" + result.after.partition(b"\r\n\r\n")[2]
    )
    assert is_notice(leaves(result.after)[0])
    assert "content of this message" in decoded_notice(result.after)
    assert result.after.endswith(b"\r\n")


def test_a_mail_without_mime_gets_the_field_that_makes_it_one() -> None:
    after = sanitized(b"Subject: x\n\n" + EICAR + b"\n", "1").after
    assert b"\nSubject: x\nMIME-Version: 1.0\nContent-Type: text/plain" in after
    assert b"\r" not in after and is_notice(leaves(after)[0])


def test_a_mail_that_is_only_a_header_becomes_one_with_a_notice() -> None:
    for body in (b"Subject: x\r\n\r\n", b"Subject: x\r\n", b"Subject: x"):
        after = sanitized(body, "1").after
        assert is_notice(leaves(after)[0]) and b"\r\nSubject: x\r\nMIME" in after


def test_a_from_line_stays_at_the_top() -> None:
    after = sanitized(b"From me Mon Jan 1 00:00:00 2024\n" + lf(mail()), "2").after
    assert after.startswith(b"From me Mon Jan 1 00:00:00 2024\nX-Icapscan-Sanitized: ")
    single = sanitized(b"From me Mon Jan 1 00:00:00 2024\nSubject: x\n\nbad", "1").after
    assert single.startswith(b"From me Mon Jan 1 00:00:00 2024\nX-Icapscan-Sanitized: ") and b"\nSubject: x\n" in single


@pytest.mark.parametrize("close", [b"", b"--frontier--", b"--frontier--\r\n"])
def test_the_last_part_is_replaced_however_the_mail_ends(close: bytes) -> None:
    body = mail(multipart(TEXT, part(), close=close))
    after = sanitized(body, "2").after
    assert after.endswith(b"\r\n" + close)
    assert [is_notice(leaf) for leaf in leaves(after)] == [False, True]


def test_a_part_without_a_blank_line_is_replaced() -> None:
    for header in (b"", b"\r\n", b"Content-Type: image/png; name=bad.exe", b"Content-Type: image/png\r\n"):
        body = mail(b"--frontier\r\n" + header + b"\r\n--frontier--\r\n").replace(
            b"frontier\r\n\r\n--", b"frontier\r\n--"
        )
        after = sanitized(body, "1").after
        assert [is_notice(leaf) for leaf in leaves(after)] == [True], header
        assert after.endswith(b"\r\n--frontier--\r\n")


def test_a_header_that_readers_dispute_is_not_kept() -> None:
    after = sanitized(mail(multipart(TEXT, part(more=b"junk\r\nContent-Type : text/html\r\nX: y\r\n"))), "2").after
    assert b"junk" not in after and b"X: y" not in after and b"text/html" not in after
    assert is_notice(leaves(after)[1])


def test_adjacent_targets_duplicates_and_targets_in_targets() -> None:
    inner = b'Content-Type: multipart/mixed; boundary="in"\r\n\r\n' + multipart(TEXT, part(), boundary=b"in")
    body = mail(multipart(TEXT, inner, HTML))
    result = sanitized(body, "2", "1", Target("2/2", (), "Inner"), Target("2", (), "Outer"), "1")
    assert [removed.path for removed in result.done.removed] == ["1", "2"]
    assert result.done.removed[1].threat == "Eicar-Test, Inner, Outer"
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [True, True, False]
    assert result.after.endswith(b"--frontier\r\n" + HTML + b"\r\n--frontier--\r\n")


def message(more: bytes = b"", body: bytes | None = None) -> bytes:
    return b"Content-Type: message/rfc822\r\n" + more + b"\r\n" + (mail() if body is None else body)


def test_a_nested_message_is_handled_where_it_stands() -> None:
    nested = mail(multipart(TEXT, part(), boundary=b"in"), type=b"Content-Type: multipart/mixed; boundary=in\r\n")
    body = mail(multipart(TEXT, message(body=nested), HTML))
    result = sanitized(body, "2/2")
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [False, False, True, False]
    assert result.without_field == body.replace(
        part(),
        result.after.split(b"--in\r\n")[2].removesuffix(
            b"\r\n--in--\r\n\r\n--frontier\r\n" + HTML + b"\r\n--frontier--\r\n"
        ),
    )
    assert result.done.removed[0].path == "2/2"


def test_a_nested_message_brings_its_name_into_the_path() -> None:
    nested = message(b'Content-Disposition: attachment; filename="fwd.eml"\r\n', mail(HTML, type=b"", blank=b""))
    body = mail(multipart(TEXT, nested))
    tree = walked(body)
    assert "2/fwd.eml/1" in tree.parts
    result = sanitized(body, "2/fwd.eml/1")
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [False, True]
    with pytest.raises(CannotSanitize, match="does not fit"):
        sanitized(body, "2/other.eml/1")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_coded_message_is_changed_and_encoded_again(encoding: str) -> None:
    nested = mail(multipart(TEXT, part(), boundary=b"in"), type=b"Content-Type: multipart/mixed; boundary=in\r\n")
    coded = encodebytes(nested) if encoding == "base64" else encodestring(nested.replace(b"\r\n", b"\n"))
    header = (
        b"Content-Type: message/rfc822\r\nContent-MD5: x\r\nContent-Transfer-Encoding: %s\r\n\r\n" % encoding.encode()
    )
    body = mail(multipart(TEXT, header + coded.replace(b"\n", b"\r\n"), HTML))
    result = sanitized(body, "2/2")
    tree = walked(result.after)
    assert tree.parts["2/1"] == walked(body).parts["2/1"]
    assert tree.parts["2/2"].startswith(NOTICE)
    assert tree.ready["2"].declared.media_type == "message/rfc822"
    assert b"Content-MD5" not in result.after and result.done.removed[0].path == "2/2"
    longest = max(result.after.split(b"\r\n"), key=len)
    assert len(longest) <= 80
    assert result.after.endswith(b"--frontier\r\n" + HTML + b"\r\n--frontier--\r\n")


def test_a_member_of_an_archive_stands_for_its_part() -> None:
    body = mail(multipart(TEXT, part(more=b'Content-Disposition: attachment; filename="a.zip"\r\n'), HTML))
    result = sanitized(body, "2/a.zip/b.rar/c.exe")
    assert result.done.removed[0].path == "2" and result.done.removed[0].name == "a.zip"
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [False, True, False]


@pytest.mark.parametrize("path", ["2~1", "2~clamd", "2~3/a.zip/x", "2"])
def test_another_reading_of_a_part_is_that_part(path: str) -> None:
    body = mail(multipart(TEXT, part(b"QUFB*QUFB\r\n"), HTML))
    assert [is_notice(leaf) for leaf in leaves(sanitized(body, path).after)] == [False, True, False]


@pytest.mark.parametrize("path", ["2/skeleton", "2/preamble", "2/epilogue", "2/7", "2/x"])
def test_what_cannot_be_located_in_a_part_takes_the_part(path: str) -> None:
    nested = mail(multipart(TEXT, part(), boundary=b"in"), type=b"Content-Type: multipart/mixed; boundary=in\r\n")
    result = sanitized(mail(multipart(TEXT, message(body=nested), HTML)), path)
    assert result.done.removed[0].path == "2"
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [False, True, False]


def test_a_nested_part_that_readers_dispute_is_replaced_whole() -> None:
    doubtful = message(body=mail(multipart(TEXT, part()) + b"--frontierX\r\n\r\n"))
    body = mail(
        multipart(TEXT, doubtful.replace(b"frontier", b"in"), boundary=b"outer"),
        type=b"Content-Type: multipart/mixed; boundary=outer\r\n",
    )
    result = sanitized(body, "2/2")
    assert result.done.removed[0].path == "2" and b"inX" not in result.after


@pytest.mark.parametrize("path", ["", "skeleton", "preamble", "epilogue", "3", "0", "x.exe", "../1", "~1", "01"])
def test_what_is_no_part_of_the_mail_is_refused(path: str) -> None:
    with pytest.raises(CannotSanitize, match="cannot be rewritten"):
        sanitized(mail(), path)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"MZ\x90\0",
        mail(multipart(TEXT, part()) + b"--frontierX\r\n"),
        mail(multipart(TEXT, part()), type=b"Content-Type: multipart/mixed; boundary=frontier; boundary=x\r\n"),
        mail(multipart(TEXT, part()), more=b"junk\r\n"),
        HEAD + b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nbad",
        HEAD + b"X: a\rContent-Type: text/html\r\n\r\nbad",
    ],
)
def test_what_is_read_in_several_ways_is_refused(body: bytes) -> None:
    for path in ("1", "2"):
        with pytest.raises(CannotSanitize):
            sanitized(body, path)


def test_without_targets_nothing_is_passed_as_sanitised() -> None:
    with pytest.raises(CannotSanitize, match="Nothing was named"):
        sanitized(mail())


# What the change means for the rest


def test_broken_signatures_are_noted() -> None:
    more = b"DKIM-Signature: v=1; a=rsa-sha256\r\nARC-Seal: i=1\r\n"
    signed = b'multipart/signed; protocol="application/pgp-signature"; boundary="frontier"'
    body = mail(multipart(TEXT, part()), type=b"Content-Type: " + signed + b"\r\n", more=more)
    result = sanitized(body, "1")
    assert len(result.done.notes) == 3
    value = email.message_from_bytes(result.after)["X-Icapscan-Sanitized"]
    assert "DKIM" in value and "ARC" in value and "multipart/signed" in value
    assert "no longer valid" in decoded_notice(result.after)
    plain = sanitized(mail(), "2")
    assert plain.done.notes == () and "no longer valid" not in decoded_notice(plain.after)
    assert max(map(len, result.after.partition(b"From:")[0].split(b"\r\n"))) <= 78


def test_what_is_no_longer_true_of_the_message_is_left_out() -> None:
    body = mail(more=b"Content-MD5: abc\r\nContent-Length: 12\r\n")
    result = sanitized(body, "2")
    assert b"Content-MD5" not in result.after and b"Content-Length" not in result.after


@pytest.mark.parametrize(
    "name", ["x\r\nBcc: a@b", "\u202egpj.exe", "a\0b", "\x1b[31m", "\u2028x", "\ud800", "://evil.test/x"]
)
def test_nothing_untrusted_gets_into_the_message_as_it_is(name: str) -> None:
    target = Target("2", (name,), f"Threat {name}")
    reference = Reference(f"T{name}", name, name, name, name)
    result = sanitized(mail(), target, reference=reference)
    parsed = email.message_from_bytes(result.after)
    assert "Bcc" not in parsed and len(parsed.keys()) == len(email.message_from_bytes(result.before).keys()) + 1
    text = decoded_notice(result.after)
    assert all(char.isprintable() or char in "\r\n" for char in text)
    assert "://" not in text and text.isascii() is False
    field = result.after[: result.after.index(b"From: ")]
    assert all(32 <= code < 127 or code in b"\r\n" for code in field)
    assert not any(char in result.done.removed[0].threat for char in "\r\n\u202e\0\x1b\u2028")


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_name_gives_one_harmless_notice(name: str, threat: str) -> None:
    body = mail()
    result = sanitized(body, Target("2", (name,), threat))
    assert [is_notice(leaf) for leaf in leaves(result.after)] == [False, True]
    assert leaves(result.after)[0] == leaves(body)[0]


# Cleaning

DOCUMENT = bytes(range(256)) * 8
CLEAN_DOCUMENT = b"clean\r\n" + bytes(range(200)) * 9


def cleaner(data: bytes, target: Target) -> Cleaned:
    assert data == DOCUMENT
    return Cleaned(CLEAN_DOCUMENT, "", ("the macros were taken out",))


def wrapped(data: bytes, length: int, line_end: bytes = b"\r\n") -> bytes:
    text = b64encode(data)
    return line_end.join(text[at : at + length] for at in range(0, len(text), length))


TRY = Target("2", ("report.docm",), "Macro", Level.SUSPICIOUS, True)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("ending", [b"", b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("length", [60, 72, 76, 100])
def test_a_cleaned_document_takes_the_shape_of_the_old_one(length: int, ending: bytes, line_end: bytes) -> None:
    old, new = part(wrapped(DOCUMENT, length) + ending), part(wrapped(CLEAN_DOCUMENT, length) + ending)
    body = mail(multipart(TEXT, old, HTML)).replace(b"\r\n", line_end)
    result = sanitized(body, TRY, clean=cleaner)
    assert result.without_field == mail(multipart(TEXT, new, HTML)).replace(b"\r\n", line_end)
    removed = result.done.removed[0]
    assert (removed.how, removed.detail) == ("cleaned", "the macros were taken out")
    assert b"replaced=0;" in result.after and b"cleaned=1;" in result.after


def test_the_cleaner_gets_the_path_within_the_part() -> None:
    seen: list[tuple[str, bytes]] = []

    def clean(data: bytes, target: Target) -> Cleaned:
        seen.append((target.path, data))
        return Cleaned(data + b"+", "", (target.path,))

    body = mail(multipart(TEXT, part(wrapped(DOCUMENT, 76), more=DISPOSITION)))
    targets = [msgspec.structs.replace(TRY, path="2" + more) for more in ("", "/report.docm/a", "/report.docm/b/c", "")]
    result = sanitized(body, *targets, clean=clean)
    assert seen == [("", DOCUMENT), ("a", DOCUMENT + b"+"), ("b/c", DOCUMENT + b"++")]
    assert walked(result.after).parts["2"] == DOCUMENT + b"+++"


def test_content_md5_of_a_cleaned_part_is_left_out() -> None:
    body = mail(multipart(TEXT, part(wrapped(DOCUMENT, 76), more=b"Content-MD5: abc\r\nX-Y: z\r\n")))
    result = sanitized(body, TRY, clean=cleaner)
    assert result.without_field == mail(multipart(TEXT, part(wrapped(CLEAN_DOCUMENT, 76), more=b"X-Y: z\r\n")))


def nothing(data: bytes, target: Target) -> None:
    return None


def same(data: bytes, target: Target) -> Cleaned:
    return Cleaned(data)


def broken(data: bytes, target: Target) -> Cleaned:
    raise ZeroDivisionError


def refused(data: bytes, target: Target) -> Cleaned:
    raise CannotSanitize("It is too odd.")


@pytest.mark.parametrize(
    ("clean", "why"),
    [
        (nothing, "not be cleaned"),
        (same, "changed nothing"),
        (broken, "ZeroDivisionError"),
        (refused, "It is too odd."),
    ],
)
def test_what_is_not_cleaned_is_replaced(clean: object, why: str) -> None:
    body = mail(multipart(TEXT, part(wrapped(DOCUMENT, 76))))
    result = sanitized(body, TRY, clean=clean)  # type: ignore[arg-type]
    assert result.done.removed[0].how == "replaced" and why in result.done.removed[0].detail
    assert is_notice(leaves(result.after)[1])


def test_one_target_that_may_not_be_cleaned_means_the_notice() -> None:
    body = mail(multipart(TEXT, part(wrapped(DOCUMENT, 76))))
    result = sanitized(body, TRY, "2/x", clean=cleaner)
    assert result.done.removed[0].how == "replaced"


@pytest.mark.parametrize(
    "old",
    [
        part(b"QUFB*QUFB\r\n"),  # junk: several readings
        part(wrapped(DOCUMENT, 76), encoding=b"Content-Transfer-Encoding: x-uuencode\r\n"),
        part(
            wrapped(DOCUMENT, 76), encoding=b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit\r\n"
        ),
        part(wrapped(DOCUMENT, 76), more=b"junk\r\n"),
    ],
)
def test_what_is_not_encoded_in_one_way_is_not_cleaned(old: bytes) -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        raise AssertionError("nobody knows what the bytes are")

    result = sanitized(mail(multipart(TEXT, old)), TRY, clean=clean)
    assert result.done.removed[0].how == "replaced"
    assert result.done.removed[0].detail == "It is not encoded in a way that can be written again."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'application/x; name="report.docm"', b'application/x;\r\n name="report.docx"'),
        (b"application/x; name=report.docm; x=y", b'application/x;\r\n x=y;\r\n name="report.docx"'),
        (b"application/x;\r\n\tname*=UTF-8''report%2Edocm", b'application/x;\r\n name="report.docx"'),
        (b"application/x; name*0=rep;\r\n name*1=ort.docm", b'application/x;\r\n name="report.docx"'),
        (b"application/vnd.ms-word.document.macroEnabled.12",
         b"application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (b'application/vnd.ms-excel.sheet.macroEnabled.12; name="report.docm"',
         b'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet;\r\n name="report.docx"'),
    ],
)  # fmt: skip
def test_a_new_name_stands_wherever_the_old_one_stood(before: bytes, after: bytes) -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(CLEAN_DOCUMENT, "report.docx")

    old = part(wrapped(DOCUMENT, 76), type=b"Content-Type: " + before + b"\r\n", more=DISPOSITION + b"X-Y: z\r\n")
    new = part(
        wrapped(CLEAN_DOCUMENT, 76),
        type=b"Content-Type: " + after + b"\r\n",
        more=b'Content-Disposition: attachment;\r\n filename="report.docx"\r\nX-Y: z\r\n',
    )
    assert sanitized(mail(multipart(TEXT, old)), TRY, clean=clean).without_field == mail(multipart(TEXT, new))


def test_a_new_name_in_japanese_is_written_as_mail_programs_do() -> None:
    name = "見積書(最終版)とても長い名前の表計算ファイル.xlsx"

    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(CLEAN_DOCUMENT, name)

    kind = b'Content-Type: application/x; name="=?UTF-8?B?5aCx5ZGKLmRvY20=?="\r\n'
    body = mail(multipart(TEXT, part(wrapped(DOCUMENT, 76), type=kind, more=DISPOSITION)))
    tree = walked(sanitized(body, TRY, clean=clean).after)
    assert tree.ready["2"].declared.names[0] == name
    assert not tree.anomalies


@pytest.mark.parametrize(
    "name", ['a"; filename="b.exe', "a\r\nX: y", "../../x.docx", "", " ", "\u202exslx", "x" * 999 + ".xlsx"]
)
def test_a_new_name_injects_nothing(name: str) -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(CLEAN_DOCUMENT, name)

    body = mail(multipart(TEXT, part(wrapped(DOCUMENT, 76), more=DISPOSITION)))
    result = sanitized(body, TRY, clean=clean)
    tree = walked(result.after)
    assert tree.parts["2"] == CLEAN_DOCUMENT and not tree.anomalies
    (shown,) = tree.ready["2"].declared.names
    assert not set(shown) & set('"\r\n/\\\u202e') and len(shown) <= 200
    assert max(map(len, result.after.split(b"\r\n"))) < 998


def test_a_name_that_is_not_written_plainly_means_the_notice() -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(CLEAN_DOCUMENT, "report.docx")

    odd = b"Content-Type: application/x; name=a b.docm; name*0=c\r\n"
    result = sanitized(mail(multipart(TEXT, part(wrapped(DOCUMENT, 76), type=odd))), TRY, clean=clean)
    assert result.done.removed[0].how == "replaced"


@pytest.mark.parametrize(
    ("encoding", "old", "new", "expected"),
    [
        (b"7bit", b"<p>bad</p>\r\n", b"<p></p>\r\n", b"<p></p>\r\n"),
        (b"8bit", "<p>悪</p>\r\n".encode(), "<p>良</p>\r\n".encode(), "<p>良</p>\r\n".encode()),
        (b"quoted-printable", b"<p>bad=3D</p>\r\n", b"<p>=</p>\r\n", b"<p>=3D</p>\r\n"),
        (b"quoted-printable", b"bad=e3=81=82\r\n", "あ\r\n".encode(), b"=E3=81=82\r\n"),
    ],
)
def test_texts_stay_in_their_encoding(encoding: bytes, old: bytes, new: bytes, expected: bytes) -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(new)

    def html(data: bytes) -> bytes:
        field = b"Content-Transfer-Encoding: " + encoding + b"\r\n"
        return mail(multipart(TEXT, part(data, type=b"Content-Type: text/html\r\n", encoding=field)))

    assert sanitized(html(old), TRY, clean=clean).without_field == html(expected)


@pytest.mark.parametrize(
    "new", [b"a\0b", b"bare\rcr", b"x" * 999, b"\xff", b"a\r\n--frontier\r\nb", b"a --frontier--", b"--frontierX"]
)
@pytest.mark.parametrize("encoding", [b"7bit", b"quoted-printable"])
def test_what_does_not_fit_the_encoding_goes_into_another(new: bytes, encoding: bytes) -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(new)

    field = b"Content-Transfer-Encoding: " + encoding + b"\r\n"
    body = mail(multipart(TEXT, part(b"bad", type=b"Content-Type: text/html\r\n", encoding=field), HTML))
    result = sanitized(body, TRY, clean=clean)
    tree = walked(result.after)
    assert tree.parts["2"] == new and tree.parts["3"] == walked(body).parts["3"]
    assert not tree.anomalies and result.done.removed[0].how == "cleaned"


@given(st.binary(max_size=400), st.sampled_from([b"base64", b"quoted-printable", b"7bit", b"8bit"]))
def test_any_bytes_come_out_as_they_went_in(new: bytes, encoding: bytes) -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(new)

    field = b"Content-Transfer-Encoding: " + encoding + b"\r\n"
    body = mail(multipart(TEXT, part(b"YmFkMTIz", type=b"Content-Type: text/x\r\n", encoding=field), HTML))
    result = sanitized(body, TRY, clean=clean)
    assert result.done.removed[0].how == "cleaned"
    assert leaves(result.after)[1][1] == new
    assert leaves(result.after)[2] == leaves(body)[2]


# Forms

FORM = Declared((), "multipart/form-data", content_type=b'multipart/form-data; boundary="frontier"')
FIELD = b'Content-Disposition: form-data; name="note"\r\n\r\nhello'
FILE = b'Content-Disposition: form-data; name="up"; filename="bad.exe"\r\nContent-Type: application/x\r\n\r\n'


def test_the_file_of_a_form_is_replaced_and_the_field_stays() -> None:
    body = multipart(FIELD, FILE + b"MZ\0\r\n\xff", FIELD)
    result = sanitized(body, "2", declared=FORM)
    start = (
        multipart(FIELD, close=b"") + b"--frontier\r\n" + FILE.replace(b"application/x", b"text/plain; charset=utf-8")
    )
    assert result.after.startswith(start + NOTICE) and "[日本語]".encode() in result.after
    assert result.after.endswith(b"\r\n--frontier\r\n" + FIELD + b"\r\n--frontier--\r\n")
    assert b"X-Icapscan" not in result.after and b"Content-Transfer" not in result.after


def test_a_cleaned_file_of_a_form_is_only_bytes() -> None:
    body = multipart(FIELD, FILE + DOCUMENT)
    assert sanitized(body, TRY, clean=cleaner, declared=FORM).after == multipart(FIELD, FILE + CLEAN_DOCUMENT)


def test_a_boundary_in_the_notice_or_in_a_file_of_a_form_is_refused() -> None:
    def clean(data: bytes, target: Target) -> Cleaned:
        return Cleaned(b"--frontier")

    result = sanitized(multipart(FIELD, FILE + DOCUMENT), TRY, clean=clean, declared=FORM)
    assert result.done.removed[0].how == "replaced"
    dashes = Declared((), "multipart/form-data", content_type=b'multipart/form-data; boundary="----"')
    with pytest.raises(CannotSanitize, match="occurs in the notice"):
        sanitized(multipart(FIELD, FILE + b"x", boundary=b"----"), "2", declared=dashes)
