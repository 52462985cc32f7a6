"""The configuration files of ``docs/examples``, changed in ports and paths only; ``icapscan smtp`` run by one."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from tests.peers.icapscan_server import CHECKOUT
from tests.peers.processes import Process, accepts

EXAMPLES = CHECKOUT / "docs" / "examples"
NO_MARK = r"[0-9A-Za-z_.-]"
"""What must not stand beside a text that is replaced: ``127.0.0.1:25`` is not in ``127.0.0.1:2525``."""


def example(path: str, changes: Mapping[str, str]) -> str:
    """The text of ``docs/examples/PATH`` with each key of ``changes`` replaced. Each must be there."""
    text = (EXAMPLES / path).read_text()
    for old, new in changes.items():
        parts = re.split(rf"(?<!{NO_MARK}){re.escape(old)}(?!{NO_MARK})", text)
        if len(parts) == 1:
            raise AssertionError(f"docs/examples/{path} does not have {old!r}")
        text = new.join(parts)
    return text


class SmtpExample(Process):
    """A running ``icapscan smtp`` with a configuration of the examples."""

    ports: list[int]

    @property
    def port(self) -> int:
        """The first one."""
        return self.ports[0]


def run_smtp_example(folder: Path, config: str, *, name: str = "icapscan-smtp") -> SmtpExample:
    """Start ``icapscan smtp --config FILE`` with that text and wait until it accepts on each of its ports."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(config)
    listen = tomllib.loads(config)["smtp"]["listen"]
    addresses = [listen] if isinstance(listen, str) else listen
    command = [sys.executable, "-m", "icapscan", "smtp", "--config", str(path)]
    proxy = SmtpExample(name, command, folder, environment={"PYTHONPATH": str(CHECKOUT)})
    proxy.ports = [int(address.rpartition(":")[2]) for address in addresses]
    try:
        for port in proxy.ports:
            proxy.wait_until(lambda port=port: accepts(("127.0.0.1", port)), f"port {port}")  # type: ignore[misc]
    except BaseException:
        proxy.end()
        raise
    return proxy
