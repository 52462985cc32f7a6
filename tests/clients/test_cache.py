"""The verdict cache (PROTOCOL C48)."""

from __future__ import annotations

import asyncio
from typing import Any

from icapscan.clients.cache import VerdictCache
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Cause, Mode, Outcome, ScanResult
from tests.clients.fakes import HTTP_403, HTTP_OK, NO_CONTENT, PREVIEW_OPTIONS, Fake, answer, run, script, settings

HOW = settings(cache_entries=10)
TAG = b'ISTag: "t1"\r\n'


def asked(*scans: tuple[bytes, dict[str, Any]], reply: bytes = NO_CONTENT, how: Any = HOW) -> int:
    """How many of these scans the server saw."""

    async def main() -> int:
        async with Fake(reply) as fake, IcapClient(fake.url, settings=how) as client:
            for body, given in scans:
                (await client.scan(body, **given)).close()
            return len(fake.scans)

    return run(main())


def test_c48_the_same_question_is_asked_once() -> None:
    same: tuple[bytes, dict[str, Any]] = (b"x", {"name": "a.txt"})
    assert asked(same, same, same) == 1
    assert asked(same, same, same, how=None) == 3  # off by default
    infected = answer(fields=TAG + b"X-Virus-ID: Eicar\r\n", res=HTTP_403, body=b"page")
    assert asked(same, same, reply=infected) == 1


def test_c48_another_question_is_another_key() -> None:
    scans: list[tuple[bytes, dict[str, Any]]] = [
        (b"x", {}),
        (b"y", {}),
        (b"x", {"name": "a.exe"}),
        (b"x", {"media_type": "text/plain"}),
        (b"x", {"mode": Mode.REQMOD}),
        (b"x", {"client_ip": "192.0.2.1"}),
        (b"x", {"user": "me"}),
        (b"x", {"mail_from": "a@b"}),
        (b"x", {"rcpt_to": ("a@b",)}),
    ]
    assert asked(*scans, *scans) == len(scans)
    assert asked((b"x", {}), (b"x", {"adapt": True})) == 2


def test_c48_what_may_change_without_the_istag_is_not_kept() -> None:
    twice: list[tuple[bytes, dict[str, Any]]] = [(b"x", {})] * 2
    assert asked(*twice, reply=answer(b"204 No")) == 2  # no ISTag
    assert asked(*twice, reply=answer(fields=TAG, res=HTTP_403, body=b"page")) == 2
    assert asked(*twice, reply=answer(fields=TAG, res=HTTP_OK, body=b"other")) == 2
    assert asked(*twice, reply=answer(fields=TAG + b"X-Infection-Found: Type=2; Threat=E;\r\n", res=HTTP_403)) == 2


def test_c48_a_verdict_by_preview_is_not_kept() -> None:
    async def main() -> None:
        by_preview = script("preview", NO_CONTENT)
        async with Fake(by_preview, options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url, settings=HOW) as client:
            for _ in range(2):
                assert not (await client.scan(b"x" * 500)).cached
            assert len(fake.scans) == 2

    run(main())


def test_c48_a_new_istag_empties_it() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url, settings=HOW) as client:
            assert not (await client.scan(b"x")).cached
            kept = await client.scan(b"x")
            assert kept.cached and kept.is_clean and kept.istag == "t1" and kept.status == 204
            fake.replies = [NO_CONTENT.replace(b'"t1"', b'"t2"')]
            assert not (await client.scan(b"y")).cached  # this answer shows the new ISTag
            fake.replies = [answer(fields=b'ISTag: "t2"\r\nX-Virus-ID: New\r\n', res=HTTP_403, body=b"p")]
            result = await client.scan(b"x")
            assert not result.cached and result.outcome is Outcome.INFECTED

    run(main())


def test_c48_a_new_istag_in_options_empties_it_too() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url, settings=HOW) as client:
            await client.scan(b"x")
            fake.options = PREVIEW_OPTIONS.replace(b'"t1"', b'"t9"')
            await client.options()
            assert not (await client.scan(b"x")).cached

    run(main())


def test_c48_large_bodies_are_hashed_beside_the_loop() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url, settings=HOW) as client:
            body = b"z" * 3_000_000
            first, second = await asyncio.gather(client.scan(body), client.scan(body))
            assert first.is_clean and second.is_clean
            assert (await client.scan(body)).cached

    run(main())


def result(outcome: Outcome = Outcome.CLEAN, istag: str | None = "t", cause: Cause | None = None) -> ScanResult:
    return ScanResult(outcome, 204, "icap://h/", cause, istag=istag)


def test_c48_bounds_of_size_and_age() -> None:
    cache = VerdictCache(2, 10.0)
    cache.seen("t")
    for key in ("a", "b", "c"):
        cache.put(key, result(), now=0.0)
    assert len(cache) == 2 and cache.get("a", 1.0) is None
    assert cache.get("b", 1.0) is not None
    cache.put("d", result(), now=1.0)
    assert cache.get("c", 1.0) is None and cache.get("b", 1.0) is not None  # the one used longest ago went
    assert cache.get("b", 11.0) is None and cache.get("d", 11.0) is not None
    cache.put("e", result(istag="old"), now=1.0)
    assert cache.get("e", 1.0) is None
    cache.seen(None)
    assert len(cache) == 1
    cache.seen("t2")
    assert len(cache) == 0
