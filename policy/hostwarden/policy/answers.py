"""What a final state means: from the tokens of the globs that matched to one Decision for each action."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hostwarden.policy.clauses import Clause, Clauses
from hostwarden.policy.evaluate import combine, say
from hostwarden.policy.tables import Decision
from hostwarden.policy.words import FILE_ACTIONS, POLICY_ACTIONS, Action, Mode, Verdict

NOTHING = Decision()
# What a directory that is moved or hidden may carry along: what can be denied of the files below it.
CARRIED = tuple(action for action in FILE_ACTIONS if action not in (Action.MOUNT, Action.LOAD))


class Answers:
    """Decision rows of one automaton, each kept once and numbered.

    The clause at position i has two tokens: bit 2i says that one of its globs matched, bit 2i + 1 that one of its
    exceptions did. ``always`` holds the positions of clauses that ask for no glob: they match unless excepted.
    ``folded`` actions have `otherwise` in the rows, and then nothing is left to combine.
    """

    def __init__(
        self,
        laws: Clauses,
        clauses: Sequence[Clause],
        always: frozenset[int],
        joint: Mapping[int, int],
        folded: frozenset[Action],
    ) -> None:
        self.rows: list[Mapping[Action, Decision]] = []
        self._laws = laws
        self._clauses = clauses
        self._always = always
        self._joint = joint  # reason of a joint clause → its bit
        self._folded = folded
        self._severe_joint = sum(
            1 << joint[clause.reason]
            for clause in clauses
            if clause.is_joint and clause.mode is Mode.ENFORCE and clause.rule.verdict >= Verdict.HOLD
        )
        self._like = self._alike()
        self._numbers: dict[tuple[Decision, ...], int] = {}
        self._known: dict[tuple[int, int], int] = {}

    def number(self, user: int, tokens: int) -> int:
        """The row for a user class."""
        key = (user, tokens)
        if key not in self._known:
            matched = [self._clauses[position] for position in self._matched(tokens)]
            told = {action: self._decision(action, user, matched) for action in set(self._like)}
            row = tuple(told[like] for like in self._like)
            if row not in self._numbers:
                self._numbers[row] = len(self.rows)
                self.rows.append(dict(zip(POLICY_ACTIONS, row, strict=True)))
            self._known[key] = self._numbers[row]
        return self._known[key]

    def denies(self, number: int) -> bool:
        """Whether row ``number`` can mean that something is denied of a file (or held, which can end so)."""
        row = self.rows[number]
        return any(self._can_deny(action, row[action]) for action in CARRIED)

    def _can_deny(self, action: Action, decision: Decision) -> bool:
        if decision.enforced >= Verdict.HOLD or decision.joint & self._severe_joint:
            return True
        rest = () if action in self._folded else self._laws.otherwise[action]
        return any(
            entry.mode is Mode.ENFORCE and entry.verdict >= Verdict.HOLD and not decision.covered >> entry.policy & 1
            for entry in rest
        )

    def _alike(self) -> list[Action]:
        """For each action the first one that every clause and every `otherwise` treats the same way: most policies
        speak of few, and rows are many.
        """
        first: dict[object, Action] = {}
        found = []
        for action in POLICY_ACTIONS:
            speaking = tuple(position for position, clause in enumerate(self._clauses) if action in clause.actions)
            key = (speaking, tuple(self._laws.otherwise[action]), action in self._folded)
            found.append(first.setdefault(key, action))
        return found

    def _matched(self, tokens: int) -> Iterator[int]:
        for position in sorted(self._always.union(_globs_matched(tokens))):
            if not tokens >> (2 * position + 1) & 1:
                yield position

    def _decision(self, action: Action, user: int, matched: Iterable[Clause]) -> Decision:
        found = [self._part(clause) for clause in matched if clause.counts(action, user)]
        decision = combine(found) if found else NOTHING
        otherwise = self._laws.otherwise[action]
        if action in self._folded:
            rest = (entry for entry in otherwise if not decision.covered >> entry.policy & 1)
            decision = combine([decision, *(say(entry.verdict, entry.reason, entry.mode) for entry in rest)])
        # Only bits that somebody will ask for, so that states don't differ by the others.
        asked = 0 if action in self._folded else sum(1 << entry.policy for entry in otherwise)
        return replace(decision, covered=decision.covered & asked)

    def _part(self, clause: Clause) -> Decision:
        if clause.is_joint:
            return Decision(joint=1 << self._joint[clause.reason])
        verdict = say(clause.rule.verdict, clause.reason, clause.mode)
        return combine([verdict, Decision(covered=clause.covered)])


def _globs_matched(tokens: int) -> Iterator[int]:
    """The positions whose even bit is set."""
    while tokens:
        bit = (tokens & -tokens).bit_length() - 1
        if bit % 2 == 0:
            yield bit // 2
        tokens &= tokens - 1
