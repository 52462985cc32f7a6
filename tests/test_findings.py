"""What findings, failures and anomalies add up to: never clean by accident."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from icapscan.findings import CLEAN, Anomaly, Finding, Level, Reason, Unscanned, summarize

SUSPICIOUS = Finding("yara", "Odd", level=Level.SUSPICIOUS)
INFECTED = Finding("clamd", "Bad", "gzip")


def test_nothing_at_all_is_clean() -> None:
    assert summarize() is CLEAN
    assert (CLEAN.level, CLEAN.reason, CLEAN.name) == (Level.CLEAN, None, None)


def test_levels_are_in_rising_order_with_their_words() -> None:
    assert [level.word for level in sorted(Level)] == ["clean", "unscanned", "suspicious", "infected"]


def test_an_anomaly_alone_is_clean_and_kept() -> None:
    verdict = summarize(anomalies=[Anomaly("odd")])
    assert verdict.level is Level.CLEAN
    assert verdict.anomalies == (Anomaly("odd"),)


def test_anything_unscanned_is_never_clean() -> None:
    for reason in Reason:
        verdict = summarize(unscanned=[Unscanned(reason)])
        assert (verdict.level, verdict.reason) == (Level.UNSCANNED, reason)


def test_the_gravest_finding_gives_level_and_name() -> None:
    verdict = summarize([SUSPICIOUS, INFECTED, Finding("yara", "Later")])
    assert (verdict.level, verdict.name) == (Level.INFECTED, "Bad")


def test_a_finding_beside_a_failure_keeps_both() -> None:
    verdict = summarize([SUSPICIOUS], [Unscanned(Reason.TIMEOUT)])
    assert (verdict.level, verdict.reason) == (Level.SUSPICIOUS, Reason.TIMEOUT)


def test_our_own_failures_come_before_what_is_wrong_with_the_body() -> None:
    verdict = summarize(
        (), [Unscanned(Reason.UNSUPPORTED), Unscanned(Reason.ENGINE_FAILED), Unscanned(Reason.ENCRYPTED)]
    )
    assert verdict.reason is Reason.ENGINE_FAILED
    verdict = summarize((), [Unscanned(Reason.MALFORMED), Unscanned(Reason.TIMEOUT)])
    assert verdict.reason is Reason.TIMEOUT


@given(
    st.lists(st.sampled_from([SUSPICIOUS, INFECTED])),
    st.lists(st.sampled_from([Unscanned(reason) for reason in Reason])),
    st.lists(st.just(Anomaly("odd"))),
)
def test_clean_means_no_finding_and_nothing_unscanned(
    findings: list[Finding], unscanned: list[Unscanned], anomalies: list[Anomaly]
) -> None:
    verdict = summarize(iter(findings), iter(unscanned), iter(anomalies))
    assert (verdict.level is Level.CLEAN) is (not findings and not unscanned)
    assert (verdict.reason is not None) is bool(unscanned)
    assert (verdict.findings, verdict.unscanned, verdict.anomalies) == (
        tuple(findings),
        tuple(unscanned),
        tuple(anomalies),
    )
