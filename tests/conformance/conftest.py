"""The server that most conformance tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.live import Live, Peer


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """A server with one scanner that knows EICAR."""
    with Live() as server:
        yield server


@pytest.fixture
def peer(live: Live) -> Iterator[Peer]:
    """A connection to it."""
    with live.connect() as connection:
        yield connection
