"""The admin port: is the process there, may it get traffic, and what did it do."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def admin_app(readiness: Callable[[], dict[str, str]], metrics: Callable[[], bytes]) -> Starlette:
    """``/healthz``: 200 while the supervisor lives. ``/readyz``: 200 or 503 with what is not ready, by name."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        failed = readiness()
        status = "ready" if not failed else "not ready"
        return JSONResponse({"status": status, "failed": failed}, status_code=503 if failed else 200)

    async def exposition(request: Request) -> Response:
        return Response(metrics(), headers={"content-type": _METRICS_TYPE})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)])


class AdminServer(uvicorn.Server):
    """uvicorn beside the supervisor's own loop and signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the supervisor's business."""
        yield


async def serve_admin(app: Starlette, listening: socket.socket) -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    await AdminServer(config).serve([listening])
