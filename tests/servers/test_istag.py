"""The ISTag changes when a verdict may, and only then."""

from __future__ import annotations

import re

from msgspec.structs import replace

from icapscan.limits import Limits
from icapscan.policy.settings import PolicySettings
from icapscan.servers.istag import istag
from icapscan.servers.settings import LogSettings, ServerSettings, Settings

VERSIONS = {"yara": "1", "clamd": "ClamAV 1.4.6/27000"}


def test_s81_charset_and_length() -> None:
    assert re.fullmatch(r"[A-Za-z0-9-]{1,32}", istag(VERSIONS, Settings()))


def test_s82_same_state_same_tag() -> None:
    assert istag(VERSIONS, Settings()) == istag(dict(reversed(VERSIONS.items())), Settings())
    other = Settings(server=ServerSettings(workers=7), log=LogSettings(format="json"))
    assert istag(VERSIONS, other) == istag(VERSIONS, Settings()), "what no verdict depends on does not count"


def test_s82_engines_policy_and_limits_change_it() -> None:
    tags = {
        istag(VERSIONS, Settings()),
        istag({**VERSIONS, "clamd": "ClamAV 1.4.6/27001"}, Settings()),
        istag({"yara": "1"}, Settings()),
        istag(VERSIONS, Settings(policy=PolicySettings(suspicious="block"))),
        istag(VERSIONS, replace(Settings(), limits=Limits(body=5))),
    }
    assert len(tags) == 5
