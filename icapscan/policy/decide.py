"""From what is known of a body to what is done with it. Pure; the only place that blocks or allows."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from icapscan.findings import CLEAN, Level, Reason, Verdict
from icapscan.policy.decision import ACTING, GRAVITY, Action, Cause, Decision
from icapscan.policy.defaults import Defaults, decide_default, effective, graver, passed
from icapscan.policy.facts import Direction, Facts
from icapscan.policy.match import Match, match, stopped_parts
from icapscan.policy.rules import Rule, needs_of, read_rules
from icapscan.policy.settings import PolicySettings

__all__ = ["ACTING", "Action", "Cause", "Decision", "Policy", "decide"]

_WEB = (Direction.DOWNLOAD,)
_EARLY = (Action.BLOCK, Action.DEFER, Action.ERROR)
_CLEAN = Decision(Action.ALLOW, Cause.CLEAN)


class Policy:
    """Rules and defaults of one configuration. Immutable, and shared by all transactions."""

    __slots__ = ("_mail", "_same", "_web", "needs", "rules", "sanitizes")
    clean = _CLEAN
    """What is done by default with a body in which nothing was found."""

    def __init__(self, settings: PolicySettings) -> None:
        """Raises `icapscan.policy.conditions.RuleMistake` for a rule that cannot be read."""
        self.rules: tuple[Rule, ...] = read_rules(settings.rules)
        self.needs = needs_of(self.rules)
        self._web = effective(settings, settings.web)
        self._mail = effective(settings, settings.mail)
        self._same = self._web == self._mail
        self.sanitizes = any(_sanitizes(table) for table in (self._web, self._mail)) or any(
            rule.action is Action.SANITIZE and not rule.monitor for rule in self.rules
        )
        """Something in it may want bodies rewritten: then all that is wrong must be known, and all parts."""
        if self.sanitizes or self.notifies:
            self.needs = replace(self.needs, parts=True)

    @property
    def notifies(self) -> bool:
        """A rule in it may want somebody told; for that the names of parts must be known."""
        return any(rule.notify and not rule.monitor for rule in self.rules)

    @property
    def by_traffic(self) -> bool:
        """The defaults for web and mail differ."""
        return not self._same

    @property
    def plain(self) -> bool:
        """There are no rules: `by_default` says it all."""
        return not self.rules

    def decide(self, facts: Facts) -> Decision:
        """The decision for a body that is complete and scanned: the first rule that decides, else the defaults."""
        tags: list[str] = []
        notify: list[str] = []
        monitored: list[str] = []
        decision = None
        for rule, found in self.matches(facts):
            if found.holds is not True:
                continue
            if rule.monitor:
                monitored.append(f"{rule.name}={rule.words}")
                continue
            tags += [rule.tag] if rule.tag else []
            notify += [rule.name] if rule.notify else []
            if rule.action is not None:
                decision = self._ruled(rule, found, facts)
                break
        if decision is None:
            decision = self.by_default(facts.verdict, facts.directions)
            if not (tags or notify or monitored):
                return decision
        return Decision(
            decision.action, decision.cause, decision.reason, decision.rule, tuple(dict.fromkeys(tags)),
            decision.quarantine, tuple(notify), tuple(monitored), decision.parts,
        )  # fmt: skip

    def early(self, facts: Facts) -> Decision | None:
        """The decision before the body is complete, where nothing that may still come can change it; else None.

        Only what is stopped is stopped early. A rule of which it is not known yet whether it holds waits for the end,
        and so do rules that want the whole body kept or somebody told.
        """
        for rule, found in self.matches(facts):
            if found.holds is False:
                continue
            if found.holds is None or rule.monitor or rule.quarantine or rule.notify:
                return None
            if rule.action is not None:
                return self._ruled(rule, found, facts) if rule.action in _EARLY else None
        return self.early_by_default(facts.verdict, facts.directions)

    def early_by_default(
        self, verdict: Verdict, directions: tuple[Direction, ...] = _WEB, *, read_on: bool = True
    ) -> Decision | None:
        """The same without rules. What is only held back might be found infected if it is read on."""
        decision = self.by_default(verdict, directions)
        if decision.action in (Action.BLOCK, Action.ERROR) or (decision.action is Action.DEFER and not read_on):
            return decision
        return None

    def by_default(self, verdict: Verdict, directions: tuple[Direction, ...] = _WEB) -> Decision:
        """The decision without rules. Where it is not sure whether this is mail, the more careful of two answers."""
        if verdict is CLEAN:
            return _CLEAN
        first, *others = self.tables(directions)
        decision = decide_default(verdict, first)
        for table in others:
            decision = graver(decision, decide_default(verdict, table))
        return decision

    def blocks_early(self, reason: Reason, directions: tuple[Direction, ...]) -> bool:
        """Whether what cannot be scanned for this reason is stopped for sure where no rule says otherwise."""
        return all(table.unscanned[reason] in _EARLY for table in self.tables(directions))

    def matches(self, facts: Facts) -> Iterator[tuple[Rule, Match]]:
        """Each rule and what became of it, in their order."""
        defaults = self.tables(facts.directions)
        for rule in self.rules:
            yield rule, match(rule, facts, defaults)

    def _ruled(self, rule: Rule, found: Match, facts: Facts) -> Decision:
        """The decision of a rule that decides, with the cause that tells a person most."""
        action, verdict = rule.action, facts.verdict
        assert action is not None
        cause, reason = Cause.RULE, None
        if action is Action.ALLOW:
            allowed = passed(verdict)
            cause, reason = allowed.cause, allowed.reason
        elif verdict.level is Level.INFECTED:
            cause = Cause.INFECTED
        elif rule.when.reason is not None:
            given = {item.reason for item in verdict.unscanned} & rule.when.reason
            cause, reason = Cause.UNSCANNED, next(one for one in Reason if one in given)
        elif verdict.level is Level.SUSPICIOUS and (rule.when.on_findings or rule.when.verdict):
            cause = Cause.SUSPICIOUS
        elif verdict.level is Level.UNSCANNED and rule.when.verdict:
            cause, reason = Cause.UNSCANNED, verdict.reason
        parts = found.parts
        if action is Action.SANITIZE:  # whatever else would stop the body goes too
            parts = tuple(dict.fromkeys([*parts, *stopped_parts(verdict, self.tables(facts.directions))]))
        return Decision(action, cause, reason, rule.name, quarantine=rule.quarantine, parts=parts)

    def uncleanable(self, decision: Decision, directions: tuple[Direction, ...] = _WEB) -> Decision:
        """What is done with a body that was to be sanitized and could not be: never a pass."""
        actions = [table.uncleanable for table in self.tables(directions)]
        return replace(decision, action=max(actions, key=lambda action: GRAVITY[action]))

    def tables(self, directions: tuple[Direction, ...]) -> tuple[Defaults, ...]:
        """The defaults that may hold: two where it is not sure whether this is mail."""
        if self._same:
            return (self._web,)
        tables = [self._mail] if Direction.MAIL in directions else []
        if not tables or any(one is not Direction.MAIL for one in directions):
            tables.append(self._web)
        return tuple(tables)


def _sanitizes(table: Defaults) -> bool:
    answers = (table.infected, table.suspicious, table.macro, *table.unscanned.values())
    return Action.SANITIZE in answers


def decide(verdict: Verdict, settings: PolicySettings, directions: tuple[Direction, ...] = _WEB) -> Decision:
    """The decision for one verdict by the defaults alone."""
    return Policy(replace(settings, rules=())).by_default(verdict, directions)
