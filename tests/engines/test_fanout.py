"""All engines over one part: the first hit, every failure, the deadline, and the self-test."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import pytest

from icapscan.engines.build import build_engines
from icapscan.engines.contract import Engine, Part, Report
from icapscan.engines.fanout import Fanout, eicar
from icapscan.engines.rules import compile_rules
from icapscan.engines.settings import ClamdSettings, EnginesSettings, HashSettings, YaraSettings
from icapscan.engines.yara import YaraEngine
from icapscan.errors import ConfigError, IcapscanError
from icapscan.findings import Finding, Level, Reason, Unscanned
from icapscan.store import PartStore
from icapscan.unwrap.events import Audience
from tests.conformance.engine import SECONDS, make_part


class Fake:
    """An engine that does what it is told."""

    def __init__(
        self, name: str, answer: object = None, *, wait: float = 0.0, forever: bool = False, stubborn: bool = False
    ) -> None:
        self.name = name
        self.answer = Report(name) if answer is None else answer
        self.wait = wait
        self.forever = forever
        self.stubborn = stubborn
        self.began = self.ended = self.cancelled = self.closed = False

    async def scan(self, part: Part, seconds: float) -> Report:
        self.began = True
        try:
            await asyncio.sleep(self.wait)
            while self.forever:
                try:
                    await asyncio.sleep(SECONDS)
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.ended = True
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    async def version(self) -> str:
        if isinstance(self.answer, Exception):
            raise IcapscanError(f"{self.name} is down")
        return f"{self.name}-1"

    async def close(self) -> None:
        self.closed = True
        if isinstance(self.answer, Exception):
            raise self.answer


class Punctual(Fake):
    punctual = True


class Inline(Fake):
    def scan_now(self, part: Part, seconds: float) -> Report | None:
        self.began = self.ended = True
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    def glance(self, data: bytes) -> tuple[Finding, ...]:
        if isinstance(self.answer, BaseException):
            raise self.answer
        assert isinstance(self.answer, Report)
        return self.answer.findings


def hit(name: str, level: Level = Level.INFECTED) -> Report:
    return Report(name, (Finding(name, "Evil", "p", level),))


def scan(*engines: Engine, report: Literal["first", "all"] = "first", seconds: float = SECONDS) -> tuple[Report, ...]:
    async def main() -> tuple[Report, ...]:
        part = make_part(b"x", path="p")
        return await asyncio.wait_for(Fanout(engines, report).scan(part, seconds), SECONDS)

    return asyncio.run(main())


def failure(name: str, reason: Reason, detail: str) -> Report:
    return Report(name, unscanned=(Unscanned(reason, "p", name, detail),))


def test_no_engine_is_never_clean() -> None:
    (report,) = scan()
    assert [item.reason for item in report.unscanned] == [Reason.ENGINE_FAILED]


def test_all_look_side_by_side() -> None:
    engines = [Fake(name, wait=0.05) for name in "abc"]
    assert scan(*engines) == (Report("a"), Report("b"), Report("c"))
    assert all(engine.ended for engine in engines)


@pytest.mark.parametrize("kind", [Fake, Punctual])
def test_the_first_hit_cancels_the_rest_which_then_have_not_failed(kind: type[Fake]) -> None:
    quick, slow = kind("quick", hit("quick")), kind("slow", forever=True)
    assert scan(quick, slow) == (hit("quick"),)
    assert slow.cancelled


def test_an_inline_hit_does_not_begin_the_rest() -> None:
    rest = Fake("rest")
    assert scan(Inline("now", hit("now")), rest) == (hit("now"),)
    assert not rest.began


def test_with_report_all_every_engine_finishes() -> None:
    engines = [Inline("now", hit("now")), Fake("a", hit("a")), Fake("b", wait=0.05)]
    assert scan(*engines, report="all") == (hit("now"), hit("a"), Report("b"))


def test_something_suspicious_cancels_nothing() -> None:
    odd = hit("odd", Level.SUSPICIOUS)
    assert scan(Inline("odd", odd), Fake("a", odd), Fake("b", wait=0.05)) == (odd, odd, Report("b"))


@pytest.mark.parametrize("kind", [Fake, Punctual, Inline])
@pytest.mark.parametrize("report", ["first", "all"])
def test_an_engine_that_raises_has_failed(kind: type[Fake], report: Literal["first", "all"]) -> None:
    broken = kind("broken", ZeroDivisionError("by zero"))
    said = failure("broken", Reason.ENGINE_FAILED, "ZeroDivisionError: by zero")
    assert scan(broken, report=report) == (said,)
    assert set(scan(broken, Fake("well", wait=0.01), report=report)) == {said, Report("well")}


@pytest.mark.parametrize("answer", [False, "clean", ()])
@pytest.mark.parametrize("kind", [Fake, Punctual, Inline])
def test_an_engine_without_a_report_has_failed(kind: type[Fake], answer: object) -> None:
    assert scan(kind("odd", answer)) == (failure("odd", Reason.ENGINE_FAILED, "The engine gave no report."),)


def test_an_engine_that_cancels_itself_has_failed() -> None:
    (report,) = scan(Fake("odd", asyncio.CancelledError()))
    assert [item.reason for item in report.unscanned] == [Reason.ENGINE_FAILED]


@pytest.mark.parametrize("stubborn", [False, True])
def test_an_engine_that_does_not_return_is_a_timeout(stubborn: bool) -> None:
    """Also one that swallows its cancellation; what the others found is kept."""

    async def main() -> None:
        hung = Fake("hung", forever=True, stubborn=stubborn)
        odd = hit("odd", Level.SUSPICIOUS)
        part = make_part(b"x", path="p")
        reports = await Fanout([Fake("odd", odd), hung]).scan(part, 0.1)
        assert reports == (odd, failure("hung", Reason.TIMEOUT, "The engine did not answer in time."))
        hung.stubborn = False
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(main())


def test_cancelling_the_scan_cancels_the_engines() -> None:
    async def main() -> None:
        engines = [Fake("a", forever=True), Fake("b", forever=True)]
        task = asyncio.ensure_future(Fanout(engines).scan(make_part(b"x"), SECONDS))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(engine.cancelled for engine in engines)

    asyncio.run(main())


@pytest.mark.parametrize("report", ["first", "all"])
def test_known_good_overrules_the_others(report: Literal["first", "all"]) -> None:
    good = Report("hash", allowed=True)
    broken = Fake("broken", ZeroDivisionError())
    assert scan(Inline("hash", good), broken, report=report) == (good,)
    assert scan(Fake("hash", good, wait=0.02), broken, Fake("odd", hit("odd", Level.SUSPICIOUS)), report=report) == (
        good,
    )


def test_known_good_wins_also_when_a_hit_comes_first() -> None:
    """A large part takes longer to hash than to match: the hit must not end the scan before the list was asked."""
    good = Report("hash", allowed=True)
    hasher = Fake("hash", good, wait=0.05)
    hasher.overrules = True  # type: ignore[attr-defined]
    assert scan(hasher, Fake("quick", hit("quick"))) == (good,)


def test_one_inline_engine_makes_no_task() -> None:
    async def main() -> None:
        fanout = Fanout([YaraEngine(YaraSettings(), compile_rules())])
        made = 0
        loop = asyncio.get_running_loop()

        def factory(loop: asyncio.AbstractEventLoop, coroutine: object, **rest: object) -> asyncio.Task[object]:
            nonlocal made
            made += 1
            return asyncio.Task(coroutine, loop=loop, **rest)  # type: ignore[arg-type]

        loop.set_task_factory(factory)  # type: ignore[arg-type]
        part = make_part(eicar(), path="p")
        assert [report.engine for report in await fanout.scan(part, SECONDS)] == ["yara"]
        assert made == 0
        await fanout.close()

    asyncio.run(main())


def test_the_self_test_says_who_finds_eicar() -> None:
    engines: list[Engine] = [
        YaraEngine(YaraSettings(), compile_rules()), Fake("blind"), Fake("odd", hit("odd", Level.SUSPICIOUS)),
        Fake("broken", ZeroDivisionError("by zero")), Fake("hung", forever=True), Inline("good", hit("good")),
    ]  # fmt: skip

    async def main() -> dict[str, str | None]:
        return await Fanout(engines).self_test(0.2)

    said = asyncio.run(main())
    assert said["yara"] is None and said["good"] is None
    assert said["blind"] == "blind does not find the EICAR test file."
    assert said["odd"] == "odd does not find the EICAR test file."
    assert "engine-failed" in str(said["broken"]) and "by zero" in str(said["broken"])
    assert "timeout" in str(said["hung"])


def test_versions_by_name_and_who_cannot_say() -> None:
    assert asyncio.run(Fanout([Fake("a"), Fake("b")]).version()) == {"a": "a-1", "b": "b-1"}
    with pytest.raises(IcapscanError, match="b is down"):
        asyncio.run(Fanout([Fake("a"), Fake("b", ValueError())]).version())


def test_close_reaches_every_engine() -> None:
    engines = [Fake("a", ValueError()), Fake("b")]
    asyncio.run(Fanout(engines).close())
    assert all(engine.closed for engine in engines)


def test_glance_asks_inline_engines_and_survives_them() -> None:
    fanout = Fanout([Fake("a"), Inline("broken", ValueError()), Inline("now", hit("now"))])
    assert [finding.engine for finding in fanout.glance(b"x")] == ["now"]
    hasher = Fake("hash")
    hasher.overrules = True  # type: ignore[attr-defined]
    assert Fanout([hasher, Inline("now", hit("now"))]).glance(b"x") == ()


def test_build_makes_what_is_configured() -> None:
    def names(settings: EnginesSettings, addresses: tuple[str, ...] = ()) -> list[str]:
        fanout = build_engines(settings, compile_rules(), clamd_addresses=addresses, connections=2)
        asyncio.run(fanout.close())
        return [engine.name for engine in fanout.engines]

    assert names(EnginesSettings()) == ["yara"]
    assert names(EnginesSettings(), ("unix:/nowhere",)) == ["yara", "clamd"]
    no_yara = YaraSettings(enabled=False)
    assert names(EnginesSettings(yara=no_yara), ("tcp:[::1]:3310",)) == ["clamd"]
    with pytest.raises(ConfigError, match="No engine"):
        names(EnginesSettings(yara=no_yara))
    with pytest.raises(ConfigError, match="No engine"):
        names(EnginesSettings(yara=no_yara, hash=HashSettings(allow=("/dev/null",))))
    assert names(EnginesSettings(yara=no_yara, hash=HashSettings(deny=("/dev/null",)))) == ["hash"]
    with pytest.raises(ConfigError, match="rules"):
        build_engines(EnginesSettings(), None, clamd_addresses=(), connections=1)
    with pytest.raises(ConfigError, match="address"):
        build_engines(EnginesSettings(clamd=ClamdSettings()), compile_rules(), clamd_addresses=("x",), connections=1)


def test_a_hung_engine_holds_no_longer_than_the_grace() -> None:
    begun = time.monotonic()
    (report,) = scan(Fake("hung", forever=True, stubborn=False), seconds=0.1)
    assert [item.reason for item in report.unscanned] == [Reason.TIMEOUT]
    assert time.monotonic() - begun < SECONDS / 2  # a guard against hanging, no measure


# Audiences


@pytest.mark.parametrize(
    ("audience", "asked"),
    [
        (Audience.ALL, {"hash", "yara", "clamd"}),
        (Audience.NOT_CLAMD, {"hash", "yara"}),
        (Audience.CLAMD, {"hash", "clamd"}),
        (Audience.NOBODY, {"hash"}),
    ],
)
def test_who_is_asked_about_a_part(audience: Audience, asked: set[str]) -> None:
    fakes = [Fake("hash"), Fake("yara"), Fake("clamd")]
    fakes[0].audience, fakes[2].audience = "every", "clamd"  # type: ignore[attr-defined]
    part = Part("1", PartStore.of(b"x"), audience=audience)
    reports = asyncio.run(Fanout(fakes).scan(part, SECONDS))
    assert {report.engine for report in reports} == asked == {fake.name for fake in fakes if fake.began}


def test_without_clamd_what_is_for_clamd_is_for_all() -> None:
    fakes = [Fake("hash"), Fake("yara")]
    fakes[0].audience = "every"  # type: ignore[attr-defined]
    part = Part("1", PartStore.of(b"x"), audience=Audience.CLAMD)
    assert {report.engine for report in asyncio.run(Fanout(fakes).scan(part, SECONDS))} == {"hash", "yara"}


@pytest.mark.parametrize("audience", list(Audience))
def test_without_any_engine_no_audience_is_clean(audience: Audience) -> None:
    reports = asyncio.run(Fanout(()).scan(Part("", PartStore.of(b"x"), audience=audience), SECONDS))
    assert [item.reason for report in reports for item in report.unscanned] == [Reason.ENGINE_FAILED]


def test_the_real_engines_say_what_they_are() -> None:
    settings = EnginesSettings(hash=HashSettings(deny=("/dev/null",)))
    fanout = build_engines(settings, compile_rules(), clamd_addresses=("unix:/nowhere",), connections=1)
    kinds = {engine.name: getattr(engine, "audience", "") for engine in fanout.engines}
    asyncio.run(fanout.close())
    assert kinds == {"hash": "every", "yara": "", "clamd": "clamd"}
