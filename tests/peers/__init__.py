"""The real programs that tests and benchmarks start."""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def require(program: str, package: str) -> str:
    """The path of ``program``. Without it the test is skipped, naming the Debian ``package``; in CI it fails."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        missing_peer(f"{program} is not installed: install Debian package {package}")
    return path


def require_module(module: str, package: str, hint: str = "") -> ModuleType:
    """Python's ``module``. Without it the test is skipped, naming the PyPI ``package``; in CI it fails."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing_peer(f"Python module {module} is not there ({error}): pip install {package}{hint}")


def require_root(program: str) -> None:
    """``program`` can be started by root only. Anybody else skips the test; in CI it fails."""
    if os.geteuid() != 0:
        missing_peer(f"{program} has to be started by root")


def missing_peer(what: str) -> NoReturn:
    """Skip the test because of ``what``; in CI fail."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"in CI this is a failure: {what}", pytrace=False)
    pytest.skip(what)
