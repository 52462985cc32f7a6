"""A private `icapscan smtp` between an ICAP server and a next hop."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.peers.icapscan_server import CHECKOUT, toml
from tests.peers.processes import Process, accepts, free_port


class SmtpProxyProcess(Process):
    """A running ``icapscan smtp``; ``port`` on 127.0.0.1."""

    port: int
    command: list[str]


def run_smtp_proxy(
    folder: Path, icap: Sequence[str], hop: int, settings: Mapping[str, object] | None = None, *, port: int = 0
) -> SmtpProxyProcess:
    """Start it with ``settings`` (keys below ``smtp.``) and wait until it listens. ``hop``: port of the next hop."""
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "smtp.toml"
    config.write_text(toml({f"smtp.{key}": value for key, value in (settings or {}).items()}))
    command = [sys.executable, "-m", "icapscan", "smtp", "--config", str(config), "--listen", f"127.0.0.1:{port}"]
    command += ["--next-hop", f"127.0.0.1:{hop}"]
    for url in icap:
        command += ["--icap", url]
    proxy = SmtpProxyProcess("smtp-proxy", command, folder, environment={"PYTHONPATH": str(CHECKOUT)})
    proxy.port, proxy.command = port, command
    try:
        proxy.wait_until(lambda: accepts(("127.0.0.1", port)), f"port {port}")
    except BaseException:
        proxy.end()
        raise
    return proxy
