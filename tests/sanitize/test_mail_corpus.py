"""Every mail of the corpus with one part marked bad by its hash: what independent readers see afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from msgspec import Struct

from icapscan.sanitize.contract import CannotSanitize
from icapscan.sanitize.mail import FIELD
from icapscan.unwrap.tree import child_base
from tests.conftest import missing
from tests.sanitize.mails import Result, boundaries, corpus_mails, is_notice, leaves, mime_parts, sanitized, walked


class Case(Struct, frozen=True):
    """One mail with the parts that have one hash taken out."""

    name: str
    sha256: str
    paths: tuple[str, ...]
    bad: bytes
    result: Result

    @property
    def exact(self) -> bool:
        """Only the marked parts were replaced, and nothing around them."""
        return {removed.path for removed in self.result.done.removed} == set(self.paths)

    @property
    def odd(self) -> set[str]:
        """What the walker found odd in the mail."""
        return {kind for kind, _ in walked(self.result.before).anomalies}

    def around(self) -> set[str]:
        """Declared types of the containers that the marked parts stand in."""
        ready = mime_parts(walked(self.result.before))
        bases = {path: child_base(path, next(iter(one.declared.names), "")) for path, one in ready.items()}
        return {
            ready[path].declared.media_type
            for path, base in bases.items()
            if any(marked.startswith(base + "/") for marked in self.paths)
        }


@cache
def cases(corpus: Path) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """One leaf of each mail with two or more, rotating; and the mails that cannot be rewritten."""
    done, refused = [], []
    for number, (name, body) in enumerate(corpus_mails(corpus)):
        tree = walked(body)
        parts = {path: tree.parts[path] for path, ready in mime_parts(tree).items() if "mime" not in ready.opened}
        if len(parts) < 2:
            continue
        bad = sorted(parts.items())[number % len(parts)][1]
        sha256 = hashlib.sha256(bad).hexdigest()
        paths = tuple(path for path, data in parts.items() if hashlib.sha256(data).hexdigest() == sha256)
        try:
            done.append(Case(name, sha256, paths, bad, sanitized(body, *paths)))
        except CannotSanitize:
            refused.append(name)
    return tuple(done), tuple(refused)


def test_most_mails_can_be_rewritten_and_the_others_are_read_in_several_ways(corpus: Path) -> None:
    done, refused = cases(corpus)
    by_name = dict(corpus_mails(corpus))
    assert len(done) > 300
    for name in refused:
        tree = walked(by_name[name])
        odd = {kind for kind, _ in tree.anomalies} - {"names-differ"}
        assert odd or tree.ready[""].opened != ("mime",), name


def test_the_walker_finds_nothing_bad_any_more(corpus: Path) -> None:
    for case in cases(corpus)[0]:
        tree = walked(case.result.after)
        hashes = {hashlib.sha256(data).hexdigest() for data in tree.parts.values()}
        # An empty part is in many mails; what is not empty must be gone in every reading.
        assert case.sha256 not in hashes or not case.bad, case.name


def test_python_reads_every_other_part_with_the_same_bytes(corpus: Path) -> None:
    exact = 0
    for case in cases(corpus)[0]:
        before, after = leaves(case.result.before), leaves(case.result.after)
        if case.sha256 not in {hashlib.sha256(data).hexdigest() for _, data in before}:
            continue  # it does not see the part: a message in base64, or what is not declared as what it is
        notices = sum(map(is_notice, after))
        assert notices == len(case.result.done.removed), case.name
        rest = iter(before)
        assert all(leaf in rest for leaf in after if not is_notice(leaf)), f"{case.name}: in order, with the same bytes"
        if case.exact and len(before) == len(after):
            exact += 1
            gone = [leaf for leaf, now in zip(before, after, strict=True) if is_notice(now)]
            assert len(gone) == notices
            kept = zip(before, after, strict=True)
            assert all(leaf == now for leaf, now in kept if not is_notice(now)), case.name
    assert exact > 250


def test_every_byte_outside_of_the_parts_and_the_added_field_is_the_same(corpus: Path) -> None:
    for case in cases(corpus)[0]:
        result = case.result
        without, at = result.without_field, 0
        kept, rebuilt = list(_kept(case)), b""
        stale = sum(map(_stale, _gone(case)))
        assert len(kept) == len(result.done.removed) + stale + 1
        for piece in kept:
            at = without.index(piece, at) + len(piece)
            rebuilt += piece
        assert without.startswith(kept[0]) and without.endswith(kept[-1]), case.name
        if case.exact:
            tokens = [b"--" + boundary for boundary in boundaries(result.before)]
            for gone in _gone(case):
                assert not any(token in gone for token in tokens), f"{case.name}: no delimiter is within a leaf"


def _changed(case: Case) -> list[tuple[int, int]]:
    """Where the virgin mail changed, in order, the added field left out."""
    edits = [edit for edit in case.result.done.edits if edit.length or not edit.data.startswith(FIELD)]
    return [(edit.offset, edit.end) for edit in edits]


def _stale(field: bytes) -> bool:
    """A field above a part that is no longer true."""
    return re.fullmatch(rb"content-(md5|length):[^\n]*\n", field, re.I) is not None


def _gone(case: Case) -> Iterator[bytes]:
    for start, end in _changed(case):
        yield case.result.before[start:end]


def _kept(case: Case) -> Iterator[bytes]:
    at = 0
    for start, end in _changed(case):
        yield case.result.before[at:start]
        at = end
    yield case.result.before[at:]


# postal-mime

_SCRIPT = """
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import PostalMime from 'postal-mime';
const hash = (data) => createHash('sha256').update(Buffer.from(data)).digest('hex');
const read = async (file) => {
    const options = { attachmentEncoding: 'arraybuffer', forceRfc822Attachments: true };
    const mail = await PostalMime.parse(readFileSync(file), options);
    const attachments = mail.attachments.map((one) => [one.mimeType, one.filename, hash(one.content)]);
    return { attachments, html: mail.html ?? '', text: mail.text ?? '' };
};
const results = [];
for (const [before, after] of JSON.parse(readFileSync(process.argv[2], 'utf8'))) {
    try {
        results.push([await read(before), await read(after)]);
    } catch (error) {
        results.push(String(error));
    }
}
process.stdout.write(JSON.stringify(results));
"""
_VERSION = "postal-mime@4.0.0"


@pytest.fixture(scope="module")
def postal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with postal-mime installed."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        missing("node and npm are not installed (Debian: nodejs, npm)")
    folder = tmp_path_factory.mktemp("postal")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", _VERSION]
    done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=150, check=False)
    if done.returncode:
        missing(f"npm cannot install {_VERSION}: {done.stderr.strip()[-200:]}")
    (folder / "read.js").write_text(_SCRIPT)
    return folder


def test_postal_mime_reads_every_other_part_with_the_same_bytes(corpus: Path, postal: Path) -> None:
    # A nested message may be an attachment to it, which then has other bytes.
    some = [case for case in cases(corpus)[0] if case.exact and all(one[:10] == "multipart/" for one in case.around())]
    pairs = []
    for number, case in enumerate(some):
        pair = postal / f"{number}.before", postal / f"{number}.after"
        for file, data in zip(pair, (case.result.before, case.result.after), strict=True):
            file.write_bytes(data)
        pairs.append([os.fspath(file) for file in pair])
    (postal / "pairs.json").write_text(json.dumps(pairs))
    command = ["node", "read.js", "pairs.json"]
    done = subprocess.run(command, cwd=postal, capture_output=True, text=True, timeout=150, check=True)
    compared = attachments = 0
    for case, told in zip(some, json.loads(done.stdout), strict=True):
        if isinstance(told, str):
            continue
        before, after = told
        lost = Counter(map(tuple, before["attachments"]))
        lost.subtract(map(tuple, after["attachments"]))
        gone = +lost
        assert not -lost, f"{case.name}: no attachment is new or has other bytes"
        assert gone.total() <= len(case.paths), case.name
        if gone and not case.odd - {"names-differ"}:  # else the two might not see the same part where it stood
            attachments += 1
            for kind in ("text", "html"):  # a kind that there was none of is made of the other, with the notice
                assert not before[kind] or _without_notice(after[kind]) == _without_notice(before[kind]), case.name
        compared += 1
    assert compared > 250 and attachments > 100


def _without_notice(text: str) -> str:
    """The text without our notices, which are shown in it, and without white space, which is put between texts."""
    return "".join(re.sub(r"\[English\] .*?お問い合わせください。", "", text, flags=re.S).split()).replace(
        "<div></div>", ""
    )
