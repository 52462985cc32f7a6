"""Verdict headers of foreign servers (PROTOCOL C27-C31, D127, D128)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from icapscan.wire.verdict_headers import (
    UNKNOWN,
    VERDICT_HEADERS,
    Threat,
    ThreatKind,
    gravest,
    http_status,
    read_lines,
    read_threats,
    request_line,
)

VIRUS, POLICY, UNSCANNABLE = ThreatKind.VIRUS, ThreatKind.POLICY, ThreatKind.UNSCANNABLE


def threats(*lines: bytes) -> list[tuple[str, ThreatKind]]:
    """Names and kinds in a head of these lines."""
    return [(threat.name, threat.kind) for threat in read_threats(read_lines(b"\r\n".join(lines) + b"\r\n"))]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test-Signature;", [("Eicar-Test-Signature", VIRUS)]),
        (b"X-Violations-Found: 1\r\n\ta.exe\r\n\tEICAR\r\n\t11101\r\n\t2", [("EICAR", VIRUS)]),
        (b"X-Virus-ID: Troj/DocDl-OYC", [("Troj/DocDl-OYC", VIRUS)]),
        (b"X-Virus-ID: A, B", [("A", VIRUS), ("B", VIRUS)]),
        (b"X-Virus-Name: W97M.Downloader", [("W97M.Downloader", VIRUS)]),
        (b"X-Blocked: True", [("True", POLICY)]),
        (b"X-Blocked-Reason: Virus found", [("Virus found", POLICY)]),
        (b"X-Block-Reason: Malware", [("Malware", POLICY)]),
        (b"X-Block-Result: 80", [("80", POLICY)]),
        (b"X-WWBlockResult: 80", [("80", POLICY)]),
        (b"X-MWG-Block-Reason: Malware found", [("Malware found", POLICY)]),
        (b'X-FSecure-Scan-Result: infected\r\nX-FSecure-Infection-Name: "EICAR_Test"', [("EICAR_Test", VIRUS)]),
        (b"X-FSecure-Scan-Result: infected", [(UNKNOWN, VIRUS)]),
        (b"X-FSecure-Scan-Result: not scanned", [("not scanned", UNSCANNABLE)]),
        (b"X-Response-Info: Blocked", [("Blocked", POLICY)]),
        (b"X-Response-Info: something new", [("something new", POLICY)]),
    ],
)  # fmt: skip
def test_c28_each_header_in_any_case(line: bytes, found: list[tuple[str, ThreatKind]]) -> None:
    assert threats(line) == found
    name, _, value = line.partition(b":")
    assert threats(name.lower() + b":" + value) == found
    assert threats(name.upper() + b" :" + value) == found
    assert threats(b"Server: x", line, b"Encapsulated: null-body=0") == found


@pytest.mark.parametrize(
    "line",
    [
        b"X-Virus-ID: no threats",
        b"X-Virus-ID: No Threats ",
        b"X-FSecure-Scan-Result: clean",
        b"X-Response-Info: passed",
        b"X-Response-Info: Allowed",
        b"X-Response-Info: Allowed.",
        b"X-Violations-Found: 0",
        b"X-Infection: yes",
        b"Server: X-Infection-Found: Type=0",
    ],
)
def test_c29_clean_words(line: bytes) -> None:
    assert threats(line) == []


@pytest.mark.parametrize(
    ("value", "name", "kind", "resolution"),
    [
        (b"Type=0; Resolution=2; Threat=A.B-1;", "A.B-1", VIRUS, 2),
        (b"Type=0; Resolution=2; Threat=A.B-1", "A.B-1", VIRUS, 2),
        (b"Type=0;Resolution=1;Threat=A", "A", VIRUS, 1),
        (b"  type = 0 ;  RESOLUTION = 0 ; threat =  A B  ; ", "A B", VIRUS, 0),
        (b"Threat=A", "A", VIRUS, None),
        (b"Type=0; Resolution=2; Threat=", UNKNOWN, VIRUS, 2),
        (b"Type=0; Resolution=2; Threat=a=b,c;", "a=b,c", VIRUS, 2),
        (b"Type=1; Resolution=2; Threat=Attachment;", "Attachment", POLICY, 2),
        (
            b"Type=2; Resolution=2; Threat=Encrypted container violation;",
            "Encrypted container violation",
            UNSCANNABLE,
            2,
        ),
        (b"Type=2; Resolution=2; Threat=Container size violation", "Container size violation", UNSCANNABLE, 2),
        (b"Type=7; Resolution=x; Threat=A", "A", VIRUS, None),
        (b"nonsense", UNKNOWN, VIRUS, None),
        (b";;;", UNKNOWN, VIRUS, None),
        (b"Type=0;\r\n\tResolution=2;\r\n\tThreat=Folded;", "Folded", VIRUS, 2),
    ],
)
def test_c30_infection_found(value: bytes, name: str, kind: ThreatKind, resolution: int | None) -> None:
    found = read_threats(read_lines(b"X-Infection-Found: " + value + b"\r\n"))
    assert found == (Threat(name, kind, "x-infection-found", "", resolution),)


@pytest.mark.parametrize("value", [b"", b" ", b"Type=0; Resolution=2;"])
def test_d128_infection_found_without_a_name(value: bytes) -> None:
    assert threats(b"X-Infection-Found:" + value) == [(UNKNOWN, VIRUS)]


C_ICAP = (
    b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test-Signature;",
    b"X-Violations-Found: 1",
    b"\t-",
    b"\tEicar-Test-Signature",
    b"\t0",
    b"\t0",
)


def test_c31_violations_of_c_icap() -> None:
    assert threats(*C_ICAP) == [("Eicar-Test-Signature", VIRUS)]
    only = read_threats(read_lines(b"\r\n".join(C_ICAP[1:])))
    assert only == (Threat("Eicar-Test-Signature", VIRUS, "x-violations-found", "-", 0),)


def test_c31_two_violations() -> None:
    block = b"X-Violations-Found: 2\r\n\ta.zip\r\n\tOne\r\n\t1\r\n\t2\r\n b c.exe\r\n Two\r\n 2\r\n 0\r\nISTag: x\r\n"
    assert [(found.name, found.file, found.resolution) for found in read_threats(read_lines(block))] == [
        ("One", "a.zip", 2),
        ("Two", "b c.exe", 0),
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"X-Violations-Found: 7",
        b"X-Violations-Found:",
        b"X-Violations-Found: many\r\n\tx",
        b"X-Violations-Found: 1\r\nfile.exe\r\nEICAR\r\n0\r\n0",  # not folded
        b"X-Violations-Found: 1\r\n\t\xff\xfe\x00",
    ],
)
def test_c31_a_bad_violations_header_hides_nothing(bad: bytes) -> None:
    found = dict(threats(bad, b"X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted;"))
    assert found["Encrypted"] is UNSCANNABLE
    assert dict(threats(b"X-Infection-Found: Type=0; Threat=A;", bad))["A"] is VIRUS
    assert gravest(read_threats(read_lines(bad))) is VIRUS


def test_c30_other_headers_that_repeat_a_name_do_not_make_it_graver() -> None:
    assert threats(
        b"X-Virus-ID: Encrypted container",
        b"X-Infection-Found: Type=2; Resolution=2; Threat=Encrypted container;",
        b"X-Violations-Found: 1",
        b"\ta.zip",
        b"\tEncrypted container",
        b"\t0",
        b"\t2",
        b"X-Response-Info: Blocked",
    ) == [("Encrypted container", UNSCANNABLE)]


@pytest.mark.parametrize(
    "lines",
    [
        (b"X-Response-Info: Allowed", b"X-Infection-Found: Type=0; Resolution=2; Threat=A;"),
        (b"X-Infection-Found: Type=0; Resolution=2; Threat=A;", b"X-Virus-ID: no threats"),
        (b"X-FSecure-Scan-Result: clean", b"X-Virus-Name: A"),
        (b"X-Infection-Found: Type=2; Threat=Enc;", b"X-Infection-Found: Type=0; Threat=A;"),
        (b"X-Infection-Found: Type=2; Threat=A;", b"X-Infection-Found: Type=0; Threat=A;"),
        (b"X-Infection-Found: Type=2; Threat=Enc;", b"X-FSecure-Scan-Result: infected"),
        (b"X-Infection-Found: Type=2; Threat=Enc;", b"X-Virus-ID: A"),
    ],
)
def test_d127_infected_wins(lines: tuple[bytes, ...]) -> None:
    for order in (lines, lines[::-1]):
        assert gravest(read_threats(read_lines(b"\r\n".join(order)))) is VIRUS


def test_names_are_made_harmless() -> None:
    (name, _), = threats(b"X-Virus-ID: \x1b[31mbad\x07 \xff" + b"n" * 5000)  # fmt: skip
    assert name.isprintable() and len(name) == 256


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403),
        (b"HTTP/1.0 200\r\n\r\n", 200),
        (b"HTTP/1.1 307 \r\n\r\n", 307),
        (b"HTTP/2 200 OK\n\n", 200),
        (b"HTTP/1.1 20 OK\r\n\r\n", None),
        (b"HTTP/1.1 2000 OK\r\n\r\n", None),
        (b"Content-Type: x\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"", None),
    ],
)
def test_c27_status_of_an_encapsulated_head(head: bytes, status: int | None) -> None:
    assert http_status(head) == status


def test_c33_request_line() -> None:
    assert request_line(b"PUT /a HTTP/1.1\r\nHost: x\r\n\r\n") == b"PUT /a HTTP/1.1"
    assert request_line(b"HTTP/1.1 200 OK\r\n\r\n") is None
    assert request_line(b"PUT /a b HTTP/1.1\r\n\r\n") is None


@given(st.binary(max_size=300), st.sampled_from(sorted(VERDICT_HEADERS)))
@example(b"\r\n :\r\n", "x-infection-found")
def test_d127_anything_can_be_read_and_a_hit_is_never_lost(noise: bytes, name: str) -> None:
    """Whatever stands around it, a line that names a virus is found."""
    noise = noise.rstrip(b"\r\n \t")
    block = noise + b"\r\n" + name.encode() + b": " + noise + b"\r\nX-Infection-Found: Type=0; Threat=Sure.Thing;\r\n"
    found = read_threats(read_lines(block))
    assert gravest(found) is VIRUS and "Sure.Thing" in [threat.name for threat in found]
    assert all(threat.name.isprintable() and threat.name for threat in found)
