"""PDF: embedded files, scripts, what acts by itself, filters, object streams, encryption, damage."""

from __future__ import annotations

import base64
import io
import random
import zlib

import pytest

from icapscan.findings import Reason
from icapscan.limits import MIB, Limits
from icapscan.unwrap import pdf_syntax
from icapscan.unwrap.contract import Bid, Declared, Evidence
from icapscan.unwrap.pdf import STREAMS_MAX, PdfFormat
from tests.unwrap.archive_driver import Got, drive, walk
from tests.unwrap.pdf_maker import CATALOG, Object, attachment, flate, object_stream, pdf

PROGRAM = b"MZ" + bytes(range(256)) * 9
SCRIPT = b"app.alert('hello');"


def read(data: bytes, limits: Limits | None = None) -> Got:
    return drive(PdfFormat(), data, limits=limits)


def scripts(got: Got) -> list[bytes]:
    return [data for path, data in got.parts.items() if path.startswith("javascript")]


def test_where_the_magic_is_looked_for() -> None:
    bid = PdfFormat().bid
    for first, expected in (
        (b"%PDF-1.7", Bid.YES),
        (b"x" * 1024 + b"%PDF-", Bid.MAYBE),
        (b"x" * 1030 + b"%PDF", Bid.NO),
    ):
        assert bid(Evidence(first, True, Declared())) is expected


@pytest.mark.parametrize("more", [b"/Type /EmbeddedFile ", b"", b"/Subtype /Image "])
def test_evasion_90_embedded_files_have_their_names(more: bytes) -> None:
    """By their type, or by what points to them, also when they say that they are pictures."""
    got = read(pdf([attachment(b"invoice.exe", 4), flate(PROGRAM, more)]))
    assert got.parts["invoice.exe"] == PROGRAM
    assert "pdf-embedded-file" in got.kinds and not got.failures


def test_evasion_90_an_embedded_file_that_nothing_points_to() -> None:
    assert read(pdf([flate(PROGRAM, b"/Type /Embedded#46ile")])).parts["file3"] == PROGRAM


def test_evasion_90_names_in_utf16_and_hexadecimal() -> None:
    name = "r\u00e9sum\u00e9.exe"
    wide = b"\xfe\xff" + name.encode("utf-16-be")
    for written in (b"<" + wide.hex().encode() + b">", b"(" + wide.replace(b"\\", b"\\\\") + b")"):
        text = b"<< /Type/Filespec /UF %s /EF << /UF 4 0 R >> >>" % written
        assert read(pdf([text, flate(PROGRAM)])).parts[name] == PROGRAM


def test_evasion_90_an_indirect_dictionary_of_files() -> None:
    objects: list[Object] = [b"<< /Type /Filespec /F (a.exe) /EF 4 0 R >>", b"<< /F 5 0 R >>", flate(PROGRAM)]
    assert PROGRAM in read(pdf(objects)).parts.values()


@pytest.mark.parametrize(
    "text",
    [
        b"<< /S /JavaScript /JS (app.alert\\('hello'\\);) >>",
        b"<< /S /JavaScript /JS(app.alert('hello');)>>",
        b"<< /S /JavaScript /JS (app.al\\\nert\\050'hello'\\051;) >>",
        b"<< /S /JavaScript /JS <" + SCRIPT.hex().encode() + b"> >>",
        b"<< /S /JavaScript /JS <" + (b"\xfe\xff" + SCRIPT.decode().encode("utf-16-be")).hex().encode() + b"> >>",
        b"<< /S /J#61vaScript /#4a#53 % x\n (app.alert('hello');) >>",
        b"<< /S /JavaScript /JS 4 0 R >>",
    ],
)
def test_evasion_90_scripts_however_they_are_written(text: bytes) -> None:
    got = read(pdf([text, flate(SCRIPT)]))
    assert SCRIPT in scripts(got)
    assert "pdf-javascript" in got.kinds


def test_evasion_90_scripts_in_object_streams() -> None:
    got = read(
        pdf(
            [
                object_stream({7: b"<< /S /JavaScript /JS (app.alert('hello');) >>", 8: attachment(b"b.exe", 4)}),
                flate(PROGRAM),
            ]
        )
    )
    assert scripts(got) == [SCRIPT] and got.parts["b.exe"] == PROGRAM
    assert b"/JavaScript" in got.parts["objects3"]


@pytest.mark.parametrize(
    "text, kind",
    [
        (b"<< /S /Launch /Win << /F (cmd.exe) >> >>", "pdf-launch"),
        (b"<< /S/L#61unch /F (x) >>", "pdf-launch"),
        (b"<< /OpenAction << /S /Named >> >>", "pdf-open-action"),
        (b"<< /AA << /O 9 0 R >> >>", "pdf-automatic-actions"),
        (b"<< /AcroForm << /XFA 9 0 R >> >>", "pdf-xfa"),
        (b"<< /Subtype /RichMedia >>", "pdf-rich-media"),
        (b"<< /S /GoToR /F (\\\\\\\\host\\\\x) >>", "pdf-remote"),
    ],
)
def test_evasion_90_what_acts_by_itself(text: bytes, kind: str) -> None:
    assert kind in read(pdf([text])).kinds
    assert kind in read(pdf([object_stream({9: text})])).kinds


def test_a_page_to_open_at_is_no_action() -> None:
    assert not read(pdf([], catalog=CATALOG[:-2] + b"/OpenAction [3 0 R /Fit] >>")).anomalies


FILTERS = {
    b"/FlateDecode": zlib.compress(PROGRAM),
    b"/Fl#61teDecode": zlib.compress(PROGRAM),
    b"[/Fl]": zlib.compress(PROGRAM),
    b"/ASCIIHexDecode": PROGRAM.hex().encode() + b">",
    b"[ /A85 ]": base64.a85encode(PROGRAM) + b"~>",
    b"[/ASCII85Decode /FlateDecode]": base64.a85encode(zlib.compress(PROGRAM), wrapcol=60) + b"\n~>",
    b"[/AHx /A85 /FlateDecode /FlateDecode]": base64.a85encode(zlib.compress(zlib.compress(PROGRAM))).hex().encode(),
}


@pytest.mark.parametrize("filters", FILTERS)
def test_evasion_90_chains_of_filters(filters: bytes) -> None:
    got = read(pdf([(b"/Type /EmbeddedFile /Filter " + filters, FILTERS[filters])]))
    assert got.parts["file3"] == PROGRAM and not got.failures


def test_evasion_90_rare_filters_are_undone_by_the_library() -> None:
    pytest.importorskip("pikepdf")
    packed = b"".join(
        bytes([len(PROGRAM[at : at + 128]) - 1]) + PROGRAM[at : at + 128] for at in range(0, len(PROGRAM), 128)
    )
    catalog = CATALOG[:-2] + b"/Extra 3 0 R >>"  # the library writes what can be reached
    data = pdf([(b"/Type /EmbeddedFile /Filter /RunLengthDecode", packed + b"\x80")], catalog=catalog)
    assert PROGRAM in drive(PdfFormat(), data).parts["rewritten.pdf"]
    got = walk(data)
    assert not got.failures
    assert any(path.endswith("file3") or "file" in path for path in got.leaves)


def test_evasion_90_an_unknown_filter_is_not_clean() -> None:
    catalog = CATALOG[:-2] + b"/Extra 3 0 R >>"
    got = walk(pdf([(b"/Type /EmbeddedFile /Filter /NoSuchDecode", PROGRAM)], catalog=catalog))
    assert got.reasons & {Reason.UNSUPPORTED, Reason.MALFORMED}


def encrypted(user: str) -> bytes:
    pikepdf = pytest.importorskip("pikepdf")
    document = pikepdf.new()
    document.add_blank_page()
    document.attachments["secret.exe"] = PROGRAM
    document.Root.OpenAction = pikepdf.Dictionary(S=pikepdf.Name.JavaScript, JS=SCRIPT)
    target = io.BytesIO()
    document.save(target, encryption=pikepdf.Encryption(owner="owner", user=user, R=6))
    return target.getvalue()


def test_evasion_85_encrypted_with_an_empty_password() -> None:
    data = encrypted("")
    assert PROGRAM not in data
    got = walk(data)
    assert not got.failures and "encrypted-document" in got.kinds
    assert {"pdf-javascript", "pdf-embedded-file"} <= got.kinds
    assert any(path.endswith("secret.exe") for path in got.leaves)


def test_evasion_85_encrypted_with_a_password() -> None:
    got = walk(encrypted("user"))
    assert got.reasons == {Reason.ENCRYPTED}


def test_a_file_that_only_looks_encrypted_is_read() -> None:
    """Objects that the library would drop, because nothing points to them, must not hide behind a comment."""
    pytest.importorskip("pikepdf")
    got = walk(pdf([b"% /Encrypt 9 0 R\n<< /S /Launch >>", flate(PROGRAM, b"/Type /EmbeddedFile")]))
    assert {"pdf-launch", "pdf-embedded-file"} <= got.kinds and not got.failures


def test_evasion_85_an_attachment_named_like_what_the_library_makes() -> None:
    inner = encrypted("")
    got = walk(pdf([attachment(b"rewritten.pdf", 4), flate(inner)]))
    assert not got.failures and any(path.endswith("secret.exe") for path in got.leaves)
    got = walk(pdf([attachment(b"rewritten.pdf", 4), flate(encrypted("user"))]))
    assert got.reasons == {Reason.ENCRYPTED}


def test_evasion_90_object_streams_of_differences() -> None:
    """A predictor before every row: the library undoes it."""
    pytest.importorskip("pikepdf")
    text = b"9 0 << /S /JavaScript /JS (app.alert\\('hello'\\);) >>"
    rows = b"".join(b"\0" + text[at : at + 10].ljust(10) for at in range(0, len(text), 10))
    head = b"/Type /ObjStm /N 1 /First 4 /Filter /FlateDecode /DecodeParms << /Predictor 12 /Columns 10 >>"
    got = walk(pdf([(head, zlib.compress(rows))], catalog=CATALOG[:-2] + b"/Extra 3 0 R >>"))
    assert "pdf-javascript" in got.kinds and not got.failures


# Damage and hiding


def test_evasion_90_no_table_no_length_no_end() -> None:
    whole = pdf([attachment(b"a.exe", 4), flate(PROGRAM)], table=False)
    broken = whole.replace(b"/Length", b"/Width")
    assert read(broken).parts["a.exe"] == PROGRAM
    assert read(broken.replace(b"endstream", b"")).parts["a.exe"] == PROGRAM
    assert read(b"junk" * 100 + whole).parts["a.exe"] == PROGRAM


def test_evasion_90_every_revision_is_read() -> None:
    first, second = pdf([flate(PROGRAM, b"/Type /EmbeddedFile")]), pdf([flate(b"PK\3\4 other")], head=b"")
    got = read(first + second)
    assert {PROGRAM, b"PK\3\4 other"} <= set(got.contents)


def test_data_that_holds_the_word_endstream() -> None:
    tricky = b"PK\3\4 before\nendstream\nendobj after"
    assert read(pdf([(b"/Type /EmbeddedFile", tricky)])).parts["file3"] == tricky


def test_objects_behind_compressed_data() -> None:
    """A stream that begins in a string or a comment must not swallow the objects behind it."""
    fake = b"(<< /Filter /FlateDecode >> stream\n" + zlib.compress(b"x" * 90) + b"\nendobj\n"
    hidden = b"9 0 obj << /S /JavaScript /JS (app.alert('hello');) >> endobj " + b" " * 60
    got = read(pdf([fake + hidden + b"\nendstream"], table=False))
    assert SCRIPT in scripts(got)


def test_damaged_embedded_data_is_not_clean() -> None:
    got = read(pdf([(b"/Type /EmbeddedFile /Filter /FlateDecode", zlib.compress(PROGRAM)[:-30])]))
    assert got.reasons == {Reason.MALFORMED}
    assert PROGRAM.startswith(got.parts["file3"][:100]) and got.parts["file3"]


def test_a_damaged_page_is_an_anomaly() -> None:
    page = random.Random(1).randbytes(5000)
    got = read(pdf([(b"/Filter /FlateDecode", zlib.compress(page)[:-300])]))
    assert got.kinds == {"pdf-damaged-stream"} and page.startswith(got.parts["streams"])


def test_pages_are_decoded_and_pictures_are_not() -> None:
    got = read(
        pdf([flate(b"BT (page) Tj ET"), flate(bytes(9999), b"/Subtype /Image"), flate(PROGRAM, b"/Subtype /Image")])
    )
    assert got.parts == {"streams": b"BT (page) Tj ET", "stream5": PROGRAM}


def test_a_bomb_is_over_limit() -> None:
    bomb = zlib.compress(zlib.compress(bytes(64 * MIB), 9), 9)
    got = read(pdf([(b"/Filter [/FlateDecode /FlateDecode]", bomb)]))
    assert Reason.OVER_LIMIT in got.reasons and got.budget.unpacked < 20 * MIB


def test_many_streams_are_over_limit() -> None:
    data = b"%PDF-1.7\n" + b"<<>>stream\n" * (STREAMS_MAX + 2)
    got = read(data, Limits(seconds=60.0))
    assert not got.failures or Reason.OVER_LIMIT in got.reasons
    got = read(b"%PDF-1.7\n" + b"<<>>stream\nendstream\n" * (STREAMS_MAX + 2), Limits(seconds=60.0))
    assert Reason.OVER_LIMIT in got.reasons


def test_many_names_and_open_strings_are_read_in_time() -> None:
    """Each string would run to the end of the file; a guard against hanging."""
    text = b"<< /EF 9 0 R /F 9 0 R " + b"/UF (x" * 200_000
    got = read(pdf([text]), Limits(seconds=30.0))
    assert got.budget.spent is None
    got = read(pdf([b"<< " + b"/JS (x" * 20_000]), Limits(seconds=30.0))
    assert Reason.OVER_LIMIT in got.reasons


def test_an_ordinary_file_says_nothing() -> None:
    got = read(pdf([flate(b"BT (page) Tj ET"), b"<< /Type /Font >>"]))
    assert not got.anomalies and not got.failures


@pytest.mark.parametrize(
    "script, acts",
    [
        (b"this.exportDataObject({cName: 'x', nLaunch: 2});", True),
        (b"Collab.collectEmailInfo({msg: x});", True),
        (b"app.launchURL('http://example.org/');", False),  # the forms of a designer program all have it
        (b"var x = unescape('%u4141%u4141');", True),
        (b"eval(this.info.title);", True),
        (SCRIPT, False),
        (b"event.value = 1 + 2;", False),
    ],
)
def test_evasion_90_scripts_that_act(script: bytes, acts: bool) -> None:
    for objects in ([b"<< /JS <" + script.hex().encode() + b"> >>"], [b"<< /JS 4 0 R >>", flate(script)]):
        assert ("pdf-javascript-acts" in read(pdf(objects)).kinds) is acts


@pytest.mark.parametrize("seed", range(40))
def test_damage_never_raises(seed: int) -> None:
    dice = random.Random(seed)
    objects = [
        attachment(b"a.exe", 4),
        flate(PROGRAM),
        object_stream({9: b"<< /JS (x) >>"}),
        (b"/Filter [/A85]", b"<~87cUR~>"),
    ]
    data = bytearray(pdf(objects))
    for _ in range(dice.randint(1, 40)):
        data[dice.randrange(9, len(data))] = dice.choice(b"()<>[]/R 0\\%\xff")
    read(bytes(data[: dice.randrange(100, len(data))]))


@pytest.mark.parametrize(
    "written, expected",
    [(b"plain)", b"plain"), (b"a(b(c)d)e)f)", b"a(b(c)d)e"), (rb"\101\)\n\q\7)", b"A)\nq\7"), (b"no end", b"no end")],
)
def test_literal_strings(written: bytes, expected: bytes) -> None:
    assert pdf_syntax.string(written, 0) == expected


def test_percent_signs_are_looked_at_once() -> None:
    """A line of them is too long for a comment and stays; eight million of them took minutes."""
    assert pdf_syntax.without_comments(b"/J% a comment\nS (%)\n% more") == b"/J S (  % more"
    flood = pdf_syntax.without_comments(b"%%EOF" * 1_600_000 + b"\n/JS% a\r(x)")
    assert flood.replace(b" ", b"").startswith(b"%%EOF" * 200) and flood.endswith(b"/JS (x)")
