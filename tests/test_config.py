"""The configuration: where values come from, and for each mistake an error with key, place and what was expected."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from icapscan.config import load, show
from icapscan.config.every import EverySettings
from icapscan.config.lines import key_lines, split_key
from icapscan.config.reader import keys_of
from icapscan.config.show import format_value
from icapscan.config.units import format_bytes, format_seconds, parse_bytes, parse_seconds
from icapscan.errors import ConfigError
from icapscan.limits import GIB, KIB, MIB
from icapscan.notify.settings import RuleNotifySettings
from icapscan.servers.settings import SCAN_ALIASES, ServiceSettings, Settings
from tests.conftest import ROOT


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "icapscan.toml"


def loaded(
    text: str = "", file: Path | None = None, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Settings:
    if file is not None:
        file.write_text(text, "utf-8")
    return load(str(file) if file is not None else None, sets, environ or {})


def error(
    text: str = "", file: Path | None = None, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text, file, sets, environ)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# Sources


def test_nothing_given_is_the_defaults() -> None:
    assert loaded() == Settings()


def test_an_empty_file_is_the_defaults(write: Path) -> None:
    assert loaded("# nothing\n", write) == Settings()


def test_values_come_from_the_file(write: Path) -> None:
    settings = loaded(
        '[server]\nlisten = ["0.0.0.0:1344", "[::]:1344"]\nworkers = 3\n[limits]\nmemory = "200MB"\n'
        '[engines.clamd]\nenabled = false\naddress = "unix:/run/clamd"\n[policy.unscanned]\nover-limit = "allow"\n',
        write,
    )
    assert settings.server.listen == ("0.0.0.0:1344", "[::]:1344")
    assert settings.server.workers == 3
    assert settings.limits.memory == 200_000_000
    assert settings.engines.clamd.enabled is False
    assert settings.engines.clamd.address == ("unix:/run/clamd",)
    assert settings.policy.unscanned.over_limit == "allow"
    assert settings.limits.disk == Settings().limits.disk


def test_set_wins_over_environment_over_file_over_defaults(write: Path) -> None:
    text = "[server]\nworkers = 1\nmax_connections = 11\nmax_requests = 111\n"
    environ = {"ICAPSCAN_SERVER__WORKERS": "2", "ICAPSCAN_SERVER__MAX_CONNECTIONS": "22", "OTHER__THING": "x"}
    server = loaded(text, write, ["server.workers=3"], environ).server
    assert (server.workers, server.max_connections, server.max_requests) == (3, 22, 111)


def test_the_later_set_wins() -> None:
    assert loaded(sets=["server.workers=1", "server.workers=2"]).server.workers == 2


@pytest.mark.parametrize(
    ("item", "key", "value"),
    [
        ("server.workers=2", "server.workers", 2),
        ("server.workers = 2", "server.workers", 2),
        ("server.listen=127.0.0.1:0", "server.listen", ("127.0.0.1:0",)),
        ('server.listen=["a:1", "b:2"]', "server.listen", ("a:1", "b:2")),
        ("server.listen=[::1]:1344", "server.listen", ("[::1]:1344",)),
        ("limits.body=64 KiB", "limits.body", 64 * KIB),
        ('limits.body="64 KiB"', "limits.body", 64 * KIB),
        ("limits.body=4096", "limits.body", 4096),
        ("server.head_timeout=250 ms", "server.head_timeout", 0.25),
        ("server.head_timeout=3", "server.head_timeout", 3.0),
        ("engines.clamd.enabled=auto", "engines.clamd.enabled", "auto"),
        ("engines.clamd.enabled=true", "engines.clamd.enabled", True),
        ("page.contact=2024", "page.contact", "2024"),
        ("page.contact=2024-01-01", "page.contact", "2024-01-01"),
        ("page.contact=a = b # c", "page.contact", "a = b # c"),
        ("page.contact=", "page.contact", ""),
        ("page.contact=x\ny = 1", "page.contact", "x\ny = 1"),
        ("page.contact=true", "page.contact", "true"),
        ('page.contact=""', "page.contact", ""),
        ("server.tolerate_bare_lf=true", "server.tolerate_bare_lf", True),
        ("server.spool=", "server.spool", None),
    ],
)
def test_set_takes_toml_or_plain_text(item: str, key: str, value: object) -> None:
    settings: object = loaded(sets=[item])
    for part in key.split("."):
        settings = getattr(settings, part)
    assert settings == value
    assert type(settings) is type(value)


def test_environment_names_are_upper_case_without_hyphens(write: Path) -> None:
    environ = {
        "ICAPSCAN_POLICY__UNSCANNED__OVER_LIMIT": "allow",
        "ICAPSCAN_SERVICES__AVSCAN__PREVIEW": "1 KiB",
        "ICAPSCAN_SERVICES__MY_SCAN__OPTIONS_TTL": "5 min",
        "ICAPSCAN_CORPUS": "not a key",
        "ICAPSCAN_ICAP": "icap://localhost/avscan",
    }
    settings = loaded("[services.my-scan]\n", write, environ=environ)
    assert settings.policy.unscanned.over_limit == "allow"
    assert settings.services["avscan"].preview == KIB
    assert settings.services["my-scan"].options_ttl == 300


def test_services_of_the_file_are_merged_over_the_defaults(write: Path) -> None:
    text = '[services.avscan]\npreview = 1024\n[services.other]\nmethods = "REQMOD"\naliases = ["x/y"]\n'
    services = loaded(text, write).services
    assert services["avscan"] == ServiceSettings(aliases=SCAN_ALIASES, preview=1024)
    assert services["other"] == ServiceSettings(methods=("REQMOD",), aliases=("x/y",))
    assert services["echo"] == Settings().services["echo"]
    assert Settings().services["avscan"].preview == 4096, "the defaults stay what they are"


def test_dotted_and_inline_tables_are_the_same(write: Path) -> None:
    for text in (
        "server.workers = 2\n",
        "[server]\nworkers = 2\n",
        "server = {workers = 2}\n",
        '"server"."workers" = 2\n',
    ):
        assert loaded(text, write).server.workers == 2


# Mistakes: key, place, what was expected


def test_unknown_keys_are_named_with_line_and_guess(write: Path) -> None:
    text = "# comment\n\n[server]\nworkers = 2\nlistn = 'x'\n"
    assert error(text, write) == f"server.listn ({write}, line 5): unknown key; did you mean server.listen?"


@pytest.mark.parametrize(
    ("item", "guess"),
    [
        ("sever.workers=2", "did you mean server?"),
        ("listen=x", "did you mean server.listen or admin.listen or "),
        ("server.preview=1", "unknown key; "),
        ("policy.unscanned.over_limit=allow", "did you mean policy.unscanned.over-limit?"),
        ("engines.clamd.adress=x", "did you mean engines.clamd.address?"),
        ("services.avscan.alias=x", "did you mean services.avscan.aliases?"),
        ("limits.zzz=1", "the keys here are body, depth, disk,"),
        ("server.workers.x=1", "expected a whole number from 0 to 256, got a table"),
    ],
)
def test_unknown_keys_in_set_get_a_guess(item: str, guess: str) -> None:
    sentence = error(sets=[item])
    assert f"(--set {item.partition('=')[0]}): " in sentence
    assert guess in sentence


def test_unknown_keys_in_the_environment_name_the_variable() -> None:
    sentence = error(environ={"ICAPSCAN_SERVER__LISTN": "x"})
    assert sentence.startswith("server.listn (environment variable ICAPSCAN_SERVER__LISTN): unknown key; did you mean")


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ('[server]\nworkers = "two"', 2, "server.workers", 'expected a whole number from 0 to 256, got "two"'),
        ("[server]\nworkers = 257", 2, "server.workers", "expected a whole number from 0 to 256, got 257"),
        ("[server]\nworkers = -1", 2, "server.workers", "got -1"),
        ("[server]\nworkers = true", 2, "server.workers", "got true"),
        ("[server]\nworkers = 1.5", 2, "server.workers", "got 1.5"),
        ("[server]\nmax_connections = 0", 2, "server.max_connections", "expected a whole number of at least 1"),
        ("[server]\nlisten = 1344", 2, "server.listen", "expected a list of"),
        ('[server]\nlisten = "localhost"', 2, "server.listen", 'expected a list of "host:port"'),
        ('[server]\nlisten = ["a:1",\n  "b"]', 2, "server.listen", 'got ["a:1", "b"]'),
        ('[server]\ntolerate_bare_lf = "yes"', 2, "server.tolerate_bare_lf", "expected true or false"),
        ('[server]\nhead_timeout = "5"', 2, "server.head_timeout", "expected a time such as 2.5 (seconds)"),
        ('[server]\nhead_timeout = "5 weeks"', 2, "server.head_timeout", "units: ms, s, min, h, d"),
        ("[server]\nhead_timeout = 0", 2, "server.head_timeout", "above 0"),
        ("[server]\nhead_timeout = -1.0", 2, "server.head_timeout", "above 0"),
        ("[server]\nhead_timeout = inf", 2, "server.head_timeout", "got Infinity"),
        ("[server]\nhead_timeout = nan", 2, "server.head_timeout", "got NaN"),
        ("[limits]\nratio = nan", 2, "limits.ratio", "expected a number above 1"),
        ("[limits]\nratio = 1", 2, "limits.ratio", "expected a number above 1"),
        ('[limits]\n\nbody = "64 kg"', 3, "limits.body", 'expected a size such as 4096 or "64 KiB"'),
        ('[limits]\nbody = "1.5 B"', 2, "limits.body", "expected a size"),
        ("[limits]\nbody = 1.5", 2, "limits.body", "expected a size"),
        ("[limits]\nbody = 99999999999999999999", 2, "limits.body", "expected a size"),
        ('[limits]\nbody = "99999999 TiB"', 2, "limits.body", "expected a size"),
        ("[limits]\nbody = -5", 2, "limits.body", "expected a size"),
        ('[policy]\ninfected = "allow"', 2, "policy.infected", 'expected "block", got "allow"'),
        ('[policy]\nfailures = "block"', 2, "policy.failures", 'expected "allow" or "error"'),
        ('[log]\nformat = "xml"', 2, "log.format", 'expected "json" or "plain", got "xml"'),
        ('[engines.clamd]\nenabled = "maybe"', 2, "engines.clamd.enabled", 'expected "auto" or true or false'),
        ('[engines.clamd]\naddress = "/run/clamd"', 2, "engines.clamd.address", '"unix:/path" or "tcp:host:port"'),
        ('[services.x]\nmethods = "GET"', 2, "services.x.methods", 'expected a list of "REQMOD" or "RESPMOD"'),
        ("server = 5", 1, "server", "expected a table, got 5"),
        ("[[server]]\nworkers = 1", 1, "server", "expected a table, got [{"),
        ("services = 5", 1, "services", "expected a table of tables, got 5"),
        ("[services]\navscan = 5", 2, "services.avscan", "expected a table, got 5"),
        ("[page.contact]\nx = 1", 1, "page.contact", "expected a text, got a table"),
        ("[page]\ncontact = 5", 2, "page.contact", "expected a text, got 5"),
        ("[page]\ncontact = 2024-01-01", 2, "page.contact", "expected a text, got 2024-01-01"),
        ("[cache]\nenabled = 0", 2, "cache.enabled", "expected true or false"),
        ("[cache]\nmemory = -1", 2, "cache.memory", "expected"),
        ('[policy]\nrules = [{if = "x"}]', 2, "policy.rules[1].if", "unknown key; the keys of a rule are name, when"),
        ('\n[[policy.rules]]\nif = "x"', 3, "policy.rules[1].if", "unknown key"),
        ('[policy]\nrules = "block all"', 2, "policy.rules", "expected a list"),
    ],
)
def test_wrong_values_are_named_with_line_and_expectation(
    write: Path, text: str, line: int, key: str, words: str
) -> None:
    sentence = error(text, write)
    assert sentence.startswith(f"{key} ({write}, line {line}): ")
    assert words in sentence


def test_long_values_are_shortened_in_the_sentence(write: Path) -> None:
    assert len(error(f'[log]\nformat = "{"x" * 10_000}"', write)) < 400


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[server]\nworkers = \n", 2),
        ("[server]\nworkers = 2\nworkers = 3\n", 3),
        ("a = 1\n\n\n[server\n", 4),
        ('x = "never ends\n', 1),
        ("a = [1,\n2,\n", 2),
        ('a = """\n\n\n', 1),
        ("[server]\nlisten = x:1\n", 2),
    ],
)
def test_toml_mistakes_name_file_and_line(write: Path, text: str, line: int) -> None:
    assert error(text, write).startswith(f"{write}, line {line}: this is not TOML: ")


def test_a_file_that_is_not_utf8_names_the_line(write: Path) -> None:
    write.write_bytes(b"[page]\ncontact = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"icapscan\.toml, line 2: expected text in UTF-8"):
        load(str(write), (), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(ConfigError, match=re.escape(f"The configuration file {path} cannot be read: ")):
            load(str(path), (), {})


def test_a_file_nested_too_deeply_is_an_error(write: Path) -> None:
    assert "nested too deeply" in error("a = " + "[" * 100_000 + "]" * 100_000, write)


@pytest.mark.parametrize("item", ["server.workers", "=2", "server..workers=2", "ser ver=2", "", ".=1", "a.=1", "[a]=1"])
def test_a_malformed_set_says_what_is_expected(item: str) -> None:
    assert error(sets=[item]) == f"--set {item}: expected KEY=VALUE, e.g. --set server.workers=2."


# Contradictions


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('[server]\ntls_listen = "127.0.0.1:11344"', "server.tls_listen", "expected server.tls_certificate"),
        ('[server]\ntls_key = "x"', "server.tls_key", "expected server.tls_certificate"),
        ('[server]\ntls_client_ca = "x"', "server.tls_client_ca", "expected server.tls_listen"),
        ('[server]\ntls_certificate = "/nowhere/x.pem"', "server.tls_certificate", "No such file"),
        ("[server]\nlisten = []", "server.listen", "expected at least one address"),
        ('[server]\nlisten = ["a:1", "a:1"]', "server.listen", "a:1 is already used by server.listen"),
        ('[server]\nlisten = "127.0.0.1:8344"', "admin.listen", "already used by server.listen"),
        ('[server]\nlisten = "127.0.0.1:99999"', "server.listen", "expected a port up to 65535"),
        ('[engines.yara]\nrules = ["/nowhere/rules"]', "engines.yara.rules", "/nowhere/rules: No such file"),
        ('[engines.yara]\nrules = ["/dev/null"]', "engines.yara.rules", "/dev/null is neither"),
        ('[engines.yara]\nrules = ["a\\u0000b"]', "engines.yara.rules", "embedded null"),
        ('[engines.hash]\ndeny = "/nowhere/list"', "engines.hash.deny", "No such file"),
        ('[engines.hash]\nallow = "/"', "engines.hash.allow", "expected a readable file, but / is none"),
        ("[engines]\nyara.enabled = false\nclamd.enabled = false", "engines.yara.enabled", "nothing would be scanned"),
        ('[engines.clamd]\naddress = "tcp:localhost"', "engines.clamd.address", 'expected "tcp:host:port"'),
        ('[engines.clamd]\naddress = "tcp:localhost:x"', "engines.clamd.address", 'expected "tcp:host:port"'),
        ('[engines.clamd]\naddress = "tcp:[]:3310"', "engines.clamd.address", 'expected "tcp:host:port"'),
        ('[engines.clamd]\naddress = "tcp:h:99999"', "engines.clamd.address", 'expected "tcp:host:port"'),
        (f'[engines.clamd]\naddress = "unix:/{"x" * 107}"', "engines.clamd.address", "at most 107 bytes"),
        ("[limits]\npart_in_bytes = 9000000", "limits.part_in_bytes", "expected at most limits.part_in_memory"),
        ("[limits]\nmemory = 0\ndisk = 0", "limits.memory", "above 0"),
        ("[limits]\nbody = 0", "limits.body", "expected more than 0"),
        ("[limits]\nunpacked = 0", "limits.unpacked", "expected more than 0"),
        ('[services.x]\naliases = ["a", "a"]', "services.x.aliases", "/a is already taken by service x"),
        ('[services.x]\naliases = ["%61", "a"]', "services.x.aliases", "/a is already taken"),
        ('[services.x]\naliases = ["echo"]', "services.x.aliases", "/echo is already taken by service echo"),
        ('[services.x]\naliases = [""]', "services.x.aliases", "the path / is already taken by service avscan"),
        ('[services.x]\naliases = ["/a"]', "services.x.aliases", "without the leading slash"),
        ('[services.x]\naliases = ["a b"]', "services.x.aliases", "expected URL paths"),
        ('[services.x]\naliases = ["a?b"]', "services.x.aliases", "expected URL paths"),
        ("[services.srv_clamav]\n[services.avscan]", "services.avscan.aliases", "/srv_clamav is already taken"),
        ("[services.x]\nmethods = []", "services.x.methods", "expected at least one"),
        ('[services."a b"]', "services.a b", "can stand in a URL path"),
        ('[server]\nspool = "/nowhere"', "server.spool", "expected a folder"),
        ('[server]\nspool = "a\\u0000b"', "server.spool", "expected a folder"),
        ('[log]\nfile = "/nowhere/log"', "log.file", "expected a folder"),
        ('[log]\nfile = "/tmp"', "log.file", "/tmp is a folder"),
        ('[page]\ntemplate = "/nowhere/x.html"', "page.template", "No such file"),
    ],
)
def test_contradictions_are_named(write: Path, text: str, key: str, words: str) -> None:
    sentence = error(text, write)
    assert sentence.startswith(f"{key} (")
    assert words in sentence


def test_a_contradiction_names_the_line_of_its_key(write: Path) -> None:
    assert f"({write}, line 4)" in error('\n[services.x]\nkind = "echo"\naliases = ["echo"]\n', write)


def test_a_template_with_a_mistake_is_named_with_its_line(write: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.html"
    template.write_text("<p>\n{{ nothing }\n")
    sentence = error(f'[page]\ntemplate = "{template}"', write)
    assert sentence.startswith(f"page.template ({write}, line 2): expected a jinja2 template; The template ")
    assert "own.html, line 2" in sentence or "own.html, line 3" in sentence


def test_certificate_and_key_must_belong_together(write: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        subprocess.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x "
            f"-keyout {name}.key -out {name}.pem".split(),
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    text = '[server]\ntls_listen = "127.0.0.1:11344"\ntls_certificate = "{}"\ntls_key = "{}"\n'
    assert loaded(text.format(tmp_path / "one.pem", tmp_path / "one.key"), write).server.tls_listen
    assert "server.tls_certificate" in error(text.format(tmp_path / "one.pem", tmp_path / "two.key"), write)
    assert "server.tls_certificate" in error(text.format(write, tmp_path / "two.key"), write)


def test_an_unused_engine_needs_no_files(write: Path) -> None:
    assert not loaded('[engines.yara]\nenabled = false\nrules = ["/nowhere"]', write).engines.yara.enabled


def test_without_scanning_services_no_engine_is_needed(write: Path) -> None:
    text = "[engines]\nyara.enabled = false\nclamd.enabled = false\n[services.avscan]\nkind = 'echo'\n"
    assert loaded(text, write).services["avscan"].kind == "echo"


# Units


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0 B", 0),
        ("64 KiB", 64 * KIB),
        ("64kib", 64 * KIB),
        ("200MB", 200_000_000),
        (" 1.5 GiB ", 3 * GIB // 2),
        ("0.5 KB", 500),
        ("2 TiB", 2048 * GIB),
        ("1 TB", 10**12),
    ],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "64", "KiB", "-1 KiB", "1e3 B", "1 K", "1,5 MiB", "1 KiB 2 B", "0.3 B", "٣ B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "seconds"), [("250 ms", 0.25), ("2 min", 120.0), ("1.5h", 5400.0), ("1 d", 86400.0)])
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 S", "5 m", "-1 s", "1 min 30 s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        parse_seconds(text)


@given(st.integers(0, 2**63 - 1))
def test_shown_sizes_are_exact(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == count


@given(st.floats(1e-9, 1e12))
def test_shown_times_are_exact(seconds: float) -> None:
    assert parse_seconds(format_seconds(seconds)) == pytest.approx(seconds, rel=1e-12)


def test_shown_sizes_use_the_largest_exact_unit() -> None:
    assert [format_bytes(count) for count in (0, 1, KIB, 1000, 3 * MIB, 1536 * MIB)] == [
        "0 B", "1 B", "1 KiB", "1000 B", "3 MiB", "1536 MiB",
    ]  # fmt: skip
    assert [format_seconds(one) for one in (0.2, 2.5, 60, 90, 3600, 0.0005)] == [
        "200 ms", "2.5 s", "1 min", "90 s", "1 h", "0.5 ms",
    ]  # fmt: skip


# Lines


def test_lines_of_keys_in_every_form() -> None:
    text = "\n".join(
        [
            "# a = 1",
            "top = 1",
            "[a]",
            'b = """',
            "not = 'a key'",
            '[neither]"""',
            "c = ['x', # ]",
            "  'y = 2',",
            "]",
            'd."e f" = {g = 1}',
            "  [ x . y ] # [z]",
            "k=true",
            "[[r]]",
            "m = 1",
            "[[r]]",
            "m = '''",
            "'''",
            "[r.s]",
            "n = 1",
            "",
        ]
    )
    assert key_lines(text) == {
        ("top",): 2, ("a",): 3, ("a", "b"): 4, ("a", "c"): 7, ("a", "d"): 10, ("a", "d", "e f"): 10,
        ("x",): 11, ("x", "y"): 11, ("x", "y", "k"): 12, ("r",): 13, ("r", "0"): 13, ("r", "0", "m"): 14,
        ("r", "1"): 15, ("r", "1", "m"): 16, ("r", "1", "s"): 18, ("r", "1", "s", "n"): 19,
    }  # fmt: skip


def test_lines_are_the_same_with_crlf() -> None:
    text = show(Settings())
    assert key_lines(text.replace("\n", "\r\n")) == key_lines(text)


def test_every_shown_key_is_found_on_its_line() -> None:
    text = show(Settings())
    lines = text.splitlines()
    for path, line in key_lines(text).items():
        assert path[-1] in lines[line - 1]


def test_split_key() -> None:
    assert split_key('a."b.c".d') == ("a", "b.c", "d")
    for bad in ("", "a.", "a = 1\nb", "[a]"):
        with pytest.raises(ValueError):
            split_key(bad)


# Show


def test_what_is_shown_reads_back_the_same(write: Path) -> None:
    text = (
        "[server]\nworkers = 3\nfinal_crlf_grace = 0.125\n[limits]\nbody = 12345\n[engines.clamd]\nenabled = true\n"
        '[page]\ncontact = "\\u0007 é \\u202e \\""\n'
        '[services."x.y"]\naliases = ["a/b"]\n[policy.unscanned]\nencrypted = "allow"\n'
    )
    settings = loaded(text, write)
    shown = show(settings)
    assert loaded(shown, write) == settings
    assert show(loaded(shown, write)) == shown
    assert "\u202e" not in shown and "\x07" not in shown


def walk(table: Struct, above: str = "") -> list[tuple[str, str]]:
    """Every dotted key below a settings struct with its value as it is shown."""
    found = []
    for name, key in keys_of(type(table)).items():
        value = getattr(table, key.attribute)
        if isinstance(value, Struct):
            found += walk(value, f"{above}{name}.")
        elif isinstance(value, dict):
            found += walk(ServiceSettings() if value else RuleNotifySettings(), f"{above}{name}.NAME.")
        else:
            found.append((f"{above}{name}", format_value(key, value)))
    return found


def test_show_has_every_key() -> None:
    known = set(key_lines(show(EverySettings())))
    for key, _ in walk(EverySettings()):
        if not key.startswith("notify.rules."):  # there are none to begin with
            assert tuple(key.replace("NAME", "avscan").split(".")) in known


def test_every_key_is_in_the_documentation_with_its_default() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    missing = [
        f"| `{key}` | `{value}` |" for key, value in walk(EverySettings()) if f"| `{key}` | `{value}` |" not in text
    ]
    assert not missing
    documented = set(re.findall(r"^\| `([a-z_.A-Z-]+)` \| `", text, re.MULTILINE))
    assert documented == {key for key, _ in walk(EverySettings())}, "no key of the past"


def test_settings_are_frozen_and_refuse_unknown_fields_everywhere() -> None:
    def check(kind: type[Struct]) -> None:
        assert kind.__struct_config__.frozen and kind.__struct_config__.forbid_unknown_fields
        for key in keys_of(kind).values():
            if isinstance(key.described, msgspec.inspect.StructType):
                check(key.described.cls)

    check(Settings)
    check(ServiceSettings)
