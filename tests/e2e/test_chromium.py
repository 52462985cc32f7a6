"""What a person sees: a block page, and a page with a bar that ends in the download, in Chromium behind Squid."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.peers.chromium import picture, run_chromium
from tests.peers.icapscan_server import IcapscanServer, eicar_anywhere, run_icapscan
from tests.peers.origin import Origin, digest
from tests.peers.squid import Squid, run_squid

pytestmark = pytest.mark.full
PROGRESS = """
[services.avscan.delivery]
kind = "progress"
start = 1
"""
PATIENCE = 60.0


class Chain(Struct):
    origin: Origin
    icapscan: IcapscanServer
    squid: Squid


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chromium")
    with (
        Origin() as origin,
        run_icapscan(folder / "icapscan", {"server.workers": 2, **eicar_anywhere(folder)}, text=PROGRESS) as icapscan,
        # What REQMOD answers itself, Squid 5.7 with its delay pool sometimes keeps for itself (docs/squid.md).
        run_squid(folder / "squid", icapscan.icap_port, requests=False) as squid,
    ):
        yield Chain(origin, icapscan, squid)


def wait(what: Callable[[], bool], why: str) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, f"never: {why}"
        time.sleep(0.05)


@pytest.mark.parametrize(("language", "heading"), [("en", "A virus was found"), ("ja", "ウイルスが見つかりました")])
def test_the_block_page(chain: Chain, tmp_path: Path, language: str, heading: str) -> None:
    with run_chromium(tmp_path, chain.squid.port, language) as browser:
        browser.get(chain.origin.url("/eicar"))
        assert heading in browser.find_element("tag name", "h1").text
        assert "Eicar" in browser.find_element("tag name", "dl").text
        picture(browser, f"block-{language}")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_progress_page_ends_in_the_download(chain: Chain, tmp_path: Path, language: str) -> None:
    size = 6_000_000
    with run_chromium(tmp_path, chain.squid.port, language) as browser:
        browser.set_page_load_timeout(PATIENCE)
        browser.execute_cdp_cmd("Page.navigate", {"url": chain.origin.url(f"/slow/{size}?6")})
        width = "return document.getElementById('bar') ? getComputedStyle(document.getElementById('bar')).width : ''"
        rail = "return document.getElementById('rail').getBoundingClientRect().width"
        seen: set[float] = set()

        def grows() -> bool:
            shown = str(browser.execute_script(width))
            if shown:
                seen.add(float(shown.removesuffix("px")) / float(browser.execute_script(rail)))
            return len([one for one in seen if 0.05 < one < 0.95]) >= 3

        wait(grows, "the bar grows")
        shown = [one.text for one in browser.find_elements("class name", "step") if one.is_displayed()]
        assert len(shown) == 1 and "6.0 MB" in shown[0]
        picture(browser, f"progress-{language}")
        wait(lambda: bool(browser.find_elements("id", "save")), "the link to the download")
        picture(browser, f"progress-done-{language}")
        file = tmp_path / "downloads" / "report.bin"
        wait(lambda: file.exists() and file.stat().st_size == size, "the download that begins by itself")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest(size, "slow")
        file.unlink()
        browser.find_element("id", "save").click()
        wait(lambda: file.exists() and file.stat().st_size == size, "the download by a click")
        assert hashlib.sha256(file.read_bytes()).hexdigest() == digest(size, "slow")
    assert chain.icapscan.log_text().count("200 fetched") >= 2


def test_the_progress_page_ends_in_the_reason(chain: Chain, tmp_path: Path) -> None:
    with run_chromium(tmp_path, chain.squid.port) as browser:
        browser.execute_cdp_cmd("Page.navigate", {"url": chain.origin.url("/slow-eicar/2000000?4")})
        wait(lambda: bool(browser.find_elements("css selector", "#end.stopped")), "the end of the page")
        assert "A virus was found" in browser.find_element("id", "end").text
        assert not browser.find_element("id", "rail").is_displayed()
        assert not browser.find_elements("id", "save")
        picture(browser, "progress-stopped-en")
    assert list(tmp_path.glob("downloads/*")) == []
