"""EVASION.md 51 to 56: every file name that some reader might show is found, and none is invented."""

from __future__ import annotations

from base64 import b64encode

import pytest

from icapscan.unwrap.names import readings
from tests.unwrap.samples_mime import EICAR, TEXT, find, mail, multipart, part, unpack

TYPE = b"Content-Type: application/octet-stream"
DISPOSITION = b"Content-Disposition: attachment"


def names(type: bytes, disposition: bytes) -> tuple[str, ...]:
    """The names of an attachment with these two fields."""
    header = type + b"\r\n" + (disposition + b"\r\n" if disposition else b"")
    begin = find(mail(multipart(TEXT, part(type=header)))).begins["2"]
    return tuple(name for name in (begin.name, *begin.names) if name)


@pytest.mark.parametrize(
    ("type", "disposition"),
    [
        (TYPE + b'; name="a.exe"', b""),
        (TYPE, DISPOSITION + b'; filename="a.exe"'),
        (TYPE + b"; name=a.exe", DISPOSITION),
        (TYPE + b'; name="a.exe"', DISPOSITION + b'; filename="b.txt"'),
        (TYPE + b'; name="b.txt"', DISPOSITION + b'; filename="a.exe"'),
    ],
)
def test_evasion_51_where_the_name_stands(type: bytes, disposition: bytes) -> None:
    assert "a.exe" in names(type, disposition)
    assert ("b.txt" in names(type, disposition)) is (b"b.txt" in type + disposition)


def test_evasion_51_two_names_are_an_anomaly() -> None:
    header = TYPE + b'; name="a.exe"\r\n' + DISPOSITION + b'; filename="b.txt"\r\n'
    assert "names-differ" in unpack(mail(multipart(TEXT, part(type=header)))).kinds


@pytest.mark.parametrize(
    "parameters",
    [
        b"*=utf-8''a%2Eexe",
        b"*0=a.; filename*1=exe",
        b"*1=exe; filename*0=a.",
        b"*0*=utf-8''a%2E; filename*1=exe",
        b"*0*=utf-8''a%2E; filename*1*=ex%65",
        b"*0=a.; filename*2=exe",
        b"*1=a.; filename*2=exe",
        b"=a.; filename*1=exe",
        b"=x.txt; filename*=utf-8''a.exe",
        b"*=utf-8''a.exe; filename=x.txt",
        b"*=utf-16be''%00a%00.%00e%00x%00e",
        b"*=utf-16le''a%00.%00e%00x%00e%00",
        b"*0=a.exe",
        b"*0=a.;\r\n filename*1=exe",
    ],
)
def test_evasion_52_rfc_2231(parameters: bytes) -> None:
    assert "a.exe" in names(TYPE, DISPOSITION + b"; filename" + parameters)
    assert "a.exe" in names(TYPE + b"; name" + parameters.replace(b"filename", b"name"), b"")


@pytest.mark.parametrize(
    "word",
    [
        b"=?utf-8?Q?a=2Eexe?=",
        b"=?utf-8?B?" + b64encode(b"a.exe") + b"?=",
        b"=?utf-16be?B?" + b64encode("a.exe".encode("utf-16-be")) + b"?=",
        b"=?us-ascii?q?a=2E?= =?us-ascii?q?exe?=",
        b"=?iso-8859-1*en?Q?a.exe?=",
    ],
)
@pytest.mark.parametrize("quote", [b'"', b""])
def test_evasion_53_rfc_2047(word: bytes, quote: bytes) -> None:
    assert "a.exe" in names(TYPE, DISPOSITION + b"; filename=" + quote + word + quote)


@pytest.mark.parametrize(
    "parameter",
    [
        b'filename="a.exe',
        b'filename=a.exe"',
        b"filename='a.exe'",
        b'filename = "a.exe"',
        b'file\xffname="b"; filename="a.exe"',
        b'filename="a.exe" (x)',
        b"filename=(x)a.exe",
        b'filename="a.exe"x',
        b'filename="a\\.exe"',
        b'filename="b\\"; filename=a.exe',
        b"filename=b.txt; filename=a.exe",
        b'FILENAME="a.exe"',
        b"filename=\r\n a.exe",
        b'filename="a.exe";;',
        b"x filename=a.exe",
    ],
)
def test_evasion_54_broken_quoting(parameter: bytes) -> None:
    assert "a.exe" in names(TYPE, DISPOSITION + b"; " + parameter)


@pytest.mark.parametrize("odd", ["a.exe.", "a.exe ", "a.exe. . ", "a.exe\0.txt", "a\x01.exe", "a.exe\t"])
def test_evasion_55_names_as_a_file_system_takes_them(odd: str) -> None:
    assert names(TYPE, DISPOSITION + b'; filename="' + odd.encode() + b'"')[0] == "a.exe"


@pytest.mark.parametrize(
    "odd", ["invoice\u202efdp.exe", "a.pdf.exe", "a.{00021401-0000-0000-c000-000000000046}", "../../a.exe"]
)
def test_evasion_55_what_is_telling_stays_visible(odd: str) -> None:
    assert odd in names(TYPE, DISPOSITION + b'; filename="' + odd.encode() + b'"')


def test_evasion_55_names_are_bounded() -> None:
    found = names(TYPE, DISPOSITION + b'; filename="' + b"a" * 5000 + b'.exe"')
    assert 0 < len(found) <= 16 and all(len(name) <= 1024 for name in found)


def test_evasion_56_no_name() -> None:
    assert names(TYPE, b"") == names(TYPE, DISPOSITION) == ()
    assert find(mail(multipart(TEXT, part(type=TYPE + b"\r\n")))).parts["2"] == EICAR


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"=?utf-8?B?YS5leGVx1?=", "a.exeq"),
        (b"=?utf-8?B?YS5leG?=", "a.ex"),
        (b"=?utf-8?B?ww==?= =?utf-8?Q?=BC=2Eexe?=", "\xfc.exe"),
        (b"=?utf-8*de?q?a_b?= c", "a b c"),
        (b"=?unicode_escape?Q?a=5Cud800.exe?=", "a?.exe"),
        (b"=?no-such?Q?a.exe?=", "a.exe"),
    ],
)
def test_evasion_53_odd_encoded_words(written: bytes, shown: str) -> None:
    """Readers decode what there is; a name is always one that can be written down."""
    found = readings(written)
    assert found[0] == shown and found[-1] == written.decode()
    "".join(found).encode()
