"""A pyicap server with our scanner in it, in a process of its own.

For the benchmark, as a program::

    python -m tests.peers.pyicap_scanner --listen 127.0.0.1:0 --config FILE --set engines.yara.enabled=false \\
        --set engines.clamd.address=unix:/run/clamav/clamd.ctl

``--config`` and ``--set`` (any number of them) are those of ``icapscan serve``; its first line on standard output is
``listening on 127.0.0.1:PORT``. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.peers import require_module
from tests.peers.icapscan_server import CHECKOUT, toml
from tests.peers.processes import Process
from tests.peers.pyicap_server import threading_server


class PyicapScanner(Process):
    """A running one. Services are those of ``icapscan serve``."""

    icap_port: int

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.icap_port)


def run_pyicap_scanner(folder: Path, settings: Mapping[str, object]) -> PyicapScanner:
    """Start one with ``settings`` (dotted keys); it accepts connections when this returns."""
    require_module("pyicap", "pyicap==1.0b1")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "icapscan.toml"
    config.write_text(toml({"engines.clamd.enabled": "engines.clamd.address" in settings, **settings}))
    command = [sys.executable, "-m", "tests.peers.pyicap_scanner", "--config", str(config)]
    server = PyicapScanner("pyicap-scanner", command, folder, environment={"PYTHONPATH": str(CHECKOUT)})
    try:
        server.icap_port = int(server.wait_for_log(r"listening on \S+:\d+").rpartition(":")[2])
    except BaseException:
        server.end()
        raise
    return server


def listening(scanner: Any, address: tuple[str, int] = ("127.0.0.1", 0)) -> Any:
    """A `socketserver.ThreadingMixIn` server of pyicap that asks ``scanner``; not yet serving."""
    pyicap: Any = require_module("pyicap", "pyicap==1.0b1")
    from icapscan.adapters.pyicap_handler import make_handler

    return threading_server(pyicap, address, make_handler(scanner))


def main() -> None:
    """Serve until SIGTERM."""
    from icapscan.adapters.pyicap_scanner import ScannerThread
    from icapscan.config import load

    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--config")
    parser.add_argument("--set", action="append", default=[], dest="sets")
    given = parser.parse_args()
    host, _, port = given.listen.rpartition(":")
    with ScannerThread(load(given.config, given.sets, os.environ)) as scanner:
        server = listening(scanner, (host, int(port)))
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        print("listening on {}:{}".format(*server.server_address), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
