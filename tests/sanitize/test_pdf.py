"""PDF: what acts is taken out, and qpdf finds nothing wrong with what is left."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pikepdf
import pytest

from icapscan.limits import MIB, Budget, Limits
from icapscan.sanitize.contract import CannotSanitize
from icapscan.sanitize.documents import CleanOptions
from icapscan.sanitize.documents_child import run_child
from icapscan.unwrap.gate import Gate
from tests.conftest import missing
from tests.sanitize.document_views import cleaned, seen
from tests.sanitize.test_archive import EICAR, ok
from tests.unwrap.pdf_maker import attachment, flate, object_stream, pdf

SCRIPT = b"app.alert(1); this.exportDataObject({nLaunch: 2})"
PAGE = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] %s >>"
ACTING = {
    "pdf-javascript", "pdf-javascript-acts", "pdf-launch", "pdf-open-action", "pdf-automatic-actions", "pdf-remote",
    "pdf-rich-media", "pdf-xfa",
}  # fmt: skip


def made(*objects: bytes | tuple[bytes, bytes], catalog: bytes = b"", page: bytes = b"") -> bytes:
    """A file with one page; further objects are numbered from 4."""
    data = pdf([PAGE % page, *objects], catalog=b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog)
    return data.replace(b"/Kids [] /Count 0", b"/Kids [3 0 R] /Count 1")


def checked(data: bytes) -> None:
    """What qpdf says."""
    program = shutil.which("qpdf")
    if program is None:
        missing("qpdf is not installed; on Debian: apt-get install qpdf")
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(data)
        file.flush()
        done = subprocess.run([program, "--check", file.name], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(data: bytes) -> set[str]:
    """Every name that is a key or a value in any object."""
    found: set[str] = set()
    with pikepdf.open(io.BytesIO(data)) as document:
        for one in document.objects:
            text = str(one.to_json() if not isinstance(one, pikepdf.Stream) else one.stream_dict.to_json())
            found |= {
                word for word in ("/JS", "/JavaScript", "/Launch", "/OpenAction", "/AA", "/XFA") if f'"{word}"' in text
            }
    return found


JS = b"<< /S /JavaScript /JS (%s) >>" % SCRIPT.replace(b"(", b"\\(").replace(b")", b"\\)")
CASES: dict[str, tuple[bytes, str]] = {
    "a script when it is opened": (made(catalog=b"/OpenAction " + JS), "JavaScript"),
    "a script elsewhere": (made(JS, catalog=b"/OpenAction 4 0 R"), "JavaScript"),
    "a script in a stream": (
        made(b"<< /S /JavaScript /JS 5 0 R >>", flate(SCRIPT), catalog=b"/OpenAction 4 0 R"), "JavaScript",
    ),
    "named scripts": (made(b"<< /Names [(x) " + JS + b"] >>", catalog=b"/Names << /JavaScript 4 0 R >>"), "JavaScript"),
    "names with escapes": (
        made(catalog=b"/Open#41ction << /S /Java#53cript /#4aS <%s> >>" % SCRIPT.hex().encode()), "JavaScript",
    ),
    "in an object stream": (
        made(object_stream({9: b"<< /S /JavaScript /JS 5 0 R >>"}), flate(SCRIPT), catalog=b"/OpenAction " + JS),
        "JavaScript",
    ),
    "a link": (
        made(b"<< /Type /Annot /Subtype /Link /Rect [0 0 1 1] /A " + JS + b" >>", page=b"/Annots [4 0 R]"),
        "JavaScript",
    ),
    "behind something harmless": (
        made(catalog=b"/OpenAction << /S /GoTo /D [3 0 R /Fit] /Next [ << /S /Named /N /X /Next " + JS + b" >> ] >>"),
        "an action that runs by itself",
    ),
    "an outline": (
        made(
            b"<< /First 5 0 R /Last 5 0 R >>", b"<< /Title (x) /Parent 4 0 R /A " + JS + b" >>",
            catalog=b"/Outlines 4 0 R",
        ),
        "JavaScript",
    ),
    "when a page is shown": (made(page=b"/AA << /O " + JS + b" >>"), "actions that run by themselves"),
    "when a field changes": (
        made(
            b"<< /Fields [5 0 R] >>", b"<< /FT /Tx /T (x) /AA << /K " + JS + b" /V << /S /JavaScript /JS (y) >> >> >>",
            catalog=b"/AcroForm 4 0 R",
        ),
        "actions that run by themselves",
    ),
    "a program": (
        made(catalog=b"/OpenAction << /S /Launch /F (cmd.exe) /Win << /F (cmd.exe) >> >>"),
        "an action that starts a program",
    ),
    "a program behind a link": (
        made(b"<< /Subtype /Link /Rect [0 0 1 1] /A << /S /Launch /F (x.exe) >> >>", page=b"/Annots [4 0 R]"),
        "an action that starts a program",
    ),
    "sending": (
        made(b"<< /Subtype /Link /Rect [0 0 1 1] /A << /S /SubmitForm /F (http://h/) >> >>", page=b"/Annots [4 0 R]"),
        "an action that sends data",
    ),
    "a form in XML": (
        made(b"<< /Fields [] /XFA 5 0 R >>", flate(b"<xdp:xdp/>"), catalog=b"/AcroForm 4 0 R"), "a form in XML",
    ),
    "rich media": (
        made(b"<< /Subtype /RichMedia /Rect [0 0 1 1] /RichMediaContent << >> >>", page=b"/Annots [4 0 R]"), "media",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_what_acts_is_gone(what: str) -> None:
    data, word = CASES[what]
    assert seen(data).kinds & ACTING
    result = ok(cleaned(data, "x.pdf"))
    assert word in result.what and result.name == ""
    checked(result.data)
    look = seen(result.data)
    assert not look.kinds & ACTING and not look.active and not look.hits and not look.failed
    assert not names_in(result.data) and SCRIPT not in b"".join(look.parts.values())
    with pikepdf.open(io.BytesIO(result.data)) as document:
        assert len(document.pages) == 1


def test_older_revisions_and_what_stands_beside_the_file_are_gone() -> None:
    old = made(catalog=b"/OpenAction " + JS)
    newer = b"1 0 obj\n<< /Type /Catalog /Pages 2 0 R /AA << /O " + JS + b" >> >>\nendobj\n"
    at = len(old)
    table = b"xref\n1 1\n%010d 00000 n \ntrailer\n<< /Root 1 0 R /Size 4 /Prev %d >>\n" % (at, old.rindex(b"xref\n0"))
    update = newer + table + b"startxref\n%d\n%%%%EOF\n" % (at + len(newer))
    data = b"<script>x</script>" + old + update + EICAR
    result = ok(cleaned(data))
    checked(result.data)
    assert result.data.startswith(b"%PDF") and EICAR not in result.data and b"<script>" not in result.data
    assert not seen(result.data).active


def test_what_shows_a_place_is_nothing_that_acts() -> None:
    for action in (b"[3 0 R /Fit]", b"<< /S /GoTo /D [3 0 R /Fit] >>"):
        assert cleaned(made(catalog=b"/OpenAction " + action)) is None
    both = ok(cleaned(made(catalog=b"/OpenAction [3 0 R /Fit] /AA << /WC " + JS + b" >>")))
    assert "an action that runs by itself" not in both.what


def test_fonts_and_pictures_may_have_any_name() -> None:
    page = (
        b"/Resources << /Font << /AA << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> /AA << /O %s >>" % JS
    )
    result = ok(cleaned(made(page=page)))
    with pikepdf.open(io.BytesIO(result.data)) as document:
        assert document.pages[0].Resources.Font.AA.BaseFont == "/Helvetica"
        assert "/AA" not in document.pages[0].obj


def files() -> bytes:
    return made(
        attachment(b"a.exe", 5), flate(EICAR, b"/Type /EmbeddedFile "),
        b"<< /Subtype /FileAttachment /Rect [0 0 1 1] /FS 4 0 R >>",
        catalog=b"/Names << /EmbeddedFiles << /Names [(a.exe) 4 0 R] >> >> /AF [4 0 R]",
        page=b"/Annots [6 0 R]",
    )  # fmt: skip


def test_embedded_files() -> None:
    data = files()
    path = next(path for path, part in seen(data).parts.items() if part == EICAR)
    assert cleaned(data, "x.pdf") is None, "they stay, where nothing is said"
    for result in (cleaned(data, options=CleanOptions(pdf_files=True)), cleaned(data, "x.pdf", path)):
        result = ok(result)
        assert result.what == ("an embedded file",)
        checked(result.data)
        look = seen(result.data)
        assert not look.active and not any(EICAR in part for part in look.parts.values())
    for ours in ("active-content.txt", "javascript1.js", "objects5", "streams"):
        assert cleaned(data, "x.pdf", ours) is None


def test_options() -> None:
    link = b"<< /Subtype /Link /Rect [0 0 1 1] /A << /S /URI /URI (http://h/) >> >>"
    data = made(link, page=b"/Annots [4 0 R]")
    assert cleaned(data) is None
    assert ok(cleaned(data, options=CleanOptions(pdf_links=True))).what == ("a link",)
    for case, option in (
        ("sending", CleanOptions(pdf_remote=False)),
        ("a form in XML", CleanOptions(pdf_xfa=False)),
        ("rich media", CleanOptions(pdf_media=False)),
    ):
        assert cleaned(CASES[case][0], options=option) is None


@pytest.mark.parametrize(
    "address", [b"javascript:x", b"java\\nscript:x", b"file://h/x", b"\\\\\\\\h\\\\x", b"VBScript:x"]
)
def test_links_that_start_something(address: bytes) -> None:
    link = b"<< /Subtype /Link /Rect [0 0 1 1] /A << /S /URI /URI (%s) >> >>" % address
    result = ok(cleaned(made(link, page=b"/Annots [4 0 R]")))
    assert result.what == ("a link that starts something",) and b"URI" not in result.data


def test_encrypted_files() -> None:
    for password, opens in (("", True), ("secret", False)):
        target = io.BytesIO()
        with pikepdf.open(io.BytesIO(CASES["a script elsewhere"][0])) as document:
            document.save(target, encryption=pikepdf.Encryption(owner="x", user=password))
        result = cleaned(target.getvalue())
        assert (result is not None) is opens
        if result is not None:
            checked(result.data)
            assert not seen(result.data).active


def test_bad_input_gives_nothing() -> None:
    data = CASES["a script elsewhere"][0]
    for bad in (b"%PDF-1.7\n", b"%PDF-1.7\n" + bytes(5000), data[:60], b"%PDF" + EICAR):
        assert cleaned(bad) is None
    assert cleaned(data, options=CleanOptions(size=100)) is None


def test_bounds() -> None:
    """A flood of objects, and references in a circle."""
    deep = made(b"[" * 3000 + b"]" * 3000, catalog=b"/OpenAction " + JS)
    circle = made(b"<< /S /GoTo /Next 5 0 R >>", b"<< /S /GoTo /Next 4 0 R /JS (x) >>", catalog=b"/OpenAction 4 0 R")
    bomb = made(*[flate(bytes(8 * MIB)) for _ in range(20)], catalog=b"/OpenAction " + JS)
    for data in (deep, circle, bomb):
        result = cleaned(data)
        assert result is None or not names_in(result.data)
    assert cleaned(circle) is not None and cleaned(bomb) is not None


def test_a_child_that_says_too_much_or_fails() -> None:
    budget = Budget(Limits(unpacked=100))
    with pytest.raises(CannotSanitize, match="too large"):
        run_child("icapscan.sanitize.pdf_child", [], CASES["a program"][0] + bytes(99), Gate(budget))
    with pytest.raises(CannotSanitize, match="could not be rewritten"):
        run_child("icapscan.sanitize.none", [], b"x", Gate(Budget(Limits())))


def test_damage_never_lets_scripts_pass() -> None:
    data = CASES["when a field changes"][0] + made(catalog=b"/OpenAction " + JS)
    chance, done = random.Random(3), 0
    for _ in range(25):
        changed = bytearray(data)
        for _ in range(5):
            changed[chance.randrange(len(changed))] = chance.choice(b"/<>()[] 0R%")
        result = cleaned(bytes(changed))
        if result is not None:
            done += 1
            assert not seen(result.data).kinds & ACTING and not names_in(result.data)
    assert done > 5


def test_every_pdf_of_the_corpus(corpus: Path) -> None:
    acting = done = 0
    for path in sorted(corpus.glob("pdf/*/*.pdf")):
        data = path.read_bytes()
        before = seen(data)
        result = cleaned(data, path.name)
        if before.kinds & {"pdf-javascript", "pdf-launch"} and not before.failed:
            acting += 1
            assert result is not None, path.name
        if result is not None:
            done += 1
            checked(result.data)
            after = seen(result.data)
            assert not after.kinds & ACTING and not after.hits and not names_in(result.data) - {"/XFA"}, path.name
            with pikepdf.open(io.BytesIO(data)) as old, pikepdf.open(io.BytesIO(result.data)) as new:
                assert len(old.pages) == len(new.pages)
    assert acting >= 6 and done >= 10
