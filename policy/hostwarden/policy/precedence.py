"""Which clauses can't matter where another one matches: so that the automata need not tell whether they do."""

from collections import defaultdict
from collections.abc import Sequence

from hostwarden.policy.clauses import Clause


class Precedence:
    """Tokens as in ``answers``: bits 2i and 2i + 1 belong to the clause at position i.

    Among clauses of the same mode, actions and users the most severe decides, then the one with the lower reason
    (``evaluate``). If it has no exceptions, those behind it can't change a decision that it has part in, unless they
    keep an `otherwise` away or are half of a joint rule: such are never beaten.
    """

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self._beaten: dict[int, int] = {}  # position → tokens of the clauses behind it
        alike: dict[object, list[int]] = defaultdict(list)
        for position, clause in enumerate(clauses):
            if not clause.covered and not clause.is_joint:
                alike[clause.mode, clause.actions, clause.users].append(position)
        for positions in alike.values():
            behind = 0
            for position in sorted(positions, key=lambda at: (clauses[at].rule.verdict, -clauses[at].reason)):
                if not clauses[position].rule.except_walked and not clauses[position].rule.except_argv:
                    self._beaten[position] = behind
                behind |= 3 << 2 * position

    def beaten(self, tokens: int) -> int:
        """The tokens that can't matter where ``tokens`` hold."""
        found = 0
        while tokens:
            bit = tokens.bit_length() - 1
            if bit % 2 == 0:
                found |= self._beaten.get(bit // 2, 0)
            tokens ^= 1 << bit
        return found
