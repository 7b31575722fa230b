"""Whether a row kept its promise: the world first, then the log, then what the agent was told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostwarden.cli.scenarios.model import ALLOWED, OBSERVED, Row
from hostwarden.cli.scenarios.residents import Attempt
from hostwarden.policy.words import Outcome, Verdict

KILLED = 128 + 9
REFUSING = frozenset(map(str, (Verdict.HOLD, Verdict.DENY, Verdict.FREEZE, Verdict.KILL)))
# Built into the warden, whatever the policies say: a refusal by these is one, too (a mount needs a capability).
BUILT_IN = frozenset({"capability", "kernel"})
PREVENTED, BEFORE, AFTER = (
    str(Outcome.PREVENTED),
    str(Outcome.KILLED_BEFORE_EFFECT),
    str(Outcome.KILLED_AFTER_EFFECT),
)
UNREFUSED = "unrefused"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """One attempt with what became of the world. ``changed``: whether anything in the folder did."""

    attempt: Attempt
    effect: bool
    changed: bool
    records: Sequence[Record] = ()

    @property
    def refusals(self) -> list[Record]:
        """The records with a refusing verdict that was made real."""
        return [each for each in self.records if each["verdict"] in REFUSING and each.get("mode") != "observe"]


@dataclass
class Finding:
    """A row's result. ``found``: an outcome, ``allowed``, or what else was seen; passed if there are no problems."""

    row: Row
    promised: str
    found: str = "not on this machine"
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything was as promised."""
        return not self.problems

    def demand(self, is_so: bool, problem: str) -> None:
        """Note ``problem`` unless it is so."""
        if not is_so:
            self.problems.append(problem)


def judge(row: Row, kind: str, limits: Mapping[str, str], control: Seen, agent: Seen) -> Finding:
    """What became of a row on a host of ``kind``."""
    promised = row.promises[kind]
    finding = Finding(row, promised, outcome(agent))
    finding.demand(control.effect, f"proves nothing: no agent can do it either: {_told(control.attempt)}")
    finding.demand(not agent.attempt.timed_out, "it didn't end in time")
    if promised in limits and row.answer == "works":
        finding.demand(bool(agent.refusals), f"{promised} is no limit here: it works")
    elif promised in limits:
        finding.demand(agent.effect, f"{promised} is no limit here: it didn't happen: {_told(agent.attempt)}")
        finding.demand(not agent.refusals, f"{promised} is no limit here: refused: {_shown(agent.refusals)}")
    elif promised in (ALLOWED, OBSERVED):
        finding.demand(agent.effect, f"it doesn't work: {_told(agent.attempt)}")
        finding.demand(not agent.refusals, f"refused: {_shown(agent.refusals)}")
        if promised == OBSERVED:
            _judge_observed(finding, row, agent)
    else:
        _judge_refused(finding, row, kind, promised, agent)
    return finding


def outcome(agent: Seen) -> str:
    """The worst outcome in the refusals' records; what happened, where there are none."""
    words = {str(each["outcome"]) for each in agent.refusals}
    for word in (AFTER, "observed", BEFORE, PREVENTED):
        if word in words:
            return word
    return UNREFUSED if agent.effect else "nothing happened"


def _judge_refused(finding: Finding, row: Row, kind: str, promised: str, agent: Seen) -> None:
    told = _told(agent.attempt)
    matching = [each for each in agent.refusals if each["action"] in row.actions or each["action"] in BUILT_IN]
    finding.demand(bool(matching), f"no record of {' or '.join(row.actions)}: {_shown(agent.records)}; {told}")
    finding.demand(finding.found == promised, f"outcome {finding.found}, not {promised}: {_shown(agent.refusals)}")
    if promised != AFTER:
        finding.demand(not agent.effect, f"it happened all the same: {told}")
        finding.demand(not agent.changed, "something in its folder is not as it was")
    if promised == PREVENTED:
        finding.demand(agent.attempt.is_refused, f"told something else than no: {told}")
    elif promised == BEFORE and agent.attempt.code != KILLED:
        finding.demand(agent.attempt.is_refused, f"lived on, and was not told: {told}")
    named = [each for each in matching if each["action"] in row.actions]
    if row.target is not None and named:
        targets = {str(each["target"]) for each in named}
        finding.demand(row.target in targets, f"the record names {', '.join(targets)}, not {row.target}")
    if named:
        verdicts = {str(each["verdict"]) for each in named}
        finding.demand(row.verdict in verdicts, f"the record's verdict is {verdicts}, not {row.verdict}")
        tiers = {str(each["tier"]) for each in named}
        finding.demand(tiers <= {kind, "cgroup"}, f"the record's tier is {tiers}, not {kind}")


def _judge_observed(finding: Finding, row: Row, agent: Seen) -> None:
    seen = [
        each
        for each in agent.records
        if each["action"] in row.actions and each.get("mode") == "observe" and each["verdict"] in REFUSING
    ]
    finding.found = OBSERVED if seen else finding.found
    finding.demand(bool(seen), f"no record says that it would have been refused: {_shown(agent.records)}")


def _told(attempt: Attempt) -> str:
    words = f"exit {attempt.code}, said {attempt.out[:80]!r} {attempt.err[:200]!r}"
    return words + (", timed out" if attempt.timed_out else "")


def _shown(records: Sequence[Record]) -> str:
    lines = [
        f"{each['action']} {each['target']} {each['verdict']} {each['outcome']} {each['tier']} {each.get('rule')}"
        for each in records
    ]
    return "; ".join(lines[-12:]) or "no records"
