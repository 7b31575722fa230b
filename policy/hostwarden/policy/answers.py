"""What a final state means: from the tokens of the globs that matched to one Decision for each file action."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hostwarden.policy.clauses import Clause, Clauses
from hostwarden.policy.evaluate import combine, say
from hostwarden.policy.tables import Decision
from hostwarden.policy.words import FILE_ACTIONS, Action

NOTHING = Decision()


class Answers:
    """Decision rows of one automaton, each kept once and numbered.

    The clause at position i has two tokens: bit 2i says that one of its globs matched, bit 2i + 1 that one of its
    exceptions did. ``always`` holds the positions of clauses that ask for no glob: they match unless excepted.
    """

    def __init__(
        self, laws: Clauses, clauses: Sequence[Clause], always: frozenset[int], joint: Mapping[int, int]
    ) -> None:
        self.rows: list[Mapping[Action, Decision]] = []
        self._laws = laws
        self._clauses = clauses
        self._always = always
        self._joint = joint  # reason of a joint clause → its bit
        self._numbers: dict[tuple[Decision, ...], int] = {}
        self._known: dict[tuple[int, int], int] = {}

    def number(self, user: int, tokens: int, folded: frozenset[Action]) -> int:
        """The row for a user class; ``folded`` actions have `otherwise` in it, and then nothing is left to combine."""
        key = (user, tokens)
        if key not in self._known:
            matched = [self._clauses[position] for position in self._matched(tokens)]
            row = tuple(self._decision(action, user, matched, folded) for action in FILE_ACTIONS)
            if row not in self._numbers:
                self._numbers[row] = len(self.rows)
                self.rows.append(dict(zip(FILE_ACTIONS, row, strict=True)))
            self._known[key] = self._numbers[row]
        return self._known[key]

    def _matched(self, tokens: int) -> Iterator[int]:
        for position in sorted(self._always.union(_globs_matched(tokens))):
            if not tokens >> (2 * position + 1) & 1:
                yield position

    def _decision(self, action: Action, user: int, matched: Iterable[Clause], folded: frozenset[Action]) -> Decision:
        found = [self._part(clause) for clause in matched if clause.counts(action, user)]
        decision = combine(found) if found else NOTHING
        otherwise = self._laws.otherwise[action]
        if action in folded:
            rest = (entry for entry in otherwise if not decision.covered >> entry.policy & 1)
            decision = combine([decision, *(say(entry.verdict, entry.reason, entry.mode) for entry in rest)])
        # Only bits that somebody will ask for, so that states don't differ by the others.
        asked = 0 if action in folded else sum(1 << entry.policy for entry in otherwise)
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
