"""The table ``[smtp]``: each mistake is named with its key and its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from icapscan.cli.smtp import overrides
from icapscan.config import load_every
from icapscan.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ('[smtp]\nicap = "http://x/"\n', "smtp.icap", 2, "icap://host:1344/service"),
        ("[smtp]\nicap = []\n", "smtp.icap", 2, "at least one"),
        ("[smtp]\nlisten = []\n", "smtp.listen", 2, "at least one"),
        ('[smtp]\nlisten = ["127.0.0.1:99999"]\n', "smtp.listen", 2, "65535"),
        ('[smtp.hop]\ninbound = "nowhere"\n', "smtp.hop.inbound", 2, "host:port"),
        ('[smtp.hop]\ninbound = ""\n', "smtp.hop.inbound", 2, "a mail server"),
        ('[smtp]\nproxy_from = ["10.0.0.0/99"]\n', "smtp.proxy_from", 2, "10.0.0.0/8"),
        ('[smtp]\nxforward_from = ["host"]\n', "smtp.xforward_from", 2, "10.0.0.0/8"),
        ('[smtp]\ntls = "must"\n', "smtp.tls", 2, "tls_certificate"),
        ('[smtp]\nhostname = "a b"\n', "smtp.hostname", 2, "host name"),
        ('[smtp]\nbare_line_ends = "pass"\n', "smtp.bare_line_ends", 2, '"normalize" or "refuse"'),
        ("[smtp]\nnext_hop = 1\n", "smtp.next_hop", 2, "unknown key"),
        ("[smtp.timeouts]\nscan = 0\n", "smtp.timeouts.scan", 2, "above 0"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, key: str, line: int, words: str) -> None:
    file = tmp_path / "icapscan.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_every(str(file), (), {})
    sentence = str(caught.value)
    assert sentence.startswith(f"{key} (") and f"line {line}" in sentence and words in sentence


def test_options_of_the_command_win(tmp_path: Path) -> None:
    file = tmp_path / "icapscan.toml"
    file.write_text('[smtp]\nlisten = "127.0.0.1:1"\n[smtp.hop]\ninbound = "127.0.0.1:2"\ntell = "xclient"\n')
    given = overrides(["127.0.0.1:3", "[::1]:3"], "127.0.0.1:4", ["icap://a/b", "icap://c/d"])
    smtp = load_every(str(file), given, {}).smtp
    assert smtp.listen == ("127.0.0.1:3", "[::1]:3") and smtp.icap == ("icap://a/b", "icap://c/d")
    assert smtp.hop.inbound == "127.0.0.1:4" and smtp.hop.tell == "xclient"
    assert load_every(str(file), overrides([], None, []), {}).smtp.listen == ("127.0.0.1:1",)
