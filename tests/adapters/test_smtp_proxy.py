"""The proxy between a client, a next hop and an ICAP service: what goes on, what does not, and what is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from tests.adapters.smtp_parts import (
    CLOSE,
    DEFERRING,
    EHLO,
    HANG,
    PUT,
    QUICK,
    REFUSING,
    REPLACED,
    REPLACING,
    Client,
    infected_if,
    proxying,
    run,
)
from tests.clients.fakes import NO_CONTENT, answer, script, until

MAIL = b"From: a@b\r\nSubject: x\r\n\r\n.dot at the start\r\n\r\n..two\r\nend"
WIRE = b"From: a@b\r\nSubject: x\r\n\r\n..dot at the start\r\n\r\n...two\r\nend"
PLAIN: dict[str, Any] = {"received": False, "scanned_field": False}


def test_a_clean_message_arrives_byte_identical_and_the_hop_speaks_for_itself() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert await client.mail(WIRE) == "250 2.0.0 queued as hop-1"
            (mail,) = all_of_it.hop.mails
            assert mail.data == WIRE + b"\r\n"
            assert all_of_it.icap.scans[0].body == MAIL + b"\r\n"
            assert "action=pass" in all_of_it.log[-1]

    run(main)


def test_the_service_learns_envelope_and_client() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            await client.mail(WIRE)
            seen = all_of_it.icap.scans[0]
            assert seen.method == "REQMOD" and seen["X-Client-IP"] == "127.0.0.1" and "Preview" not in seen
            assert seen.heads.startswith(b"PUT / HTTP/1.1\r\n")
            for line in (b"message/rfc822", b"X-SMTP-From: a@client.example\r\n", b"X-SMTP-To: b@hop.example\r\n"):
                assert line in seen.heads

    run(main)


def test_what_goes_on_is_what_was_scanned_added_fields_too() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.reply()
            await client.ask(b"EHLO (evil)\t[x\xff] id 1; \x7e")
            await client.mail(WIRE)
            data = all_of_it.hop.mails[0].data
            assert data.replace(b"\r\n..", b"\r\n.") == all_of_it.icap.scans[0].body
            head, _, rest = data.partition(b"From: a@b")
            assert rest and head.startswith(b"Received: from ") and b"\r\nX-Virus-Scanned: by icapscan at" in head
            assert head.count(b"\r\n") == 4 and b"(evil)" not in head

    run(main)


def test_refused_replaced_and_deferred_and_the_session_goes_on() -> None:
    async def main() -> None:
        async with proxying(REFUSING, REPLACING, DEFERRING, NO_CONTENT, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert await client.mail(WIRE) == "554 5.7.1 Message refused: Eicar (id 4f2a99c0)"
            assert all_of_it.hop.lines[-1] == b"RSET" and b"DATA" not in all_of_it.hop.lines
            assert await client.mail(WIRE) == "250 2.0.0 queued as hop-1"
            assert (await client.mail(WIRE)).startswith("451 4.7.1 ")
            assert await client.mail(WIRE) == "250 2.0.0 queued as hop-1"
            cleaned, clean = all_of_it.hop.mails
            assert cleaned.data == REPLACED.replace(b"\r\n.", b"\r\n..") and clean.data == WIRE + b"\r\n"
            actions = [line.partition("action=")[2].split()[0] for line in all_of_it.log]
            assert actions == ["refuse", "replace", "defer", "pass"]

    run(main)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"ICAP/1.0 500 Server error\r\n\r\n",
        b"ICAP/1.0 503 Overloaded\r\n\r\n",
        b"ICAP/1.0 404 Not found\r\n\r\n",
        script("body", "close"),
        script("reset"),
        script(b"ICAP/1.0 200 OK\r\nEncaps", "close"),
        answer(req=PUT, body=b""),
        answer(req=PUT.replace(b"message/rfc822", b"text/html"), body=b"<html>"),
    ],
)
def test_without_a_verdict_nothing_goes_on(reply: Any) -> None:
    async def main() -> None:
        async with proxying(reply, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            said = await client.mail(WIRE + b"x" * 200_000)
            assert said.startswith("451 4.7.1 ") and not all_of_it.hop.mails
            assert b"DATA" not in all_of_it.hop.lines

    run(main)


def test_a_clean_answer_to_a_part_of_the_message_is_none() -> None:
    async def main() -> None:
        async with proxying(script(NO_CONTENT, "hang")) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in (b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA"):
                await client.ask(line)
            client.send(b"x" * 100_000)
            await until(lambda: len(all_of_it.icap.scans) == 1 and all_of_it.icap.connections == all_of_it.icap.closed)
            client.send(b"\r\n.\r\n")
            assert (await client.reply()).startswith("451 4.7.1 ") and not all_of_it.hop.mails

    run(main)


def test_a_service_that_dies_while_the_message_arrives_is_asked_again_at_its_end() -> None:
    async def main() -> None:
        async with proxying(script("reset"), script("reset"), NO_CONTENT, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in (b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA"):
                await client.ask(line)
            client.send(b"x" * 100_000)
            # the first try is on a connection that was used before, so it is made once more at once
            await until(lambda: len(all_of_it.icap.scans) == 2 and all_of_it.icap.connections == all_of_it.icap.closed)
            client.send(b"\r\n.\r\n")
            assert (await client.reply()).startswith("250 ")
            assert all_of_it.icap.scans[2].body == b"x" * 100_000 + b"\r\n"

    run(main)


def test_a_service_that_is_not_there_defers() -> None:
    async def main() -> None:
        async with proxying(icap_up=False) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert (await client.mail(WIRE)).startswith("451 4.7.1 ") and not all_of_it.hop.mails

    run(main)


def test_the_reply_of_the_hop_goes_back_as_it_is() -> None:
    async def main() -> None:
        says = {".": b"550-5.1.1 no\r\n550 5.1.1 way\r\n", "RCPT": b"251 2.1.5 will forward\r\n"}
        async with proxying(NO_CONTENT, says=says) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            await client.ask(b"MAIL FROM:<>")
            assert await client.ask(b"RCPT TO:<x>") == "251 2.1.5 will forward"
            await client.ask(b"DATA")
            client.send(WIRE + b"\r\n.\r\n")
            assert await client.reply() == "550-5.1.1 no\n550 5.1.1 way"
            all_of_it.hop.says["VRFY"] = b"252 2.0.0 perhaps\r\n"
            assert await client.ask(b"VRFY x") == "252 2.0.0 perhaps"

    run(main)


def test_a_hop_that_does_not_want_the_message_at_data_gets_the_next_one() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, says={"354": b"554 5.5.1 no valid recipients\r\n"}) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert await client.mail(WIRE) == "554 5.5.1 no valid recipients"
            assert all_of_it.hop.lines[-1] == b"RSET"
            del all_of_it.hop.says["354"]
            assert await client.mail(WIRE) == "250 2.0.0 queued as hop-1"

    run(main)


LIES = [
    ("greeting", b"250 hi\r\n"), ("greeting", b"hello\r\n"), ("greeting", CLOSE), ("greeting", HANG),
    ("greeting", b"421 4.3.2 not now\r\n"), ("greeting", b"220 a\r\n220 b\r\n"), ("greeting", b"220 x\n"),
    ("EHLO", CLOSE), ("EHLO", HANG), ("EHLO", b"354 go\r\n"), ("EHLO", b"250-x\r\n251 y\r\n"),
    ("MAIL", CLOSE), ("MAIL", HANG), ("MAIL", b"250 a\r\n250 b\r\n"), ("MAIL", b"334 x\r\n"), ("MAIL", b"250\n"),
    ("RCPT", CLOSE), ("RCPT", HANG), ("RCPT", b"\r\n"), ("RCPT", b"354 go\r\n"),
    ("354", CLOSE), ("354", HANG), ("354", b"250 queued\r\n"), ("354", b"999 x\r\n"), ("354", b"354 go\r\n250 x\r\n"),
    ("middle", CLOSE), ("middle", b"250 2.0.0 taken already\r\n"), (".", CLOSE), (".", HANG), (".", b"354 more\r\n"),
    (".", b"2"), (".", b"250-x\r\n"), (".", b"\x00\x00\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "said"), LIES)
def test_a_hop_that_lies_hangs_or_closes_is_never_taken_for_a_yes(step: str, said: Any) -> None:
    async def main() -> None:
        timeouts = replace(QUICK, greeting=0.3, reply=0.3, data_start=0.3, data_end=0.3)
        async with proxying(NO_CONTENT, says={step: said}, timeouts=timeouts) as all_of_it:
            client = await all_of_it.connect()
            replies = [await client.reply()]
            if replies[-1].startswith("220"):
                replies.append(await client.ask(b"EHLO client.example"))
            if replies[-1].startswith("250"):
                replies.append(await client.mail(b"x" * 3_000_000))
            last = replies[-1]
            assert last.startswith(("421 4.", "451 4.")), replies
            assert not any(reply.startswith("250") and "queued" in reply for reply in replies)

    run(main)


def test_a_no_of_the_hop_in_the_middle_of_the_message_is_believed() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, says={"middle": b"552 5.2.2 mailbox full\r\n"}) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert await client.mail(b"x" * 8_000_000) == "552 5.2.2 mailbox full"
            assert (await client.ask(b"NOOP")).startswith("421 ") and not all_of_it.hop.mails

    run(main)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_within_the_message_gets_nothing_delivered(how: str) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in (b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA"):
                await client.ask(line)
            client.send(b"Subject: x\r\n\r\n" + b"y" * 100_000)
            await until(lambda: len(all_of_it.icap.scans) == 1)
            if how == "reset":
                client.writer.transport.abort()
            else:
                client.close()
            await until(lambda: all_of_it.icap.closed == all_of_it.icap.connections)
            assert b"DATA" not in all_of_it.hop.lines and not all_of_it.hop.mails

    run(main)


def test_a_client_that_leaves_while_its_message_is_scanned_gets_nothing_delivered() -> None:
    async def main() -> None:
        async with proxying(script("body", "hang")) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in (b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA"):
                await client.ask(line)
            client.send(WIRE + b"\r\n.\r\n")
            await until(lambda: len(all_of_it.icap.scans) == 1)
            client.writer.transport.abort()
            await until(lambda: all_of_it.icap.closed == all_of_it.icap.connections)
            assert b"DATA" not in all_of_it.hop.lines

    run(main)


def test_a_half_closed_client_gets_its_replies() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            client.send(b"EHLO x\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n" + WIRE + b"\r\n.\r\nQUIT\r\n")
            client.writer.write_eof()
            codes = [(await client.reply())[:3] for _ in range(7)]
            assert codes == ["220", "250", "250", "250", "354", "250", "221"] and await client.at_end()
            assert len(all_of_it.hop.mails) == 1

    run(main)


def test_pipelined_messages_are_answered_in_order() -> None:
    async def main() -> None:
        async with proxying(infected_if(b"bad"), **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            one = b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n%s\r\n.\r\n"
            client.send(b"EHLO x\r\n" + one % b"good" + one % b"bad" + one % b"good too" + b"QUIT\r\n")
            codes = [(await client.reply())[:3] for _ in range(15)]
            assert codes[0] == "220" and codes[-1] == "221"
            assert [codes[5], codes[9], codes[13]] == ["250", "554", "250"]
            assert [mail.data for mail in all_of_it.hop.mails] == [b"good\r\n", b"good too\r\n"]

    run(main)


@pytest.mark.parametrize("hop_goes", [False, True])
def test_the_hop_is_kept_while_a_message_arrives_and_is_scanned(hop_goes: bool) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def slow(peer: Any, seen: Any) -> None:
            await peer.chunks(seen)
            await go.wait()
            await peer.send(NO_CONTENT)

        async with proxying(slow, timeouts=replace(QUICK, keep=0.05), **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in (b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA"):
                await client.ask(line)
            while all_of_it.hop.lines.count(b"NOOP") < 2:
                client.send(b"x" * 70 + b"\r\n")
                await asyncio.sleep(0.02)
            client.send(b".\r\n")
            await until(lambda: len(all_of_it.icap.scans) == 1)
            count = all_of_it.hop.lines.count(b"NOOP")
            await until(lambda: all_of_it.hop.lines.count(b"NOOP") > count)
            if hop_goes:
                all_of_it.hop.says["NOOP"] = CLOSE
                await until(lambda: any("broke off" in line for line in all_of_it.log))
            go.set()
            assert (await client.reply())[:3] == ("451" if hop_goes else "250")
            assert len(all_of_it.hop.mails) == (not hop_goes)

    run(main)


# Chunks


async def chunked(client: Client, *chunks: bytes, mail: bytes = b"MAIL FROM:<a>") -> list[str]:
    replies = [await client.ask(mail), await client.ask(b"RCPT TO:<b>")]
    for number, chunk in enumerate(chunks, 1):
        last = b" LAST" if number == len(chunks) else b""
        client.send(b"BDAT %d%s\r\n%s" % (len(chunk), last, chunk))
        replies.append(await client.reply())
    return replies


def test_bdat_becomes_data_where_the_hop_lacks_it() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            assert "CHUNKING" in await client.hello()
            replies = await chunked(client, b"Subject: x\r", b"\n\r\n.dot", b"")
            assert [reply[:3] for reply in replies] == ["250"] * 5
            assert all_of_it.hop.mails[0].data == b"Subject: x\r\n\r\n..dot\r\n"
            assert b"DATA" in all_of_it.hop.lines and replies[-1] == "250 2.0.0 queued as hop-1"

    run(main)


def test_binary_goes_on_by_bdat_byte_for_byte_where_the_hop_has_it() -> None:
    async def main() -> None:
        ehlo = EHLO.replace(b"250-DSN", b"250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN")
        async with proxying(NO_CONTENT, ehlo=ehlo, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            assert "BINARYMIME" in await client.hello()
            binary = bytes(range(256)) * 10 + b"\n.\n"
            replies = await chunked(client, binary, b"end", mail=b"MAIL FROM:<a> BODY=BINARYMIME")
            assert replies[-1].startswith("250 ") and all_of_it.hop.mails[0].data == binary + b"end"

    run(main)


def test_binary_is_neither_offered_nor_taken_without_the_hop() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, ehlo=EHLO.replace(b"250-DSN", b"250-BINARYMIME\r\n250-DSN")) as all_of_it:
            client = await all_of_it.connect()
            assert "BINARYMIME" not in await client.hello()
            assert (await client.ask(b"MAIL FROM:<a> BODY=BINARYMIME")).startswith("555 ")

    run(main)


def test_hidden_chunking_is_not_offered_and_not_taken() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, chunking="hide") as all_of_it:
            client = await all_of_it.connect()
            assert "CHUNKING" not in await client.hello()
            replies = await chunked(client, b"MAIL FROM:<evil>\r\n")
            assert replies[-1].startswith("502 ") and not all_of_it.icap.scans
            assert (await client.ask(b"NOOP")).startswith("250 ")

    run(main)


def test_a_chunk_out_of_order_does_not_shake_the_session() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            await client.ask(b"MAIL FROM:<a>")
            client.send(b"BDAT 6 LAST\r\nRSET\r\n")
            assert (await client.reply()).startswith("503 ")
            await client.ask(b"RCPT TO:<b>")
            await client.ask(b"DATA")
            client.send(WIRE + b"\r\n.\r\n")
            assert (await client.reply()).startswith("250 ") and len(all_of_it.hop.mails) == 1

    run(main)


def test_chunks_that_are_given_up_are_not_delivered() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            await client.ask(b"MAIL FROM:<a>")
            await client.ask(b"RCPT TO:<b>")
            client.send(b"BDAT 70000\r\n" + b"x" * 70000)
            await client.reply()
            assert (await client.ask(b"DATA")).startswith("503 ")
            assert (await client.ask(b"RSET")).startswith("250 ")
            assert (await client.mail(WIRE)).startswith("250 ")
            assert len(all_of_it.hop.mails) == 1 and b"xxx" not in all_of_it.hop.mails[0].data

    run(main)


# Smuggling

ENDS = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\n\n.\r\n",
    b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\n\r\n.\n\r\n", b"\r\n\x00.\r\n",
]  # fmt: skip
SMUGGLED = b"MAIL FROM:<evil@x>\r\nRCPT TO:<victim@x>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", ["refuse", "normalize"])
@pytest.mark.parametrize("byte_by_byte", [False, True])
def test_one_message_in_at_most_one_message_out(end: bytes, how: str, byte_by_byte: bool) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, bare_line_ends=how, **PLAIN) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in (b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA"):
                await client.ask(line)
            wire = b"Subject: one\r\n\r\none" + end + SMUGGLED + b"\r\n.\r\n"
            for at in range(0, len(wire), 1 if byte_by_byte else len(wire)):
                client.send(wire[at : at + (1 if byte_by_byte else len(wire))])
                if byte_by_byte:
                    await asyncio.sleep(0)
            said = await client.reply()
            bare = b"\x00" not in end
            if how == "refuse" and bare:
                assert said == "550 5.6.11 Message holds a bare CR or LF" and not all_of_it.hop.mails
            else:
                (mail,) = all_of_it.hop.mails
                assert said.startswith("250 ") and b"smuggled" in mail.data
                assert mail.data.replace(b"\r\n", b"").count(b"\n") == mail.data.replace(b"\r\n", b"").count(b"\r") == 0
                assert b"\r\n.\r\n" not in mail.data
            assert (await client.ask(b"NOOP")).startswith("250 ")
            assert not any(b"evil" in line for line in all_of_it.hop.lines)

    run(main)


@pytest.mark.parametrize("line", [b"NOOP\nMAIL FROM:<evil>\r\n", b"NOOP\rMAIL FROM:<evil>\r\n", b"MAIL FROM:<a>\n"])
def test_a_command_cannot_smuggle_another(line: bytes) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            client.send(line)
            assert (await client.reply()).startswith("500 5.5.2 ") and await client.at_end()
            assert all_of_it.hop.lines[:1] == [b"EHLO client.example"]
            assert not any(b"MAIL" in one for one in all_of_it.hop.lines)

    run(main)


# Bounds


@pytest.mark.parametrize(
    "line", [b"XCLIENT ADDR=127.0.0.1", b"XFORWARD ADDR=127.0.0.1", b"ETRN x", b"TURN", b"BOGUS", b"42"]
)
def test_what_is_not_known_is_not_passed_on(line: bytes) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert (await client.ask(line)).startswith("502 ") and line not in all_of_it.hop.lines

    run(main)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([b"DATA"], "503"), ([b"RCPT TO:<x>"], "503"), ([b"MAIL FROM:<a>", b"MAIL FROM:<a>"], "503"),
        ([b"MAIL FROM:<a>", b"DATA"], "503"), ([b"MAIL a@b"], "501"), ([b"MAIL FROM:<a> SIZE=1 SIZE=1"], "501"),
        ([b"EHLO"], "501"), ([b"MAIL FROM:<a>", b"RCPT TO:<b>", b"DATA now"], "501"), ([b"x" * 5000], "500"),
        ([b"MAIL FROM:<a\x01b>"], "500"), ([b"STARTTLS"], "502"), ([b"MAIL FROM:<a> SIZE=999999999999"], "552"),
    ],
)  # fmt: skip
def test_mistakes_get_the_codes_of_the_rfc(lines: list[bytes], code: str) -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            for line in lines[:-1]:
                assert (await client.ask(line)).startswith("250")
            assert (await client.ask(lines[-1]))[:3] == code
            assert (await client.ask(b"NOOP")).startswith("250")

    run(main)


def test_a_message_that_is_too_large_is_read_to_its_end_and_refused() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, max_size=100_000) as all_of_it:
            client = await all_of_it.connect()
            assert "SIZE 100000" in await client.hello()
            assert await client.mail(b"x" * 200_000) == "552 5.3.4 Message too large"
            assert (await client.mail(WIRE)).startswith("250 ") and len(all_of_it.hop.mails) == 1

    run(main)


def test_without_room_for_the_message_it_is_for_later() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, memory=50_000, disk=50_000) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            assert (await client.mail(b"x" * 200_000)).startswith("452 4.3.1 ") and not all_of_it.hop.mails
            assert (await client.mail(WIRE)).startswith("250 ")

    run(main)


def test_recipients_errors_and_commands_are_counted() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, max_recipients=2, max_errors=3, max_commands=12) as all_of_it:
            client = await all_of_it.connect()
            await client.hello()
            await client.ask(b"MAIL FROM:<a>")
            codes = [(await client.ask(b"RCPT TO:<x%d>" % number))[:3] for number in range(3)]
            assert codes == ["250", "250", "452"]
            assert [(await client.ask(b"BOGUS"))[:3] for _ in range(4)] == ["502"] * 3 + ["421"]
            assert await client.at_end()
            client = await all_of_it.connect()
            await client.hello()
            assert [(await client.ask(b"NOOP"))[:3] for _ in range(12)] == ["250"] * 11 + ["421"]

    run(main)


def test_connections_are_counted() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT, max_per_client=2) as all_of_it:
            clients = [await all_of_it.connect() for _ in range(3)]
            replies = [await client.reply() for client in clients]
            assert sorted(reply[:3] for reply in replies) == ["220", "220", "421"]
            for client in clients:
                client.close()
            await until(lambda: not all_of_it.proxy._sessions)
            client = await all_of_it.connect()
            assert (await client.reply()).startswith("220 ")

    run(main)


def test_a_client_that_says_nothing_is_sent_away() -> None:
    async def main() -> None:
        timeouts = type(QUICK)(command=0.2)
        async with proxying(NO_CONTENT, timeouts=timeouts) as all_of_it:
            client = await all_of_it.connect()
            await client.reply()
            assert (await client.reply()).startswith("421 4.4.2 ") and await client.at_end()

    run(main)


def test_the_hop_is_down() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            await all_of_it.hop.stop()
            client = await all_of_it.connect()
            assert (await client.reply()).startswith("421 4.4.1 ") and await client.at_end()

    run(main)


def test_stopping_lets_a_message_end_and_sends_idle_clients_away() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def slow(peer: Any, seen: Any) -> None:
            await peer.chunks(seen)
            await go.wait()
            await peer.send(NO_CONTENT)

        async with proxying(slow, timeouts=replace(QUICK, drain=30)) as all_of_it:
            idle, busy = await all_of_it.connect(), await all_of_it.connect()
            await idle.hello()
            await busy.hello()
            mail = asyncio.ensure_future(busy.mail(WIRE))
            await until(lambda: len(all_of_it.icap.scans) == 1)
            stopping = asyncio.ensure_future(all_of_it.proxy.stop())
            assert (await idle.reply()).startswith("421 4.3.2 ")
            go.set()
            assert (await mail).startswith("250 ")
            assert (await busy.reply()).startswith("421 4.3.2 ")
            await stopping

    run(main)


def test_the_log_line_cannot_be_broken() -> None:
    async def main() -> None:
        async with proxying(NO_CONTENT) as all_of_it:
            client = await all_of_it.connect()
            await client.reply()
            await client.ask("EHLO x action=pass ü\u2028".encode())
            await client.mail(WIRE)
            line = all_of_it.log[-1]
            assert "\n" not in line and line.isascii() and line.count(" action=") == 2
            assert 'helo="x action=pass ' in line

    run(main)
