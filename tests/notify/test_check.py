"""What is refused at the start, with key, file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from icapscan.config import load, show
from icapscan.errors import ConfigError
from icapscan.servers.settings import Settings
from tests.notify.made import SECRET_TEXT

RULES = """[[policy.rules]]
name = "no viruses"
action = ["block", "notify"]
[[policy.rules]]
name = "quiet"
action = "block"
"""
GOOD = """[notify]
from_address = "icapscan@example.org"
administrators = "admin@example.org"
"""
HOOK = f'webhook = "https://hook.example.org/x"\nwebhook_secret = "{SECRET_TEXT}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "icapscan.toml"


def loaded(text: str, file: Path, /, **environ: str) -> Settings:
    file.write_text(text, "utf-8")
    return load(str(file), (), environ)


def error(text: str, file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text, file)
    return str(caught.value)


def test_the_least_that_works(file: Path) -> None:
    assert loaded(RULES + GOOD, file).notify.administrators == ("admin@example.org",)
    assert loaded(RULES + "[notify]\n" + HOOK, file).notify.from_address == ""
    assert loaded("", file).notify.to == ("administrator",)


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ("[notify]\nfrom_address = 'a@b'\n", "policy.rules[1].action", 3, '"notify" needs somebody to tell'),
        ("[notify]\nto = []\n", "policy.rules[1].action", 3, "needs somebody to tell"),
        (GOOD + '[notify.rules."no viruses"]\nto = []\n', "policy.rules[1].action", 3, "needs somebody to tell"),
        ('[notify]\nadministrators = "a@b"\n', "notify.from_address", 7, "expected the mail address"),
        (GOOD + "adminstrators = []\n", "notify.adminstrators", 10, "did you mean notify.administrators?"),
        (GOOD + 'to = "everybody"\n', "notify.to", 10, "administrator"),
        (GOOD + 'to = "sender"\n', "notify.to", 10, "senders of viruses are forged"),
        (GOOD + 'to = "sender"\nown_domains = "example.org"\n', "notify.to", 10, "notify.own_networks"),
        (GOOD + 'to = "recipient"\n', "notify.to", 10, "needs notify.own_domains"),
        (GOOD.replace("admin@", "admin "), "notify.administrators", 9, "expected mail addresses"),
        (GOOD.replace("icapscan@", "Icapscan <x@"), "notify.from_address", 8, "expected a mail address"),
        (GOOD + 'own_domains = "*.example.org"\n', "notify.own_domains", 10, "expected domains such as"),
        (GOOD + 'own_networks = "10.0.0.0/99"\n', "notify.own_networks", 10, "expected addresses or networks"),
        (GOOD + 'relay = "mx"\n', "notify.relay", 10, "host:port"),
        (GOOD + 'relay = "mx:0"\n', "notify.relay", 10, "expected a port from 1 to 65535"),
        (GOOD + 'helo = "a b"\n', "notify.helo", 10, "expected a host name"),
        (GOOD + "rate = 0\n", "notify.rate", 10, "at least 1"),
        (GOOD + "languages = []\n", "notify.languages", 10, "each once"),
        (GOOD + 'languages = ["en", "en"]\n', "notify.languages", 10, "each once"),
        (GOOD + 'webhook = "https://a/"\n', "notify.webhook", 10, "notify.webhook_secret"),
        (GOOD + f'webhook_secret = "{SECRET_TEXT}"\n', "notify.webhook_secret", 10, "expected notify.webhook"),
        (GOOD + HOOK.replace("https:", "gopher:"), "notify.webhook", 10, "http or https"),
        (GOOD + HOOK.replace("://", "://u:p@"), "notify.webhook", 10, "without a user"),
        (GOOD + HOOK.replace(SECRET_TEXT, "hunter2"), "notify.webhook_secret", 11, "base64 of 24 to 64"),
        (GOOD + HOOK + 'webhook_secret_file = "/x"\n', "notify.webhook_secret_file", 12, "either this or"),
        (
            GOOD + 'webhook = "https://a/"\nwebhook_secret_file = "/not/there"\n', "notify.webhook_secret_file", 11,
            "No such file",
        ),
        (GOOD + 'template = "/not/there"\n', "notify.template", 10, "expected a jinja2 template"),
        (GOOD + '[notify.rules."no virus"]\nto = []\n', 'notify.rules."no virus"', 10, "name of one of policy.rules"),
        (GOOD + '[notify.rules."quiet"]\nto = []\n', "notify.rules.quiet", 10, 'have the action "notify"'),
        (GOOD + '[notify.rules."no viruses"]\ntoo = []\n', 'notify.rules."no viruses".too', 11, "unknown key"),
        (GOOD + '[notify.rules."no viruses"]\nto = "sender"\n', 'notify.rules."no viruses".to', 11, "are forged"),
        (
            GOOD + '[notify.rules."no viruses"]\nwebhook = true\n', 'notify.rules."no viruses".webhook', 11,
            "expected notify.webhook",
        ),
        (
            GOOD + 'own_domains = "b"\n[notify.rules."no viruses"]\nto = ["administrator", "recipient"]\n'
            "administrators = []\n", 'notify.rules."no viruses".to', 12, "needs somebody in notify.administrators",
        ),
        (
            GOOD + '[notify.rules."no viruses"]\nadministrators = "x"\n',
            'notify.rules."no viruses".administrators', 11,
            "expected mail addresses",
        ),
        (
            GOOD + 'own_domains = "b"\n[notify.rules."no viruses"]\nto = "recipient"\nadministrators = "a@b"\n',
            'notify.rules."no viruses".administrators', 13, "among those who are told",
        ),
        (
            GOOD + '[notify.rules."no viruses"]\ntemplate = "/not/there"\n', 'notify.rules."no viruses".template', 11,
            "expected a jinja2 template",
        ),
    ],
)  # fmt: skip
def test_a_mistake_names_key_file_line_and_what_was_expected(
    file: Path, text: str, key: str, line: int, words: str
) -> None:
    sentence = error(RULES + text, file)
    assert sentence.startswith(f"{key} ({file}, line {line}): "), sentence
    assert words in sentence and sentence.endswith((".", "?")) and "hunter2" not in sentence


def test_a_rule_that_only_watches_tells_nobody(file: Path) -> None:
    assert loaded(RULES.replace('action = ["block", "notify"]', 'action = ["notify", "monitor"]'), file)


def test_a_template_that_cannot_be_rendered_names_its_key(file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("{{ nobody }}")
    sentence = error(RULES + GOOD + f'template = "{own}"\n', file)
    assert sentence.startswith(f"notify.template ({file}, line 10): ") and "'nobody' is undefined" in sentence


def test_the_secret_may_come_from_the_environment_and_is_never_shown(file: Path) -> None:
    hook = HOOK.splitlines()[0]
    settings = loaded(RULES + "[notify]\n" + hook, file, ICAPSCAN_NOTIFY__WEBHOOK_SECRET=SECRET_TEXT)
    assert settings.notify.webhook_secret == SECRET_TEXT
    shown = show(settings)
    assert SECRET_TEXT not in shown and "# webhook_secret is set, and not shown" in shown
    assert loaded(shown, file, ICAPSCAN_NOTIFY__WEBHOOK_SECRET=SECRET_TEXT) == settings


def test_the_examples_of_the_documentation_can_be_used(file: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text("utf-8")
    first, second = (piece.partition("```")[0] for piece in text.split("```toml\n")[1:])
    secret, template = tmp_path / "secret", tmp_path / "programs.txt"
    secret.write_text(SECRET_TEXT)
    secret.chmod(0o600)
    template.write_text(text.partition("```jinja\n")[2].partition("```")[0])
    first = first.replace('"quarantine", ', "").replace("/etc/icapscan/webhook.secret", str(secret))
    second = second.replace("/etc/icapscan/programs.txt", str(template))
    other = '[[policy.rules]]\nname = "no programs by mail"\naction = ["block", "notify"]\n'
    notify = loaded(f'{other}{first}own_domains = "example.org"\n{second}', file).notify
    assert notify.rules["no programs by mail"].to == ("administrator", "recipient")


def test_rules_are_shown_and_read_back(file: Path) -> None:
    text = RULES + GOOD + '[notify.rules."no viruses"]\nto = ["administrator"]\nadministrators = "b@example.org"\n'
    settings = loaded(text, file)
    assert settings.notify.rules["no viruses"].administrators == ("b@example.org",)
    assert loaded(show(settings), file) == settings
