"""Recorded conversations, each played through both ends of the codec.

A file of ``tests/transcripts`` is read line by line:

* ``# text`` is a comment; the first says what the conversation shows.
* ``C: bytes`` and ``S: bytes`` are what the client and the server send, with Python's escapes; neighbouring lines of
  one side are one delivery.
* ``-> event`` is what the other end makes of the delivery above, in the words of `tests.wire.sessions.describe`.
* ``more`` and ``next``: the server reads on in what it kept, in this transaction or in the next one.
* ``give up``: the server reads nothing more of this client.
* ``C fin`` and ``S fin``: that side ends its output.
* ``spelling: foreign``: the client spells its request as our own never would. Its bytes are then not compared with
  ours, but what we would have sent must mean the same.
* ``roles: server``: our client refuses to send this at all.

Our server must make these events of the client's bytes, and write exactly the server's bytes for the client's events;
our client the other way round.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Struct

from icapscan.wire.icap_events import Event, Failure, PeerClosed
from tests.wire.sessions import client, described, joined, server, unescape

FOLDER = Path(__file__).resolve().parent.parent / "transcripts"
FILES = sorted(FOLDER.glob("*.txt"))
NOT_SENT = (Failure, PeerClosed)


class Step(Struct):
    """One step of a conversation."""

    kind: str
    """``C``, ``S``, ``C fin``, ``S fin``, ``more``, ``next`` or ``give up``."""
    data: bytes
    events: list[str]
    line: int


class Transcript(Struct):
    """One file."""

    steps: list[Step]
    foreign: bool
    both: bool


def read(path: Path) -> Transcript:
    """The steps of a file."""
    steps: list[Step] = []
    foreign, both = False, True
    for number, line in enumerate(path.read_text("ascii").splitlines(), 1):
        kind, _, rest = line.partition(":")
        if not line or line.startswith("#"):
            continue
        if line.startswith("-> "):
            steps[-1].events.append(line[3:])
        elif kind in ("C", "S"):
            if not steps or steps[-1].kind != kind or steps[-1].events:
                steps.append(Step(kind, b"", [], number))
            steps[-1].data += unescape(rest.removeprefix(" "))
        elif line in ("more", "next", "give up", "C fin", "S fin"):
            steps.append(Step(line, b"", [], number))
        elif kind == "spelling":
            foreign = rest.strip() == "foreign"
        elif kind == "roles":
            both = rest.split() != ["server"]
        else:
            raise ValueError(f"{path.name}, line {number}: {line}")
    return Transcript(steps, foreign, both)


class Play:
    """Both ends, and what they sent."""

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript
        self.server, self.client = server(), client()
        self.client_bytes = bytearray()
        self.server_bytes = bytearray()

    def run(self) -> None:
        """Every step, with its events checked on the end that receives it."""
        for step in self.transcript.steps:
            events = self.take(step)
            assert described(joined(events)) == step.events, f"line {step.line}"

    def take(self, step: Step) -> list[Event]:
        """One step; the events of the end that receives it."""
        if step.kind == "S":
            events = self.client.receive(step.data)
            pieces = self.server.send(*(event for event in events if not isinstance(event, NOT_SENT)))
            self.server_bytes += b"".join(pieces)
            return events
        if step.kind == "S fin":
            return self.client.receive_eof()
        if step.kind == "give up":
            self.server.fail()
            return []
        if step.kind == "next":
            self.server.next_transaction()
            self.client.next_transaction()
        events = self.server.receive_eof() if step.kind == "C fin" else self.server.receive(step.data)
        if self.transcript.both:
            pieces = self.client.send(*(event for event in events if not isinstance(event, NOT_SENT)))
            self.client_bytes += b"".join(pieces)
        return events

    def sent(self, kind: str) -> bytes:
        """All bytes of one side in the file."""
        return b"".join(step.data for step in self.transcript.steps if step.kind == kind)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_ends_of_a_transcript(path: Path) -> None:
    transcript = read(path)
    if not transcript.both:
        run_server_alone(transcript)
        return
    play = Play(transcript)
    play.run()
    assert bytes(play.server_bytes) == play.sent("S")
    if not transcript.foreign:
        assert bytes(play.client_bytes) == play.sent("C")
    else:
        assert bytes(play.client_bytes) != play.sent("C"), "this client spells as ours does"
        assert meaning(bytes(play.client_bytes), transcript) == meaning(play.sent("C"), transcript)


def run_server_alone(transcript: Transcript) -> None:
    """Only the server's reading; its answers are told to it by a client that pretends to have asked."""
    codec = server()
    for step in transcript.steps:
        events: list[Event] = []
        if step.kind == "S":
            assert b"".join(codec.send(*answer_events(step.data))) == step.data, f"line {step.line}"
            continue
        if step.kind == "give up":
            codec.fail()
        elif step.kind == "C fin":
            events = codec.receive_eof()
        elif step.kind != "S fin":
            if step.kind == "next":
                codec.next_transaction()
            events = codec.receive(step.data)
        assert described(joined(events)) == step.events, f"line {step.line}"


def answer_events(data: bytes) -> list[Event]:
    """The events of an answer to an OPTIONS request."""
    asking, asked = client(), server()
    asking.send(*asked.receive(b"OPTIONS icap://h/s ICAP/1.0\r\n\r\n"))
    return asking.receive(data)


def meaning(data: bytes, transcript: Transcript) -> list[str]:
    """What a server makes of all client bytes, with the transcript's answers in between."""
    codec = server()
    events = codec.receive(data)
    for step in transcript.steps:
        if step.kind == "S":
            codec.send(*answer_events(step.data))
            if step.data.startswith(b"ICAP/1.0 100"):
                events += codec.receive(b"")
        elif step.kind == "next":
            codec.next_transaction()
            events += codec.receive(b"")
    return described(joined(events))


def test_the_transcripts_are_there() -> None:
    assert len(FILES) >= 25
    for path in FILES:
        assert path.read_text("ascii").startswith("# "), path.name


def test_a_transcript_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    good = (FOLDER / "respmod_204.txt").read_text("ascii")
    for before, after in (('body "', 'body "x'), ("S: ISTag", "S: iStag : "), ("C: Host", "C: Hos t")):
        assert before in good
        path = tmp_path / "bad.txt"
        path.write_text(good.replace(before, after, 1), "ascii")
        with pytest.raises(AssertionError):
            test_both_ends_of_a_transcript(path)
