"""Rules from files and folders: what compiles, what is named when it does not, and what the fingerprint sees."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yara

from icapscan.engines.fanout import eicar
from icapscan.engines.rules import CompiledRules, compile_rules, load_rules, shipped_rules
from icapscan.errors import RuleError


def rules_in(rules: CompiledRules, data: bytes = b"") -> set[str]:
    return {match.rule for part in rules.open() for match in part.match(data=data)}


def test_the_shipped_rules_compile() -> None:
    rules = compile_rules()
    texts = [file.read_text() for file in shipped_rules().rglob("*.yar")]
    assert rules.count == sum(len(re.findall(r"^(?:private )?rule ", text, re.M)) for text in texts)
    assert "Eicar_Test_File" in rules_in(rules, eicar())


def test_files_and_folders_to_any_depth(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "one.yar").write_text("rule one { condition: true }")
    (deep / "two.yara").write_text("rule two { condition: true }")
    yara.compile(source="rule three { condition: true }").save(str(deep / "three.yac"))
    (deep / "notes.txt").write_text("no rule")
    (deep / ".hidden.yar").write_text("no rule either {")
    alone = tmp_path.parent / f"{tmp_path.name}-alone.yar"
    alone.write_text("rule alone { condition: true }")
    rules = compile_rules([tmp_path, alone])
    assert rules.count == 4
    assert rules_in(rules) == {"one", "two", "three", "alone"}


def test_the_namespace_is_the_file(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yar").write_text("rule same { condition: true }")
    rules = compile_rules([tmp_path])
    assert {match.namespace for match in rules.open()[0].match(data=b"")} == {
        str(tmp_path / "a.yar"),
        str(tmp_path / "b.yar"),
    }


def test_eicar_is_found_with_any_rules(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text("rule a { condition: false }")
    assert rules_in(compile_rules([tmp_path]), eicar()) == {"Eicar_Test_File"}


def test_another_process_loads_what_one_compiled(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text('rule a { strings: $a = "needle" condition: $a }')
    file = tmp_path / "rules.bin"
    file.write_bytes(compile_rules([tmp_path]).to_bytes())
    script = (
        "import sys; from icapscan.engines.rules import load_rules;"
        "rules = load_rules(open(sys.argv[1], 'rb').read());"
        "print(rules.fingerprint, [m.rule for r in rules.open() for m in r.match(data=b'a needle')])"
    )
    said = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [compile_rules([tmp_path]).fingerprint, "['a']"]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80"])
def test_what_are_no_compiled_rules_is_said(data: bytes) -> None:
    with pytest.raises(RuleError, match="no compiled rules"):
        load_rules(data)


def test_the_fingerprint_sees_rules_and_included_files(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text('include "sub/b.inc"\nrule a { condition: b }')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.inc").write_text('include "c.inc"\nrule b { condition: c }')
    (tmp_path / "sub" / "c.inc").write_text("rule c { condition: true }")
    seen = {compile_rules([tmp_path]).fingerprint}
    assert compile_rules([tmp_path]).fingerprint in seen
    for name in ("a.yar", "sub/b.inc", "sub/c.inc"):
        with (tmp_path / name).open("a") as file:
            file.write("\n// changed\n")
        fingerprint = compile_rules([tmp_path]).fingerprint
        assert fingerprint not in seen
        seen.add(fingerprint)
    yara.compile(source="rule d { condition: true }").save(str(tmp_path / "d.yac"))
    assert compile_rules([tmp_path]).fingerprint not in seen


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rule a { condition: true }\n\nrule b { condition: nothing }", 3),
        ("\nrule a { strings: $a = /(/ condition: $a }", 2),
        ("rule a {\n condition: true }\nrule a { condition: true }", 3),
        ('import "no_such_module"', 1),
        ('\n\ninclude "missing.inc"', 0),
        ("rule a { condition: true }\n\0rule evil { condition: true }", 2),
        ('rule a { condition: true }\nrule b { meta: verdict = "maybe" condition: true }', 2),
        ("rule b { meta: verdict = true condition: true }", 1),
        ("rule b { meta: verdict = 1 condition: true }", 1),
    ],
)
def test_a_bad_rule_is_named_with_file_and_line(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "good.yar").write_text("rule good { condition: true }")
    (tmp_path / "bad.yar").write_text(text)
    with pytest.raises(RuleError) as caught:
        compile_rules([tmp_path])
    said = str(caught.value)
    if line:
        assert said.startswith(f"{tmp_path}/bad.yar, line {line}: ")
    else:
        assert str(tmp_path / "missing.inc") in said
    assert said.endswith(".")


def test_a_bad_included_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text('include "b.inc"')
    (tmp_path / "b.inc").write_text("\n\nrule b { condition: nothing }")
    with pytest.raises(RuleError, match=r"b\.inc, line 3: "):
        compile_rules([tmp_path])


def test_a_bad_verdict_names_the_rule(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text('rule odd { meta: verdict = "maybe" condition: true }')
    with pytest.raises(RuleError, match=r'rule odd: verdict = .maybe.; expected "infected" or "suspicious"'):
        compile_rules([tmp_path])
    yara.compile(source='rule odd { meta: verdict = "maybe" condition: true }').save(str(tmp_path / "a.yac"))
    (tmp_path / "a.yar").unlink()
    with pytest.raises(RuleError, match=r"a\.yac, rule odd"):
        compile_rules([tmp_path])


def test_what_is_no_rule_file_is_named(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path, "no rule file"),
        (tmp_path / "none.yar", "cannot be read"),
        (tmp_path / "rules.txt", "expected a file"),
    ):
        with pytest.raises(RuleError, match=said) as caught:
            compile_rules([path])
        assert str(caught.value).startswith(str(path))
    (tmp_path / "x.yac").write_bytes(b"not compiled")
    with pytest.raises(RuleError, match=r"x\.yac: not compiled rules"):
        compile_rules([tmp_path])
    (tmp_path / "x.yac").unlink()
    (tmp_path / "l.yar").write_bytes(b'rule a { meta: by = "\n\xe9"')
    with pytest.raises(RuleError, match=r"l\.yar, line 2: the rule file is not UTF-8"):
        compile_rules([tmp_path])


def test_the_shipped_folder_is_beside_the_sources() -> None:
    assert shipped_rules() == Path(__file__).parents[2] / "signatures"
