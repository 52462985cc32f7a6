"""Fuzz targets for mail, form-data and text. The first line of each is its invariant; *sound*: see `oracle.py`."""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import parse_qsl

from icapscan.unwrap import mime_fields, mime_params, names, uu, yenc
from icapscan.unwrap.binhex import BinHex, Fork
from icapscan.unwrap.contract import Declared
from icapscan.unwrap.multipart import Mark, Match, Sniffer, Splitter
from icapscan.unwrap.tnef_props import properties
from icapscan.unwrap.tnef_rtf import decompressed
from icapscan.unwrap.transfer import Transfer
from icapscan.unwrap.transfer_base64 import Base64Reading, base64
from icapscan.unwrap.transfer_quoted import QuotedPrintable, QuotedReading
from tests.fuzz import oracle
from tests.fuzz.mutators import lines, near_words
from tests.fuzz.target import KIB, Target, entries, every
from tests.unwrap import coders

FIELDS = (
    b"Content-Type: ", b"Content-Transfer-Encoding: ", b"Content-Disposition: ", b"MIME-Version: 1.0", b"From: a",
    b"multipart/mixed", b"multipart/form-data", b"message/rfc822", b"text/html", b"application/octet-stream",
    b"; boundary=", b"; boundary=\"frontier\"", b"--frontier", b"--frontier--", b"base64", b"quoted-printable",
    b"x-uuencode", b"x-yencode", b"binhex", b"attachment; filename=", b"filename*0*=utf-8''", b"name=", b"; charset=",
    b"=?utf-8?B?", b"=?utf-16?Q?", b"?=", b"utf-7", b"(", b")", b"\"", b"\r\n\r\n", b"\r\n ", b"\n", b"\r", b"\0",
    b"form-data; name=", b"Received: ", b"Subject: ", b"message/partial", b"message/external-body", b"x-gzip64",
    b"unicode_escape", b"punycode", b"idna", b"multipart/digest", b"--",
)  # fmt: skip
EMBEDDED = (
    b"begin 644 a.com\n", b"begin-base64 644 a\n", b"`\nend\n", b"=ybegin line=128 size=", b" name=",
    b"=ypart ", b"=yend",
    b"(This file must be converted with BinHex 4.0)", b"data:", b";base64,", b"data:text/html,", b"\n..", b"====\n",
    b"TVqQAAMAAAAEAAAA", b"M", b"\n:",
)  # fmt: skip
MAILS = (
    Declared(media_type="message/rfc822"), Declared(),
    Declared(media_type="multipart/mixed", content_type=b"multipart/mixed; boundary=frontier"),
    Declared(media_type="multipart/form-data", content_type=b"multipart/form-data; boundary=frontier"),
    Declared(media_type="message/rfc822", in_skeleton=True), Declared(media_type="text/plain"),
)  # fmt: skip
TEXTS = (Declared(), Declared(media_type="text/html"), Declared(("a.txt",), "text/plain", "utf-7"))
MESSAGE, TEXT = entries("mime", "multipart"), entries("text")
QUOTED, CHARSET, MBOX = entries("quoted"), entries("charset"), entries("mbox")
URLENCODED, TNEF, SMIME, OPENPGP = entries("urlencoded"), entries("tnef"), entries("smime"), entries("openpgp")


def mime(data: bytes) -> None:
    """Messages and multiparts: sound."""
    every(data, MESSAGE, MAILS)


def header(data: bytes) -> None:
    """Header blocks: reading raises nothing, keeps the bytes, is bounded, and ends at one place for any split."""
    mime_fields.parse(data)
    mime_fields.known_fields(data)
    for how in mime_fields.HeaderEnd:
        one, two = _header([data], how), _header(oracle.pieces(data, oracle.dice(data)), how)
        assert one == two, f"the split matters for where a header ends: {how}"
        assert one[0] + one[1] == data, "a header or its body has other bytes than came"
    for value in (data, data[: mime_params.VALUE_MAX]):
        mime_params.parse(value)
        for key in (b"boundary", b"filename", b"charset"):
            found, _ = mime_params.candidates(value, key)
            assert len(found) <= mime_params.CANDIDATES_MAX + 1  # the empty one
    told, _ = names.part_names((data,), (data,))
    assert len(told) <= names.NAMES_MAX
    for name in (*told, names.field_name((data,))):
        name.encode("utf-8")
        assert len(name) <= names.NAME_MAX


def _header(split: list[bytes], how: mime_fields.HeaderEnd) -> tuple[bytes, bytes]:
    reader = mime_fields.HeaderReader(how)
    rest: bytes | None = None
    for piece in split:
        if rest is None:
            rest = reader.feed(piece)
        else:
            rest += piece
    if rest is None:
        rest = reader.finish()
    return reader.block, rest


def multipart(data: bytes) -> None:
    """Multipart bodies: the splitter loses nothing but line ends before delimiters; the same for any split."""
    cut, _, body = data.partition(b"\n")
    boundary = cut[:70].rstrip() or b"frontier"
    for match in Match:
        whole = _marks(Splitter(boundary, match), [body])
        assert whole == _marks(Splitter(boundary, match), oracle.pieces(body, oracle.dice(data))), match
        at = 0
        for _, piece in whole:
            found = body.find(piece, at)
            assert 0 <= found <= at + 2 and not body[at:found].strip(b"\r\n"), "bytes are lost"
            at = found + len(piece)
        assert len(body) - at <= 2
    given = []
    for split in ([body], oracle.pieces(body, oracle.dice(data))):
        given.append(_sniffed(Sniffer(), split))
    assert given[0] == given[1], "the split matters for what is sniffed"
    assert given[0][0] + given[0][2] == body


def _marks(splitter: Splitter, split: list[bytes]) -> list[tuple[Mark, bytes]]:
    out: list[tuple[Mark, bytes]] = []

    def given() -> Iterator[tuple[Mark, bytes]]:
        for piece in split:
            yield from splitter.feed(piece)
        yield from splitter.finish()

    for mark, piece in given():
        if out and mark is Mark.DATA is out[-1][0]:
            out[-1] = mark, out[-1][1] + piece
        else:
            out.append((mark, piece))
    return out


def _sniffed(sniffer: Sniffer, split: list[bytes]) -> tuple[bytes, bytes | None, bytes]:
    before = b""
    for number, piece in enumerate(split):
        passed, token, rest = sniffer.feed(piece)
        before += passed
        if token is not None:
            return before, token, rest + b"".join(split[number + 1 :])
    passed, token, rest = sniffer.feed(b"", True)
    return before + passed, token, rest


def transfer_base64(data: bytes) -> None:
    """base64 in every reading: the same for any split, no more than came; what was encoded comes out again."""
    _transfer(data, [partial(base64, reading) for reading in Base64Reading])
    coded = b64encode(data)
    width = 4 * (1 + len(data) % 19)
    wrapped = b"\r\n".join(coded[at : at + width] for at in range(0, len(coded), width))
    for reading in (Base64Reading.LENIENT, Base64Reading.STOP_AT_PADDING, Base64Reading.STOP_AT_JUNK):
        _round_trip(base64(reading), wrapped, data)


def transfer_quoted(data: bytes) -> None:
    """quoted-printable in every reading: the same for any split; what was encoded comes out again."""
    _transfer(data, [partial(QuotedPrintable, reading) for reading in QuotedReading])
    plain = data.replace(b"\r", b"")
    for reading in QuotedReading:
        _round_trip(QuotedPrintable(reading), binascii.b2a_qp(plain, istext=True), plain)


def transfer_uu(data: bytes) -> None:
    """uuencode: the same for any split, at most 63 bytes a line; what was encoded comes out again."""
    _transfer(data, [uu.Uuencode], most=63 * (data.count(b"\n") + 1))
    _round_trip(uu.Uuencode(), coders.uuencode(data), data)


def transfer_yenc(data: bytes) -> None:
    """yEnc: the same for any split, no more than came; what was encoded comes out again."""
    for unstuff in (False, True):
        outs = []
        for split in ([data], oracle.pieces(data, oracle.dice(data))):
            stream = yenc.YEnc(unstuff)
            outs.append((b"".join(map(stream.feed, split)) + stream.finish(), stream.dotted))
        assert outs[0] == outs[1] and len(outs[0][0]) <= len(data)
    told = oracle.check(TEXT[0], b"A text.\n" + coders.yenc(data))
    assert not data or (told is not None and data in told.contents)


def transfer_binhex(data: bytes) -> None:
    """BinHex: the same for any split, at most 255 times what came; what was encoded comes out again."""
    outs = [_forks([data]), _forks(oracle.pieces(data, oracle.dice(data)))]
    assert outs[0] == outs[1]
    assert sum(map(len, outs[0][0].values())) <= 255 * len(data)
    text = coders.binhex(data, data[:50])
    forks, complete = _forks([text[text.index(b"\n:") + 2 :].rpartition(b":")[0]])
    assert complete and forks == {Fork.DATA: data, Fork.RESOURCE: data[:50]}


def _forks(split: list[bytes]) -> tuple[dict[Fork, bytes], bool]:
    stream = BinHex()
    out = {Fork.DATA: b"", Fork.RESOURCE: b""}

    def pieces() -> Iterator[tuple[Fork, bytes]]:
        for piece in split:
            yield from stream.feed(piece)
        yield from stream.finish()

    for fork, piece in pieces():
        out[fork] += piece
    return out, stream.complete and not stream.damaged


def _transfer(data: bytes, makers: list[Callable[[], Transfer]], most: int | None = None) -> None:
    for number, make in enumerate(makers):
        outs = []
        for split in ([data], oracle.pieces(data, oracle.dice(data))):
            stream = make()
            out = b"".join(map(stream.feed, split)) + stream.finish()
            outs.append((out, stream.doubts))
            assert len(out) <= (len(data) if most is None else most), "too much came out"
        assert outs[0] == outs[1], f"the split matters for reading {number}: {outs!r:.2000}"


def _round_trip(stream: Transfer, coded: bytes, data: bytes) -> None:
    split = oracle.pieces(coded, oracle.dice(data))
    assert b"".join(map(stream.feed, split)) + stream.finish() == data, "what was encoded does not come out again"


def embedded(data: bytes) -> None:
    """Things embedded in text: sound."""
    every(data, TEXT, TEXTS)


def quoted(data: bytes) -> None:
    """Undeclared quoted-printable: sound."""
    every(data, QUOTED, TEXTS)


def charset(data: bytes) -> None:
    """Text that hides ASCII: sound, and text in UTF-16 comes out as UTF-8."""
    names = ("utf-7", "utf-16", "utf-32", "ebcdic", "utf-16-be", "cp037", "")
    name = names[len(data) % len(names)]
    for entry in CHARSET:
        oracle.check(entry, data, Declared(charset=name, media_type="text/html"))
    text = data.decode("latin-1")
    told = oracle.check(CHARSET[0], text.encode("utf-16"))
    assert not text or (
        told is not None and text.encode() in {one.removeprefix(b"\xef\xbb\xbf") for one in told.contents}
    )


def mbox(data: bytes) -> None:
    """mbox files: sound, and no byte of a message is lost."""
    for entry in MBOX:
        told = oracle.check(entry, data)
        if told is not None and told.begins and not told.failures:
            kept = sum(len(ending.data) for ending in told.ended.values())
            assert kept + len(told.begins) * 513 >= len(data), "bytes are lost"


def urlencoded(data: bytes) -> None:
    """Forms: sound, and long values are what a server would read."""
    declared = Declared(media_type="application/x-www-form-urlencoded")
    for entry in URLENCODED:
        told = oracle.check(entry, data, declared)
        assert told is not None
        if told.failures or b"+" in data or b";" in data:
            continue
        for _, value in parse_qsl(data.decode("latin-1"), encoding="latin-1", max_num_fields=10_000):
            if len(value) >= 256:
                assert value.encode("latin-1") in told.contents, "a long value is missing"


def tnef(data: bytes) -> None:
    """TNEF: sound, its properties and compressed RTF too; an attachment that is well made comes out."""
    every(data, TNEF)
    for _ in properties(data, 0, len(data)):
        pass
    out = sum(len(piece or b"") for piece in decompressed(data))
    assert out <= 17 * len(data) + 16
    told = oracle.check(TNEF[0], coders.winmail(data))
    assert told is not None and data in told.contents and not told.failures


def smime(data: bytes) -> None:
    """S/MIME: sound; signed content comes out, in DER and in pieces of BER."""
    every(data, SMIME)
    for pieces in (0, 1 + len(data) % 97):
        told = oracle.check(SMIME[0], coders.cms(2, data, pieces=pieces))
        assert told is not None and (not data or told.contents == {data}) and not told.failures


def openpgp(data: bytes) -> None:
    """OpenPGP: sound; literal data comes out, however it is packed and cut into pieces."""
    every(data, OPENPGP)
    for how in range(4):
        told = oracle.check(OPENPGP[0], coders.openpgp(data, how, pieces=len(data) % 9))
        assert told is not None and told.contents == {data} and not told.failures


MAIL = (
    Target(mime, FIELDS, lines, 16 * KIB, ("mime", "multipart"), corpus=("mime", "mime-evasion")),
    Target(header, FIELDS, lines, 4 * KIB, corpus=("mime-filename",)),
    Target(multipart, FIELDS, lines, 4 * KIB),
    Target(transfer_base64, (b"==", b"=", b"-", b"_", b"\r\n", b"#", b"\n\n", b"=-"), lines, 4 * KIB),
    Target(transfer_quoted, (b"=", b"=\r\n", b"=3D", b"=3d", b"= \n", b"=\t", b"\r", b"=="), lines, 4 * KIB),
    Target(transfer_uu, EMBEDDED[:3], lines, 4 * KIB),
    Target(transfer_yenc, (*EMBEDDED[3:7], b"\r\n..", b"=\n", b"=\r\n"), lines, 4 * KIB),
    Target(transfer_binhex, (b"\x90\0", b":", b"!"), lines, 4 * KIB),
    Target(embedded, EMBEDDED, lines, 16 * KIB, ("text",), corpus=("yenc", "uu-binhex")),
    Target(quoted, (b"=\r\n", b"=3D", b"=C3=A9", b"="), lines, 8 * KIB, ("quoted",)),
    Target(charset, (b"\xff\xfe", b"\xfe\xff", b"+A", b"-", b"+ADw-", b"\0\0\xfe\xff"),
           near_words, 8 * KIB, ("charset",)),
    Target(mbox, (b"From ", b"\nFrom a@b Tue Nov 24 03:41:06 2026\n", *FIELDS[:5]), lines, 8 * KIB, ("mbox",)),
    Target(urlencoded, (b"&", b"=", b"%", b"%2B", b"+", b"%25"), lines, 8 * KIB, ("urlencoded",)),
    Target(tnef, (b"\x78\x9f\x3e\x22", b"\2\x0f\x80\6\0", b"\1\3\x90\6\0", b"\2\5\x90\6\0", b"LZFu", b"MELA"),
           near_words, 8 * KIB, ("tnef",), corpus=("tnef",)),
    Target(smime, (b"\x30\x80", b"\0\0", b"\x24\x80", b"\x04\x82", b"\xa0\x80",
                   bytes.fromhex("06092a864886f70d010702")),
           near_words, 8 * KIB, ("smime",)),
    Target(openpgp, (b"\x85\1\x0c\3", b"\xa3\1", b"\xc8\xff", b"\xcbb", b"\x90\x0d\3", b"\xd2\xff", b"\xe5", b"\2\x78"),
           near_words, 8 * KIB, ("openpgp",)),
)  # fmt: skip
