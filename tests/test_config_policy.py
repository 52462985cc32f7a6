"""Rules in the configuration: every mistake with its key, file and line; what cannot act yet; what is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from icapscan.config import load, show
from icapscan.errors import ConfigError
from icapscan.policy.decide import Policy
from icapscan.policy.decision import ACTING
from icapscan.servers.istag import istag
from icapscan.servers.settings import Settings

RULES = """
[[policy.rules]]
name = "first"
when = { client = "192.0.2.0/24" }
action = "allow"

[[policy.rules]]
name = "second"
action = "block"
[policy.rules.when]
kind = "program"
file-name = ["*.exe",
  "*.scr"]
[policy.rules.unless]
user = "admin"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "icapscan.toml"


def loaded(text: str, file: Path, *sets: str, **environ: str) -> Settings:
    file.write_text(text, "utf-8")
    return load(str(file), sets, environ)


def error(text: str, file: Path, *sets: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text, file, *sets, **environ)
    return str(caught.value)


def test_rules_of_a_file(file: Path) -> None:
    rules = Policy(loaded(RULES, file).policy).rules
    assert [rule.name for rule in rules] == ["first", "second"]
    assert rules[1].when.kind == frozenset({"program"}) and rules[1].unless is not None


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "words"),
    [
        (
            'client = "192.0.2.0/24"',
            'client = "here"',
            "policy.rules[1].when.client",
            4,
            "expected an address or a network",
        ),
        ('action = "allow"', 'action = "pass"', "policy.rules[1].action", 5, "got 'pass'"),
        ('name = "second"', 'name = "first"', "policy.rules[2].name", 8, 'rule 1 is "first"'),
        ('kind = "program"', 'kind = "exe"', "policy.rules[2].when.kind", 11, "program, script, shortcut, office"),
        (
            'file-name = ["*.exe",',
            'filename = ["*.exe",',
            "policy.rules[2].when.filename",
            12,
            "did you mean file-name?",
        ),
        ('user = "admin"', "user = 5", "policy.rules[2].unless.user", 15, "got 5"),
        ('action = "block"', 'action = "block"\nmonitor = 1', "policy.rules[2].monitor", 10, "expected true or false"),
        ('action = "block"', "", "policy.rules[2].action", 7, "expected one or several of allow"),
    ],
)
def test_a_mistake_names_index_key_file_line_and_what_was_expected(
    file: Path, old: str, new: str, key: str, line: int, words: str
) -> None:
    sentence = error(RULES.replace(old, new, 1), file)
    assert sentence.startswith(f"{key} ({file}, line {line}): ")
    assert words in sentence and sentence.endswith(".")


def test_rules_of_an_option_or_the_environment_say_so(file: Path) -> None:
    sentence = error("", file, 'policy.rules=[{ action = "pass" }]')
    assert sentence.startswith("policy.rules[1].action (--set policy.rules): ")
    sentence = error(RULES, file, ICAPSCAN_POLICY__RULES='[{ action = "block", when = { size = "big" } }]')
    assert sentence.startswith("policy.rules[1].when.size (environment variable ICAPSCAN_POLICY__RULES): ")


@pytest.mark.parametrize("word", ["block", "sanitize", "quarantine", "notify", "defer"])
def test_what_cannot_act_yet_is_refused_and_never_ignored(
    file: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ACTING, word, False)
    alone = word not in ("quarantine", "notify")
    action = f'"{word}"' if alone else f'["block", "{word}"]'
    sentence = error(f'[[policy.rules]]\nname = "x"\naction = {action}\n', file)
    assert sentence == f'policy.rules[1].action ({file}, line 3): "{word}" is not in this release.'


@pytest.mark.parametrize("key", ["infected", "encrypted", "macro", "suspicious"])
def test_an_answer_for_a_class_that_cannot_act_yet_is_refused(
    file: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'[policy]\nfailures = "error"\n[policy.mail]\n{key} = "sanitize"\n'
    monkeypatch.setitem(ACTING, "sanitize", False)
    assert error(text, file) == f'policy.mail.{key} ({file}, line 4): "sanitize" is not in this release.'
    monkeypatch.setitem(ACTING, "sanitize", True)
    assert getattr(loaded(text, file).policy.mail, key) == "sanitize"


def test_what_is_shown_reads_back_the_same(file: Path) -> None:
    text = RULES + '[policy.mail]\nencrypted = "allow"\nover-limit = "defer"\n[services.mail]\ntraffic = "mail"\n'
    settings = loaded(text, file)
    shown = show(settings)
    assert loaded(shown, file) == settings
    assert show(loaded(shown, file)) == shown
    assert 'when = { client = "192.0.2.0/24" }' in shown


def test_odd_texts_in_rules_are_shown_without_harm(file: Path) -> None:
    text = '[[policy.rules]]\naction = "block"\nname = "あ \\" \'"\n'
    text += 'when = { user = "\\u202e\\u0007", "file-name" = ["a\\\\b"] }\n'
    settings = loaded(text, file)
    shown = show(settings)
    assert loaded(shown, file) == settings and "\u202e" not in shown and "\x07" not in shown


def test_s82_another_rule_is_another_istag(file: Path) -> None:
    one, two = loaded(RULES, file), loaded(RULES.replace("*.scr", "*.com"), file)
    assert istag({}, one) != istag({}, two) and istag({}, one) == istag({}, loaded(RULES, file))


def test_the_environment_has_the_keys_of_the_classes(file: Path) -> None:
    settings = loaded("", file, ICAPSCAN_POLICY__MAIL__OVER_LIMIT="defer", ICAPSCAN_POLICY__WEB__ENCRYPTED="allow")
    assert (settings.policy.mail.over_limit, settings.policy.web.encrypted) == ("defer", "allow")


def test_the_examples_of_the_documentation_can_be_used(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text("utf-8")
    examples = [piece.split("```")[0] for piece in text.split("```toml\n")[1:]]
    rules = [one for one in examples if "[[policy.rules]]" in one]
    assert len(rules) >= 3
    for number, one in enumerate(rules):
        usable = not any(f'"{word}"' in one for word, acts in ACTING.items() if not acts)
        if usable:
            assert Policy(load(_written(tmp_path / f"{number}.toml", one), (), dict[str, str]()).policy).rules
    assert os.listdir(tmp_path)


def _written(file: Path, text: str) -> str:
    file.write_text(text, "utf-8")
    return str(file)
