"""A private `icapscan serve`: its own ports, configuration file, log and workers."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from signal import SIGHUP, SIGTERM

from tests.peers.processes import Process, children, free_port

CHECKOUT = Path(__file__).resolve().parents[2]


class IcapscanServer(Process):
    """A running ``icapscan serve``. As a context manager it is ended at the exit, however it fares."""

    def __init__(self, folder: Path, config: str, icap_port: int, admin_port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.icap_port = icap_port
        self.admin_port = admin_port
        self.config = folder / "icapscan.toml"
        self.config.write_text(config)
        command = [sys.executable, "-m", "icapscan", "serve", "--config", str(self.config)]
        super().__init__("icapscan", command, folder, environment={"PYTHONPATH": str(CHECKOUT)})

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.icap_port)

    def admin(self, path: str) -> tuple[int, str]:
        """GET ``path`` on the admin port: (status, body); status 0 when nothing answers there."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.admin("/readyz")[0] == 200

    def wait_ready(self) -> None:
        self.wait_until(self.ready, "/readyz 200")

    def wait_not_ready(self) -> None:
        """Return once ``/readyz`` answers 503."""
        self.wait_until(lambda: self.admin("/readyz")[0] == 503, "/readyz 503")

    def worker_pids(self) -> list[int]:
        """The supervisor's children."""
        return children(self.pid)

    def reload(self) -> None:
        """SIGHUP to the supervisor; does not wait."""
        self.signal(SIGHUP)

    def stop(self, seconds: float = 60.0) -> None:
        """SIGTERM, then wait for the end. Raises `PeerError` unless the exit code is 0."""
        if self.exit_code is None:
            self.signal(SIGTERM)
        code = self.wait(seconds)
        if code != 0:
            raise self.failure(f"ended with {code}, expected 0")


def toml(settings: Mapping[str, object]) -> str:
    """Settings by dotted key as TOML text. JSON's strings, numbers, lists and booleans are also TOML's."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def eicar_anywhere(folder: Path) -> dict[str, object]:
    """Settings with a rule that finds the EICAR test file behind anything, where no real scanner looks for it."""
    path = folder / "eicar_anywhere.yar"
    pattern = "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE"
    path.write_text(f'rule Eicar_Anywhere {{ strings: $a = "{pattern}" condition: $a }}\n')
    return {"engines.yara.rules": [str(path)]}


def run_icapscan(
    folder: Path, settings: Mapping[str, object] | None = None, *, text: str = "", ready: bool = True
) -> IcapscanServer:
    """Start icapscan with ``settings`` (dotted keys) and ``text`` (further TOML); it is ready when this returns.

    ``ready=False`` returns at once. Raises `PeerError` with the log when it does not become ready.
    """
    icap_port, admin_port = free_port(), free_port()
    chosen: dict[str, object] = {
        "server.listen": [f"127.0.0.1:{icap_port}"],
        "admin.listen": f"127.0.0.1:{admin_port}",
        "server.workers": 1,
        "engines.clamd.enabled": False,
    }
    if settings and "engines.clamd.address" in settings:
        chosen["engines.clamd.enabled"] = True
    server = IcapscanServer(folder, toml({**chosen, **(settings or {})}) + text, icap_port, admin_port)
    if ready:
        try:
            server.wait_ready()
        except BaseException:
            server.end()
            raise
    return server
