"""What answers mean, and that nothing broken ever means clean (PROTOCOL C13-C18, C23-C38, C45-C47, C56, C60)."""

from __future__ import annotations

from typing import Any

import pytest

from icapscan.clients.errors import ClientError, ConnectionLost, Malformed, NotIcap, ServerBusy, ServerRefused
from icapscan.clients.icap import IcapClient
from icapscan.clients.result import Cause, Mode, Outcome, ScanResult
from tests.clients.fakes import (
    CONTINUE,
    EICAR,
    HTTP_403,
    HTTP_OK,
    NO_CONTENT,
    OPTIONS,
    PREVIEW_OPTIONS,
    Fake,
    Peer,
    Reply,
    Seen,
    answer,
    chunked,
    read_rest,
    run,
    scan,
    script,
    settings,
)

HELLO = b"hello"
CLEAN, MODIFIED, INFECTED, BLOCKED = Outcome.CLEAN, Outcome.MODIFIED, Outcome.INFECTED, Outcome.BLOCKED
OFFER = OPTIONS.replace(b"Allow: 204", b"Allow: 204, 206")
HIT = b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;\r\n"


def told(reply: Reply, body: bytes = HELLO, options: bytes = OPTIONS, **given: Any) -> ScanResult:
    """The result of one scan that is answered so."""

    async def main() -> ScanResult:
        async with Fake(reply, options=options) as fake:
            return await scan(fake, body, **given)

    return run(main())


def refused(reply: Reply, body: bytes = HELLO, options: bytes = OPTIONS, **given: Any) -> ClientError:
    """The error of one scan that is answered so."""
    with pytest.raises(ClientError) as raised:
        told(reply, body, options, **given)
    return raised.value


# After the preview


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (NO_CONTENT, CLEAN),
        (answer(res=HTTP_403, body=b"page"), BLOCKED),
        (answer(res=HTTP_OK, body=b"x" * 500), CLEAN),
        (answer(b"201 Created", res=HTTP_OK, body=b"repaired"), MODIFIED),
        (answer(b"206 Partial Content", res=HTTP_OK, body=b"", last=b"0; use-original-body=0\r\n\r\n"), CLEAN),
    ],
)
def test_c13_final_answers_to_a_preview(reply: bytes, outcome: Outcome) -> None:
    options = PREVIEW_OPTIONS.replace(b"Allow: 204", b"Allow: 204, 206")
    how = settings(offer_206=True)
    result = told(script("preview", reply), b"x" * 500, options, how=how)
    assert result.outcome is outcome and not result.whole
    result = told(script("preview", CONTINUE, "rest", reply), b"x" * 500, options, how=how)
    assert result.outcome is outcome and result.whole


@pytest.mark.parametrize("status", [b"404 x", b"500 x", b"503 x", b"400 x"])
def test_c13_errors_after_a_preview(status: bytes) -> None:
    error = refused(script("preview", answer(status)), b"x" * 500, PREVIEW_OPTIONS)
    assert isinstance(error, ServerRefused) and error.status == int(status[:3])


def test_c13_c39_a_connection_is_reused_after_a_final_answer_to_a_preview() -> None:
    async def main() -> None:
        async with Fake(script("preview", NO_CONTENT), options=PREVIEW_OPTIONS) as fake, IcapClient(fake.url) as client:
            for _ in range(3):
                assert (await client.scan(b"x" * 500)).is_clean
            assert fake.connections == 1

    run(main())


def test_c15_one_early_continue_is_ignored() -> None:
    assert told(script(CONTINUE, "body", NO_CONTENT)).is_clean
    assert told(script("body", CONTINUE, NO_CONTENT)).is_clean
    assert told(script("preview", CONTINUE, NO_CONTENT), b"x" * 100, PREVIEW_OPTIONS).is_clean  # after ieof


def test_c15_d122_more_of_them_are_an_error() -> None:
    assert isinstance(refused(script("body", CONTINUE * 2, NO_CONTENT)), Malformed)
    assert isinstance(refused(script("body", CONTINUE * 100_000)), Malformed)
    assert isinstance(refused(script("preview", CONTINUE * 3, "hang"), b"x" * 500, PREVIEW_OPTIONS), Malformed)


@pytest.mark.parametrize("preview", ["auto", "never"])
def test_c18_continue_is_never_a_verdict(preview: str) -> None:
    how = settings(preview=preview)
    for reply in (script("preview", CONTINUE, "close"), script("preview", CONTINUE, "reset")):
        error = refused(reply, b"x" * 500, PREVIEW_OPTIONS, how=how)
        assert isinstance(error, ConnectionLost) and error.retry


# 204


def test_c17_204_where_it_was_allowed() -> None:
    assert told(NO_CONTENT).is_clean
    assert told(NO_CONTENT, b"x" * 500, PREVIEW_OPTIONS, how=settings(allow_204=False)).is_clean  # preview


def test_c17_d123_204_where_it_was_not_allowed() -> None:
    assert isinstance(refused(NO_CONTENT, how=settings(allow_204=False)), Malformed)


def test_d123_204_with_a_body() -> None:
    async def main() -> None:
        with_stray = NO_CONTENT + b"5\r\nhello\r\n0\r\n\r\n"
        async with Fake(with_stray) as fake, IcapClient(fake.url) as client:
            for count in (1, 2, 3):
                assert (await client.scan(HELLO)).is_clean
                assert client.idle == 0 and fake.connections == count

    run(main())  # fmt: skip
    assert isinstance(refused(answer(b"204 No", res=HTTP_OK, body=HELLO)), Malformed)


@pytest.mark.parametrize(
    "head",
    [
        b"ICAP/1.0 204\r\n\r\n",
        b"ICAP/1.0 204 \r\n\r\n",
        b"ICAP/1.1 204 No modifications\r\n\r\n",
        b"\r\n\r\nICAP/1.0 204 X\r\n\r\n",
        b"ICAP/1.0 204 No\r\nEncapsulated: null-body=0\r\nX-Later: 1\r\n\r\n",
        b"ICAP/1.0 204 No\r\nencapsulated:   NULL-BODY=0  \r\n\r\n",
        b"ICAP/1.0 204 No\r\nENCAPSULATED: null-body=0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_c23_c24_c45_a_204_ends_with_its_head_in_every_spelling(head: bytes) -> None:
    async def main() -> None:
        async with Fake(head) as fake, IcapClient(fake.url) as client:
            for _ in range(2):
                result = await client.scan(HELLO)
                assert result.is_clean and result.status == 204 and result.istag is None and result.whole
            assert fake.connections == 1

    run(main())


def test_c24_null_body_on_any_status() -> None:
    assert told(answer(b"204 No", res=HTTP_OK)).is_clean
    error = refused(answer(b"500 No", res=HTTP_OK))
    assert isinstance(error, ServerRefused) and error.status == 500


# 200


def test_c24_sections_in_any_spelling() -> None:
    reply = answer(res=HTTP_OK, body=HELLO)
    for old, new in (
        (b"Encapsulated: ", b"ENCAPSULATED:"),
        (b", res-body", b" res-body"),
        (b"res-hdr=0, ", b"Res-Hdr=0 ,  "),
    ):
        assert told(reply.replace(old, new)).is_clean


@pytest.mark.parametrize("value", [b"res-hdr=0, null-body=0", b"null-body=0", b"req-hdr=0, null-body=0"])
def test_c25_200_without_anything_is_unmodified(value: bytes) -> None:
    head = b"ICAP/1.0 200 OK\r\nEncapsulated: %s\r\n%s\r\n"
    assert told(head % (value, b"")).is_clean
    assert told(head % (value, HIT)).outcome is INFECTED
    assert told(b"ICAP/1.0 200 OK\r\n\r\n").is_clean


def test_c26_d124_offsets_that_leave_out_a_head() -> None:
    reply = answer(res=HTTP_OK, body=HELLO)
    wrong = reply.replace(b"res-hdr=0, res-body=%d" % len(HTTP_OK), b"res-body=%d" % len(HTTP_OK))
    assert wrong != reply and isinstance(refused(wrong), Malformed)


@pytest.mark.parametrize(
    "value",
    [
        b"res-hdr=0, res-body=%d" % (len(HTTP_OK) - 1),
        b"res-hdr=0, res-body=%d" % (len(HTTP_OK) + 1),
        b"res-hdr=0, res-body=0",
        b"res-hdr=0, res-body=99999999",
        b"res-hdr=0, res-body=-1",
        b"res-body=57, res-hdr=0",
        b"res-hdr=9, req-hdr=0, res-body=57",
        b"res-hdr=57, res-body=0",
        b"res-hdr=0, res-hdr=0, res-body=57",
        b"res-hdr=0, res-body=57\r\nEncapsulated: res-hdr=0, res-body=57",
        b"res-hdr=0",
        b"res-hdr",
        b"",
        b"evil-hdr=0, res-body=57",
    ],
)
def test_d124_wrong_offsets_are_never_clean(value: bytes) -> None:
    head = b"ICAP/1.0 200 OK\r\nEncapsulated: %s\r\n\r\n" % value
    error = refused(script("body", head + HTTP_OK + chunked(HELLO), "close"))
    assert isinstance(error, Malformed | ConnectionLost)


IN_HTTP = HTTP_OK[:-2] + HIT + b"\r\n"
COPY = {"res": HTTP_OK, "body": HELLO}
PAGE = {"res": HTTP_403, "body": b"page"}
TYPE_2 = b"X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted;\r\n"


@pytest.mark.parametrize(
    ("reply", "outcome", "cause", "threat"),
    [
        (answer(fields=HIT, **COPY), INFECTED, None, "Eicar"),
        (answer(fields=HIT, **PAGE), INFECTED, None, "Eicar"),
        (answer(b"204 No", fields=HIT), INFECTED, None, "Eicar"),
        (answer(res=IN_HTTP, body=HELLO), INFECTED, None, "Eicar"),
        (answer(fields=b"X-Virus-ID: no threats\r\n", res=IN_HTTP, body=HELLO), INFECTED, None, "Eicar"),
        (answer(b"403 Forbidden", fields=HIT), INFECTED, None, "Eicar"),
        (answer(fields=TYPE_2, **PAGE), BLOCKED, Cause.UNSCANNABLE, "Encrypted"),
        (answer(fields=TYPE_2, **COPY), BLOCKED, Cause.UNSCANNABLE, "Encrypted"),
        (answer(fields=b"X-Response-Info: Blocked\r\n", **COPY), BLOCKED, Cause.POLICY, "Blocked"),
        (answer(**PAGE), BLOCKED, Cause.UNSTATED, None),
        (answer(fields=b"X-Response-Info: Allowed\r\n", **PAGE), BLOCKED, Cause.UNSTATED, None),
        (answer(res=HTTP_403), BLOCKED, Cause.UNSTATED, None),
        (answer(res=b"HTTP/1.1 500 Error\r\n\r\n", body=b"x"), BLOCKED, Cause.UNSCANNABLE, None),
        (answer(res=b"HTTP/1.1 307 Moved\r\nLocation: http://x/\r\n\r\n", body=b""), BLOCKED, Cause.UNSTATED, None),
        (answer(res=HTTP_403, body=HELLO), BLOCKED, Cause.UNSTATED, None),
        (answer(**COPY), CLEAN, None, None),
        (answer(fields=b"X-Virus-ID: no threats\r\n", **COPY), CLEAN, None, None),
        (answer(res=HTTP_OK, body=b"hellO"), MODIFIED, None, None),
    ],
)
def test_c27_c32_order_of_evidence(reply: bytes, outcome: Outcome, cause: Cause | None, threat: str | None) -> None:
    result = told(reply)
    assert (result.outcome, result.cause, result.threat) == (outcome, cause, threat)
    assert result.is_clean is (outcome is CLEAN)


REQUEST = b"PUT / HTTP/1.1\r\nHost: scan.invalid\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (answer(req=REQUEST, body=HELLO), CLEAN),
        (answer(req=REQUEST, body=b"other"), MODIFIED),
        (answer(req=REQUEST.replace(b"PUT /", b"PUT /elsewhere"), body=HELLO), MODIFIED),
        (answer(req=REQUEST), MODIFIED),
        (answer(body=HELLO, kind=b"req-body"), CLEAN),
        (answer(**PAGE), BLOCKED),
        (answer(res=HTTP_OK, body=HELLO), BLOCKED),
        (answer(res=HTTP_403), BLOCKED),
        (answer(body=HELLO, kind=b"res-body"), BLOCKED),
        (answer(req=REQUEST, res=HTTP_403, body=b"page"), BLOCKED),
        (NO_CONTENT, CLEAN),
    ],
)
def test_c33_reqmod(reply: bytes, outcome: Outcome) -> None:
    assert told(reply, mode=Mode.REQMOD).outcome is outcome


@pytest.mark.parametrize(
    "reply",
    [
        answer(req=REQUEST, body=HELLO),
        answer(req=REQUEST),
        answer(body=HELLO, kind=b"req-body"),
        answer(body=HELLO, kind=b"opt-body"),
        answer(res=b"HTTP/1.1 100 Continue\r\n\r\n", body=HELLO),
        answer(res=b"nonsense\r\n\r\n", body=HELLO),
    ],
)
def test_c32_respmod_answers_that_make_no_sense(reply: bytes) -> None:
    assert isinstance(refused(reply), Malformed)


@pytest.mark.parametrize(
    ("back", "outcome"),
    [
        (b"x" * 300_000, CLEAN),
        (b"x" * 299_999, MODIFIED),
        (b"x" * 300_001, MODIFIED),
        (b"x" * 150_000 + b"y" + b"x" * 149_999, MODIFIED),
        (b"y" + b"x" * 299_999, MODIFIED),
        (b"x" * 299_999 + b"y", MODIFIED),
        (b"", MODIFIED),
    ],
)
def test_c34_a_copy_is_compared_byte_by_byte(back: bytes, outcome: Outcome) -> None:
    for kept in (False, True):
        result = told(answer(res=HTTP_OK, body=back), b"x" * 300_000, adapt=kept)
        assert result.outcome is outcome and result.whole
        if kept and outcome is MODIFIED:
            assert result.adapted is not None and b"".join(bytes(piece) for piece in result.adapted.pieces()) == back
            result.close()
        else:
            assert result.adapted is None


def test_c34_a_head_that_now_claims_a_coding_is_modified() -> None:
    assert told(answer(res=HTTP_OK[:-2] + b"Content-Encoding: gzip\r\n\r\n", body=HELLO)).outcome is MODIFIED
    assert told(answer(res=b"HTTP/1.1 203 Other\r\n\r\n", body=HELLO)).outcome is MODIFIED


def test_c34_an_adapted_body_has_a_bound() -> None:
    how = settings(answer_most=1000)
    assert isinstance(refused(answer(res=HTTP_OK, body=b"y" * 1001), how=how), Malformed)
    assert told(answer(res=HTTP_OK, body=b"y" * 1000), how=how).outcome is MODIFIED


def test_c12_c34_empty_bodies() -> None:
    assert told(answer(res=HTTP_OK), b"").is_clean
    assert told(answer(res=HTTP_OK, body=b""), b"").is_clean
    assert told(answer(res=HTTP_OK, body=b"more"), b"").outcome is MODIFIED
    assert told(answer(res=HTTP_OK), HELLO).outcome is MODIFIED


def test_c35_201_is_read_like_200() -> None:
    assert told(answer(b"201 Created", res=HTTP_OK, body=b"repaired")).outcome is MODIFIED
    assert told(answer(b"201 Created", fields=HIT, res=HTTP_OK, body=b"repaired")).outcome is INFECTED
    assert told(answer(b"201 Created", res=HTTP_403, body=b"page")).outcome is BLOCKED
    assert told(answer(b"201 Created", res=HTTP_OK, body=HELLO)).outcome is MODIFIED  # never clean: it says it changed


# 206


def partial(data: bytes, offset: int | None) -> bytes:
    last = b"0\r\n\r\n" if offset is None else b"0; use-original-body=%d\r\n\r\n" % offset
    return answer(b"206 Partial Content", res=HTTP_OK, body=data, last=last)


def test_c36_206_goes_on_with_the_original() -> None:
    how = settings(offer_206=True)
    body = bytes(index % 251 for index in range(200_000))
    result = told(partial(b"new start", 150_000), body, OFFER, how=how, adapt=True)
    assert result.outcome is MODIFIED and result.adapted is not None
    assert b"".join(bytes(piece) for piece in result.adapted.pieces()) == b"new start" + body[150_000:]
    result.close()
    assert told(partial(b"", 0), body, OFFER, how=how).is_clean
    assert told(partial(body[:70_000], 70_000), body, OFFER, how=how).is_clean
    assert told(partial(body[:70_000], 70_001), body, OFFER, how=how).outcome is MODIFIED
    assert told(partial(b"", 200_000), body, OFFER, how=how).outcome is MODIFIED


def test_c36_d130_206_that_cannot_be() -> None:
    how = settings(offer_206=True)
    assert isinstance(refused(partial(b"", 6), HELLO, OFFER, how=how), Malformed)
    assert isinstance(refused(partial(b"x", None), HELLO, OFFER, how=how), Malformed)
    assert isinstance(refused(partial(b"", 0), HELLO, OFFER), Malformed)  # not offered by us
    assert isinstance(refused(partial(b"", 0), HELLO, OPTIONS, how=how), Malformed)  # not offered by the server
    assert isinstance(refused(answer(b"206 Partial"), HELLO, OFFER, how=how), Malformed)
    beyond_the_preview = script("preview", partial(b"", 101))
    options = PREVIEW_OPTIONS.replace(b"Allow: 204", b"Allow: 204, 206")
    assert isinstance(refused(beyond_the_preview, b"x" * 500, options, how=how), Malformed)


# Errors


@pytest.mark.parametrize(
    ("status", "retry", "kind"),
    [
        (400, False, ServerRefused),
        (403, False, ServerRefused),
        (404, False, ServerRefused),
        (405, False, ServerRefused),
        (408, True, ServerRefused),
        (418, False, ServerRefused),
        (500, True, ServerRefused),
        (501, False, ServerRefused),
        (502, True, ServerRefused),
        (503, True, ServerBusy),
        (505, False, ServerRefused),
        (506, True, ServerBusy),
        (539, False, ServerRefused),
        (551, True, ServerBusy),
        (558, False, ServerRefused),
        (101, False, ServerRefused),
        (202, False, ServerRefused),
        (302, False, ServerRefused),
        (599, False, ServerRefused),
        (999, False, ServerRefused),
        (0, False, ServerRefused),
    ],
)
def test_c37_c38_every_other_status_is_a_typed_error(status: int, retry: bool, kind: type[ServerRefused]) -> None:
    for reply in (answer(b"%03d Some reason" % status), answer(b"%03d Some reason" % status, res=HTTP_OK, body=HELLO)):
        error = refused(reply)
        assert type(error) is kind and isinstance(error, ServerRefused)
        assert error.status == status and error.retry is retry and str(status) in str(error)


def test_c37_retry_after() -> None:
    error = refused(answer(b"503 Busy", fields=b"Retry-After: 7\r\n"))
    assert isinstance(error, ServerBusy) and error.retry_after == 7
    error = refused(answer(b"503 Busy", fields=b"Retry-After: Tue, 24 Nov 2026 00:00:00 GMT\r\n"))
    assert isinstance(error, ServerBusy) and error.retry_after is None


def test_c37_408_is_tried_once_more_on_a_new_connection() -> None:
    async def main() -> None:
        timeout = answer(b"408 Request timeout", fields=b"Connection: close\r\n")
        async with Fake(timeout, NO_CONTENT) as fake:
            assert (await scan(fake)).is_clean
            assert len(fake.scans) == 2 and fake.scans[0].connection != fake.scans[1].connection
        async with Fake(timeout, timeout, NO_CONTENT) as fake:
            with pytest.raises(ServerRefused):
                await scan(fake)
            assert len(fake.scans) == 2

    run(main())


def test_c37_418_is_tried_once_more_with_all_sections() -> None:
    async def demanding(peer: Peer, seen: Seen) -> None:
        await read_rest(peer, seen)
        await peer.send(NO_CONTENT if "req-hdr" in seen["Encapsulated"] else answer(b"418 Bad composition"))

    async def main() -> None:
        async with Fake(demanding) as fake:
            assert (await scan(fake, how=settings(request_head=False))).is_clean
            assert [seen["Encapsulated"].startswith("req-hdr=0, res-hdr=") for seen in fake.scans] == [False, True]
        async with Fake(answer(b"418 Bad composition")) as fake:
            for how, count in ((settings(request_head=False), 2), (None, 3)):
                with pytest.raises(ServerRefused):
                    await scan(fake, how=how)
                assert len(fake.scans) == count

    run(main())


def test_c38_an_unscannable_hit_on_an_error_stays_an_error() -> None:
    assert isinstance(refused(answer(b"500 Failed", fields=TYPE_2)), ServerRefused)


# Strangers and wrecks


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 204 No Content\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"icap/1.0 204 no\r\n\r\n",
    ],
)
def test_c46_d121_not_an_icap_server(reply: bytes) -> None:
    error = refused(script("body", reply, "hang"))
    assert isinstance(error, NotIcap) and not error.retry


def test_c46_not_an_icap_server_byte_by_byte() -> None:
    async def slowly(peer: Peer, seen: Seen) -> None:
        await read_rest(peer, seen)
        for byte in b"\r\n" + answer(fields=HIT, res=HTTP_403, body=b"page"):
            await peer.send(bytes((byte,)))

    assert told(slowly).outcome is INFECTED


@pytest.mark.parametrize(
    "line",
    [b"ICAP/1.0 2O4 No\r\n", b"ICAP/1.0  204 No\r\n", b"ICAP/1.0 20\r\n", b"ICAP/2.0 204 No\r\n", b"ICAP/1.0\r\n",
     b"ICAP/1.0 -204 No\r\n", b"ICAP/1.0 2040 No\r\n", b"ICAP 204 No\r\n", b"ICAP/1.0 204 No\n"],
)  # fmt: skip
def test_c45_broken_status_lines(line: bytes) -> None:
    assert isinstance(refused(script("body", line + b"\r\n", "close")), Malformed | NotIcap)


@pytest.mark.parametrize(
    ("field", "istag"),
    [
        (b'ISTag: "abc-1"\r\n', "abc-1"),
        (b"ISTag: abc-1\r\n", "abc-1"),
        (b'istag:   "' + b"x" * 80 + b'"\r\n', "x" * 80),
        (b'ISTag: ""\r\n', None),
        (b"", None),
    ],
)
def test_c47_istag(field: bytes, istag: str | None) -> None:
    assert told(answer(b"204 No", fields=field)).istag == istag


def test_c56_http_trailers_are_dropped() -> None:
    reply = answer(res=HTTP_OK, body=HELLO, last=b"0\r\nX-Checksum: 1\r\nX-Virus-ID: Trailer\r\n\r\n")

    async def main() -> None:
        async with Fake(reply) as fake, IcapClient(fake.url) as client:
            assert (await client.scan(HELLO)).is_clean
            assert (await client.scan(HELLO)).is_clean
            assert fake.connections == 1

    run(main())


def test_c56_d126_icap_trailers_count_only_where_they_were_offered() -> None:
    fields = b"Allow: trailers\r\nTrailer: X-Infection-Found\r\n"
    reply = answer(fields=fields, res=HTTP_OK, body=HELLO) + HIT + b"\r\n"
    offered = told(reply, how=settings(offer_trailers=True))
    assert offered.outcome is INFECTED and offered.threat == "Eicar"

    async def main() -> None:
        async with Fake(reply) as fake, IcapClient(fake.url) as client:
            assert (await client.scan(HELLO)).is_clean  # the body came back unchanged
            assert client.idle == 0  # what nobody offered is a stray: never reused

    run(main())
    cut = reply[: -len(HIT)]
    assert isinstance(refused(script("body", cut, "close"), how=settings(offer_trailers=True)), ConnectionLost)


WHOLE = answer(res=HTTP_OK[:-2] + b"X-Note: 1\r\n\r\n", body=HELLO, last=b"0\r\nX-T: 1\r\n\r\n")


def test_c60_d125_cut_at_every_byte() -> None:
    async def main() -> None:
        async with Fake() as fake, IcapClient(fake.url) as client:
            for at in range(len(WHOLE)):
                fake.replies = [script("body", WHOLE[:at], "close")]
                with pytest.raises(ConnectionLost) as raised:
                    await client.scan(HELLO)
                assert raised.value.answer_began is (at > 0)
            fake.replies = [script("body", WHOLE, "close")]
            assert (await client.scan(HELLO)).is_clean

    run(main())


@pytest.mark.parametrize(
    "body",
    [
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        b"11111111111111111\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"five\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"5\r\nhello\r\n0\r\n",
        b"hello",
        b"",
    ],
)
def test_d125_broken_chunks_are_never_clean(body: bytes) -> None:
    head = answer(res=HTTP_OK, body=b"")[: -len(b"0\r\n\r\n")]
    assert isinstance(refused(script("body", head + body, "close")), Malformed | ConnectionLost)


def test_d122_endless_answers_end_at_a_bound() -> None:
    copy = answer(res=HTTP_OK, body=b"")[: -len(b"0\r\n\r\n")]
    endless: list[tuple[bytes, bytes]] = [
        (b"ICAP/1.0 200 OK", b"x" * 65536),
        (b"ICAP/1.0 200 OK\r\n", b"X-A: 1\r\n" * 1000),
        (b"ICAP/1.0 200 OK\r\nX-A: ", b"x" * 65536),
        (b"", b"\r\n" * 1000),
        (copy, b"0" * 65536),
        (copy + b"5", b";a=b" * 10_000),
        (copy, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (copy + b"0\r\n", b"X-T: 1\r\n" * 1000),
        (b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=9999999999\r\n\r\n", b"x" * 65536),
        (b"", CONTINUE),
    ]

    def forever(start: bytes, more: bytes) -> Reply:
        async def play(peer: Peer, seen: Seen) -> None:
            await read_rest(peer, seen)
            await peer.send(start)
            while True:
                await peer.send(more)

        return play

    async def main() -> None:
        for start, more in endless:
            async with Fake(forever(start, more)) as fake:
                with pytest.raises(Malformed):
                    await scan(fake, how=settings(answer_most=2_000_000))

    run(main())


def test_d127_contradictory_headers() -> None:
    fields = b"X-Response-Info: Allowed\r\nX-Virus-ID: no threats\r\n" + HIT
    assert told(answer(b"204 No", fields=fields)).outcome is INFECTED


def test_d128_a_hit_without_a_name() -> None:
    for value in (b"", b"Type=0; Resolution=2;"):
        result = told(answer(fields=b"X-Infection-Found: %s\r\n" % value, res=HTTP_403, body=b"x"))
        assert result.outcome is INFECTED and result.threat == "unknown"


def test_a_result_says_where_it_comes_from() -> None:
    async def main() -> None:
        async with Fake(answer(fields=HIT + b'ISTag: "t1"\r\n', res=HTTP_403, body=b"page")) as fake:
            result = await scan(fake, EICAR, adapt=True)
            assert result.server == fake.url and result.status == 200 and result.istag == "t1"
            assert result.http_status == 403 and result.http_head == HTTP_403
            assert result.adapted is not None and result.adapted.contents() == b"page"
            assert result.fields.get(b"istag") == b'"t1"' and not result.cached
            result.close()

    run(main())
