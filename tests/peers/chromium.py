"""A real Chromium without a window, driven by Selenium, behind a proxy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers import require
from tests.peers.icapscan_server import CHECKOUT

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

ARTIFACTS = Path(os.environ.get("ICAPSCAN_ARTIFACTS") or CHECKOUT / "build" / "artifacts")
"""Where pictures of pages are kept."""
_QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--disable-features=OptimizationHints,MediaRouter,Translate",
)  # fmt: skip


@contextmanager
def run_chromium(folder: Path, proxy_port: int, language: str = "en") -> Iterator[Chrome]:
    """A browser whose downloads go to ``folder``/downloads, and everything it asks for to the proxy."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    program, driver = require("chromium", "chromium"), require("chromedriver", "chromium-driver")
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    options = ChromeOptions()
    options.binary_location = program
    options.page_load_strategy = "none"  # a page that comes in pieces is looked at before it is whole
    for word in (*_QUIET, f"--user-data-dir={folder / 'profile'}", f"--lang={language}"):
        options.add_argument(word)
    options.add_argument(f"--proxy-server=http://127.0.0.1:{proxy_port}")
    options.add_argument(
        "--proxy-bypass-list=<-loopback>"
    )  # the test's origin is on loopback, and is not to be left out
    options.add_argument("--window-size=900,720")
    options.add_experimental_option(
        "prefs",
        {
            "download.default_directory": str(downloads),
            "download.prompt_for_download": False,
            "intl.accept_languages": language,
            "safebrowsing.enabled": False,
        },
    )
    browser = Chrome(options=options, service=ChromeService(driver))
    try:
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
        yield browser
    finally:
        browser.quit()
        shutil.rmtree(folder / "profile", ignore_errors=True)


def picture(browser: Chrome, name: str) -> Path:
    """A picture of what the person sees, kept as an artifact of the tests."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    path = ARTIFACTS / f"{name}.png"
    assert browser.save_screenshot(str(path))
    return path
