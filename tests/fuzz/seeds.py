"""The inputs that fuzzing begins with: made here, by the makers of the decoders' own tests; and files of the corpus."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.fuzz import seeds_archives as archives
from tests.fuzz import seeds_documents as documents
from tests.fuzz import seeds_mail as mail
from tests.fuzz.nested import LAYERS
from tests.fuzz.seeds_mail import EVIL, TEXT
from tests.fuzz.target import Target
from tests.unwrap import bombs, samples_mime
from tests.unwrap.coders import gzipped
from tests.unwrap.zip_maker import Made, made_zip

CORPUS_MOST = 150
"""Files of the corpus for one target, the shortest first."""


def everything() -> Iterable[bytes]:
    """Some of each kind, and some in each other."""
    for maker in (
        mail.mails, mail.texts, mail.tnefs, mail.smimes, archives.zips, archives.tars, documents.documents,
        documents.pdfs,
        documents.rtfs, documents.onenotes,
    ):  # fmt: skip
        yield from list(maker())[:6]
    attached = samples_mime.part(b64encode(made_zip(Made(b"a", EVIL))))
    letter = samples_mime.mail(samples_mime.multipart(samples_mime.TEXT, attached))
    yield letter
    yield made_zip(Made(b"mail.eml", letter), Made(b"a.gz", gzipped(letter)))
    yield gzipped(gzipped(gzipped(TEXT)))
    yield bombs.gzip_quine()
    yield bombs.deep(8)


def layers() -> Iterable[bytes]:
    """Each layer alone, and each in its neighbours."""
    for number in range(len(LAYERS)):
        yield bytes([0, number]) + EVIL
        yield bytes([2, number, (number + 7) % len(LAYERS), (number + 11) % len(LAYERS)]) + TEXT


MAKERS: dict[str, Callable[[], Iterable[bytes]]] = {
    "mime": mail.mails, "header": mail.headers, "multipart": mail.multiparts, "embedded": mail.texts,
    "transfer_base64": mail.base64s, "transfer_quoted": mail.quoteds, "transfer_uu": mail.uus,
    "transfer_yenc": mail.yencs, "transfer_binhex": mail.binhexes, "quoted": mail.undeclared, "charset": mail.charsets,
    "mbox": mail.mboxes, "urlencoded": mail.forms, "tnef": mail.tnefs, "smime": mail.smimes,
    "openpgp": mail.openpgps,
    "zip": archives.zips, "tar": archives.tars, "single": archives.compressed, "codings": archives.coded,
    "warc": archives.warcs, "sis": archives.installations, "selfextract": archives.programs, "closed": archives.closed,
    "libarchive": archives.library_archives, "sevenzip": archives.seven,
    "ole": documents.documents, "vba": documents.vbas, "biff": documents.records, "office_xml": documents.xmls,
    "office_crypto": documents.encrypted, "rtf": documents.rtfs, "pdf": documents.pdfs, "onenote": documents.onenotes,
    "lnk": documents.shortcuts, "activemime": documents.active_mimes, "walker": everything,
    "nested": layers,
}  # fmt: skip


def made(target: Target) -> list[bytes]:
    """Seeds made by the tests' makers, in the same order each time."""
    return [data[: target.longest] for data in MAKERS[target.name]()]


def found(target: Target, corpus: Path | None) -> list[bytes]:
    """Seeds of the corpus, where there is one: short enough, the shortest first."""
    if corpus is None:
        return []
    paths = {
        path for pattern in target.corpus for path in corpus.glob(pattern if "*" in pattern else f"{pattern}/**/*")
    }
    sized = sorted((path.stat().st_size, path) for path in paths if path.is_file())
    return [path.read_bytes() for size, path in sized if 0 < size <= target.longest][:CORPUS_MOST]
