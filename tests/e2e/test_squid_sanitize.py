"""Squid in front of an icapscan that sanitizes: downloads and uploads lose what is bad, and 206 is understood."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from msgspec import Struct

from tests.e2e.web import Browser
from tests.peers.icapscan_server import IcapscanServer, run_icapscan
from tests.peers.origin import EICAR
from tests.peers.squid import Squid, run_squid

POLICY = '[policy.web]\ninfected = "sanitize"\n'
CLEAN = bytes(range(256)) * 100


class Site(Struct):
    """An origin that serves one body and keeps what is sent to it."""

    url: str
    body: bytes
    uploads: list[bytes]


class Chain(Struct):
    site: Site
    icapscan: IcapscanServer
    squid: Squid


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/zip")
            self.send_header("ETag", '"of-the-virgin-body"')
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def do_POST(self) -> None:
            found.uploads.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Site(f"http://127.0.0.1:{server.server_address[1]}/files.zip", b"", [])
    Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def chain(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("squid-sanitize")
    with (
        run_icapscan(folder / "icapscan", text=POLICY) as icapscan,
        run_squid(folder / "squid", icapscan.icap_port, pool=False) as squid,
    ):
        yield Chain(site, icapscan, squid)


def test_a_downloaded_zip_loses_its_bad_member(chain: Chain) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("good.bin", CLEAN)
        archive.writestr("bad.com", EICAR)
    chain.site.body = out.getvalue()
    browser = Browser(chain.squid.port)
    fetched = browser.get(chain.site.url)
    browser.close()
    assert fetched.status == 200 and fetched.size == int(fetched.headers["content-length"])
    assert "etag" not in fetched.headers and EICAR not in fetched.body
    with zipfile.ZipFile(io.BytesIO(fetched.body)) as archive:
        assert archive.read("good.bin") == CLEAN and "bad.com" not in archive.namelist()
    assert chain.squid.icap_trouble() == []


def test_s108_an_upload_is_put_together_from_a_206(chain: Chain) -> None:
    part = b'--frontier\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
    form = part % (b"one", b"bad.com", EICAR) + part % (b"two", b"good.bin", CLEAN) + b"--frontier--\r\n"
    browser = Browser(chain.squid.port)
    browser._connection.request(
        "POST", chain.site.url, form, {"Content-Type": "multipart/form-data; boundary=frontier"}
    )
    answer = browser._connection.getresponse()
    answer.read()
    browser.close()
    assert answer.status == 200
    (upload,) = chain.site.uploads
    assert EICAR not in upload and b"bad.com" in upload
    assert upload.endswith(form[form.index(b"\r\n--frontier", 10) :])
    assert any(re.match(r"ICAP_\w+/206 ", line) for line in chain.squid.icap_log()), chain.squid.icap_log()
