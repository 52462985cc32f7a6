"""EVASION.md 33 to 56 and 72 once more: variations that a row names, to the verdict, and names as rules see them."""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode, encodebytes

import pytest

from icapscan.findings import Level
from tests.unwrap.coders import armored, openpgp, packet, uuencode, yenc
from tests.unwrap.samples_mime import EICAR, EICAR_BASE64, TEXT, find, found, mail, multipart, part, unpack
from tests.unwrap.verdicts import infected, reasons, verdict
from tests.unwrap.zip_maker import Made, made_zip

CODE = b64encode(EICAR)
PADDED = EICAR + b"\n\n"
TWO = b64encode(PADDED)
assert TWO.endswith(b"==") and CODE.endswith(b"=") and not CODE.endswith(b"==")


def attached(body: bytes, encoding: bytes = b"base64", type: bytes = b"application/octet-stream") -> bytes:
    """A mail with a text, and an attachment with this body as it stands."""
    line = b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b""
    return mail(multipart(TEXT, part(body, type=b"Content-Type: " + type + b"\r\n", encoding=line)))


@pytest.mark.parametrize("junk", [b".", b"-", b":", b"#", b"%", b"\xff", b"\x80", b"_", b"\0"])
def test_evasion_33_a_reader_stops_at_each_illegal_character(junk: bytes) -> None:
    infected(attached(CODE + junk + b64encode(b"something else")), "message/rfc822")
    infected(attached(CODE.rstrip(b"=") + junk + b"\r\n" + b64encode(b"something else")), "message/rfc822")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 20])
def test_evasion_34_chunks_joined_by_padding_with_text_behind(size: int) -> None:
    joined = b"".join(b64encode(EICAR[at : at + size]) for at in range(0, len(EICAR), size))
    infected(attached(joined), "message/rfc822")
    infected(attached(re.sub(b"(.{4})", rb"\1\r\n", joined)), "message/rfc822")


@pytest.mark.parametrize("ending", [b"==", b"=", b"", b"===", b"=\r\n=", b"= =", b"==\r\n==", b"=.="])
def test_evasion_35_one_of_two_and_more_than_two(ending: bytes) -> None:
    infected(attached(TWO.rstrip(b"=") + ending), "message/rfc822")
    infected(attached(b"=" + TWO.rstrip(b"=") + ending), "message/rfc822")
    infected(attached(b"==\r\n" + TWO.rstrip(b"=") + ending), "message/rfc822")


@pytest.mark.parametrize("size", [3, 5, 6, 1000])
def test_evasion_36_blank_lines_between_quads(size: int) -> None:
    lines = [CODE[at : at + size] for at in range(0, len(CODE), size)]
    for joiner in (b"\r\n\r\n", b"\r\n \r\n", b"\n\n\n", b"\r\n\t\r\n"):
        infected(attached(joiner.join(lines)), "message/rfc822")


@pytest.mark.parametrize("cut", range(1, 12))
def test_evasion_39_truncated(cut: int) -> None:
    """Cut off behind the payload it is found; cut off within it there is a sign of that, except between two quads."""
    long = b64encode(EICAR + b"\n" * 40)
    infected(attached(long[:-cut]), "message/rfc822")
    within = unpack(attached(CODE[:-cut]))
    rest = CODE[:-cut].rstrip(b"=")
    if len(rest) == len(CODE.rstrip(b"=")):
        assert found(within)
    elif len(rest) % 4:
        shown = len(rest) % 4 == 1 or b64encode(b64decode(rest + b"=" * (-len(rest) % 4))).rstrip(b"=") != rest
        assert within.failed if shown else "base64-cut" in within.kinds


def test_evasion_39_only_the_padding_is_missing() -> None:
    said = verdict(attached(b64encode(b"nothing to see here at all").rstrip(b"=")), "message/rfc822")
    assert said.level is Level.CLEAN and "base64-cut" in {anomaly.kind for anomaly in said.anomalies}
    assert verdict(attached(b64encode(b"nothing to see here at al")[:-3]), "message/rfc822").unscanned


def escaped(data: bytes = EICAR, form: bytes = b"=%02X") -> bytes:
    return b"".join(form % code for code in data)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n"])
@pytest.mark.parametrize("blank", [b"", b" ", b"\t", b" \t "])
def test_evasion_40_every_soft_line_break(end: bytes, blank: bytes) -> None:
    soft = b"=" + blank + end
    body = soft.join(EICAR[at : at + 9] for at in range(0, len(EICAR), 9))
    unpacked = unpack(attached(body, b"quoted-printable"))
    assert found(unpacked) or (unpacked.failed and blank)
    assert blank or found(unpacked)


@pytest.mark.parametrize("junk", [b"=4", b"=X", b"=XX", b"=G1", b"=1G", b"=", b"=\xff", b"=zz"])
def test_evasion_40_illegal_escapes_under_the_literal_and_the_lenient_reading(junk: bytes) -> None:
    """What is left out by one reader stands there for another: in a text, in an attachment."""
    for body in (EICAR + b"\r\n" + junk, escaped() + b"\r\n" + junk, escaped() + b"=\r\n" + junk[:1]):
        unpacked = unpack(attached(body, b"quoted-printable"))
        assert unpacked.holding(EICAR) or unpacked.failed
    dropped = junk.join([EICAR[:27], EICAR[27:]])  # before a dollar sign
    unpacked = unpack(attached(dropped, b"quoted-printable"))
    assert found(unpacked) or unpacked.failed


def test_evasion_40_lines_without_end() -> None:
    infected(attached(escaped(EICAR + b" " * 40, b"=%02X"), b"quoted-printable"), "message/rfc822")
    infected(attached(b"=\r\n" * 2000 + escaped(), b"quoted-printable"), "message/rfc822")
    infected(attached(escaped() + b" ", b"quoted-printable"), "message/rfc822")


@pytest.mark.parametrize("blank", [b" ", b"\t", b" \t ", b" " * 900])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_evasion_40_blanks_before_a_line_end_in_every_reading(blank: bytes, end: bytes) -> None:
    """Readers delete them, as they should, or do not; for some an ``=`` before them is no soft line break."""
    payload = end.join([EICAR[:20], EICAR[20:40] + b"=", EICAR[40:]])
    spaced = payload.replace(end, blank + end)
    for body in (b"%s\r\n" % spaced, b"%s%s" % (spaced, blank)):
        parts = unpack(attached(body.replace(b"=" + blank, b"=3D" + blank), b"quoted-printable"))
        assert parts.holding(payload) and parts.holding(spaced)
        parts = unpack(attached(body, b"quoted-printable"))
        assert parts.holding(spaced)  # the "=" is no soft line break
        assert parts.holding(spaced.replace(b"=" + blank + end, b""))
        assert parts.holding(payload.replace(b"=" + end, b""))  # nor is anything else what was sent


def test_evasion_40_blanks_in_texts_are_no_doubt() -> None:
    """Texts have them by mistake: there the reading with them is enough, and the skeleton goes to clamd."""
    line = b"Content-Transfer-Encoding: quoted-printable\r\n"
    text = mail(multipart(part(b"one \r\ntwo =3D \r\n", type=b"Content-Type: text/plain\r\n", encoding=line)))
    assert not unpack(text).kinds


@pytest.mark.parametrize("label", [b"", b"7bit", b"8bit", b"binary", b"quoted-printable", b"base64", b"x-uuencode"])
def test_evasion_41_every_label_on_every_encoding(label: bytes) -> None:
    for body in (EICAR_BASE64, escaped(form=b"=%02X=\r\n"), uuencode(EICAR), EICAR):
        unpacked = unpack(attached(body, label))
        assert found(unpacked), (label, body[:20], sorted(unpacked.parts))


def test_evasion_42_every_pair_of_encodings() -> None:
    quoted = escaped(form=b"=%02X=\r\n")
    for inner in (EICAR_BASE64, quoted, uuencode(EICAR)):
        find(attached(encodebytes(inner)))
        find(attached(escaped(inner), b"quoted-printable"))
        find(attached(uuencode(inner), b"x-uuencode"))


def test_evasion_43_begin_base64_and_several_in_one_body() -> None:
    decoy = b"begin-base64 644 x\n" + encodebytes(b"decoy") + b"====\n"
    last = b"begin-base64 644 a.com\n" + encodebytes(EICAR)
    for text in (decoy + last, decoy + b"text\n" + last + b"====\n", decoy + uuencode(EICAR), uuencode(b"x") + last):
        find(attached(b"Hello\n" + text, b"7bit", b"text/plain"))
        find(attached(b"Hello\n" + text.replace(b"\n", b"\r\n") + b"Bye\r\n", b"8bit", b"text/html"))


def volume(number: int, data: bytes, start: int, size: int = 68, total: int = 2) -> bytes:
    """One part of a file in yEnc."""
    text = yenc(data, size=size).replace(b"=ybegin ", b"=ybegin part=%d total=%d " % (number, total))
    return text.replace(b"a.com\r\n", b"a.com\r\n=ypart begin=%d end=%d\r\n" % (start + 1, start + len(data)), 1)


def test_evasion_45_two_parts_in_one_text() -> None:
    first, second = volume(1, EICAR[:30], 0), volume(2, EICAR[30:], 30)
    for text in (first + second, second + first, b"Hello\r\n" + first + b"and\r\n" + second + b"Bye\r\n"):
        unpacked = find(attached(text, b"8bit", b"text/plain"))
        assert unpacked.clean and "yenc-joined" in unpacked.kinds


def test_evasion_45_two_parts_in_two_attachments_are_not_clean() -> None:
    parts = [
        part(one, type=b"Content-Type: text/plain\r\n", encoding=b"")
        for one in (volume(1, EICAR[:30], 0), volume(2, EICAR[30:], 30))
    ]
    said = verdict(mail(multipart(*parts)), "message/rfc822")
    assert reasons(said) == {"unsupported"}
    assert reasons(verdict(volume(2, b"the end of something", 30, 50))) == {"unsupported"}


@pytest.mark.parametrize("size", [0, 3, 67, 69, 10**9, 10**18, 10**40])
def test_evasion_45_any_size_and_checksum(size: int) -> None:
    for end in (True, False):
        for crc in (None, 0, 2**32 - 1):
            infected(attached(yenc(EICAR, size=size, end=end, crc=crc), b"8bit", b"text/plain"), "message/rfc822")


SIGNED = b'Content-Type: multipart/signed; micalg=pgp-sha1; protocol="application/pgp-signature"; boundary=frontier\r\n'


def test_evasion_49_what_pgp_signed_is_found() -> None:
    signature = part(
        armored(bytes(99), b"SIGNATURE"), type=b"Content-Type: application/pgp-signature\r\n", encoding=b""
    )
    find(mail(multipart(part(), signature), type=SIGNED))
    nested = part(
        multipart(TEXT, part(), boundary=b"in"), type=b"Content-Type: multipart/mixed; boundary=in\r\n", encoding=b""
    )
    find(mail(multipart(nested, signature), type=SIGNED))
    for inner in (uuencode(EICAR), EICAR_BASE64.replace(b"\r\n", b"\n")):
        text = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA1\n\n" + inner.replace(b"\n-", b"\n- -")
        find(attached(text + armored(bytes(99), b"SIGNATURE"), b"7bit", b"text/plain"))


@pytest.mark.parametrize("how", [0, 1, 2, 3])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("pieces", [0, 5])
@pytest.mark.parametrize("signed", [False, True])
def test_evasion_49_what_an_openpgp_message_holds(how: int, old: bool, pieces: int, signed: bool) -> None:
    """Signed and packed, as `gpg --sign` makes it, without armor and in it."""
    message = openpgp(EICAR, how, old=old, pieces=pieces, signed=signed)
    if how or signed:  # else it begins with the content as it is, which nobody takes for a message
        infected(attached(encodebytes(message), type=b"application/octet-stream"), "message/rfc822")
    for type in (b"text/plain", b"application/octet-stream", b"application/pgp-encrypted"):
        text = b"Hello\n\n" + armored(message) + b"Bye\n"
        infected(attached(text, b"7bit", type), "message/rfc822")
        infected(attached(text.replace(b"\n", b"\r\n"), b"7bit", type), "message/rfc822")


LOCKED = {
    "key": packet(1, b"\3" + bytes(8) + b"\1" + bytes(258)) + packet(18, b"\1" + bytes(99)),
    "old key": b"\x85\1\x0c\3" + bytes(8) + b"\1" + bytes(257) + packet(18, b"\1" + bytes(99)),
    "password": b"\x8c\x0d\4\x09\3\x08" + bytes(9) + packet(18, b"\1" + bytes(99)),
    "packed key": packet(8, b"\2" + zlib.compress(packet(1, b"\3" + bytes(8) + b"\1" + bytes(99)))),
}


@pytest.mark.parametrize("locked", LOCKED)
def test_evasion_49_an_encrypted_openpgp_message_is_not_clean(locked: str) -> None:
    message = LOCKED[locked]
    for body in (attached(encodebytes(message)), attached(armored(message), b"7bit", b"text/plain"), armored(message)):
        assert reasons(verdict(body)) == {"encrypted"}
    cut = attached(armored(message[:2], b"MESSAGE, PART 1/2"), b"7bit", b"text/plain")
    assert reasons(verdict(cut)) <= {"malformed", "encrypted"} and verdict(cut).unscanned


def test_evasion_49_keys_and_signatures_are_clean() -> None:
    for kind in (b"PUBLIC KEY BLOCK", b"SIGNATURE"):
        assert verdict(armored(bytes(99), kind)).level is Level.CLEAN


def test_an_openpgp_message_costs_no_more_than_its_budget() -> None:
    bomb = packet(8, b"\2" + zlib.compress(packet(11, b"b\0" + bytes(4) + bytes(80 << 20))))
    assert "over-limit" in reasons(verdict(bomb))
    deep = b"x"
    for _ in range(9):
        deep = packet(8, b"\2" + zlib.compress(deep))
    assert "over-limit" in reasons(verdict(deep))


SCRIPT = "<script>var b = atob('" + CODE.decode() + "'); save(new Blob([b]))</script>"
URI = '<a href="data:application/octet-stream;base64,' + CODE.decode() + '">x</a>'


@pytest.mark.parametrize("html", [SCRIPT, URI])
@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-7", "cp037", "cp500"])
def test_evasion_50_script_or_uri_in_any_charset(html: str, charset: str) -> None:
    shown = {"utf-16-le": "utf-16", "utf-16-be": "utf-16", "cp037": "ibm037"}.get(charset, charset)
    coded = html.encode(charset)
    if charset == "utf-7":
        coded = html.replace("<", "+ADw-").replace("'", "+ACc-").replace('"', "+ACI-").encode()
    infected(attached(encodebytes(coded), type=b"text/html; charset=" + shown.encode()), "message/rfc822")


TELLING = "invoice.pdf.exe"


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Type: application/x-y; name=%s\r\n",
        b"Content-Type: application/x-y\r\nContent-Disposition: attachment; filename=%s\r\n",
        b"Content-Type: application/x-y; name=%s\r\nContent-Disposition: attachment; filename=a.txt\r\n",
        b"Content-Type: application/x-y; name=a.txt\r\nContent-Disposition: attachment; filename=%s\r\n",
        b"Content-Type: application/x-y\r\nContent-Disposition: attachment; filename=a.txt; filename=%s\r\n",
        b"Content-Type: application/x-y\r\nContent-Disposition: attachment; filename=a.txt; filename*=utf-8''%s\r\n",
        b"Content-Type: application/x-y\r\nContent-Disposition: attachment; filename*1=%s; filename*0=\r\n",
        b"Content-Type: application/x-y; name=a.txt\r\nContent-Disposition: attachment; filename==?utf-8?Q?%s?=\r\n",
        b"Content-Type: application/x-y\r\nContent-Disposition: attachment; filename =%s\r\n",
        b"Content-Type: application/x-y\r\nContent-Disposition: attachment; file\xffname=a.txt; filename=%s\r\n",
        b'Content-Type: application/x-y\r\nContent-Disposition: attachment; filename="%s" (a.txt)\r\n',
        b'Content-Type: application/x-y\r\nContent-Disposition: attachment; filename="a.txt"; x="\\"; filename=%s\r\n',
    ],
)
def test_evasion_51_52_53_54_rules_see_every_name(fields: bytes) -> None:
    body = mail(multipart(TEXT, part(b"harmless", type=fields % TELLING.encode(), encoding=b"")))
    said = verdict(body, "message/rfc822")
    assert {finding.name for finding in said.findings} == {"Name_Double_Extension"}


@pytest.mark.parametrize("odd", ["invoice.pdf.exe.", "invoice.pdf.exe ", "invoice.pdf.exe . .", "invoice.pdf.exe\0.txt",
                                 "c:/x/invoice.pdf.exe", "..\\invoice.pdf.exe", "invoice\u202efdp.exe",
                                 "invoice.txt.{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}"])  # fmt: skip
def test_evasion_55_names_are_normalised_before_the_rules(odd: str) -> None:
    field = b'Content-Type: application/x-y; name="' + odd.encode() + b'"\r\n'
    said = verdict(mail(multipart(TEXT, part(b"harmless", type=field, encoding=b""))), "message/rfc822")
    assert said.level is Level.SUSPICIOUS


def test_evasion_56_without_a_name_it_is_found_by_content() -> None:
    for fields in (b"", b"Content-Type: application/octet-stream\r\n", b"Content-Disposition: attachment\r\n"):
        infected(mail(multipart(TEXT, part(type=fields))), "message/rfc822")


PACKED = made_zip(Made(b"a.com", EICAR, method=0), Made(b"b.txt", b"nothing", method=0))
NUMBERS = b",".join(b"%d" % code for code in PACKED)


@pytest.mark.parametrize(
    "spelled",
    [
        b"new Uint8Array([" + NUMBERS + b"])",
        b"[ " + NUMBERS.replace(b",", b", ") + b" ]",
        b"[\n" + b",".join(b"0x%02x" % code for code in PACKED) + b"\n]",
        b"[" + b", ".join(b"0x%X" % code for code in PACKED) + b"]",
        b"String.fromCharCode(" + NUMBERS.replace(b",", b",\r\n") + b")",
        b"'" + PACKED.hex().encode() + b"'",
        b'"' + PACKED.hex().upper().encode() + b'"',
        b'"' + b"".join(b"\\x%02x" % code for code in PACKED) + b'"',
        b'"' + b"".join(b"\\x%02X" % code for code in PACKED) + b'"',
    ],
)
def test_evasion_72_bytes_that_a_script_spells(spelled: bytes) -> None:
    """Found in every form in which a page can hold a zip; the shorter ones are what tables of signatures hold."""
    assert len(PACKED) > 200
    page = b"<html><script>let x = " + spelled + b"; URL.createObjectURL(new Blob([x]))</script></html>"
    infected(page, "text/html")
    infected(page, "application/javascript")
    assert verdict(b"// " + b"x " * 70_000 + b"\n" + page, "text/html").level is Level.INFECTED


@pytest.mark.parametrize(
    "short",
    [
        b"[80,75,3,4]",
        b"[0x4d, 0x5a, 0x90]",
        b"'504b0304'",
        b"'\\x50\\x4b\\x03\\x04'",
        b"[77,90," + b"1,2,x," * 90 + b"]",
    ],
)
def test_evasion_72_signatures_in_a_script_are_no_program(short: bytes) -> None:
    assert verdict(b"let magic = " + short + b"; " * 100, "application/javascript").level is Level.CLEAN


def test_evasion_72_what_else_is_smuggled_is_suspicious() -> None:
    """A string in pieces is none that can be decoded here; that a page saves what begins like a program is told."""
    for start in (b"TVqQAAMAAAAEAAAA", b"UEsDBBQAAAAIAA", b"UmFyIRoHAM+Q"):
        page = b"<script>let x = '" + start + b"' + y; let u = URL.createObjectURL(new Blob([atob(x)]))</script>"
        assert {finding.name for finding in verdict(page, "text/html").findings} == {"HTML_Smuggling"}


def test_evasion_73_uploads_of_every_kind() -> None:
    form = multipart(b'Content-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + EICAR, boundary=b"x")
    infected(form, "multipart/form-data", content_type=b"multipart/form-data; boundary=x")
    infected(form, "multipart/form-data")
    infected(b"a=b&f=" + CODE.replace(b"+", b"%2B").replace(b"=", b"%3D"), "application/x-www-form-urlencoded")
    infected(b'{"f": {"data": "' + CODE + b'"}}', "application/json")
    infected(b'[["' + CODE + b'"]]', "application/json")
